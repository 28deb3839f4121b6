"""Scores of every node, teacher and objective: alignment, gain and advantage, from a `Nodes` table alone.

Any objective, support, estimator and threshold is an expression over the table; nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from compute.alignment import SUPPORTS, Support, cosine, cut, gain, gain_se, ideal_gradient, lump, renormalise, teacher_advantage
from compute.estimators import Estimates, Estimator, estimate
from compute.objectives import parse
from compute.updates import update
from store.schema import ChildKind
from store.tables import Nodes

Array = NDArray[np.float64]

#: A success-rate range below this is rounding.
SAME_RATE = 1e-9


class Scores(Struct, frozen=True):
    """What is said of every node. NaN where it is no decision point, or where one of the two vectors is zero or unknown."""

    teachers: tuple[str, ...]  #: the axis M
    objectives: tuple[str, ...]  #: the axis O, as `compute.objectives.parse` spells them
    support: Support
    estimates: Estimates
    ideal_NK: Array  #: g over the kept children, NaN elsewhere; lumped: the coordinate more is minus their sum
    success_rate_range_N: Array  #: SR: max - min of p_succ over the kept children; NaN where none is kept
    n_kept_N: NDArray[np.int64]  #: |S_u|
    decision_point_N: NDArray[np.bool_]  #: two kept children or more, and SR > 0
    update_MONK: Array  #: d over the kept children, as ideal_NK
    alignment_MON: Array  #: cosine of g and d
    gain_MON: Array  #: <g, d> / |d|
    gain_se_MON: Array  #: its exact standard error
    advantage_MN: Array  #: Adv, renormalised over the kept children whatever the support


def score(
    nodes: Nodes,
    *,
    n_sig: float,
    support: Support = "sliced",
    estimator: Estimator = "backup",
    half: int | None = None,
    objectives: Sequence[str] | None = None,
    level: float | None = 0.95,
) -> Scores:
    """Score all nodes of a table under the study's objectives, or under any others (method.md 1-4).

    Others than the study's take a table that was read with ``whole=True``. The updates of `dr_grpo` and `minillm` are
    estimated from the completions that also give p_succ: noise counts as agreement there, so their gain is not unbiased and
    its `gain_se` not exact. `level` is that of the intervals of p_succ, which take four fifths of the time; None: without.

    Raises ValueError for an unknown support, estimator or objective, and for a table that lacks what one takes.
    """
    estimates = estimate(nodes, n_sig=n_sig, estimator=estimator, half=half, level=level)
    return score_estimates(nodes, estimates, support=support, objectives=objectives)


def score_estimates(
    nodes: Nodes, estimates: Estimates, *, support: Support = "sliced", objectives: Sequence[str] | None = None
) -> Scores:
    """Score all nodes from estimates that are there already: another half's, or the truth where it is known."""
    if support not in SUPPORTS:
        raise ValueError(f"Unknown support {support!r}; allowed: {', '.join(SUPPORTS)}.")
    kept_NK = estimates.kept_NK
    p_NK = cut(estimates.p_succ_NK, kept_NK)
    range_N, n_kept_N = _success_rate_range(p_NK, kept_NK), kept_NK.sum(axis=1)
    decision_point_N = (n_kept_N >= 2) & (range_N > SAME_RATE)

    student_NK = over_support(nodes, nodes.logprob_NK, kept_NK, support)
    teacher_MNK = over_support(nodes, nodes.teacher_logprob_MNK, kept_NK, support)
    if support == "renormalised":
        ideal_NK = ideal_gradient(student_NK, p_NK)
    else:
        ideal_NK = ideal_gradient(student_NK, p_NK, value=estimates.value_N)

    spellings = [parse(name) for name in (nodes.objectives if objectives is None else objectives)]
    update_MONK = np.full((len(nodes.teachers), len(spellings), *kept_NK.shape), np.nan)
    for o, spelling in enumerate(spellings):
        update_MONK[:, o] = cut(update(nodes, spelling, student_NK, teacher_MNK, estimates, support), kept_NK)

    whole_MONK, whole_NK = (lump(update_MONK), lump(ideal_NK)) if support == "lumped" else (update_MONK, ideal_NK)
    alignment_MON = np.where(decision_point_N, cosine(whole_NK, whole_MONK), np.nan)
    gain_MON = np.where(decision_point_N, gain(whole_NK, whole_MONK), np.nan)
    gain_se_MON = gain_se(student_NK, update_MONK, estimates.variance_NK, support)
    return Scores(
        teachers=nodes.teachers,
        objectives=tuple(map(str, spellings)),
        support=support,
        estimates=estimates,
        ideal_NK=ideal_NK,
        success_rate_range_N=range_N,
        n_kept_N=n_kept_N,
        decision_point_N=decision_point_N,
        update_MONK=update_MONK,
        alignment_MON=alignment_MON,
        gain_MON=gain_MON,
        gain_se_MON=np.where(np.isnan(gain_MON), np.nan, gain_se_MON),
        advantage_MN=np.where(decision_point_N, teacher_advantage(student_NK, teacher_MNK, p_NK), np.nan),
    )


def over_support(nodes: Nodes, logprob_NK: ArrayLike, kept_NK: NDArray[np.bool_], support: Support) -> Array:
    """Log-probabilities of the node's children, `renormalised` over the kept ones; NaN elsewhere. Broadcasts over teachers."""
    if support == "renormalised":
        return renormalise(cut(logprob_NK, nodes.kind_NK != ChildKind.ABSENT), kept_NK)
    return cut(logprob_NK, nodes.kind_NK != ChildKind.ABSENT)


def _success_rate_range(p_NK: Array, kept_NK: NDArray[np.bool_]) -> Array:
    highest_N = np.max(p_NK, axis=1, where=kept_NK, initial=-np.inf)
    lowest_N = np.min(p_NK, axis=1, where=kept_NK, initial=np.inf)
    return np.where(kept_NK.any(axis=1), highest_N - lowest_N, np.nan)
