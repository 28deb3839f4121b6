"""How many completions each child of a question's tree gets: by probabilities alone, never by outcomes (method.md 3).

The ideal gradient of node u is g_j = P_j (p_j - V), so over its tokens S_u

    E|g_hat - g|^2 = sum_k a_uk var(p_k),    a_uk = P_k^2 ((1 - 2 P_k) 1[k in S_u] + sum_{j in S_u} P_j^2)

and by the back-up var(p_k) = sum_s w_ks^2 q_s (1 - q_s)/n_s over the strata s below child k, w_ks the probability of
reaching s. Were the p_k of a node independent and alike, E|g|^2 would be proportional to sum_k a_uk. Neyman's allocation
minimises the sum over nodes of their relative errors, each node as important as any other, all q_s (1 - q_s) taken as equal:

    sum_s K_s/n_s,    K_s = sum_u (a_uk / sum_k a_uk) w_ks^2    =>    n_s proportional to sqrt(K_s / cost of one)

Nothing here knows an outcome, so every estimate stays unbiased and both halves stay independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from compute.estimators import NEGLIGIBLE
from store.schema import NOWHERE, ChildKind
from store.tables import Float, Int

Array = NDArray[np.float64]
Allocation = Literal["neyman", "uniform", "shares"]
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)

#: Mass below which a stratum gets no completions. Below what an estimate may lack (`NEGLIGIBLE`), so that the float32 of
#: the store cannot round a stratum without completions to one that is missed.
TINY_MASS = NEGLIGIBLE / 2
#: Completions that no stratum goes below: one for each half.
LEAST = 2
#: Completions of a gap beside those that are forced on the path and may miss it.
GAP_LEAST = 3


@dataclass(frozen=True, slots=True)
class Tree:
    """A question's targeted nodes as far as allocation sees them. A node comes before the nodes that follow it."""

    kind_NK: Int
    P_NK: Array  #: 0 for an absent child
    own_NK: Array  #: share of the child that is its own stratum: 1 off the paths, the gap's mass on them, 0 for an end
    next_NK: Int
    cost_NK: Array  #: of a completion of the child's own stratum
    cost_N: Array  #: of one launched at the node

    def __post_init__(self) -> None:
        follows_NK = self.next_NK != NOWHERE
        if (self.next_NK <= np.arange(len(self.kind_NK))[:, None])[follows_NK].any():
            raise ValueError("A node of this tree comes after one that follows it; sort the nodes by depth.")

    @property
    def wanted_NK(self) -> NDArray[np.bool_]:
        """Strata that need completions."""
        rest_NK = self.kind_NK == ChildKind.REST
        return np.where(rest_NK, self.P_NK >= TINY_MASS, self.own_NK >= TINY_MASS)


def tree(
    kind_NK: Int,
    logprob_NK: Float,
    next_NK: Int,
    continue_logprob_NK: Float,
    cost_NK: Array | None = None,
    cost_N: Array | None = None,
) -> Tree:
    """The tree of a table's nodes, from columns as in `store.tables.Nodes`. Without costs a completion costs 1.

    Raises ValueError where a node comes after one that follows it.
    """
    on_path_NK = kind_NK == ChildKind.ON_PATH
    stay_NK = np.where(on_path_NK, np.minimum(continue_logprob_NK, 0.0), 0.0).astype(np.float64)
    off_path_NK = (kind_NK == ChildKind.CANDIDATE) | (kind_NK == ChildKind.REST)
    return Tree(
        kind_NK=kind_NK,
        P_NK=np.where(kind_NK == ChildKind.ABSENT, 0.0, np.exp(logprob_NK.astype(np.float64))),
        own_NK=np.where(on_path_NK, -np.expm1(stay_NK), off_path_NK.astype(np.float64)),
        next_NK=np.where(on_path_NK, next_NK, NOWHERE),
        cost_NK=np.ones(kind_NK.shape) if cost_NK is None else cost_NK,
        cost_N=np.ones(len(kind_NK)) if cost_N is None else cost_N,
    )


@dataclass(frozen=True, slots=True)
class Allotment:
    """Completions to launch at every child."""

    own_NK: Int  #: of its own stratum: its token forced off the paths, a draw from the rest, an exit drawn from the gap
    through_NK: Int  #: on-path: its token forced, and then free to stay on the path or to leave it anywhere
    sure: int  #: effective completions that every candidate and every on-path child is sure of

    @property
    def n_completions(self) -> int:
        """All of them."""
        return int(self.own_NK.sum() + self.through_NK.sum())


def allot(tree: Tree, allocation: Allocation, *, n_min: int, n_sig: int, budget: float = 0.0) -> Allotment:
    """Completions of a question under one of the allocations; a larger budget gives no child fewer.

    `budget` is in the unit of the tree's costs; 0: what `uniform` takes with `n_min` completions a child (`shares`: what
    itself takes). No stratum goes below `LEAST`, even where the budget cannot hold that.
    """
    if allocation == "neyman":
        # Where N_min is below N_sig, uniform completions would keep no child either.
        floor = n_sig if budget else min(n_min, n_sig)
        return neyman(tree, budget or cost(tree, uniform(tree, n_min)), floor)
    rule = uniform if allocation == "uniform" else shares
    if not budget:
        return rule(tree, n_min)
    return rule(tree, _largest(lambda n: cost(tree, rule(tree, n)) <= budget, LEAST, int(budget) + LEAST))


def cost(tree: Tree, allotment: Allotment) -> float:
    """What an allotment takes, in the unit of the tree's costs."""
    return float((tree.cost_NK * allotment.own_NK).sum() + (tree.cost_N[:, None] * allotment.through_NK).sum())


def uniform(tree: Tree, n: int) -> Allotment:
    """As in the paper: `n` forced at every child, also on the paths; a quarter for the rest, at least 3.

    Three more leave through every gap, so that the back-up is defined wherever the forced ones go.
    """
    through_NK = np.where(tree.kind_NK == ChildKind.ON_PATH, n, 0)
    return Allotment(_own(tree, n, np.full(tree.P_NK.shape, GAP_LEAST)), through_NK, n)


def shares(tree: Tree, n: int) -> Allotment:
    """`n` per candidate, a quarter for the rest, and for a gap its share of `n`, each at least 3; none stays on a path."""
    in_gap_NK = np.maximum(GAP_LEAST, np.ceil(n * tree.own_NK)).astype(np.int64)
    return Allotment(_own(tree, n, in_gap_NK), np.zeros(tree.P_NK.shape, dtype=np.int64), n)


def _own(tree: Tree, n: int, in_gap_NK: Int) -> Int:
    of_rest = max(3, -(-n // 4))
    own_NK = np.where(tree.kind_NK == ChildKind.REST, of_rest, np.where(tree.kind_NK == ChildKind.ON_PATH, in_gap_NK, n))
    return np.where(tree.wanted_NK, own_NK, 0).astype(np.int64)


def neyman(tree: Tree, budget: float, n_sig: int) -> Allotment:
    """The least sum over nodes of relative errors of the ideal gradient, for `budget`.

    Every candidate and every on-path child keeps an effective count of `n_sig`, so that S_u is what uniform completions
    would keep; where the budget cannot hold that, as much of it as it holds.
    """
    sure = _largest(lambda n: float((tree.cost_NK * floors(tree, n)).sum()) <= budget, 0, n_sig)
    floor_NK = floors(tree, sure)
    own_NK = floor_NK
    if sure == n_sig:
        weight_NK = np.sqrt(error_coefficients(tree) / tree.cost_NK)
        own_NK = fill(floor_NK, weight_NK, tree.cost_NK, budget)
    return Allotment(own_NK, np.zeros(own_NK.shape, dtype=np.int64), sure)


def _largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest n from `low` to `high` that fits, where what is smaller fits too; `low` where none does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def floors(tree: Tree, n_sig: int) -> Int:
    """The fewest completions a stratum that give every candidate and on-path child an effective count of `n_sig`.

    A stratum of weight w below a child gets w n_sig, so that sum w^2/n <= 1/n_sig; the nearest child above weighs most.
    """
    weight_NK = np.where(tree.kind_NK == ChildKind.REST, 0.0, tree.own_NK)
    rest_NK = tree.kind_NK == ChildKind.REST
    for row, column in zip(*np.nonzero(tree.next_NK != NOWHERE), strict=True):
        after = tree.next_NK[row, column]
        weight_NK[after] = np.where(rest_NK[after], (1.0 - tree.own_NK[row, column]) * tree.P_NK[after], weight_NK[after])
    # What is whole but for rounding is whole.
    floor_NK = np.maximum(np.ceil(n_sig * weight_NK - 1e-9), LEAST)
    return np.where(tree.wanted_NK, floor_NK, 0).astype(np.int64)


def error_coefficients(tree: Tree, importance_N: Array | None = None) -> Array:
    """K_s of every child's own stratum: what q (1 - q)/n of it adds to the sum of the nodes' relative errors.

    `importance_N` weighs the nodes; without, all are alike.
    """
    token_NK = ~np.isin(tree.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
    squared_NK = tree.P_NK**2
    a_NK = squared_NK * (np.where(token_NK, 1.0 - 2.0 * tree.P_NK, 0.0) + (squared_NK * token_NK).sum(axis=1, keepdims=True))
    total_N1 = a_NK.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_NK = np.where(total_N1 > 0.0, a_NK / total_N1, 0.0)
    if importance_N is not None:
        share_NK = share_NK * importance_N[:, None]
    coefficient_NK = np.zeros(a_NK.shape)
    above_N = np.zeros(len(a_NK))  # what var(V) of the node adds to the nodes above
    for row, share_K in enumerate(share_NK):
        child_K = share_K + squared_NK[row] * above_N[row]
        coefficient_NK[row] = tree.own_NK[row] ** 2 * child_K
        follows_K = tree.next_NK[row] != NOWHERE
        above_N[tree.next_NK[row][follows_K]] = ((1.0 - tree.own_NK[row]) ** 2 * child_K)[follows_K]
    return coefficient_NK


def fill(floor_NK: Int, weight_NK: Array, cost_NK: Array, budget: float) -> Int:
    """max(floor, level * weight), the level as high as the budget allows: it never falls where a budget rises."""
    chosen_NK = (floor_NK > 0) & (weight_NK > 0.0)

    def at(level: float) -> Int:
        return np.where(chosen_NK, np.maximum(floor_NK, np.floor(level * weight_NK)), floor_NK).astype(np.int64)

    if not chosen_NK.any():
        return floor_NK
    low, high = 0.0, float(((budget / cost_NK + 1.0)[chosen_NK] / weight_NK[chosen_NK]).min())
    for _ in range(64):
        middle = (low + high) / 2.0
        low, high = (middle, high) if float((cost_NK * at(middle)).sum()) <= budget else (low, middle)
    return at(low)
