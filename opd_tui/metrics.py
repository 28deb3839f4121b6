"""What tokens can be coloured by. A table; the numbers are made in `opd_tui.pages`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Needs = Literal["nothing", "teacher", "objective"]


class Metric(Struct, frozen=True):
    """One thing to colour by (method.md 6)."""

    key: str  #: what users type: `--metric`
    label: str
    needs: Needs  #: what must be chosen besides: a teacher, or a teacher and an objective
    diverging: bool
    at_nodes: bool  #: only nodes have it
    worst_is_low: bool  #: whether `]` (next worst) looks for the lowest values or for the highest
    limit: float | None  #: end of the scale; None: from the rollout's own values
    unit: str
    meaning: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "alignment", "alignment", "objective", True, True, True, 1.0, "", "cosine of the teacher's update with the ideal gradient"
    ),
    Metric("gain", "gain", "objective", True, True, True, None, "", "first-order gain in success per unit of the update"),
    Metric(
        "advantage",
        "teacher advantage",
        "teacher",
        True,
        True,
        True,
        None,
        "",
        "success the teacher's choice among the children would add",
    ),
    Metric("log-ratio", "log T/P", "teacher", True, False, True, None, "nat", "teacher's minus student's log-prob of the token"),
    Metric(
        "kl-student-teacher", "KL(P‖T)", "teacher", False, False, False, None, "nat", "divergence of the teacher from the student"
    ),
    Metric(
        "kl-teacher-student", "KL(T‖P)", "teacher", False, False, False, None, "nat", "divergence of the student from the teacher"
    ),
    Metric("js", "JS", "teacher", False, False, False, None, "nat", "Jensen-Shannon divergence of the two"),
    Metric("student-entropy", "student entropy", "nothing", False, False, False, None, "nat", "how undecided the student is"),
    Metric("teacher-entropy", "teacher entropy", "teacher", False, False, False, None, "nat", "how undecided the teacher is"),
    Metric(
        "student-logprob",
        "student log-prob",
        "nothing",
        False,
        False,
        True,
        None,
        "nat",
        "log-probability of the token under the student",
    ),
    Metric("p-succ", "p_succ", "nothing", False, True, True, 1.0, "", "success after the token that was taken"),
)

BY_KEY = {metric.key: metric for metric in METRICS}


def metric(key: str) -> Metric:
    """The metric that a user named. Raises `ValueError` with what is allowed."""
    found = BY_KEY.get(key.lower().replace("_", "-"))
    if found is None:
        raise ValueError(f"there is no metric {key!r}: use one of {', '.join(BY_KEY)}")
    return found
