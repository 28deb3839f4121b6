"""How often the student succeeds after each child of each node: p_succ, from counted completions.

Every completion belongs to one *stratum*: the node where it left the tree of paths, and the child it took there.
Completions of one stratum are exchangeable whatever launched them, so a stratum's mean is unbiased. From there

    a child off the paths           its stratum's mean
    a token that ends the response  its outcome, exactly
    a child on a path               c * next + (1 - c) * mean of its gap stratum,  c = P(stay until the next targeted
                                    node, given the child); next = V of that node, or the outcome of the path's end
    V(u) = sum_k P_k p_k            all children, the rest of the vocabulary as one

which is the `backup` estimator. `on_policy` takes for each child the mean of all completions that went through it
and were launched above it or forced at it. `plain` (the paper's) takes all that went through it, and is biased: what
was launched below a child over-counts the branches that were forced there.

Each of these values is a fixed sum of stratum means, sum_s w_s S_s/N_s, w_s the probability of reaching stratum s.
So the variance is sum_s w_s^2 q_s (1 - q_s)/(N_s - 1), the effective count 1/sum_s w_s^2/N_s, and both obey the
same recursion as the value with squared weights: one back-up carries them all, from the deepest nodes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.statistics import beta_quantile, log_beta
from store.schema import NOWHERE, PATH_END_TOKEN, UNKNOWN_OUTCOME, ChildKind, ForcedKind
from store.tables import Int, Nodes

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]
Estimator = Literal["backup", "on_policy", "plain"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
#: Estimators whose mean is not the truth; for comparison only.
BIASED: frozenset[Estimator] = frozenset({"plain"})

#: Mass, within a child or within a node, that may lack a value without spoiling what it is part of.
NEGLIGIBLE = 1e-6
#: Strata that the fit of the pseudo-count looks at, at most: evenly spaced among all.
FIT_STRATA = 5000
GOLDEN = (5.0**0.5 - 1.0) / 2.0
#: How far the probabilities of a node's children may miss 1 before its rest must be missing.
MASS_TOLERANCE = 1e-4


class Counts(Struct, frozen=True):
    """Completions per child: of its own stratum, or of all that went through it."""

    n_NK: Int
    n_success_NK: Int


class Estimates(Struct, frozen=True):
    """p_succ of every child, V of every node, and how sure they are. NaN where nothing is known (or no child is)."""

    p_succ_NK: Array
    variance_NK: Array
    effective_n_NK: Array  #: knows nothing of outcomes; infinite for an exact outcome
    n_NK: Int  #: backup: completions of the child's own stratum; on_policy, plain: those that went through it
    n_success_NK: Int
    low_NK: Array  #: interval of the level asked for; an exact outcome is a point
    high_NK: Array
    value_N: Array
    value_variance_N: Array
    value_effective_n_N: Array
    kept_NK: Bool  #: S_u: tokens with effective count >= n_sig; never the rest
    gap_mass_NK: Array  #: on-path children: the part that leaves the path before the next targeted node; NaN for others
    smoothed_variance_NK: Array  #: of p_succ, every stratum smoothed by the pseudo-count at the node's value: never 0 by luck


def estimate(
    nodes: Nodes,
    *,
    n_sig: float,
    estimator: Estimator = "backup",
    half: int | None = None,
    level: float | None = 0.95,
    pseudo_count: float = 1.0,
) -> Estimates:
    """p_succ and V of every node, from all completions or from one half of them.

    With `half` 0 or 1, strata, back-up and V are all recomputed from that half (method.md 4); effective counts are
    then about half as large, so pass an `n_sig` to match or take `kept_NK` from all completions.

    `level` is the intervals', which take most of the time; None: there are none, NaN. `pseudo_count` smooths their strata: 1
    is safe, `fit_pseudo_count` fits it to a study.

    Raises ValueError for an unknown estimator, a level or pseudo-count out of range, and where `on_policy` or `plain` is to
    count a table in which nothing went through the paths.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"Unknown estimator {estimator!r}; allowed: {', '.join(ESTIMATORS)}.")
    if level is not None and not 0.0 < level < 1.0:
        raise ValueError(f"The level of an interval must lie between 0 and 1, not {level:g}.")
    if not 0.0 < pseudo_count <= 1.0:
        raise ValueError(f"The pseudo-count must be above 0 and at most 1, not {pseudo_count:g}.")
    counts = stratum_counts(nodes, half=half) if estimator == "backup" else passing_counts(nodes, estimator, half=half)
    on_path_NK = nodes.kind_NK == ChildKind.ON_PATH
    if estimator != "backup" and counts.n_NK.any() and on_path_NK.any() and not counts.n_NK[on_path_NK].any():
        raise ValueError(
            f"Estimator '{estimator}' counts completions that go through the children of paths, and there are none; compute the "
            'study with `targeting.allocation` = "uniform".'
        )
    # Rounding may leave a continuation just above certain.
    continue_NK = np.minimum(np.where(on_path_NK, nodes.continue_logprob_NK, np.nan).astype(np.float64), 0.0)
    gap_mass_NK = 0.0 - np.expm1(continue_NK)
    # The part of a child that goes on, to the next node or to an exact outcome, and the part that is its own stratum.
    ahead_NK = np.where(nodes.kind_NK == ChildKind.END, 1.0, 0.0)
    own_NK = 1.0 - ahead_NK
    if estimator == "backup":
        ahead_NK, own_NK = np.where(on_path_NK, np.exp(continue_NK), ahead_NK), np.where(on_path_NK, gap_mass_NK, own_NK)
    sums_NKI, value_NI = _back_up(nodes, counts, ahead_NK, own_NK, pseudo_count)
    p_succ_NK = sums_NKI[..., _VALUE]
    with np.errstate(divide="ignore"):
        effective_n_NK, value_effective_n_N = 1.0 / sums_NKI[..., _INVERSE_N], 1.0 / value_NI[:, _INVERSE_N]
    low_NK, high_NK = _interval(sums_NKI, level) if level is not None else (np.full_like(p_succ_NK, np.nan),) * 2
    token_NK = ~np.isin(nodes.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
    return Estimates(
        p_succ_NK=p_succ_NK,
        variance_NK=sums_NKI[..., _VARIANCE],
        effective_n_NK=effective_n_NK,
        n_NK=counts.n_NK,
        n_success_NK=counts.n_success_NK,
        low_NK=low_NK,
        high_NK=high_NK,
        value_N=value_NI[:, _VALUE],
        value_variance_N=value_NI[:, _VARIANCE],
        value_effective_n_N=value_effective_n_N,
        # A count like 20 must not fail against 20 because 1/(1/20) is rounded.
        kept_NK=token_NK & ~np.isnan(p_succ_NK) & (effective_n_NK * (1.0 + 1e-9) >= n_sig),
        gap_mass_NK=gap_mass_NK,
        smoothed_variance_NK=_smoothed(sums_NKI, value_NI[:, _VALUE, None])[1],
    )


def fit_pseudo_count(nodes: Nodes) -> float:
    """The pseudo-count m that suits a study: how alike the strata of a node are, held between 0.01 and 1.

    By maximum likelihood, with every stratum's success rate drawn from Beta(m V, m (1 - V)), V the node's value.
    Where tokens decide the outcome, strata lie near 0 and 1 and m is small: 0.2 for the built-in student, whose
    intervals of backed-up children become a quarter to a third narrower at 10 to 40 completions and still cover what
    they say. Fit it to a study, not to a page of it. 1 where nothing can be said.
    """
    counts, e = stratum_counts(nodes), estimate(nodes, n_sig=0.0)
    V_NK = np.broadcast_to(e.value_N[:, None], counts.n_NK.shape)
    telling = (counts.n_NK >= 2) & (V_NK > 1e-6) & (V_NK < 1.0 - 1e-6)
    N, S, V = (x[telling].astype(np.float64) for x in (counts.n_NK, counts.n_success_NK, V_NK))
    if not N.size:
        return 1.0
    step = -(-N.size // FIT_STRATA)
    N, S, V = N[::step], S[::step], V[::step]

    def log_likelihood(log_m: float) -> float:
        a, b = np.exp(log_m) * V, np.exp(log_m) * (1.0 - V)
        return float((log_beta(S + a, N - S + b) - log_beta(a, b)).sum())

    low, high = np.log(0.01), 0.0
    for _ in range(12):  # golden section
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if log_likelihood(left) < log_likelihood(right):
            low = left
        else:
            high = right
    m = float(np.exp((low + high) / 2.0))
    return m if high < 0.0 else 1.0


def stratum_counts(nodes: Nodes, *, half: int | None = None) -> Counts:
    """Completions of each child's own stratum. Those that followed a path to its end belong to none."""
    rows_G = np.flatnonzero(
        (nodes.group_exit_node_G != NOWHERE) & (nodes.group_exit_token_G > PATH_END_TOKEN) & _in_half(nodes, half)
    )
    child_G = _exit_child(nodes, rows_G)
    return _count(nodes, rows_G, [(nodes.group_exit_node_G[rows_G], child_G, np.ones(len(rows_G), dtype=bool))])


def passing_counts(nodes: Nodes, which: Literal["on_policy", "plain", "unforced"], *, half: int | None = None) -> Counts:
    """Completions that went through each child: all of them, or those whose way to the child was not forced.

    `on_policy`: launched above the child, or forced at it; a draw from the gap was forced to leave, so it counts
    nowhere. `unforced`: initial rollouts only. A completion that followed a path to its end counts where its exit
    names the child, or one child alone leads to an end.
    """
    above_N, above_child_N, _ = tree_of(nodes)
    forced_G = nodes.group_forced_kind_G
    counted_G = (nodes.group_exit_node_G != NOWHERE) & _in_half(nodes, half)
    if which == "on_policy":
        counted_G &= forced_G != ForcedKind.GAP
    elif which == "unforced":
        counted_G &= forced_G == ForcedKind.NONE
    rows_G = np.flatnonzero(counted_G)
    child_G = _exit_child(nodes, rows_G)
    rows_G, child_G = rows_G[child_G >= 0], child_G[child_G >= 0]
    launch_G = nodes.group_launch_node_G[rows_G] if which != "plain" else np.full(len(rows_G), NOWHERE)
    at_G = nodes.group_exit_node_G[rows_G].astype(np.int64)
    steps = []
    open_G = np.ones(len(rows_G), dtype=bool)
    while open_G.any():  # one step of every completion towards its launch
        steps.append((at_G, child_G, open_G))
        up_G = above_N[at_G]
        open_G = open_G & (at_G != launch_G) & (up_G != NOWHERE)
        at_G, child_G = np.where(open_G, up_G, at_G), np.where(open_G, above_child_N[at_G], child_G)
    return _count(nodes, rows_G, steps)


def _in_half(nodes: Nodes, half: int | None) -> Bool:
    if half is None:
        return np.ones(len(nodes.group_half_G), dtype=bool)
    return np.asarray(nodes.group_half_G == half)


def _count(nodes: Nodes, rows_G: Int, steps: Sequence[tuple[Int, Int, Bool]]) -> Counts:
    """Add the groups' counts to the children they name."""
    n_NK = np.zeros(nodes.token_NK.shape, dtype=np.int64)
    n_success_NK = np.zeros(nodes.token_NK.shape, dtype=np.int64)
    for node_G, child_G, counted_G in steps:
        at = node_G[counted_G], child_G[counted_G]
        np.add.at(n_NK, at, nodes.group_n_G[rows_G][counted_G])
        np.add.at(n_success_NK, at, nodes.group_n_success_G[rows_G][counted_G])
    return Counts(n_NK, n_success_NK)


def _exit_child(nodes: Nodes, rows_G: Int) -> Int:
    """Column of the child by which each group left; -1 for a path's end, unnamed, that two children, or none, lead to."""
    node_G, token_G = nodes.group_exit_node_G[rows_G], nodes.group_exit_token_G[rows_G]
    kind_GK = nodes.kind_NK[node_G]
    ended_G = token_G <= PATH_END_TOKEN
    to_end_GK = (kind_GK == ChildKind.ON_PATH) & (nodes.next_NK[node_G] == NOWHERE)
    taken_G = PATH_END_TOKEN - 1 - token_G  # what `path_end` was given
    to_end_GK &= (token_G == PATH_END_TOKEN)[:, None] | (nodes.token_NK[node_G] == taken_G[:, None])
    named_GK = (nodes.token_NK[node_G] == token_G[:, None]) & (kind_GK != ChildKind.ABSENT)
    match_GK = np.where(ended_G[:, None], to_end_GK, named_GK)
    matches_G = match_GK.sum(axis=1)
    lost = np.flatnonzero((matches_G != 1) & ~ended_G)
    if lost.size:
        g = lost[0]
        raise ValueError(
            f"Group {rows_G[g]} of completions leaves node {node_G[g]} by token {token_G[g]}, "
            f"which names {matches_G[g]} of its children; it must name one."
        )
    return np.where(matches_G == 1, match_GK.argmax(axis=1) if match_GK.size else 0, -1)


def tree_of(nodes: Nodes) -> tuple[Int, Int, Sequence[Int]]:
    """For each node the node and child above it, and the rows level by level, roots first."""
    follows_NK = (nodes.kind_NK == ChildKind.ON_PATH) & (nodes.next_NK != NOWHERE)
    node_E, child_E = np.nonzero(follows_NK)
    next_E = nodes.next_NK[follows_NK]
    above_N, above_child_N = np.full(len(nodes), NOWHERE), np.full(len(nodes), NOWHERE)
    above_N[next_E], above_child_N[next_E] = node_E, child_E
    levels: list[Int] = []
    level = np.flatnonzero(above_N == NOWHERE)
    while level.size and len(levels) <= len(nodes):
        levels.append(level)
        level = nodes.next_NK[level][follows_NK[level]]
    if sum(map(len, levels)) != len(nodes):
        raise ValueError("A node of this table follows two children or itself; each must follow one child of the node above.")
    return above_N, above_child_N, levels


# What a back-up carries, the axis I: eight sums over strata, some with weights w_s, some with w_s^2 (_POWER_I). The
# last five belong to the intervals, where every stratum is smoothed by a pseudo-count m at v, the value whose interval
# is wanted: q~_s = (S_s + m v)/(N_s + m) = a_s + b_s v. Value and variance are then polynomials in v.
_VALUE, _VARIANCE, _INVERSE_N, _A, _B, _C0, _C1, _C2 = range(8)
_POWER_I = np.array([1, 2, 2, 1, 1, 2, 2, 2])


def _stratum_terms(counts: Counts, m: float) -> Array:
    """What one stratum of weight 1 contributes: [N, K, I], NaN where it has no completion."""
    N, S = counts.n_NK.astype(np.float64), counts.n_success_NK.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        q = S / N
        # One completion says nothing of its own variance: the largest there is.
        variance = np.where(N == 1, 0.25, q * (1.0 - q) / (N - 1.0))
        a, b = S / (N + m), m / (N + m)
        smoothed = (a * (1.0 - a) / N, b * (1.0 - 2.0 * a) / N, -b * b / N)  # q~(1 - q~)/N in powers of v
        terms_NKI = np.stack([q, variance, 1.0 / N, a, b, *smoothed], axis=-1)
    return np.where((N > 0)[..., None], terms_NKI, np.nan)


def _exact_terms(nodes: Nodes) -> Array:
    """What an exact outcome contributes: [N, K, I], NaN where there is none."""
    known_NK = (nodes.outcome_NK != UNKNOWN_OUTCOME) & (
        (nodes.kind_NK == ChildKind.END) | ((nodes.kind_NK == ChildKind.ON_PATH) & (nodes.next_NK == NOWHERE))
    )
    terms_NKI = np.zeros((*nodes.token_NK.shape, len(_POWER_I)))
    terms_NKI[..., _VALUE] = terms_NKI[..., _A] = nodes.outcome_NK
    return np.where(known_NK[..., None], terms_NKI, np.nan)


def _back_up(nodes: Nodes, counts: Counts, ahead_NK: Array, own_NK: Array, pseudo_count: float) -> tuple[Array, Array]:
    """The eight sums of every child and of every node, level by level from the deepest up."""
    present_NK = nodes.kind_NK != ChildKind.ABSENT
    P_NK = np.where(present_NK, np.exp(nodes.logprob_NK.astype(np.float64)), 0.0)
    weight_NKX = np.stack([ahead_NK, own_NK], axis=-1)
    stratum_NKI, exact_NKI = _stratum_terms(counts, pseudo_count), _exact_terms(nodes)
    child_NKI = np.full_like(stratum_NKI, np.nan)
    node_NI = np.full((len(nodes), len(_POWER_I)), np.nan)
    for level in reversed(tree_of(nodes)[2]):
        follows_nK = (nodes.kind_NK[level] == ChildKind.ON_PATH) & (nodes.next_NK[level] != NOWHERE)
        ahead_nKI = np.where(follows_nK[..., None], node_NI[nodes.next_NK[level]], exact_NKI[level])
        parts_nKXI = np.stack([ahead_nKI, stratum_NKI[level]], axis=-2)
        child_NKI[level] = np.where(present_NK[level, :, None], _weigh(parts_nKXI, weight_NKX[level]), np.nan)
        node_NI[level] = _weigh(child_NKI[level], P_NK[level])
    node_NI[np.abs(P_NK.sum(axis=1) - 1.0) > MASS_TOLERANCE] = np.nan
    return child_NKI, node_NI


def _weigh(parts_XI: Array, weight_X: Array) -> Array:
    """sum_x weight_x parts_x (or weight_x^2) over the parts that are known; NaN unless the others are negligible."""
    known_X = ~np.isnan(parts_XI[..., _VALUE])
    known_weight_X = np.where(known_X, weight_X, 0.0)
    lost = np.where(known_X, 0.0, weight_X).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_XI = (known_weight_X / known_weight_X.sum(axis=-1, keepdims=True))[..., None] ** _POWER_I
    sums_I = (share_XI * np.where(known_X[..., None], parts_XI, 0.0)).sum(axis=-2)
    return np.where((lost < NEGLIGIBLE)[..., None], sums_I, np.nan)


def _smoothed(child_NKI: Array, v: Array) -> tuple[Array, Array]:
    """q~ and var~ with every stratum smoothed at v; at 0 and 1, where both may vanish, from close by."""
    v = np.clip(v, 1e-6, 1.0 - 1e-6)
    q_smoothed = child_NKI[..., _A] + child_NKI[..., _B] * v
    return q_smoothed, child_NKI[..., _C0] + child_NKI[..., _C1] * v + child_NKI[..., _C2] * v * v


def _interval(child_NKI: Array, level: float) -> tuple[Array, Array]:
    """Beta(q n + 1/2, (1-q) n + 1/2) with n = q~(1-q~)/var~, the effective count of the smoothed variance.

    For a single stratum n is its number of completions: the Jeffreys interval. Its ends are 0 where every completion
    failed and 1 where every one succeeded. An exact value is a point.
    """
    q = child_NKI[..., _VALUE]
    q_smoothed, var_smoothed = _smoothed(child_NKI, q)
    exact = child_NKI[..., _INVERSE_N] == 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        n = np.clip(q_smoothed * (1.0 - q_smoothed) / var_smoothed, 0.0, 1e8)
    n = np.where(exact, np.nan, n)
    low = np.where(q <= 1e-12, 0.0, beta_quantile(0.5 - level / 2.0, q * n + 0.5, (1.0 - q) * n + 0.5))
    high = np.where(q >= 1.0 - 1e-12, 1.0, beta_quantile(0.5 + level / 2.0, q * n + 0.5, (1.0 - q) * n + 0.5))
    return np.where(exact, q, low), np.where(exact, q, high)
