"""What a whole study says of each teacher: means over questions, beside what a teacher without direction would get.

Questions are the unit (method.md 4): decision points are averaged over a path, paths over a question, and the mean
over questions carries a t interval. For one objective and outcome all teachers are compared on the same questions:
those in which every one of them that is scored at all has a score. Nodes shared by two paths count on both.

The sign-flipped null of a teacher is its own scores with a random sign per node: no direction at all, the same
spread. Its true mean is exactly zero.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from compute.scores import Scores
from compute.statistics import Interval, t_interval
from store.tables import Int, Nodes, Paths

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]
Outcome = Literal["all", "correct", "incorrect"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One teacher under one objective, over the paths of one outcome."""

    teacher: str
    objective: str
    outcome: Outcome  #: of the rollouts that are averaged
    null: bool  #: earns nothing of itself: the sign-flipped null of the teacher, or a teacher named as a null
    alignment: Interval
    gain: Interval
    share_positive: float  #: of the decision points, how many have alignment > 0; averaged as alignment is
    n_questions: int
    n_decision_points: int  #: each once, though it lie on two paths


@dataclass(frozen=True, slots=True)
class Summary:
    """Rows in the order objective, outcome, then teacher in the study's order, each followed by its flipped null."""

    rows: tuple[SummaryRow, ...]


def summarise(nodes: Nodes, paths: Paths, scores: Scores, *, null_teachers: Collection[str] = (), seed: int = 0) -> Summary:
    """Means over questions of alignment and gain, per objective, outcome and teacher.

    `null_teachers` names teachers that are nulls themselves: their rows are marked so, and have no flipped null.
    """
    # One sign per teacher and node: a node has the same sign under every objective and on every path.
    sign_MN = [np.random.default_rng([seed, m]).choice((-1.0, 1.0), len(nodes)) for m in range(len(nodes.teachers))]
    rows = []
    for o, objective in enumerate(nodes.objectives):
        for outcome in OUTCOMES:
            chosen_L = _chosen(paths, outcome)
            scored_MQ = np.array([np.isfinite(_question_means(a_N, paths, chosen_L)) for a_N in scores.alignment_MON[:, o]])
            # A teacher without any score (it equals the student) has nothing to compare, and takes nothing from the others.
            shared_Q = np.asarray(scored_MQ[scored_MQ.any(axis=1)].all(axis=0), dtype=bool) & scored_MQ.any()
            for m, teacher in enumerate(nodes.teachers):
                alignment_N, gain_N = scores.alignment_MON[m, o], scores.gain_MON[m, o]
                n_points = _n_decision_points(alignment_N, paths, chosen_L, shared_Q)
                signs_and_null = [(np.ones(len(nodes)), teacher in null_teachers)]
                if teacher not in null_teachers:
                    signs_and_null.append((sign_MN[m], True))
                for sign_N, null in signs_and_null:
                    positive_N = np.where(np.isfinite(alignment_N), sign_N * alignment_N > 0.0, np.nan)
                    rows.append(
                        SummaryRow(
                            teacher=teacher,
                            objective=objective,
                            outcome=outcome,
                            null=null,
                            alignment=t_interval(_question_means(sign_N * alignment_N, paths, chosen_L)[shared_Q]),
                            gain=t_interval(_question_means(sign_N * gain_N, paths, chosen_L)[shared_Q]),
                            share_positive=t_interval(_question_means(positive_N, paths, chosen_L)[shared_Q]).mean,
                            n_questions=int(shared_Q.sum()),
                            n_decision_points=n_points,
                        )
                    )
    return Summary(tuple(rows))


def _chosen(paths: Paths, outcome: Outcome) -> Bool:
    """The paths of an outcome."""
    if outcome == "all":
        return np.ones(len(paths.correct_L), dtype=bool)
    return paths.correct_L if outcome == "correct" else ~paths.correct_L


def _path_P(paths: Paths) -> Int:
    """The path of every entry of `node_P`."""
    return np.repeat(np.arange(len(paths.question_L)), np.diff(paths.start_L1))


def _question_means(value_N: Array, paths: Paths, chosen_L: Bool) -> Array:
    """Means over nodes of a path, then over the chosen paths of a question: [Q], NaN where there is none.

    Q runs over the questions of `paths`, in order of their number.
    """
    numbers_Q, question_L = np.unique(paths.question_L, return_inverse=True)
    path_mean_L = _group_means(value_N[paths.node_P], _path_P(paths), len(paths.question_L))
    return _group_means(np.where(chosen_L, path_mean_L, np.nan), question_L, len(numbers_Q))


def _group_means(value: Array, group: Int, n_groups: int) -> Array:
    """The mean of the finite values of each group; NaN for a group without any."""
    finite = np.isfinite(value)
    total = np.bincount(group[finite], weights=value[finite], minlength=n_groups)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / np.bincount(group[finite], minlength=n_groups), dtype=np.float64)


def _n_decision_points(alignment_N: Array, paths: Paths, chosen_L: Bool, shared_Q: Bool) -> int:
    """How many different scored nodes lie on the chosen paths of the shared questions."""
    question_L = np.unique(paths.question_L, return_inverse=True)[1]
    counted_P = (chosen_L & shared_Q[question_L])[_path_P(paths)]
    node_P = np.unique(paths.node_P[counted_P])
    return int(np.isfinite(alignment_N[node_P]).sum())
