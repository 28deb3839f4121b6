"""A made-up study, written through the real writer: plausible, consistent, and the same for the same seed.

The "models" are random but exact: a prefix determines the student's and every teacher's distribution,
so shared prefixes agree, children and rest sum to one, and all token-level columns follow from the
distributions. Success probabilities are drawn per stratum, and the counts from them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from compute.whole import rest_moments
from store.parts import concatenate, pack_texts
from store.rounding import rounded
from store.schema import (
    ABSENT_TOKEN,
    DIVERGENCE_BITS,
    NOWHERE,
    PATH_END_TOKEN,
    REST_MOMENTS,
    REST_TOKEN,
    STUDENT,
    TEACHER,
    UNKNOWN_OUTCOME,
    ChildKind,
    FinishReason,
    ForcedKind,
    PathKind,
    QuestionStatus,
)
from store.tables import RootAttributes, TeacherInfo
from store.teacher_topk import TopK, coarse, split_topk
from store.writer import PartArrays, create, publish
from tests.synthetic_models import ASSISTANT, END, HOSTILE, SPECIALS, USER, WORDS, Models, Token, extend, vocabulary

TEACHERS = (
    TeacherInfo("ext-7b", "external", "", "synthetic-7b", False, "a larger model"),
    TeacherInfo("self-1c", "self", "1c", "synthetic-135m", False, "the student, shown one correct solution"),
    TeacherInfo("hot", "temperature", "", "synthetic-135m", True, "the student at temperature 1.3"),
)
OBJECTIVES = ("reverse_kl", "forward_kl")
TOP_K = 8
TAU = 0.02
N_MIN = 24


def root_attributes(n_questions: int, seed: int = 0, hostile: bool = False) -> RootAttributes:
    """Attributes of the made-up study."""
    teachers = TEACHERS
    if hostile:
        teachers = (
            replace(TEACHERS[0], description="[/b]\x1b[2J a larger \u202emodel", model="[red]\x1b]0;x\x07"),
            *TEACHERS[1:],
        )
    return RootAttributes(
        study='[student]\nmodel = "synthetic-135m"\n\n[task]\nname = "synthetic"\n',
        study_hash=f"{seed:08x}{n_questions:04x}{int(hostile):04x}",
        student="synthetic-135m",
        teachers=teachers,
        objectives=OBJECTIVES,
        question_ids=tuple(_question_id(number, hostile) for number in range(n_questions)),
        n_sig=20,
        top_k=TOP_K,
        provenance={"seed": seed, "made_by": "tests.synthetic"},
    )


def _question_id(number: int, hostile: bool) -> str:
    return f"q{number:03d}[/b]\u202e" if hostile and number == 1 else f"q{number:03d}"


@dataclass
class Response:
    """One rollout with the distributions at each of its positions."""

    tokens: list[int]
    prefixes: list[int]
    at: list[Token]
    correct: bool
    truncated: bool
    kind: PathKind


def _sample_rollout(
    models: Models, rng: np.random.Generator, root: int, lengths: tuple[int, int], start: Response | None, script: Sequence[int]
) -> tuple[list[int], list[int], list[Token]]:
    """Tokens from the student; `start` gives the first third, `script` tokens that are put in from position 2."""
    tokens: list[int] = start.tokens[: max(1, len(start.tokens) // 3)] if start else []
    prefixes, at = (start.prefixes[: len(tokens)], start.at[: len(tokens)]) if start else ([], [])
    prefix = extend(prefixes[-1], tokens[-1]) if tokens else root
    limit = int(rng.integers(lengths[0], lengths[1] + 1))
    while len(tokens) < limit:
        here = models.at(prefix, len(tokens))
        probabilities = np.exp(here.student_V)
        token = int(rng.choice(len(probabilities), p=probabilities / probabilities.sum()))
        if start and len(tokens) == len(start.tokens) // 3 and token == start.tokens[len(tokens)]:
            token = int(np.argsort(-probabilities)[1 if int(probabilities.argmax()) == token else 0])
        if 0 <= len(tokens) - 2 < len(script):
            token = script[len(tokens) - 2]
        tokens.append(token)
        prefixes.append(prefix)
        at.append(here)
        prefix = extend(prefix, token)
        if token == END:
            break
    return tokens, prefixes, at


class Tree:
    """Targeted nodes of a question's paths, their children, and counts of completions."""

    def __init__(self, paths: list[Response], models: Models, rng: np.random.Generator) -> None:
        self.paths, self.models, self.rng = paths, models, rng
        continuations: dict[int, set[int]] = {}
        for path in paths:
            for prefix, token in zip(path.prefixes, path.tokens, strict=True):
                continuations.setdefault(prefix, set()).add(token)
        self.forks = {prefix for prefix, tokens in continuations.items() if len(tokens) > 1}
        self.row: dict[int, int] = {}
        self.position: list[int] = []
        self.parent: list[int] = []
        self.nominated_by: list[int] = []
        self.at: list[Token] = []
        self.nodes_of: dict[int, list[int]] = {}
        for number, path in enumerate(paths):
            self.nodes_of[number] = self._add_path(path)
        self.children = [self._children_of(row) for row in range(len(self.position))]
        self.value = {(row, child["token"]): float(rng.beta(0.7, 0.9)) for row, of in enumerate(self.children) for child in of}
        self.groups: Counter[tuple[int, int, int, int, int, int]] = Counter()
        self.successes: Counter[tuple[int, int, int, int, int, int]] = Counter()
        self.kept: list[dict[str, Any]] = []
        for row, of in enumerate(self.children):
            for child in of:
                self._launch(row, child)
        if self.position:
            for sample in range(8):
                self._count(NOWHERE, ForcedKind.NONE, ABSENT_TOKEN, sample, *self._walk(0))

    def _add_path(self, path: Response) -> list[int]:
        rows: list[int] = []
        for position, prefix in enumerate(path.prefixes):
            fork = prefix in self.forks
            if not fork and prefix % 5:
                continue
            if prefix not in self.row:
                self.row[prefix] = len(self.position)
                self.position.append(position)
                self.parent.append(rows[-1] if rows else NOWHERE)
                self.nominated_by.append(0 if fork and prefix % 3 == 0 else 1 + prefix // 7 % 7)
                self.at.append(path.at[position])
            rows.append(self.row[prefix])
        return rows

    def _children_of(self, row: int) -> list[dict[str, Any]]:
        here, position = self.at[row], self.position[row]
        children: list[dict[str, Any]] = []
        for number, path in enumerate(self.paths):
            if row not in self.nodes_of[number] or path.tokens[position] in {child["token"] for child in children}:
                continue
            later = [other for other in self.nodes_of[number] if self.position[other] > position]
            stop = self.position[later[0]] if later else len(path.tokens)
            stay = sum(float(path.at[t].student_V[path.tokens[t]]) for t in range(position + 1, stop))
            outcome = UNKNOWN_OUTCOME if later else int(path.correct)
            children.append(_child(here, path.tokens[position], ChildKind.ON_PATH, later[0] if later else NOWHERE, stay, outcome))
            children[-1]["gap_kl"] = _gap_kl(path, position + 1, stop)
        best_V = np.maximum(here.student_V, here.teacher_MV.max(axis=0))
        taken = {child["token"] for child in children}
        for token in np.argsort(-here.student_V).tolist():
            if best_V[token] > np.log(TAU) and token not in taken:
                end = token == END
                outcome = int(self.rng.integers(2)) if end else UNKNOWN_OUTCOME
                children.append(_child(here, token, ChildKind.END if end else ChildKind.CANDIDATE, outcome=outcome))
        tokens = [child["token"] for child in children]
        rest = Token(_log_rest(here.student_V, tokens)[None], _log_rest(here.teacher_MV, tokens)[:, None])
        children.append({**_child(rest, 0, ChildKind.REST), "token": REST_TOKEN, "nominated_by": 0})
        return children

    def _launch(self, row: int, child: dict[str, Any]) -> None:
        """Completions of one child: forced, and for the gap also those that leave the path in it."""
        if child["kind"] == ChildKind.END:
            return
        token = child["token"]
        forced = ForcedKind.REST if child["kind"] == ChildKind.REST else ForcedKind.TOKEN
        for sample in range(N_MIN if forced == ForcedKind.TOKEN else 6):
            exit_ = self._walk(row, token) if child["kind"] == ChildKind.ON_PATH else (row, token)
            correct = self._count(row, forced, token if forced == ForcedKind.TOKEN else ABSENT_TOKEN, sample, *exit_)
            if sample < 2:
                self._keep(row, forced, child, sample, exit_, correct)
        if child["kind"] == ChildKind.ON_PATH and child["continue"] < -1e-3:
            for sample in range(max(3, int(N_MIN * -np.expm1(child["continue"])))):
                self._count(row, ForcedKind.GAP, token, sample, row, token)

    def _walk(self, row: int, token: int | None = None) -> tuple[int, int]:
        """Where a completion leaves the tree: the stratum as (node, child's token)."""
        while True:
            of = self.children[row]
            if token is None:
                mass = np.exp([child["logprob"] for child in of])
                child = of[int(self.rng.choice(len(of), p=mass / mass.sum()))]
            else:
                child = next(child for child in of if child["token"] == token)
            if child["kind"] == ChildKind.END:
                return NOWHERE, PATH_END_TOKEN
            if child["kind"] != ChildKind.ON_PATH or self.rng.random() > np.exp(child["continue"]):
                return row, child["token"]
            if child["next"] == NOWHERE:
                return NOWHERE, PATH_END_TOKEN
            row, token = child["next"], None

    def _count(self, launch: int, forced: ForcedKind, token: int, sample: int, exit_node: int, exit_token: int) -> bool:
        key = (launch, int(forced), token, exit_node, exit_token, sample % 2)
        correct = bool(self.rng.random() < self.value.get((exit_node, exit_token), 0.5))
        self.groups[key] += 1
        self.successes[key] += correct
        return correct

    def _keep(
        self, row: int, forced: ForcedKind, child: dict[str, Any], sample: int, exit_: tuple[int, int], correct: bool
    ) -> None:
        token = child["token"] if forced == ForcedKind.TOKEN else int(self.rng.integers(3, self.models.vocab_size))
        tail = self.rng.integers(3, self.models.vocab_size - 256, size=int(self.rng.integers(3, 12))).tolist()
        truncated = not correct and sample == 1
        tokens = [token] if token == END else [token, *tail] if truncated else [token, *tail, END]
        kept = {"launch_node": row, "forced_kind": int(forced), "exit_node": exit_[0], "exit_token": exit_[1], "sample": sample}
        reason = FinishReason.LENGTH if truncated else FinishReason.STOP
        self.kept.append({**kept, "position": self.position[row], "correct": correct, "reason": int(reason), "tokens": tokens})


def _child(
    here: Token, token: int, kind: ChildKind, next_: int = NOWHERE, stay: float = np.nan, outcome: int = UNKNOWN_OUTCOME
) -> dict[str, Any]:
    bits = sum(1 << m for m, row in enumerate(here.teacher_MV) if row[token] > np.log(TAU))
    bits |= (1 << 31) if here.student_V[token] > np.log(TAU) else 0
    return {
        "token": token, "kind": kind, "logprob": float(here.student_V[token]), "teachers": here.teacher_MV[:, token],
        "nominated_by": bits, "next": next_, "continue": stay, "outcome": outcome, "gap_kl": np.full(len(TEACHERS), np.nan),
        "later": np.linspace(0.1, 0.1 * len(TEACHERS), len(TEACHERS)),
    }  # fmt: skip


def _gap_kl(path: Response, first: int, stop: int) -> np.ndarray:
    """Per teacher the expected sum of KL(P‖T) over positions `first` to `stop` of a path: [M]."""
    total, reach = np.zeros(len(TEACHERS)), 1.0
    for here, token in zip(path.at[first:stop], path.tokens[first:stop], strict=True):
        total += reach * (np.exp(here.student_V) * (here.student_V - here.teacher_MV)).sum(axis=1)
        reach *= float(np.exp(here.student_V[token]))
    return total


def _log_rest(logprob: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Log of the probability outside of `tokens`, over the last axis."""
    outside = np.exp(np.delete(logprob, tokens, axis=-1)).sum(axis=-1)
    return np.asarray(np.log(outside))


def question_record(
    number: int,
    *,
    n_rollouts: int = 4,
    seed: int = 0,
    hostile: bool = False,
    response_tokens: tuple[int, int] = (10, 40),
    status: QuestionStatus = QuestionStatus.SCORED,
) -> PartArrays:
    """One question of the made-up study as a part of its own."""
    token_bytes = vocabulary(hostile)
    rng = np.random.default_rng((seed, number))
    models = Models(token_bytes, seed, response_tokens[0])
    first = len(SPECIALS) + len(WORDS.split("|"))
    script = range(first, first + len(HOSTILE)) if hostile else ()
    scored = status == QuestionStatus.SCORED
    rollouts: list[Response] = []
    for index in range(n_rollouts):
        start = rollouts[index - 1] if index in (1, 3) else None
        tokens, prefixes, at = _sample_rollout(models, rng, 1000 + number, response_tokens, start, script)
        truncated = tokens[-1] != END
        correct = scored and not truncated and index % 2 == 0
        kind = (PathKind.CORRECT if correct else PathKind.INCORRECT) if scored and index < 4 else PathKind.NONE
        rollouts.append(Response(tokens, prefixes, at, correct, truncated, kind))
    paths = [rollout for rollout in rollouts if rollout.kind != PathKind.NONE]
    tree = Tree(paths, models, rng)
    student = _student_arrays(number, rollouts, tree, status, hostile)
    return PartArrays(student, {info.id: _teacher_arrays(m, info, rollouts, tree) for m, info in enumerate(TEACHERS)})


def _student_arrays(
    number: int, rollouts: list[Response], tree: Tree, status: QuestionStatus, hostile: bool
) -> dict[str, np.ndarray]:
    prompt = f"Question {number}: what is {number} + {number}?" + (" [/b]\x1b[2J\u202e漢字 😀" if hostile else "")
    answer = f"{2 * number}" + (" [red]\x1b[31m" if hostile else "")
    columns: dict[str, Any] = {}
    for name, text in (("question_id", _question_id(number, hostile)), ("prompt", prompt), ("reference_answer", answer)):
        columns[name], columns[f"{name}_start"] = pack_texts([text])
    first_byte = len(vocabulary(hostile)) - 256
    columns["prompt_token_id"] = [USER, *(first_byte + byte for byte in prompt.encode()), ASSISTANT]
    for name, count in (
        ("prompt_token", len(columns["prompt_token_id"])), ("rollout", len(rollouts)), ("node", len(tree.position)),
        ("group", len(tree.groups)), ("completion", len(tree.kept)),
    ):  # fmt: skip
        columns[f"{name}_start"] = [0, count]
    columns |= {
        "question_number": [number], "question_status": [status], "question_n_rollouts": [len(rollouts)],
        "question_n_correct": [sum(rollout.correct for rollout in rollouts)],
        "question_n_truncated": [sum(rollout.truncated for rollout in rollouts)],
    }  # fmt: skip
    node_lists = []
    for rollout in rollouts:
        on_path = [rows for path, rows in zip(tree.paths, tree.nodes_of.values(), strict=True) if path is rollout]
        node_lists.append(on_path[0] if on_path else [])
    tokens = [token for rollout in rollouts for token in rollout.tokens]
    student_TV = np.stack([here.student_V for rollout in rollouts for here in rollout.at])
    top = np.argsort(-student_TV, axis=1)[:, :TOP_K]
    columns |= {
        "rollout_index": range(len(rollouts)),
        "reward": [float(rollout.correct) for rollout in rollouts],
        "correct": [rollout.correct for rollout in rollouts],
        "finish_reason": [FinishReason.LENGTH if rollout.truncated else FinishReason.STOP for rollout in rollouts],
        "path_kind": [rollout.kind for rollout in rollouts],
        "token_start": np.cumsum([0, *(len(rollout.tokens) for rollout in rollouts)]),
        "path_node_start": np.cumsum([0, *(len(rows) for rows in node_lists)]),
        "path_node": [row for rows in node_lists for row in rows],
        "token_id": tokens,
        "token_source": [0] * len(tokens),
        "logprob": student_TV[np.arange(len(tokens)), tokens],
        "entropy": -(np.exp(student_TV) * student_TV).sum(axis=1),
        "topk_token_id": top,
        "topk_logprob": coarse(np.take_along_axis(student_TV, top, 1)),
        "tail_mass": 1 - np.exp(np.take_along_axis(student_TV, top, 1)).sum(axis=1),
        "node_position": tree.position,
        "node_parent": tree.parent,
        "node_nominated_by": tree.nominated_by,
    }
    node_top = [np.sort(here.student_V)[::-1][:TOP_K] for here in tree.at]
    columns["node_topk_logprob"] = np.reshape(node_top, (-1, TOP_K))
    for name, key in (
        ("token_id", "token"), ("kind", "kind"), ("logprob", "logprob"), ("nominated_by", "nominated_by"),
        ("next", "next"), ("continue_logprob", "continue"), ("outcome", "outcome"),
    ):  # fmt: skip
        columns[f"child_{name}"] = _padded([[child[key] for child in of] for of in tree.children], f"child_{name}", STUDENT)
    keys = np.array(list(tree.groups), np.int64).reshape(-1, 6)
    for axis, name in enumerate(("launch_node", "forced_kind", "forced_token", "exit_node", "exit_token", "half")):
        columns[f"group_{name}"] = keys[:, axis]
    columns["group_n"] = list(tree.groups.values())
    columns["group_n_success"] = [tree.successes[key] for key in tree.groups]
    columns["group_n_truncated"] = [min(1, n - tree.successes[key]) for key, n in tree.groups.items()]
    for name in ("launch_node", "forced_kind", "exit_node", "exit_token", "sample", "position", "correct"):
        columns[f"completion_{name}"] = [kept[name] for kept in tree.kept]
    columns["completion_finish_reason"] = [kept["reason"] for kept in tree.kept]
    columns["completion_token_start"] = np.cumsum([0, *(len(kept["tokens"]) for kept in tree.kept)])
    columns["completion_token_id"] = [token for kept in tree.kept for token in kept["tokens"]]
    return {name: np.asarray(columns[name]).astype(spec.dtype) for name, spec in STUDENT.items()}


def _teacher_arrays(m: int, info: TeacherInfo, rollouts: list[Response], tree: Tree) -> dict[str, np.ndarray]:
    tokens = [token for rollout in rollouts for token in rollout.tokens]
    log_p = np.stack([here.student_V for rollout in rollouts for here in rollout.at])
    log_t = np.stack([here.teacher_MV[m] for rollout in rollouts for here in rollout.at])
    p, t = np.exp(log_p), np.exp(log_t)
    log_m = np.log((p + t) / 2)
    kl_pt, kl_tp = (p * (log_p - log_t)).sum(1), (t * (log_t - log_p)).sum(1)
    js = ((p * (log_p - log_m)).sum(1) + (t * (log_t - log_m)).sum(1)) / 2
    cosine = (p * t).sum(1) / np.sqrt((p**2).sum(1) * (t**2).sum(1))
    top, top_p = np.argsort(-log_t, axis=1)[:, :TOP_K], np.argsort(-log_p, axis=1)[:, :TOP_K]
    columns: dict[str, Any] = {}
    context = f"[shown: {info.context}] " if info.context else ""
    columns["teacher_prompt"], columns["teacher_prompt_start"] = pack_texts([f"{context}Question for {info.id}"])
    node_p = np.exp([here.student_V for here in tree.at]).reshape(len(tree.at), tree.models.vocab_size)
    node_r = np.array([here.teacher_MV[m] - here.student_V for here in tree.at]).reshape(len(tree.at), tree.models.vocab_size)
    columns |= {
        "logprob": log_t[np.arange(len(tokens)), tokens],
        "entropy": -(t * log_t).sum(1),
        "divergence": rounded(
            np.stack([kl_pt, kl_tp, js, np.linalg.norm(p - t, axis=1), cosine], axis=1).astype(np.float32), DIVERGENCE_BITS
        ),
        **split_topk(
            top_p,
            np.take_along_axis(log_t, top_p, 1),
            TopK(top, np.take_along_axis(log_t, top, 1), np.take_along_axis(log_p, top, 1)),
        ),
        "tail_mass": 1 - np.exp(np.take_along_axis(log_t, top, 1)).sum(1),
        "child_logprob": _padded([[child["teachers"][m] for child in of] for of in tree.children], "child_logprob", TEACHER),
        "node_topk_logprob": np.reshape(
            [here.teacher_MV[m][np.argsort(-here.student_V)[:TOP_K]] for here in tree.at], (-1, TOP_K)
        ),
        "rest_moment": np.reshape(
            [_rest_moment(of, here, m) for of, here in zip(tree.children, tree.at, strict=True)], (-1, len(REST_MOMENTS))
        ),
        "child_gap_kl": _padded([[child["gap_kl"][m] for child in of] for of in tree.children], "child_gap_kl", TEACHER),
        "later_n": _padded([[4] * len(of) for of in tree.children], "later_n", TEACHER),
        "later_sum": _padded([[-4 * child["later"][m] for child in of] for of in tree.children], "later_sum", TEACHER),
        "later_sum_squares": _padded(
            [[4 * child["later"][m] ** 2 for child in of] for of in tree.children], "later_sum_squares", TEACHER
        ),
        "fbar": np.stack([(node_p * node_r).sum(1), (node_p * np.exp(node_r)).sum(1)], axis=1),
    }
    return {name: np.asarray(columns[name]).astype(spec.dtype) for name, spec in TEACHER.items()}


def _rest_moment(of: list[dict[str, Any]], here: Token, m: int) -> np.ndarray:
    outside = np.ones(len(here.student_V), bool)
    outside[[child["token"] for child in of if child["token"] >= 0]] = False
    return rest_moments(here.student_V, here.teacher_MV[m : m + 1], outside)[0]


def _padded(rows: list[list[Any]], name: str, specs: Any) -> np.ndarray:
    spec = specs[name]
    out = np.full((len(rows), max(map(len, rows), default=1)), spec.fill, spec.dtype)
    for row, values in enumerate(rows):
        out[row, : len(values)] = values
    return out


def write_store(
    path: str | os.PathLike[str],
    *,
    n_questions: int = 6,
    n_rollouts: int = 4,
    seed: int = 0,
    questions_per_part: int = 3,
    hostile: bool = False,
    response_tokens: tuple[int, int] = (10, 40),
) -> Path:
    """Write a store of a made-up study and return its path.

    Three teachers (external, self with "1c", a null at temperature 1.3), objectives `OBJECTIVES`.
    Every sixth question had no success and carries no nodes. `hostile` puts markup, escape sequences,
    broken UTF-8, bidi marks, C1 controls, wide letters and emoji split over tokens into everything.
    """
    attributes = root_attributes(n_questions, seed, hostile)
    create(path, attributes, vocabulary(hostile), range(len(SPECIALS)))
    records = [
        question_record(
            number,
            n_rollouts=n_rollouts,
            seed=seed,
            hostile=hostile,
            response_tokens=response_tokens,
            status=QuestionStatus.NO_SUCCESS if number % 6 == 5 else QuestionStatus.SCORED,
        )
        for number in range(n_questions)
    ]
    for part, first in enumerate(range(0, n_questions, questions_per_part)):
        publish(path, f"p-{seed:08x}-{part:04d}", concatenate(records[first : first + questions_per_part]))
    return Path(path)
