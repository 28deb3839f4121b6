"""What a whole study says of each teacher: means over questions, beside what a teacher without direction would get.

Questions are the unit (method.md 4): decision points are averaged over a path, paths over a question, and the mean
over questions carries a t interval; a ratio of such means carries a jackknife-t interval. For one objective and
outcome all teachers are compared on the same questions: those in which every one of them that is scored at all has a
score. Nodes shared by two paths count on both.

Beside the raw mean cosine, which counting noise draws towards zero and skews, stand the mean gain, the pooled cosine
and the cosine corrected by the split-half reliability. What the raw cosine alone shows deserves distrust.

The sign-flipped null of a teacher is its own scores with a random sign per node: no direction at all, the same
spread. Its true mean is exactly zero.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute.averages import OUTCOMES, Averages, Outcome, shared_questions
from compute.halves import Halves, corrected, pooled, squared_norm
from compute.scores import Scores
from compute.statistics import Interval, jackknife_t, sign_flip_tests, t_interval
from store.tables import Nodes, Paths

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One teacher under one objective, over the paths of one outcome."""

    teacher: str
    objective: str
    outcome: Outcome  #: of the rollouts that are averaged
    null: bool  #: earns nothing of itself: the sign-flipped null of the teacher, or a teacher named as a null
    alignment: Interval  #: the raw mean cosine
    gain: Interval
    pooled: Interval  #: mean gain / sqrt(mean(|g|^2 - tr Cov)), which noise does not shrink; see `compute.halves.pooled`
    reliability: Interval  #: r, the cosine between the ideal gradients of the two halves; NaN without halves
    corrected: Interval  #: raw mean / sqrt(2r/(1+r)); approximate
    share_positive: Interval  #: of the decision points, how many have alignment > 0; averaged as alignment is
    sr_weighted: Interval  #: sum(SR cos) / sum(SR), SR the success-rate range
    advantage: Interval
    p_alignment: float  #: two-sided sign-flip test over questions: is the mean alignment zero
    p_gain: float  #: the same of gain
    n_questions: int
    n_decision_points: int  #: each once, though it lie on two paths


@dataclass(frozen=True, slots=True)
class Summary:
    """Rows in the order objective, outcome, then teacher in the study's order, each followed by its flipped null."""

    rows: tuple[SummaryRow, ...]


def summarise(
    nodes: Nodes,
    paths: Paths,
    scores: Scores,
    *,
    null_teachers: Collection[str] = (),
    seed: int = 0,
    halves: Halves | None = None,
    min_children: int = 2,
) -> Summary:
    """Means over questions per objective, outcome and teacher.

    `null_teachers` names teachers that are nulls themselves: their rows are marked so, and have no flipped null.
    `halves` (from `compute.halves.split`) gives the split-half columns. `min_children` 3 leaves out the nodes with
    two kept children. `scores` may lack all but alignment and gain; what needs more is then NaN.
    """
    averages = Averages.of(paths)
    measures = _Measures(nodes, scores, halves, min_children)
    sign_MN = flip_signs(len(scores.teachers), len(nodes), seed)
    rows = []
    for o, objective in enumerate(scores.objectives):
        alignment_MN = measures.alignment_MON[:, o]
        means_MCL = [averages.over_paths(measures.of(m, o)[:, paths.node_P]) for m in range(len(scores.teachers))]
        flipped_MCL = [
            None if teacher in null_teachers else averages.over_paths(measures.of(m, o, sign_MN[m])[:, paths.node_P])
            for m, teacher in enumerate(scores.teachers)
        ]
        for outcome in OUTCOMES:
            means_MCQ = [averages.over_questions(mean_CL, outcome) for mean_CL in means_MCL]
            shared_Q = shared_questions(np.array([np.isfinite(mean_CQ[_ALIGNMENT]) for mean_CQ in means_MCQ]))
            found: list[tuple[int, bool, Array]] = []
            for m, teacher in enumerate(scores.teachers):
                found.append((m, teacher in null_teachers, means_MCQ[m][:, shared_Q]))
                flipped_CL = flipped_MCL[m]
                if flipped_CL is not None:
                    found.append((m, True, averages.over_questions(flipped_CL, outcome)[:, shared_Q]))
            p_XC = _sign_flips([mean_CQ for _, _, mean_CQ in found])
            for (m, null, mean_CQ), p_C in zip(found, p_XC, strict=True):
                n_points = _n_decision_points(alignment_MN[m], averages, outcome, shared_Q)
                rows.append(_row((scores.teachers[m], objective, outcome, null), mean_CQ, p_C, n_points))
    return Summary(tuple(rows))


def flip_signs(n_teachers: int, n_nodes: int, seed: int) -> Array:
    """Signs of the flipped nulls, one per teacher and node: under every objective and on every path the same. [M, N]."""
    signs = [np.random.default_rng([seed, m]).choice((-1.0, 1.0), n_nodes) for m in range(n_teachers)]
    return np.reshape(signs, (n_teachers, n_nodes))


# Columns of measures that are averaged together, the axis C.
_ALIGNMENT, _GAIN, _POSITIVE, _ADVANTAGE, _SR_ALIGNMENT, _SR, _SQUARED, _AGREEMENT = range(8)


class _Measures:
    """Numbers per node that the rows are means of; NaN where the teacher has no score."""

    def __init__(self, nodes: Nodes, scores: Scores, halves: Halves | None, min_children: int) -> None:
        nothing_N = np.full(len(nodes), np.nan)
        whole = len(scores.n_kept_N) == len(nodes)
        # Every decision point has two children.
        counted_N = scores.n_kept_N >= min_children if min_children > 2 else True
        self.alignment_MON = np.where(counted_N, scores.alignment_MON, np.nan)
        self._gain_MON = np.where(counted_N, scores.gain_MON, np.nan)
        self._range_N = scores.success_rate_range_N if whole else nothing_N
        self._advantage_MN = scores.advantage_MN if whole else np.tile(nothing_N, (len(scores.teachers), 1))
        self._squared_N = squared_norm(nodes, scores) if whole else nothing_N
        self._agreement_N = halves.agreement_N if halves else nothing_N

    def of(self, m: int, o: int, sign_N: Array | None = None) -> Array:
        """The columns of one teacher and objective, with a sign per node for its flipped null: [C, N]."""
        sign_N = np.ones_like(self._range_N) if sign_N is None else sign_N
        alignment_N, gain_N = sign_N * self.alignment_MON[m, o], sign_N * self._gain_MON[m, o]
        scored_N = np.isfinite(alignment_N)
        columns = {
            _ALIGNMENT: alignment_N,
            _GAIN: gain_N,
            _POSITIVE: (alignment_N > 0.0).astype(np.float64),
            _ADVANTAGE: sign_N * self._advantage_MN[m],
            _SR_ALIGNMENT: self._range_N * alignment_N,
            _SR: self._range_N,
            _SQUARED: self._squared_N,
            _AGREEMENT: self._agreement_N,
        }
        return np.where(scored_N, np.stack([columns[c] for c in range(len(columns))]), np.nan)


def _sign_flips(means_XCQ: Sequence[Array]) -> Array:
    """p-values of alignment and gain of every row: [X, 2]."""
    tested = [mean_CQ[c] for mean_CQ in means_XCQ for c in (_ALIGNMENT, _GAIN)]
    return np.reshape(sign_flip_tests(tested) if tested else [], (-1, 2))


def _row(name: tuple[str, str, Outcome, bool], mean_CQ: Array, p_C: Array, n_decision_points: int) -> SummaryRow:
    teacher, objective, outcome, null = name
    return SummaryRow(
        teacher=teacher,
        objective=objective,
        outcome=outcome,
        null=null,
        alignment=t_interval(mean_CQ[_ALIGNMENT], bound=1.0),
        gain=t_interval(mean_CQ[_GAIN]),
        pooled=jackknife_t(mean_CQ[[_GAIN, _SQUARED]].T, pooled),
        reliability=t_interval(mean_CQ[_AGREEMENT]),
        corrected=jackknife_t(mean_CQ[[_ALIGNMENT, _AGREEMENT]].T, corrected),
        share_positive=t_interval(mean_CQ[_POSITIVE]),
        sr_weighted=jackknife_t(mean_CQ[[_SR_ALIGNMENT, _SR]].T, ratio),
        advantage=t_interval(mean_CQ[_ADVANTAGE]),
        p_alignment=float(p_C[0]),
        p_gain=float(p_C[1]),
        n_questions=mean_CQ.shape[1],
        n_decision_points=n_decision_points,
    )


def ratio(mean_C: Array) -> Array:
    """The first mean over the second: [.., 2] -> [..]; NaN where the second is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(mean_C[..., 1] != 0.0, mean_C[..., 0] / mean_C[..., 1], np.nan), dtype=np.float64)


def _n_decision_points(alignment_N: Array, averages: Averages, outcome: Outcome, shared_Q: Bool) -> int:
    """How many different scored nodes lie on the paths of the outcome, in the shared questions."""
    counted_P = (averages.of_outcome(outcome) & shared_Q[averages.question_L])[averages.path_P]
    node_P = np.unique(averages.node_P[counted_P])
    return int(np.isfinite(alignment_N[node_P]).sum())
