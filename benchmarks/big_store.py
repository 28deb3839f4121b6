"""Writes stores of any size for benchmarks: made-up rollouts whose numbers pack as those of real models do.

`python -m benchmarks.big_store PATH --rollouts 2000 [--tokens 600]`. A bank of tokens is made once: sorted logits of a
student, and of four teachers that differ from it by noise, so that nine in ten of their top-K are the student's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from store.cut import take_questions
from store.parts import PartArrays, pack_texts
from store.rounding import rounded
from store.schema import (
    ABSENT_TOKEN,
    DIVERGENCE_BITS,
    DIVERGENCES,
    NOWHERE,
    PATH_END_TOKEN,
    REST_MOMENTS,
    REST_TOKEN,
    STUDENT,
    TEACHER,
    ChildKind,
    ForcedKind,
    PathKind,
)
from store.tables import RootAttributes, TeacherInfo
from store.teacher_topk import TopK, coarse, split_topk
from store.writer import create, publish

TEACHERS = ("big-7b", "self-1c", "self-hint", "null-t1.3")
OBJECTIVES = ("forward_kl", "reverse_kl")
VOCAB = 49_152
TOP_K = 16
CHILDREN = 5
#: Tokens of the bank; more than a chunk, so that nothing repeats within one.
_BANK = 24_000
_CANDIDATES = 48
#: Tokens of one text, and how many different ones are likely in it: as in rollouts of SmolLM2-135M on GSM8K.
_TEXT, _WORDS = 600, 1500
_NODES_A_ROLLOUT = 12

Array = np.ndarray[Any, Any]


class Bank:
    """Tokens with what student and teachers say of them."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        spread_T1 = rng.lognormal(0.0, 0.5, (_BANK, 1))
        logit_TV = -np.sort(-rng.gumbel(0.0, 1.0, (_BANK, _CANDIDATES)) * spread_T1, axis=1)
        id_TV = np.concatenate([_words(rng) for _ in range(_BANK // _TEXT)])
        logp_TV = _log_softmax(logit_TV)
        taken = (rng.random((_BANK, 1)) > np.cumsum(np.exp(logp_TV), axis=1)).sum(axis=1).clip(max=TOP_K - 1)
        at = np.arange(_BANK), taken
        top = slice(0, TOP_K)
        self.student: dict[str, Array] = {
            "token_id": id_TV[at],
            "token_source": np.zeros(_BANK),
            "logprob": logp_TV[at],
            "entropy": _entropy(logp_TV),
            "topk_token_id": id_TV[:, top],
            "topk_logprob": coarse(logp_TV[:, top]),
            "tail_mass": np.exp(logp_TV[:, TOP_K:]).sum(axis=1),
        }
        made = {name: self._teacher(rng, id_TV, logp_TV, at, logit_TV) for name in TEACHERS}
        self.teachers = {name: columns for name, (columns, _) in made.items()}
        self.topk = {name: top for name, (_, top) in made.items()}
        self.logp_TV, self.id_TV = logp_TV, id_TV

    def _teacher(
        self, rng: np.random.Generator, id_TV: Array, logp_TV: Array, at: Any, logit_TV: Array
    ) -> tuple[dict[str, Array], TopK]:
        logt_TV = _log_softmax(logit_TV + rng.normal(0.0, 0.35, logit_TV.shape))
        order = np.argsort(-logt_TV, axis=1)[:, :TOP_K]
        top = TopK(*(np.take_along_axis(values, order, 1) for values in (id_TV, logt_TV, logp_TV)))
        p, t = np.exp(logp_TV), np.exp(logt_TV)
        mean = np.log((p + t) / 2)
        divergence = [
            (p * (logp_TV - logt_TV)).sum(1),
            (t * (logt_TV - logp_TV)).sum(1),
            0.5 * ((p * (logp_TV - mean)).sum(1) + (t * (logt_TV - mean)).sum(1)),
            np.sqrt(((p - t) ** 2).sum(1)),
            (p * t).sum(1) / np.sqrt((p**2).sum(1) * (t**2).sum(1)),
        ]
        assert len(divergence) == len(DIVERGENCES)
        columns = {
            "logprob": logt_TV[at],
            "entropy": _entropy(logt_TV),
            "divergence": rounded(np.stack(divergence, axis=1).astype(np.float32), DIVERGENCE_BITS),
            "tail_mass": 1.0 - np.exp(top.logprob_TC).sum(axis=1),
            "at_student": logt_TV[:, :TOP_K],
            "all": logt_TV,
        }
        return columns, top


def _words(rng: np.random.Generator) -> Array:
    """Likely tokens at every position of one text, none twice at a position."""
    frequency = 1.0 / np.arange(1, VOCAB + 1)
    words = rng.choice(VOCAB, _WORDS, replace=False, p=frequency / frequency.sum())
    common = np.arange(1, _WORDS + 1) ** -1.0
    keys = np.log(common) + rng.gumbel(size=(_TEXT, _WORDS))
    result: Array = words[np.argsort(-keys, axis=1)[:, :_CANDIDATES]]
    return result


def _log_softmax(logit_TV: Array) -> Array:
    shifted = logit_TV - logit_TV.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _entropy(logp_TV: Array) -> Array:
    result: Array = -(np.exp(logp_TV) * logp_TV).sum(axis=1)
    return result


def root(n_questions: int) -> RootAttributes:
    teachers = tuple(TeacherInfo(name, "self", "", "made-up", name.startswith("null"), name) for name in TEACHERS)
    ids = tuple(f"q{number:06d}" for number in range(n_questions))
    return RootAttributes("", "b2:benchmark", "made-up-135m", teachers, OBJECTIVES, ids, 20, TOP_K, {})


def part(bank: Bank, numbers: range, n_rollouts: int, n_tokens: int, seed: int) -> PartArrays:
    """The questions `numbers` with rollouts of about `n_tokens` tokens."""
    rng = np.random.default_rng((seed, numbers.start))
    Q, R = len(numbers), len(numbers) * n_rollouts
    lengths = rng.integers(max(1, n_tokens * 3 // 4), max(2, n_tokens * 5 // 4), R)
    T = int(lengths.sum())
    rows = (int(rng.integers(_BANK)) + np.arange(T)) % _BANK
    correct = rng.random(R) < 0.5
    n_nodes = min(_NODES_A_ROLLOUT, int(lengths.min()))
    node_of = np.sort(rng.random((R, n_nodes)), axis=1) * lengths[:, None]
    token_start = np.concatenate([[0], np.cumsum(lengths)])
    node_row = rows[(token_start[:-1, None] + node_of.astype(int)).reshape(-1)]
    N = R * n_nodes
    student: dict[str, Array] = {
        **_texts("question_id", [f"q{number:06d}" for number in numbers]),
        **_texts("prompt", [f"Question {number}: what follows from {number * 7919}?" for number in numbers]),
        **_texts("reference_answer", [str(number) for number in numbers]),
        "prompt_token_id": rng.integers(0, VOCAB, Q * 20),
        "prompt_token_start": np.arange(Q + 1) * 20,
        "question_number": np.array(numbers),
        "question_status": np.zeros(Q),
        "question_n_rollouts": np.full(Q, 16),
        "question_n_correct": rng.integers(1, 16, Q),
        "question_n_truncated": np.zeros(Q),
        "rollout_start": np.arange(Q + 1) * n_rollouts,
        "node_start": np.arange(Q + 1) * n_rollouts * n_nodes,
        "rollout_index": np.tile(np.arange(n_rollouts), Q),
        "reward": correct,
        "correct": correct,
        "finish_reason": np.zeros(R),
        "path_kind": np.where(correct, PathKind.CORRECT, PathKind.INCORRECT),
        "token_start": token_start,
        "path_node_start": np.arange(R + 1) * n_nodes,
        "path_node": np.arange(N),
        **{name: values[rows] for name, values in bank.student.items()},
        **_nodes(bank, node_row, node_of.astype(int).reshape(-1), rng),
        **_groups(bank, node_row, Q, rng),
        "completion_start": np.zeros(Q + 1),
    }
    for name, spec in STUDENT.items():
        if name not in student:
            student[name] = np.zeros(1 if name == "completion_token_start" else 0, spec.dtype)
    teachers = {name: _teacher(bank, name, rows, node_row, numbers) for name in TEACHERS}
    return PartArrays(_typed(student, STUDENT), {name: _typed(arrays, TEACHER) for name, arrays in teachers.items()})


def _texts(name: str, texts: list[str]) -> dict[str, Array]:
    data, start = pack_texts(texts)
    return {name: data, f"{name}_start": start}


def _nodes(bank: Bank, row_N: Array, position_N: Array, rng: np.random.Generator) -> dict[str, Array]:
    N = len(row_N)
    logprob = bank.logp_TV[row_N, : CHILDREN - 1]
    kind = np.full((N, CHILDREN), ChildKind.CANDIDATE)
    kind[:, 0], kind[:, -1] = ChildKind.ON_PATH, ChildKind.REST
    token = np.concatenate([bank.id_TV[row_N, : CHILDREN - 1], np.full((N, 1), REST_TOKEN)], axis=1)
    stays = np.full((N, CHILDREN), np.nan)
    stays[:, 0] = -rng.exponential(3.0, N)
    outcome = np.full((N, CHILDREN), 255)
    outcome[:, 0] = rng.integers(0, 2, N)  # of the path that every node is the last of
    return {
        "node_position": position_N,
        "node_parent": np.full(N, NOWHERE),
        "node_nominated_by": rng.integers(1, 16, N),
        "node_topk_logprob": bank.logp_TV[row_N, :TOP_K],
        "child_token_id": token,
        "child_kind": kind,
        "child_logprob": np.concatenate([logprob, np.log1p(-np.exp(logprob).sum(1, keepdims=True).clip(max=1 - 1e-9))], axis=1),
        "child_nominated_by": rng.integers(1, 16, (N, CHILDREN)),
        "child_next": np.full((N, CHILDREN), NOWHERE),
        "child_continue_logprob": stays,
        "child_outcome": outcome,
    }


def _groups(bank: Bank, row_N: Array, n_questions: int, rng: np.random.Generator) -> dict[str, Array]:
    """Two halves of completions for every child."""
    G = len(row_N) * CHILDREN * 2
    node = np.repeat(np.arange(len(row_N)), CHILDREN * 2)
    token = np.concatenate([bank.id_TV[row_N, : CHILDREN - 1], np.full((len(row_N), 1), REST_TOKEN)], axis=1)
    tokens = np.repeat(token.reshape(-1), 2)
    n = rng.integers(5, 60, G)
    return {
        "group_start": np.arange(n_questions + 1) * (G // n_questions),
        "group_launch_node": node,
        "group_forced_kind": np.where(tokens == REST_TOKEN, ForcedKind.REST, ForcedKind.TOKEN),
        "group_forced_token": np.where(tokens == REST_TOKEN, ABSENT_TOKEN, tokens),
        "group_exit_node": node,
        "group_exit_token": np.where(rng.random(G) < 0.05, PATH_END_TOKEN, tokens),
        "group_half": np.tile([0, 1], G // 2),
        "group_n": n,
        "group_n_success": rng.binomial(n, 0.4),
        "group_n_truncated": np.zeros(G),
    }


def _teacher(bank: Bank, name: str, rows: Array, row_N: Array, numbers: range) -> dict[str, Array]:
    of = bank.teachers[name]
    whole = bank.topk[name]
    top = TopK(whole.token_id_TC[rows], whole.logprob_TC[rows], whole.student_logprob_TC[rows])
    logt = of["all"][row_N]
    P = np.exp(bank.logp_TV[row_N])
    f = np.exp(logt - bank.logp_TV[row_N])
    children = logt[:, : CHILDREN - 1]
    ratio = logt[:, CHILDREN - 1 :] - bank.logp_TV[row_N, CHILDREN - 1 :]
    moments = np.resize(np.sort(ratio, axis=1), (len(row_N), len(REST_MOMENTS)))
    rest = np.log1p(-np.exp(children).sum(1, keepdims=True).clip(max=1 - 1e-9))
    return {
        **_texts("teacher_prompt", [f"A hint, and then question {number}" for number in numbers]),
        **{key: of[key][rows] for key in ("logprob", "entropy", "divergence", "tail_mass")},
        **split_topk(bank.student["topk_token_id"][rows], of["at_student"][rows], top),
        "child_logprob": np.concatenate([children, rest], axis=1),
        "node_topk_logprob": logt[:, :TOP_K],
        "rest_moment": moments,
        "child_gap_kl": np.where(np.arange(CHILDREN) == 0, np.abs(ratio[:, :1]), np.nan),
        "later_n": np.zeros((len(row_N), CHILDREN)),
        "later_sum": np.full((len(row_N), CHILDREN), np.nan),
        "later_sum_squares": np.full((len(row_N), CHILDREN), np.nan),
        "fbar": np.stack([(P * f).sum(1), (P * np.log(f)).sum(1)], axis=1),
    }


def _typed(arrays: dict[str, Array], specs: Any) -> dict[str, Array]:
    return {name: np.ascontiguousarray(values, dtype=specs[name].dtype) for name, values in arrays.items()}


class Growing:
    """A store that gets one part after the other. Its parts differ in the names of their questions alone."""

    def __init__(self, path: Path, *, planned: int, n_rollouts: int = 2, n_tokens: int = 600, per_part: int = 64, seed: int = 0):
        self.path = path
        self._planned, self._per_part, self._done = planned, per_part, 0
        create(path, root(planned), [f"<{token}>".encode() for token in range(VOCAB)], [0])
        self._whole = part(Bank(seed), range(min(per_part, planned)), n_rollouts, n_tokens, seed)

    def grow(self) -> bool:
        """Write the next part; False where all that was planned is there."""
        start = self._done
        numbers = range(start, min(start + self._per_part, self._planned))
        self._done = numbers.stop
        if not numbers:
            return False
        cut = self._whole if len(numbers) == self._per_part else take_questions(self._whole, range(len(numbers)))
        named = {**_texts("question_id", [f"q{number:06d}" for number in numbers]), "question_number": np.array(numbers)}
        publish(self.path, f"p-{start:07d}", PartArrays({**cut.student, **_typed(named, STUDENT)}, cut.teachers))
        return True


def write(path: Path, *, n_questions: int, n_rollouts: int = 2, n_tokens: int = 600, per_part: int = 64, seed: int = 0) -> Path:
    """Write a store of `n_questions` and return its path."""
    growing = Growing(path, planned=n_questions, n_rollouts=n_rollouts, n_tokens=n_tokens, per_part=per_part, seed=seed)
    while growing.grow():
        pass
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rollouts", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=600)
    given = parser.parse_args()
    write(given.path, n_questions=given.rollouts // 2, n_tokens=given.tokens)


if __name__ == "__main__":
    main()
