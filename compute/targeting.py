"""Which positions are estimated, which tokens compete there, and which completions that takes (method.md 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute.engine import Launch
from compute.estimators import NEGLIGIBLE
from compute.sampling import key, uniforms
from compute.study import Targeting
from compute.tree import Chain, Trie
from compute.whole import Whole
from store.schema import REST_TOKEN, ChildKind, ForcedKind

#: Mass below which a stratum gets no completions. Below what an estimate may lack (`NEGLIGIBLE`), so that the float32 of
#: the store cannot round a stratum without completions to one that is missed.
TINY_MASS = NEGLIGIBLE / 2
#: Bit of `child_nominated_by` for the student itself.
STUDENT_BIT = 31


def windows(length: int, first: int) -> Iterator[slice]:
    """Depth windows over `length` positions, each twice as wide as the one before: 0-50, 50-150, 150-350, ..."""
    start, width = 0, first
    while start < length:
        yield slice(start, min(start + width, length))
        start, width = start + width, 2 * width


def nominate(gradient_MT: NDArray[np.floating], difference_MT: NDArray[np.floating], settings: Targeting) -> NDArray[np.uint32]:
    """Choose positions of one path of T tokens: bit m of entry t says that teacher m nominated position t.

    Per window the k positions with the largest |P_j (l_j - lbar)| and the r with the largest |T_j - P_j|; a
    position's rank is its best pair over tokens and teachers. Teachers are rows; one that takes no part is -inf.
    """
    teachers, length = gradient_MT.shape
    bits = np.zeros(length, dtype=np.uint32)
    if teachers == 0:
        return bits
    for window in windows(length, settings.first_window):
        for scores_MT, budget in ((gradient_MT, settings.k), (difference_MT, settings.r)):
            inside = scores_MT[:, window]
            best = inside.max(axis=0)
            for offset in np.argsort(-best, kind="stable")[:budget]:
                if best[offset] > 0:
                    bits[window.start + offset] |= np.uint32(1 << int(inside[:, offset].argmax()))
    return bits


@dataclass(frozen=True, slots=True)
class Target:
    """A targeted node with its children, before completions: what the store keeps of it, and what launches from it."""

    node: int  #: its trie node
    nominated_by: int
    token_K: NDArray[np.int32]  #: REST_TOKEN last
    kind_K: NDArray[np.uint8]
    logprob_K: NDArray[np.float64]
    child_nominated_by_K: NDArray[np.uint32]
    outcome_K: NDArray[np.uint8]  #: of end tokens, which need no completions; else UNKNOWN_OUTCOME
    teacher_logprob_MK: NDArray[np.float64]
    fbar_MO: NDArray[np.float64]
    whole: Whole  #: for objectives that are none of the study's

    @property
    def competes(self) -> bool:
        """Whether at least two tokens compete here, so that there can be something to compare."""
        return len(self.token_K) > 2


def children(
    logp_V: NDArray[np.float64],
    logt_MV: NDArray[np.float64],
    on_path: Sequence[int],
    end_ids: Sequence[int],
    tau: float,
    takes_part_M: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.float64], NDArray[np.uint32], NDArray[np.float64]]:
    """The children of one node, by falling student probability, the rest last.

    Candidates are the tokens to which the student or a teacher that takes part gives more than `tau`, and the paths' own.
    Returns tokens, kinds, student log-probabilities, nomination bits [K] and teacher log-probabilities [M, K].
    """
    likely_MV = (logt_MV > np.log(tau)) & takes_part_M[:, None]
    student_likely = logp_V > np.log(tau)
    chosen = student_likely | likely_MV.any(axis=0)
    chosen[list(on_path)] = True
    tokens = np.flatnonzero(chosen)
    tokens = tokens[np.argsort(-logp_V[tokens], kind="stable")]
    kinds = np.full(len(tokens) + 1, ChildKind.CANDIDATE, dtype=np.uint8)
    kinds[:-1][np.isin(tokens, end_ids)] = ChildKind.END
    kinds[:-1][np.isin(tokens, on_path)] = ChildKind.ON_PATH
    kinds[-1] = ChildKind.REST
    bits = np.zeros(len(tokens) + 1, dtype=np.uint32)
    for teacher, likely_V in enumerate(likely_MV):
        bits[:-1] |= np.where(likely_V[tokens], np.uint32(1 << teacher), np.uint32(0))
    bits[:-1] |= np.where(student_likely[tokens], np.uint32(1 << STUDENT_BIT), np.uint32(0))
    outside = ~chosen
    return (
        np.append(tokens, REST_TOKEN).astype(np.int32),
        kinds,
        np.append(logp_V[tokens], _log_sum(logp_V[outside])),
        bits,
        np.concatenate([logt_MV[:, tokens], np.array([[_log_sum(row[outside])] for row in logt_MV]).reshape(-1, 1)], axis=1),
    )


def _log_sum(logs: NDArray[np.float64]) -> float:
    """Log of the sum of exponentials; -inf of nothing."""
    if logs.size == 0 or not np.isfinite(top := logs.max()):
        return -np.inf
    return float(top + np.log(np.exp(logs - top).sum()))


@dataclass(frozen=True, slots=True)
class Batch:
    """Completions launched for one stratum: one per entry of `launches`, all off one spine."""

    target: int  #: index of the target in the question's list
    forced_kind: ForcedKind
    token: int  #: the child that names the stratum
    path: int  #: path whose tokens are the spine
    launches: tuple[Launch, ...]


def plan(trie: Trie, targets: Sequence[Target], settings: Targeting, seed: int, question: str) -> list[Batch]:
    """Every completion that the targets of a question need, uniform allocation (method.md 3.3 and Counting).

    N_min per candidate; max(3, N_min/4) for the rest; for the gap after an on-path child its share of N_min, at least 3:
    the back-up weighs a gap by its mass, so that share gives the child the effective count of a candidate. An exit from the
    gap is drawn by its known masses, so that no completion is spent on staying on the path.
    """
    nodes = {target.node for target in targets}
    batches = []
    for number, target in enumerate(targets):
        prefix = trie.prefix(target.node)
        depth, path = len(prefix), trie.nodes[target.node].path
        tokens = tuple(int(token) for token in target.token_K if token >= 0)
        for token, kind, logprob in zip(target.token_K.tolist(), target.kind_K, target.logprob_K, strict=True):
            if kind == ChildKind.CANDIDATE:
                launches = tuple(
                    Launch(depth, key(seed, question, "child", prefix, token, n), forced=token) for n in range(settings.n_min)
                )
                batches.append(Batch(number, ForcedKind.TOKEN, token, path, launches))
            elif kind == ChildKind.REST and np.exp(logprob) >= TINY_MASS:
                launches = tuple(
                    Launch(depth, key(seed, question, "rest", prefix, token, n), excluded=tokens)
                    for n in range(max(3, -(-settings.n_min // 4)))
                )
                batches.append(Batch(number, ForcedKind.REST, token, path, launches))
            elif kind == ChildKind.ON_PATH:
                chain = trie.chain(target.node, token, nodes)
                if chain.gap_mass >= TINY_MASS:
                    n_gap = max(3, int(np.ceil(settings.n_min * chain.gap_mass)))
                    launches = gap_launches(trie, chain, n_gap, seed, question)
                    batches.append(Batch(number, ForcedKind.GAP, token, chain.path, launches))
    return batches


def gap_launches(trie: Trie, chain: Chain, n: int, seed: int, question: str) -> tuple[Launch, ...]:
    """`n` completions that leave `chain`: the exit drawn by its masses, then a token other than the path's."""
    tokens = trie.paths[chain.path].token_ids
    prefix = tokens[: chain.positions[0]]
    keys = [key(seed, question, "exit", prefix, -1, number) for number in range(n)]
    draws = uniforms(np.array(keys, dtype=np.uint64), np.zeros(n, dtype=np.int64))
    ends = np.cumsum(chain.exit_masses())
    places = np.minimum(np.searchsorted(ends, draws * ends[-1], side="right"), len(ends) - 1)
    launches = []
    for number, place in enumerate(places):
        position = chain.positions[place]
        taken = tokens[position]
        launches.append(Launch(position, key(seed, question, "gap", tokens[:position], taken, number), excluded=(taken,)))
    return tuple(launches)
