"""The one shape of all findings, and what they share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute import objectives
from compute.averages import Averages, Outcome, shared_questions
from compute.estimators import BIASED, Estimator
from compute.evidence import Evidence
from compute.statistics import Interval, t_interval

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One line of a finding."""

    teacher: str = ""  #: "" for a line about no single teacher
    objective: str = ""  #: "" for a line about no objective
    group: str = ""  #: the part of the study that it speaks of, where a finding has parts
    null: bool = False  #: earns nothing of itself
    intervals: Mapping[str, Interval] = field(default_factory=dict)  #: 95 %, over questions
    numbers: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  #: sentences that warn


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one question that people ask of a study."""

    name: str
    title: str
    rows: tuple[FindingRow, ...]

    def row(self, teacher: str = "", *, objective: str | None = None, group: str = "", null: bool | None = None) -> FindingRow:
        """The first line of that name; any objective, null or not, unless said. Raises KeyError where there is none."""
        for row in self.rows:
            named = (row.teacher, row.group) == (teacher, group)
            if named and objective in (None, row.objective) and null in (None, row.null):
                return row
        raise KeyError(f"Finding {self.name} has no row of teacher {teacher!r}, group {group!r}, objective {objective!r}.")

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and texts; a number that is not there is None."""
        return {"name": self.name, "title": self.title, "rows": [_plain(asdict(row)) for row in self.rows]}


FOLLOWS = (
    "The update is estimated from the completions that judge it, so their noise counts as agreement: believe neither its "
    "cosine nor its gain."
)
BIASED_COUNTS = "Completions were counted as `{}`, which is biased whatever their number."


#: A teacher that had no say in which nodes there are may be right where nobody looked.
ADDED_LATER = "Added later: judged at {:,} of {:,} nodes nominated by others."


def added_later(evidence: Evidence, teacher: str) -> tuple[str, ...]:
    """The warning that a teacher is judged only where others nominated, if it is."""
    counts = evidence.judged_only.get(teacher)
    return (ADDED_LATER.format(*counts),) if counts else ()


def warned(finding: Finding, estimator: Estimator, evidence: Evidence) -> Finding:
    """The finding with what is to be said against every row of an objective, of an estimator, or of a teacher added later."""

    def of(row: FindingRow) -> FindingRow:
        flags: tuple[str, ...] = (FOLLOWS,) if row.objective and objectives.parse(row.objective).follows_completions else ()
        flags += (BIASED_COUNTS.format(estimator),) if estimator in BIASED else ()
        flags += added_later(evidence, row.teacher)
        return replace(row, flags=(*row.flags, *flags)) if flags else row

    return replace(finding, rows=tuple(map(of, finding.rows)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of all teachers under one objective at every entry."""

    objective: str
    alignment_MP: Array
    gain_MP: Array


def scored(evidence: Evidence) -> Iterator[Scored]:
    """One objective after the other."""
    node_P = evidence.paths.node_P
    for o, objective in enumerate(evidence.scores.objectives):
        yield Scored(objective, evidence.scores.alignment_MON[:, o][:, node_P], evidence.scores.gain_MON[:, o][:, node_P])


def comparable(averages: Averages, alignment_MP: Array, *outcomes: Outcome) -> Bool:
    """Questions in which all teachers have a score on the paths of each of these outcomes: [Q]."""
    of_paths_ML = averages.over_paths(alignment_MP)
    shared = [shared_questions(np.isfinite(averages.over_questions(of_paths_ML, outcome))) for outcome in outcomes or ("all",)]
    return np.asarray(np.logical_and.reduce(shared), dtype=bool)


#: What most lines give.
MEANS = ("alignment", "gain")
#: How large each of them can be, in absolute value.
BOUNDS = {"alignment": 1.0, "gain": math.inf}


def mean_rows(evidence: Evidence, objective: str, group: str, alignment_MP: Array, gain_MP: Array) -> list[FindingRow]:
    """A row per teacher with the means of the entries whose alignment is given, on the questions that all teachers share."""
    averages = evidence.averages
    shared_Q = comparable(averages, alignment_MP)
    gain_MP = np.where(np.isfinite(alignment_MP), gain_MP, np.nan)
    mean_CMQ = averages.question_means(np.stack([alignment_MP, gain_MP]))[..., shared_Q]
    return [
        FindingRow(
            teacher=teacher,
            objective=objective,
            group=group,
            null=teacher in evidence.null_teachers,
            intervals={name: t_interval(mean_CMQ[c, m], bound=BOUNDS[name]) for c, name in enumerate(MEANS)},
            numbers={"n_questions": int(shared_Q.sum())},
        )
        for m, teacher in enumerate(evidence.scores.teachers)
    ]
