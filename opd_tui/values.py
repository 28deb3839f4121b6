"""The numbers behind the colours: every metric at every token of a page, and how sure its signs are.

Imported after the first paint, as `opd_tui.pages`, which it serves. Axes as in `store.tables`.
"""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from compute.scores import Scores
from opd_tui.metrics import Metric
from opd_tui.palette import Scale
from opd_tui.text import Safe
from store.schema import DIVERGENCES
from store.tables import Nodes, Rollout
from store.teacher_topk import TopK

if TYPE_CHECKING:
    from compute.posterior import Prior
    from opd_tui.pages import RolloutPage

Array = NDArray[np.floating[Any]]

KL_STUDENT_TEACHER, KL_TEACHER_STUDENT, JS = (
    DIVERGENCES.index(name) for name in ("kl_student_teacher", "kl_teacher_student", "js")
)


class Sure(Struct, frozen=True, eq=False):
    """How sure the scores of a question's nodes are, under one teacher and objective. NaN where nobody can tell."""

    p_positive_N: Array  #: P(alignment > 0)
    reliability_N: Array  #: expected cosine between the estimated gradient and the true one
    low_N: Array  #: ends of the 95 % interval of the alignment
    high_N: Array


def sureness(nodes: Nodes, scores: Scores, teacher: int, objective: int, prior: Prior | None) -> Sure:
    """What the study's `prior` says; NaN everywhere where there is none, or one of other teachers and objectives."""
    unknown_N = np.full(len(nodes), nan)
    if prior is None or (prior.teachers, prior.objectives) != (scores.teachers, scores.objectives):  # one came meanwhile
        return Sure(unknown_N, unknown_N, unknown_N, unknown_N)
    from compute.posterior import posterior  # a first page has no prior yet, and is not to wait for it

    teachers, objectives = (scores.teachers[teacher],), (scores.objectives[objective],)
    at = np.s_[teacher : teacher + 1, objective : objective + 1]
    found = posterior(
        nodes,
        replace(
            scores,
            teachers=teachers,
            objectives=objectives,
            alignment_MON=scores.alignment_MON[at],
            update_MONK=scores.update_MONK[at],
        ),
        replace(
            prior,
            teachers=teachers,
            objectives=objectives,
            kappa_MO=prior.kappa_MO[at],
            positive_MOS=prior.positive_MOS[at],
            calibrated_MO=prior.calibrated_MO[at],
        ),
    )
    if not found.calibrated_MO[0, 0]:
        return Sure(unknown_N, found.reliability_N, unknown_N, unknown_N)
    return Sure(found.p_positive_MON[0, 0], found.reliability_N, found.cosine_low_MON[0, 0], found.cosine_high_MON[0, 0])


def values(page: RolloutPage, metric: Metric, teacher: int, objective: int, second: int | None, sure: Sure) -> Array:
    """`metric` at every token of `page`: [T]. `second`: the teacher that the current one is held against."""
    found = _of_tokens(page.rollout, metric.key, teacher)
    if found is not None:
        return found
    return _at_nodes(page, _of_nodes(page, metric.key, teacher, objective, second, sure))


def _of_tokens(rollout: Rollout, key: str, teacher: int) -> Array | None:
    """Metrics that every token has; None for the others."""
    divergence_TD: Array = rollout.divergence_TMD[:, teacher]
    match key:
        case "log-ratio":
            return np.asarray(rollout.teacher_logprob_TM[:, teacher] - rollout.logprob_T)
        case "kl-student-teacher":
            return divergence_TD[:, KL_STUDENT_TEACHER]
        case "kl-teacher-student":
            return divergence_TD[:, KL_TEACHER_STUDENT]
        case "js":
            return divergence_TD[:, JS]
        case "teacher-entropy":
            return np.asarray(rollout.teacher_entropy_TM[:, teacher])
        case "student-entropy":
            return rollout.entropy_T
        case "entropy-difference":
            return np.asarray(rollout.teacher_entropy_TM[:, teacher].astype(np.float64) - rollout.entropy_T)
        case "overlap":
            return overlap(rollout, teacher)
        case "student-logprob":
            return rollout.logprob_T
        case _:
            return None


def _of_nodes(page: RolloutPage, key: str, teacher: int, objective: int, second: int | None, sure: Sure) -> Array:
    """Metrics that only nodes have: [N]."""
    scores = page.scores
    alignment_ON: Array = scores.alignment_MON[teacher]
    gain_ON: Array = scores.gain_MON[teacher]
    match key:
        case "alignment":
            return np.asarray(alignment_ON[objective])
        case "gain":
            return np.asarray(gain_ON[objective])
        case "p-positive":
            return sure.p_positive_N
        case "reliability":
            return sure.reliability_N
        case "alignment-difference" if second is not None:
            return np.asarray(alignment_ON[objective] - scores.alignment_MON[second, objective])
        case "best-teacher":
            return best_teacher(scores, objective)
        case "advantage":
            return np.asarray(scores.advantage_MN[teacher])
        case "p-succ":
            return _taken_success(page)
        case _:
            return np.full(len(page.nodes), nan)


def overlap(rollout: Rollout, teacher: int, tokens: slice = slice(None), top: TopK | None = None) -> Array:
    """Share of the student's most likely tokens that are among the teacher's as well; NaN where the teacher was not asked.

    `top`: the teacher's at these tokens, where they are at hand.
    """
    student_TC = rollout.topk_token_id_TC[tokens]
    n_T = rollout.teacher_topk_n_TM[tokens, teacher]
    top = rollout.teacher_topk(teacher, tokens) if top is None else top
    teacher_TC = np.where(np.arange(top.token_id_TC.shape[1]) < n_T[:, None], top.token_id_TC, -1)
    shared_TC = (student_TC[:, :, None] == teacher_TC[:, None, :]).any(axis=2) & (student_TC >= 0)
    n_student_T = (student_TC >= 0).sum(axis=1)
    known_T = (n_T > 0) & (n_student_T > 0)
    return np.where(known_T, shared_TC.sum(axis=1) / np.maximum(n_student_T, 1), nan)


def best_teacher(scores: Scores, objective: int) -> Array:
    """Which teacher has the highest alignment at each node, the first of those that share it; NaN where none has one: [N]."""
    alignment_MN = scores.alignment_MON[:, objective]
    there_N = np.isfinite(alignment_MN).any(axis=0)
    best_N = np.where(np.isfinite(alignment_MN), alignment_MN, -np.inf).argmax(axis=0)
    return np.where(there_N, best_N.astype(float), nan)


def _at_nodes(page: RolloutPage, value_N: Array) -> Array:
    values_T = np.full(page.n_tokens, nan)
    values_T[list(page.row_of)] = value_N[list(page.row_of.values())]
    return values_T


def _taken_success(page: RolloutPage) -> Array:
    """Success after the child that the rollout took, at each of its nodes."""
    found_N = np.full(len(page.nodes), nan)
    for position, row in page.row_of.items():
        taken_K = page.nodes.token_NK[row] == page.rollout.token_id_T[position]
        if taken_K.any():
            found_N[row] = page.scores.estimates.p_succ_NK[row, int(taken_K.argmax())]
    return found_N


def scale_of(metric: Metric, values_T: Array, teachers: tuple[Safe, ...]) -> Scale:
    """The metric's own scale, or one that leaves the outermost two in a hundred values to its ends."""
    if metric.categorical:
        return Scale(0.0, max(len(teachers) - 1.0, 1.0), diverging=False, names=teachers)
    finite = values_T[np.isfinite(values_T)]
    if metric.limit is not None:
        low = metric.middle * 2.0 - metric.limit if metric.diverging else 0.0
        return Scale(low, metric.limit, metric.diverging)
    if not len(finite):
        return Scale(-1.0 if metric.diverging else 0.0, 1.0, metric.diverging)
    if metric.diverging:
        limit = float(np.quantile(np.abs(finite), 0.98)) or 1.0
        return Scale(-limit, limit, diverging=True)
    low, high = (float(end) for end in np.quantile(finite, (0.02, 0.98)))
    return Scale(low, high if high > low else low + 1.0, diverging=False)
