"""An exact small language model: every p_succ by dynamic programming, so that estimates meet the truth.

Vocabulary 10, length 9, a hidden automaton of 24 states; a response is correct if the automaton ends in an accepting
state. In the `sticky` variant many tokens lead to a sure success or failure, so that children lie far apart; in the
`mixing` one none does: early children are nearly equal, late ones far apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from benchmarks.made_tables import Child, Launch, make_nodes, simulate, true_values
from compute import objectives as objectives_
from compute.tree import Path, Trie
from store.schema import NOWHERE, REST_TOKEN, ChildKind, ForcedKind
from store.tables import Nodes, Paths

Array = NDArray[np.float64]
Int = NDArray[np.int64]
Variant = Literal["sticky", "mixing"]
VARIANTS: tuple[Variant, ...] = ("sticky", "mixing")
Targeting = Literal["dense", "sparse"]
TARGETINGS: tuple[Targeting, ...] = ("dense", "sparse")

N_TOKENS, LENGTH, N_STATES, N_SPARSE = 10, 9, 24, 3
#: States that are never left, of the sticky variant, and the share of (state, token) pairs that lead to each.
SURE_FAILURE, SURE_SUCCESS, STICKINESS = 0, 1, 0.08
TAU = 0.02
OBJECTIVES = ("reverse_kl", "forward_kl", "jsd(0.5)")


@dataclass(frozen=True)
class SmallLanguageModel:
    """The prompt is the state it starts from."""

    logprob_SV: Array
    next_SV: Int
    accepts_S: NDArray[np.bool_]
    p_succ_TS: Array  #: success probability in state S after T tokens, T from 0 to LENGTH

    def child_p_succ(self, position: int, state: int) -> Array:
        """p_succ of every token of the vocabulary after `position` tokens."""
        return np.asarray(self.p_succ_TS[position + 1, self.next_SV[state]])


def small_language_model(variant: Variant, seed: int, stickiness: float = STICKINESS) -> SmallLanguageModel:
    rng = np.random.default_rng([VARIANTS.index(variant), seed])
    logit_SV = rng.normal(size=(N_STATES, N_TOKENS))
    logprob_SV = logit_SV - np.log(np.exp(logit_SV).sum(axis=1, keepdims=True))
    accepts_S = rng.permutation(N_STATES) < N_STATES // 2
    next_SV = rng.integers(2, N_STATES, (N_STATES, N_TOKENS))
    if variant == "sticky":
        fate_SV = rng.uniform(size=next_SV.shape)
        next_SV[fate_SV < 2 * stickiness] = SURE_FAILURE
        next_SV[fate_SV < stickiness] = SURE_SUCCESS
        next_SV[[SURE_FAILURE, SURE_SUCCESS]] = [[SURE_FAILURE], [SURE_SUCCESS]]
        accepts_S[[SURE_FAILURE, SURE_SUCCESS]] = False, True
    p_succ_TS = np.empty((LENGTH + 1, N_STATES))
    p_succ_TS[LENGTH] = accepts_S
    for position in reversed(range(LENGTH)):
        p_succ_TS[position] = (np.exp(logprob_SV) * p_succ_TS[position + 1][next_SV]).sum(axis=1)
    return SmallLanguageModel(logprob_SV, next_SV, accepts_S, p_succ_TS.clip(0.0, 1.0))


def sample_paths(
    model: SmallLanguageModel, start: int, rng: np.random.Generator, *, correct: int = 2, incorrect: int = 2, tries: int = 400
) -> list[Path]:
    """Paths of both outcomes, the first that are found; one outcome may lack some."""
    found: dict[bool, list[Path]] = {True: [], False: []}
    states_R, tokens_RT = np.full(tries, start), np.zeros((tries, LENGTH), dtype=np.int64)
    logprob_RT = np.zeros((tries, LENGTH))
    cumulative_SV = np.exp(model.logprob_SV).cumsum(axis=1)
    for position in range(LENGTH):
        drawn_R = (cumulative_SV[states_R] < rng.uniform(size=(tries, 1))).sum(axis=1).clip(max=N_TOKENS - 1)
        tokens_RT[:, position], logprob_RT[:, position] = drawn_R, model.logprob_SV[states_R, drawn_R]
        states_R = model.next_SV[states_R, drawn_R]
    seen = set()
    for tokens, logprob_T, right in zip(tokens_RT.tolist(), logprob_RT, model.accepts_S[states_R].tolist(), strict=True):
        if tuple(tokens) not in seen and len(found[right]) < (correct if right else incorrect):
            seen.add(tuple(tokens))
            found[right].append(Path(tuple(tokens), logprob_T.astype(np.float32), right))
    return found[True] + found[False]


@dataclass(frozen=True)
class Teachers:
    """Log-probabilities of each teacher in state S after T tokens: [M, T, S, V]."""

    names: tuple[str, ...]
    logprob_MTSV: Array


def make_teachers(model: SmallLanguageModel, seed: int, tau: float = 0.2) -> Teachers:
    """`informed`: T ∝ P exp(p/tau); `noisy`: half as informed, with noise; `sharpened`: the student at temperature 0.7;
    `perturbed`: the student with noise; `ignorant`: knows neither."""
    rng = np.random.default_rng([2, seed])
    log_P_TSV = np.broadcast_to(model.logprob_SV, (LENGTH, N_STATES, N_TOKENS))
    p_TSV = model.p_succ_TS[1:][:, model.next_SV]
    noise_MTSV = rng.normal(size=(3, *p_TSV.shape))
    logits = {
        "informed": log_P_TSV + p_TSV / tau,
        "noisy": log_P_TSV + p_TSV / (2.0 * tau) + noise_MTSV[0],
        "sharpened": log_P_TSV / 0.7,
        "perturbed": log_P_TSV + noise_MTSV[1],
        "ignorant": noise_MTSV[2],
    }
    logit_MTSV = np.stack(list(logits.values()))
    return Teachers(tuple(logits), logit_MTSV - np.log(np.exp(logit_MTSV).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class SmallStudy:
    """Trees of several questions end to end, with their teachers and the truth."""

    children: list[list[Child]]
    nodes: Nodes  #: without completions
    paths: Paths
    roots: tuple[tuple[int, float], ...]  #: of each question the first targeted node, and the probability of reaching it
    p_succ_NK: Array
    value_N: Array

    def initial_rollouts(self, n: int) -> list[Launch]:
        """`n` unforced rollouts of every question."""
        return [Launch(row, ForcedKind.NONE, n, reach=reach) for row, reach in self.roots]

    def simulate(self, launches: Sequence[Launch], *, times: int, seed: int) -> Nodes:
        """`times` copies of the study, end to end, each with completions of its own."""
        return simulate(self.children, launches, times=times, seed=seed, table=self.nodes)


def small_study(
    variant: Variant,
    n_questions: int,
    seed: int,
    *,
    targeting: Targeting = "dense",
    objectives: tuple[str, ...] = OBJECTIVES,
    stickiness: float = STICKINESS,
) -> SmallStudy:
    """`n_questions` questions, each with a model of its own, 2 + 2 paths, and all or 3 of 9 positions (and all forks)."""
    children: list[list[Child]] = []
    question, position, teacher_rows, fbar_rows, roots = [], [], [], [], []
    path_question, path_index, path_correct, path_nodes = [], [], [], []
    for number in range(n_questions):
        model = small_language_model(variant, 1000 * seed + number, stickiness)
        teachers = make_teachers(model, 1000 * seed + number)
        rng = np.random.default_rng([3, seed, number])
        start = int(rng.integers(2, N_STATES))
        trie = Trie(sample_paths(model, start, rng))
        row_of = _targets(trie, targeting, rng, len(children))
        states = {at: _state(model, start, trie.prefix(at)) for at in row_of}
        first = min(row_of)
        reach = np.exp(sum(trie.paths[trie.nodes[first].path].logprob_T[: trie.nodes[first].depth].tolist()))
        roots.append((row_of[first], float(reach)))
        for at in row_of:
            depth, state = trie.nodes[at].depth, states[at]
            siblings, columns = _children(model, trie, at, state, row_of, states)
            children.append(siblings)
            question.append(number)
            position.append(depth)
            log_T_MV = teachers.logprob_MTSV[:, depth, state]
            teacher_rows.append([np.exp(log_T_MV[:, column]).sum(axis=1) for column in columns])
            log_P_V = np.broadcast_to(model.logprob_SV[state], log_T_MV.shape)
            fbar_rows.append([objectives_.fbar(name, log_P_V, log_T_MV) for name in objectives])
        for index, path in enumerate(trie.paths):
            path_question.append(number)
            path_index.append(index)
            path_correct.append(path.correct)
            path_nodes.append([row_of[at] for at in trie.along(index) if at in row_of])
    K = max(map(len, children))
    teacher_MNK = np.ones((len(teachers.names), len(children), K))
    for row, columns in enumerate(teacher_rows):
        teacher_MNK[:, row, : len(columns)] = np.transpose(columns)
    nodes = make_nodes(
        children,
        teachers=teachers.names,
        teacher_MNK=teacher_MNK,
        objectives=objectives,
        fbar_MNO=np.transpose(np.array(fbar_rows), (2, 0, 1)),
        question_N=np.array(question),
    )
    p_succ_NK, value_N = _truth(children)
    return SmallStudy(
        children=children,
        nodes=replace(nodes, position_N=np.array(position)),
        paths=Paths(
            question_L=np.array(path_question),
            rollout_index_L=np.array(path_index),
            correct_L=np.array(path_correct),
            start_L1=np.cumsum([0, *map(len, path_nodes)]),
            node_P=np.concatenate(path_nodes),
        ),
        roots=tuple(roots),
        p_succ_NK=p_succ_NK,
        value_N=value_N,
    )


def _targets(trie: Trie, targeting: Targeting, rng: np.random.Generator, offset: int) -> dict[int, int]:
    """Targeted trie nodes and their rows; a node comes before what follows it."""
    chosen = set(trie.forks())
    for path in range(len(trie.paths)):
        positions = range(LENGTH) if targeting == "dense" else rng.choice(LENGTH, N_SPARSE, replace=False).tolist()
        along = trie.along(path)
        chosen |= {along[position] for position in positions}
    return {at: offset + row for row, at in enumerate(sorted(chosen))}


def _state(model: SmallLanguageModel, start: int, prefix: Sequence[int]) -> int:
    state = start
    for token in prefix:
        state = int(model.next_SV[state, token])
    return state


def _children(
    model: SmallLanguageModel, trie: Trie, at: int, state: int, row_of: dict[int, int], states: dict[int, int]
) -> tuple[list[Child], list[list[int]]]:
    """The children of a node, by falling probability and the rest last, and the tokens that each stands for."""
    P_V, depth = np.exp(model.logprob_SV[state]), trie.nodes[at].depth
    p_V = model.child_p_succ(depth, state)
    on_path = trie.nodes[at].children
    tokens = [int(token) for token in np.argsort(-P_V) if P_V[token] >= TAU or token in on_path]
    siblings = []
    for token in tokens:
        if token not in on_path:
            exact = depth + 1 == LENGTH
            siblings.append(
                Child(token, P_V[token], ChildKind.END, outcome=int(p_V[token]))
                if exact
                else Child(token, P_V[token], mean=p_V[token])
            )
            continue
        chain = trie.chain(at, token, row_of)
        stay = float(np.exp(chain.continue_logprob))
        following = trie.nodes[chain.next_node].depth if chain.next_node != NOWHERE else LENGTH
        ahead = chain.outcome if chain.next_node == NOWHERE else model.p_succ_TS[following, states[chain.next_node]]
        # What is left of the child's value is the gap's.
        mean = float(np.clip((p_V[token] - stay * ahead) / (1.0 - stay), 0.0, 1.0)) if chain.positions else float("nan")
        next_row = row_of.get(chain.next_node, NOWHERE)
        siblings.append(Child(token, P_V[token], ChildKind.ON_PATH, next_row, stay, chain.outcome, mean))
    columns = [[token] for token in tokens]
    if outside := [token for token in range(N_TOKENS) if token not in tokens]:
        mass = float(P_V[outside].sum())
        siblings.append(Child(REST_TOKEN, mass, ChildKind.REST, mean=min(float(P_V[outside] @ p_V[outside]) / mass, 1.0)))
        columns.append(outside)
    return siblings, columns


def _truth(children: Sequence[Sequence[Child]]) -> tuple[Array, Array]:
    p, V = true_values(children)
    p_succ_NK = np.full((len(children), max(map(len, children))), np.nan)
    for row, values in enumerate(p):
        p_succ_NK[row, : len(values)] = values
    return p_succ_NK, np.array(V)
