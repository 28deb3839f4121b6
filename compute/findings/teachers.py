"""Findings about the teachers as such: who is best, on correct or on incorrect rollouts, and how far scores spread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compute.averages import Outcome
from compute.evidence import Evidence
from compute.findings.shape import BOUNDS, MEANS, Finding, FindingRow, comparable, mean_rows, scored
from compute.halves import pooled, squared_norm
from compute.statistics import MIN_QUESTIONS, Interval, jackknife_t, sign_flip_tests, t_interval
from compute.summary import ratio, summarise

Array = NDArray[np.float64]

#: Group of a teacher's own scores with random signs, whose true mean is zero.
FLIPPED = "sign-flipped"
#: A difference holds where its sign-flip test is below this.
SIGNIFICANT = 0.05
BOOTSTRAP_DRAWS = 4000
COSINE_ONLY = (
    "The difference holds for the cosine only, not for gain: counting noise alone, skewed and seen through a cosine, "
    "can make one of this size."
)


def teacher_ranking(evidence: Evidence, *, outcome: Outcome = "all", min_children: int = 2, seed: int = 0) -> Finding:
    """Which teacher is best: means over questions, by falling gain, with the nulls after them.

    `probability_best` is the share of Bayesian bootstrap draws over questions in which the teacher's mean gain is the
    largest of all that are no nulls.
    """
    summary = summarise(
        evidence.nodes,
        evidence.paths,
        evidence.scores,
        null_teachers=evidence.null_teachers,
        halves=evidence.halves,
        min_children=min_children,
        seed=seed,
    )
    counted_P = evidence.scores.n_kept_N[evidence.paths.node_P] >= min_children
    best = {
        one.objective: _probability_best(evidence, np.where(counted_P, one.alignment_MP, np.nan), one.gain_MP, outcome, seed)
        for one in scored(evidence)
    }
    rows = []
    for row in summary.rows:
        if row.outcome != outcome:
            continue
        flipped = row.null and row.teacher not in evidence.null_teachers
        names = ("alignment", "gain", "pooled", "corrected", "reliability", "share_positive", "sr_weighted", "advantage")
        numbers = {
            "p_alignment": row.p_alignment,
            "p_gain": row.p_gain,
            "n_questions": row.n_questions,
            "n_decision_points": row.n_decision_points,
        }
        if not row.null:
            numbers["probability_best"] = best[row.objective].get(row.teacher, float("nan"))
        rows.append(
            FindingRow(
                teacher=row.teacher,
                objective=row.objective,
                group=FLIPPED if flipped else "",
                null=row.null,
                intervals={name: getattr(row, name) for name in names},
                numbers=numbers,
            )
        )
    order = list(evidence.scores.objectives)
    rows.sort(key=lambda row: (order.index(row.objective), row.null, -np.nan_to_num(row.intervals["gain"].mean, nan=-np.inf)))
    return Finding("teacher_ranking", "Which teacher moves the student towards success", tuple(rows))


def _probability_best(evidence: Evidence, alignment_MP: Array, gain_MP: Array, outcome: Outcome, seed: int) -> dict[str, float]:
    averages = evidence.averages
    shared_Q = comparable(averages, alignment_MP, outcome)
    gain_MQ = averages.question_means(np.where(np.isfinite(alignment_MP), gain_MP, np.nan), outcome)[:, shared_Q]
    rows = [
        m
        for m, teacher in enumerate(evidence.scores.teachers)
        if teacher not in evidence.null_teachers and np.isfinite(gain_MQ[m]).all()
    ]
    if shared_Q.sum() < MIN_QUESTIONS or not rows:
        return {}
    weight_DQ = np.random.default_rng(seed).standard_exponential((BOOTSTRAP_DRAWS, int(shared_Q.sum())))
    winner_D = (weight_DQ @ gain_MQ[rows].T).argmax(axis=1)
    return {evidence.scores.teachers[m]: float(np.mean(winner_D == i)) for i, m in enumerate(rows)}


def correct_incorrect(evidence: Evidence) -> Finding:
    """Whether teachers help more on incorrect rollouts than on correct ones: paired by question.

    Group `whole paths` takes all nodes; `after the fork` leaves out those that a correct and an incorrect path of the
    question share. Differences are incorrect less correct. A row is flagged where the difference of mean cosines
    holds (sign-flip test below 0.05) and that of gains does not, or has another sign (method.md 4).
    """
    averages = evidence.averages
    shared_P = averages.both_outcomes()
    squared_P = squared_norm(evidence.nodes, evidence.scores)[averages.node_P]
    range_P = evidence.scores.success_rate_range_N[averages.node_P]
    rows = []
    for one in scored(evidence):
        for group, left_out_P in (("whole paths", np.zeros_like(shared_P)), ("after the fork", shared_P)):
            alignment_MP = np.where(left_out_P, np.nan, one.alignment_MP)
            compared_Q = comparable(averages, alignment_MP, "correct", "incorrect")
            means_M: list[tuple[Array, Array]] = []
            for m in range(len(alignment_MP)):
                columns_CP = np.stack([alignment_MP[m], one.gain_MP[m], squared_P, range_P * alignment_MP[m], range_P])
                columns_CL = averages.over_paths(np.where(np.isfinite(alignment_MP[m]), columns_CP, np.nan))
                correct_CQ, incorrect_CQ = (averages.over_questions(columns_CL, outcome) for outcome in ("correct", "incorrect"))
                means_M.append((correct_CQ[:, compared_Q], incorrect_CQ[:, compared_Q]))
            differences = [incorrect_CQ[c] - correct_CQ[c] for correct_CQ, incorrect_CQ in means_M for c in (0, 1)]
            p_MC = np.reshape(sign_flip_tests(differences) if differences else [], (-1, 2)).tolist()
            for teacher, (correct_CQ, incorrect_CQ), (p_alignment, p_gain) in zip(
                evidence.scores.teachers, means_M, p_MC, strict=True
            ):
                rows.append(
                    FindingRow(
                        teacher=teacher,
                        objective=one.objective,
                        group=group,
                        null=teacher in evidence.null_teachers,
                        intervals=_differences(correct_CQ, incorrect_CQ),
                        numbers={"p_alignment": p_alignment, "p_gain": p_gain, "n_questions": int(compared_Q.sum())},
                        flags=_cosine_only(correct_CQ, incorrect_CQ, p_alignment, p_gain),
                    )
                )
    return Finding("correct_incorrect", "Whether teachers help more on incorrect than on correct rollouts", tuple(rows))


def _differences(correct_CQ: Array, incorrect_CQ: Array) -> dict[str, Interval]:
    """Means of both outcomes and their paired difference; columns: alignment, gain, |g|^2 - tr Cov, SR cos, SR."""
    both_QC = np.concatenate([correct_CQ, incorrect_CQ]).T
    n = len(correct_CQ)
    found: dict[str, Interval] = {}
    for c, name in enumerate(MEANS):
        bound = BOUNDS[name]
        found[f"{name}_correct"] = t_interval(correct_CQ[c], bound=bound)
        found[f"{name}_incorrect"] = t_interval(incorrect_CQ[c], bound=bound)
        found[f"{name}_difference"] = t_interval(incorrect_CQ[c] - correct_CQ[c], bound=2.0 * bound)
    for name, statistic, c, d in (("pooled", pooled, 1, 2), ("sr_weighted", ratio, 3, 4)):
        found[f"{name}_correct"] = jackknife_t(both_QC[:, [c, d]], statistic)
        found[f"{name}_incorrect"] = jackknife_t(both_QC[:, [n + c, n + d]], statistic)

        def difference(mean_C: Array, statistic: Callable[[Array], Array] = statistic) -> Array:
            return statistic(mean_C[..., 2:]) - statistic(mean_C[..., :2])

        found[f"{name}_difference"] = jackknife_t(both_QC[:, [c, d, n + c, n + d]], difference)
    return found


def _cosine_only(correct_CQ: Array, incorrect_CQ: Array, p_alignment: float, p_gain: float) -> tuple[str, ...]:
    alignment, gain = (float(np.mean(incorrect_CQ[c] - correct_CQ[c])) if correct_CQ.size else 0.0 for c in (0, 1))
    holds = p_alignment < SIGNIFICANT
    return (COSINE_ONLY,) if holds and not (p_gain < SIGNIFICANT and alignment * gain > 0.0) else ()


def spread(evidence: Evidence) -> Finding:
    """How far single scores spread: the standard deviation of alignment over decision points, and between questions.

    The mean gain of the same nodes stands beside the mean.
    """
    averages = evidence.averages
    rows = []
    for one in scored(evidence):
        shared_Q = comparable(averages, one.alignment_MP)
        for m, teacher in enumerate(evidence.scores.teachers):
            alignment_P = one.alignment_MP[m]
            gain_P = np.where(np.isfinite(alignment_P), one.gain_MP[m], np.nan)
            mean_CQ = averages.question_means(np.stack([alignment_P, alignment_P**2, gain_P]))[:, shared_Q]
            between = float(np.std(mean_CQ[0], ddof=1)) if mean_CQ.shape[1] > 1 else float("nan")
            rows.append(
                FindingRow(
                    teacher=teacher,
                    objective=one.objective,
                    null=teacher in evidence.null_teachers,
                    intervals={
                        "mean": t_interval(mean_CQ[0], bound=1.0),
                        "gain": t_interval(mean_CQ[2]),
                        "std": jackknife_t(mean_CQ[:2].T, _std),
                    },
                    numbers={"std_between_questions": between, "n_questions": int(shared_Q.sum())},
                )
            )
    return Finding("spread", "How far the scores of single nodes spread", tuple(rows))


def _std(mean_C: Array) -> Array:
    return np.sqrt(np.maximum(mean_C[..., 1] - mean_C[..., 0] ** 2, 0.0))


def two_children(evidence: Evidence) -> Finding:
    """How many decision points have two kept children, where a cosine is close to a mere sign, and what they change.

    Group "" says the share; `two` and `three or more` give the means of each kind of node.
    """
    averages = evidence.averages
    n_kept_P = evidence.scores.n_kept_N[averages.node_P]
    decision_P = evidence.scores.decision_point_N[averages.node_P]
    share = t_interval(averages.question_means(np.where(decision_P, n_kept_P == 2, np.nan)))
    n_nodes = int(evidence.scores.decision_point_N.sum())
    rows = [FindingRow(intervals={"share": share}, numbers={"n_decision_points": n_nodes})]
    for one in scored(evidence):
        for group, of_group_P in (("two", n_kept_P == 2), ("three or more", n_kept_P > 2)):
            rows += mean_rows(evidence, one.objective, group, np.where(of_group_P, one.alignment_MP, np.nan), one.gain_MP)
    return Finding("two_children", "How many decision points have only two children, and what they change", tuple(rows))
