"""Findings about what choosing is worth, and about how the study counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute import objectives, rules
from compute.evidence import Evidence
from compute.findings.shape import Finding, FindingRow
from compute.selection import Selected, judge, judge_fitted
from compute.statistics import jackknife_t, t_interval
from store.schema import NOWHERE, ChildKind
from store.tables import Nodes

Array = NDArray[np.float64]

LUCK = "More than half of what this choice seems to add is luck: it is gone where those judge that did not choose."


def selection_gain(evidence: Evidence, *, seed: int = 0) -> Finding:
    """What choosing by scores is worth, split, beside what it seems to be worth unsplit.

    Groups: `alignment >= 0` of one teacher, and `best per study`, `best per question` and `best per node` among all
    that are no nulls, chosen by half of the completions and judged by the other; `fitted gate` of one teacher, fitted
    on half of the questions and judged on the others. Unsplit numbers are a warning, never a result.
    """
    teachers = [teacher for teacher in evidence.scores.teachers if teacher not in evidence.null_teachers]
    rows = []
    for objective in evidence.scores.objectives:
        if objectives.parse(objective).follows_completions:
            continue
        for teacher in teachers:
            rule, fit = rules.threshold(teacher, "alignment", 0.0), rules.fitted_gate(teacher)
            aligned = judge(evidence, rule, objective=objective, teachers=[teacher], seed=seed)
            gated = judge_fitted(evidence, fit, objective=objective, teachers=[teacher], seed=seed)
            rows += [_row(teacher, "alignment >= 0", aligned), _row(teacher, "fitted gate", gated)]
        for per in ("study", "question", "node") if len(teachers) > 1 else ():
            chosen = judge(evidence, rules.best_teacher(per), objective=objective, teachers=teachers, seed=seed)
            rows.append(_row("", f"best per {per}", chosen))
    return Finding("selection_gain", "What choosing nodes or teachers by their scores is worth", tuple(rows))


def _row(teacher: str, group: str, selected: Selected) -> FindingRow:
    split, everything, unsplit = selected.split, selected.everything, selected.unsplit
    seems_to_add = unsplit.gain.low > everything.gain.mean
    mostly_luck = selected.more_gain.mean < (unsplit.gain.mean - everything.gain.mean) / 2.0
    return FindingRow(
        teacher=teacher,
        objective=selected.objective,
        group=group,
        intervals={
            "gain_split": split.gain,
            "gain_unsplit": unsplit.gain,
            "gain_everything": everything.gain,
            "more_gain": selected.more_gain,
            "gain_over_all": selected.gain_over_all,
            "pooled_split": split.pooled,
            "pooled_unsplit": unsplit.pooled,
            "alignment_split": split.alignment,
            "alignment_unsplit": unsplit.alignment,
            "alignment_everything": everything.alignment,
            "more_alignment": selected.more_alignment,
            "share": selected.share,
        },
        notes=selected.notes,
        flags=(LUCK,) if seems_to_add and mostly_luck else (),
    )


def counting(evidence: Evidence) -> Finding:
    """How the study counted: gap mass, effective counts on and off the paths, children, truncated completions.

    Gap mass is the part of an on-path child that leaves the path before the next targeted node: the smaller it is, the
    more the back-up saves. Effective counts are harmonic means, as variances go with 1/n.
    """
    nodes, scores, averages = evidence.nodes, evidence.scores, evidence.averages
    estimates = scores.estimates
    on_path_NK = nodes.kind_NK == ChildKind.ON_PATH
    off_path_NK = nodes.kind_NK == ChildKind.CANDIDATE
    per_node = {
        "gap_mass": _mean_of_children(estimates.gap_mass_NK, on_path_NK),
        "kept_children": scores.n_kept_N.astype(np.float64),
        "decision_points": scores.decision_point_N.astype(np.float64),
    }
    intervals = {name: t_interval(averages.question_means(value_N[averages.node_P])) for name, value_N in per_node.items()}
    for name, of_kind_NK in (("effective_n_on_path", on_path_NK), ("effective_n_off_path", off_path_NK)):
        inverse_N = _mean_of_children(1.0 / estimates.effective_n_NK, of_kind_NK)
        intervals[name] = jackknife_t(averages.question_means(inverse_N[averages.node_P])[:, None], _inverse)
    intervals["truncated"] = t_interval(_truncated(nodes))
    numbers = {
        "n_nodes": len(nodes),
        "n_decision_points": int(scores.decision_point_N.sum()),
        "n_completions": int(nodes.group_n_G.sum()),
        "n_paths": len(averages.question_L),
        "n_questions": len(averages.numbers_Q),
    }
    return Finding("counting", "How the study counted", (FindingRow(intervals=intervals, numbers=numbers),))


def _mean_of_children(value_NK: Array, of_kind_NK: NDArray[np.bool_]) -> Array:
    """Mean over those children of a node whose value is finite: [N]."""
    counted_NK = of_kind_NK & np.isfinite(value_NK)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counted_NK, value_NK, 0.0).sum(axis=1) / counted_NK.sum(axis=1), dtype=np.float64)


def _inverse(mean_C: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / mean_C[..., 0], dtype=np.float64)


def _truncated(nodes: Nodes) -> Array:
    """Of every question, the share of its completions that were cut off at the length limit."""
    node_G = np.where(nodes.group_exit_node_G != NOWHERE, nodes.group_exit_node_G, nodes.group_launch_node_G)
    known_G = node_G != NOWHERE
    _, question_G = np.unique(nodes.question_N[node_G[known_G]], return_inverse=True)
    n_Q = np.bincount(question_G, nodes.group_n_G[known_G])
    truncated_Q = np.bincount(question_G, nodes.group_n_truncated_G[known_G])
    with np.errstate(invalid="ignore"):
        return np.asarray(truncated_Q / n_Q, dtype=np.float64)
