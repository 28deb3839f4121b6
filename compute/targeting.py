"""Which positions are estimated, which tokens compete there, and which completions that takes (method.md 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute import allocation
from compute.allocation import Allotment
from compute.engine import Launch
from compute.sampling import key, uniforms
from compute.study import Targeting
from compute.tree import Chain, Trie
from compute.whole import Whole
from store.schema import NOWHERE, REST_TOKEN, ChildKind, ForcedKind

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
    return (
        np.append(tokens, REST_TOKEN).astype(np.int32),
        kinds,
        with_rest(logp_V, tokens),
        bits,
        np.array([with_rest(row, tokens) for row in logt_MV]).reshape(-1, len(tokens) + 1),
    )


def with_rest(log_V: NDArray[np.float64], tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """Log-probabilities of K tokens, and that of all others together: [K + 1]."""
    outside_V = np.ones(len(log_V), dtype=np.bool_)
    outside_V[tokens] = False
    return np.append(log_V[tokens], _log_sum(log_V[outside_V]))


def _log_sum(logs: NDArray[np.float64]) -> float:
    """Log of the sum of exponentials; -inf of nothing."""
    if logs.size == 0 or not np.isfinite(top := logs.max()):
        return -np.inf
    return float(top + np.log(np.exp(logs - top).sum()))


@dataclass(frozen=True, slots=True)
class Batch:
    """Completions launched in one way at one child: one per entry of `launches`, all off one spine."""

    target: int  #: index of the target in the question's list
    forced_kind: ForcedKind
    token: int  #: the child; it names their stratum, but for TOKEN at an on-path child, from where they may go anywhere
    path: int  #: path whose tokens are the spine
    launches: tuple[Launch, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All completions that a question needs."""

    batches: tuple[Batch, ...]
    n_tokens: float  #: that these will come to, as far as the initial rollouts tell
    shortfall: str  #: what the budget cannot hold, or nothing

    @property
    def n_completions(self) -> int:
        """Completions of all batches."""
        return sum(len(batch.launches) for batch in self.batches)


def remaining(lengths: Sequence[int]) -> NDArray[np.float64]:
    """Expected tokens of a completion launched at each depth, the forced one included, given rollouts of these lengths.

    The mean over the rollouts that are longer than that depth; one token beyond the longest.
    """
    length_R = np.array(lengths, dtype=np.int64)
    return np.array([np.mean(length_R[length_R > depth] - depth) for depth in range(max(lengths, default=0))] + [1.0])


def plan(trie: Trie, targets: Sequence[Target], settings: Targeting, seed: int, question: str, lengths: Sequence[int]) -> Plan:
    """Every completion that the targets of a question need (method.md 3.3 and Counting).

    How many is `compute.allocation`'s to say. An exit from a gap is drawn by its known masses, so that no completion is
    spent on staying on the path. `lengths` of the initial rollouts tell what a completion may cost in tokens.
    """
    chains = _chains(trie, targets)
    remaining_T = remaining(lengths)
    allotted, costs = _allot(trie, targets, chains, settings, remaining_T)
    batches: list[Batch] = []
    for number, target in enumerate(targets):
        prefix = trie.prefix(target.node)
        path = trie.nodes[target.node].path
        tokens = tuple(int(token) for token in target.token_K if token >= 0)
        for child, (token, kind) in enumerate(zip(target.token_K.tolist(), target.kind_K, strict=True)):
            own, through = int(allotted.own_NK[number, child]), int(allotted.through_NK[number, child])
            if kind == ChildKind.ON_PATH:
                chain = chains[number, child]
                ways = [
                    (ForcedKind.TOKEN, path, _forced(prefix, token, through, seed, question)),
                    (ForcedKind.GAP, chain.path, gap_launches(trie, chain, own, seed, question) if own else ()),
                ]
            elif kind == ChildKind.REST:
                ways = [(ForcedKind.REST, path, _from_rest(prefix, token, tokens, own, seed, question))]
            else:
                ways = [(ForcedKind.TOKEN, path, _forced(prefix, token, own, seed, question))]
            batches += [Batch(number, forced, token, spine, launches) for forced, spine, launches in ways if launches]
    n_tokens = sum(_at(remaining_T, launch.depth) for batch in batches for launch in batch.launches)
    return Plan(tuple(batches), n_tokens, _shortfall(allotted, costs, settings))


def _chains(trie: Trie, targets: Sequence[Target]) -> dict[tuple[int, int], Chain]:
    """What follows each on-path child, by target and child."""
    nodes = {target.node for target in targets}
    return {
        (number, int(child)): trie.chain(target.node, int(target.token_K[child]), nodes)
        for number, target in enumerate(targets)
        for child in np.flatnonzero(target.kind_K == ChildKind.ON_PATH)
    }


def _allot(
    trie: Trie,
    targets: Sequence[Target],
    chains: Mapping[tuple[int, int], Chain],
    settings: Targeting,
    remaining_T: NDArray[np.float64],
) -> tuple[Allotment, float]:
    """Completions per child, [N, K], and what they cost in the unit of the budget."""
    rows = {target.node: row for row, target in enumerate(targets)}
    shape = len(targets), max((len(target.token_K) for target in targets), default=1)
    kind_NK, next_NK = np.full(shape, ChildKind.ABSENT), np.full(shape, NOWHERE)
    logprob_NK, continue_NK, cost_NK = np.full(shape, -np.inf), np.zeros(shape), np.ones(shape)
    cost_N = np.ones(len(targets))
    by_tokens = settings.budget_tokens > 0
    for row, target in enumerate(targets):
        width = len(target.token_K)
        kind_NK[row, :width], logprob_NK[row, :width] = target.kind_K, target.logprob_K
        if by_tokens:
            cost_N[row] = cost_NK[row] = _at(remaining_T, trie.nodes[target.node].depth)
    for (row, child), chain in chains.items():
        next_NK[row, child] = rows.get(chain.next_node, NOWHERE)
        continue_NK[row, child] = chain.continue_logprob
        if by_tokens and chain.gap_mass > 0.0:
            after = [_at(remaining_T, position) for position in chain.positions]
            cost_NK[row, child] = float(chain.exit_masses() @ np.array(after)) / chain.gap_mass
    tree = allocation.tree(kind_NK, logprob_NK, next_NK, continue_NK, cost_NK, cost_N)
    allotted = allocation.allot(
        tree,
        settings.allocation,
        n_min=settings.n_min,
        n_sig=settings.n_sig,
        budget=float(settings.budget_tokens or settings.budget_completions),
    )
    return allotted, allocation.cost(tree, allotted)


def _shortfall(allotted: Allotment, cost: float, settings: Targeting) -> str:
    """One sentence where the budget is too small for what it is for."""
    budget = settings.budget_tokens or settings.budget_completions
    unit = "tokens" if settings.budget_tokens else "completions"
    if budget and cost > budget:
        return f"a budget of {budget:,} {unit} is below the least that its children need, about {cost:,.0f}; that is spent"
    if budget and allotted.sure < settings.n_sig:
        return (
            f"a budget of {budget:,} {unit} holds {allotted.sure} completions a child, fewer than n_sig = {settings.n_sig}, "
            "so its children are not kept"
        )
    return ""


def _at(remaining_T: NDArray[np.float64], depth: int) -> float:
    return float(remaining_T[min(depth, len(remaining_T) - 1)])


def _forced(prefix: tuple[int, ...], token: int, n: int, seed: int, question: str) -> tuple[Launch, ...]:
    """`n` completions whose first token is `token`."""
    return tuple(Launch(len(prefix), key(seed, question, "child", prefix, token, number), forced=token) for number in range(n))


def _from_rest(
    prefix: tuple[int, ...], token: int, tokens: tuple[int, ...], n: int, seed: int, question: str
) -> tuple[Launch, ...]:
    """`n` completions whose first token is none of `tokens`."""
    keys = [key(seed, question, "rest", prefix, token, number) for number in range(n)]
    return tuple(Launch(len(prefix), one, excluded=tokens) for one in keys)


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
