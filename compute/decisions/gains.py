"""Mean gains of questions, from all completions and from each half, over nodes that no outcome has chosen.

Gain is linear in p and so unbiased under noise (method.md 1), as long as outcomes do not say which nodes are averaged:
here every node with two kept children counts, whether its rates turned out equal or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute.alignment import gain, lump
from compute.averages import Averages, shared_questions
from compute.evidence import Evidence
from compute.halves import squared_norm
from compute.objectives import parse

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gains:
    """Questions that all teachers share. V: all completions, half 0, half 1."""

    objective: str
    teachers: tuple[str, ...]
    nulls: frozenset[str]
    numbers_Q: NDArray[np.int64]  #: numbers of the questions
    gain_VMQ: Array
    alignment_VMQ: Array  #: mean cosine at decision points; NaN for a question without
    squared_Q: Array  #: |g|^2 less what noise adds
    se_Q: Array  #: root mean square of the nodes' `gain_se`: how loud the noise is, question against question
    gain_MP: Array  #: of all completions, at every entry
    counted_P: Bool

    def row(self, teacher: str) -> int:
        """Row of a teacher. Raises ValueError for one that is not there."""
        if teacher not in self.teachers:
            raise ValueError(f"There is no teacher {teacher!r}; there is {', '.join(self.teachers) or 'none'}.")
        return self.teachers.index(teacher)


def question_gains(evidence: Evidence, objective: str | None = None) -> Gains:
    """Gains of all teachers of a study under one objective, its first by default.

    Raises ValueError for an unknown objective, and for one whose update is made from the completions that would judge it.
    """
    scores, halves, averages = evidence.scores, evidence.halves, evidence.averages
    o = objective_row(evidence, objective)
    node_P = evidence.paths.node_P
    ideal, update = scores.ideal_NK, scores.update_MONK[:, o]
    if scores.support == "lumped":
        ideal, update = lump(ideal), lump(update)
    gain_MN = np.where(scores.n_kept_N >= 2, gain(ideal, update), np.nan)
    gain_VMP = np.concatenate([gain_MN[None], halves.gain_HMON[:, :, o]])[..., node_P]
    # The same entries in all three, so that a half speaks of what all completions speak of.
    known_MP = np.isfinite(gain_VMP).all(axis=0)
    alignment_VMP = np.concatenate([scores.alignment_MON[None, :, o], halves.alignment_HMON[:, :, o]])[..., node_P]
    gain_VMQ = averages.question_means(np.where(known_MP, gain_VMP, np.nan))
    shared_Q = shared_questions(np.isfinite(gain_VMQ[0]))
    counted_P = known_MP[known_MP.any(axis=1)].any(axis=0) & shared_Q[averages.question_P]
    squared_P = np.where(known_MP.any(axis=0), squared_norm(evidence.nodes, scores)[node_P], np.nan)
    se2_MQ = averages.question_means(np.where(known_MP, scores.gain_se_MON[:, o][:, node_P] ** 2, np.nan))[:, shared_Q]
    finite_MQ = np.isfinite(se2_MQ)
    with np.errstate(invalid="ignore"):
        se_Q = np.sqrt(np.where(finite_MQ, se2_MQ, 0.0).sum(axis=0) / finite_MQ.sum(axis=0))
    return Gains(
        objective=scores.objectives[o],
        teachers=scores.teachers,
        nulls=evidence.null_teachers,
        numbers_Q=np.asarray(averages.numbers_Q[shared_Q], dtype=np.int64),
        gain_VMQ=gain_VMQ[..., shared_Q],
        alignment_VMQ=averages.question_means(np.where(known_MP, alignment_VMP, np.nan))[..., shared_Q],
        squared_Q=averages.question_means(squared_P)[shared_Q],
        se_Q=se_Q,
        gain_MP=np.where(known_MP & counted_P, gain_VMP[0], np.nan),
        counted_P=counted_P,
    )


def objective_row(evidence: Evidence, objective: str | None) -> int:
    """Place of an objective among those of the evidence. Raises ValueError as `question_gains`."""
    names = evidence.scores.objectives
    if not names or not evidence.scores.teachers:
        raise ValueError("Nothing can be decided in a study without teachers and objectives.")
    if objective is not None and objective not in names:
        raise ValueError(f"There is no objective {objective!r}; there is {', '.join(names)}.")
    o = names.index(objective) if objective is not None else 0
    if parse(names[o]).follows_completions:
        raise ValueError(f"The update of {names[o]} is made from completions, so they cannot judge what is decided by it.")
    return o


def judged_teachers(evidence: Evidence, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The teachers that a decision is about: those named, or all that are no nulls. Raises ValueError for unknown names."""
    there = evidence.scores.teachers
    for name in wanted or ():
        if name not in there:
            raise ValueError(f"There is no teacher {name!r}; there is {', '.join(there) or 'none'}.")
    names = tuple(wanted) if wanted else tuple(name for name in there if name not in evidence.null_teachers)
    if not names:
        raise ValueError("Every teacher of this study is a null; name one to decide about it all the same.")
    return names


def averages_of(evidence: Evidence, gains: Gains, value_XP: Array) -> Array:
    """Question means over the counted entries, for the questions of `gains`: [.., Q]."""
    averages: Averages = evidence.averages
    mean_XQ = averages.question_means(np.where(gains.counted_P, value_XP, np.nan))
    return np.asarray(mean_XQ[..., np.isin(averages.numbers_Q, gains.numbers_Q)], dtype=np.float64)
