"""The findings of a study, one function each (method.md 6): numbers with intervals, from any store.

``gather`` reads and scores a store once; every function takes what it gives. Means are over questions, all teachers
on the same ones, as in `compute.summary`. ``all_findings(opened)`` does everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compute.alignment import Support
from compute.estimators import Estimator
from compute.evidence import Evidence, gather
from compute.findings.choices import counting, selection_gain
from compute.findings.profiles import depth_profile, difficulty, within_path_correlation
from compute.findings.shape import Finding, FindingRow, added_later, warned
from compute.findings.teachers import FLIPPED, correct_incorrect, spread, teacher_ranking, two_children

if TYPE_CHECKING:
    from store.reader import Store

__all__ = [
    "FINDINGS",
    "FLIPPED",
    "Evidence",
    "Finding",
    "FindingRow",
    "added_later",
    "all_findings",
    "correct_incorrect",
    "counting",
    "depth_profile",
    "difficulty",
    "gather",
    "selection_gain",
    "spread",
    "teacher_ranking",
    "two_children",
    "within_path_correlation",
]

#: In the order in which a report shows them.
FINDINGS = (
    teacher_ranking,
    correct_incorrect,
    depth_profile,
    within_path_correlation,
    difficulty,
    two_children,
    spread,
    selection_gain,
    counting,
)


def all_findings(
    opened: Store,
    *,
    objectives: Sequence[str] | None = None,
    support: Support = "sliced",
    estimator: Estimator = "backup",
) -> tuple[Finding, ...]:
    """Every finding over a store, under the study's objectives or any others."""
    evidence = gather(opened, objectives=objectives, support=support, estimator=estimator)
    return tuple(warned(finding(evidence), estimator, evidence) for finding in FINDINGS)
