"""What tokens can be coloured by. A table; the numbers are made in `opd_tui.pages`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

#: What must be chosen besides: nothing, a teacher, a teacher and an objective, two teachers and an objective, an objective.
Needs = Literal["nothing", "teacher", "objective", "pair", "all teachers"]


class Metric(Struct, frozen=True):
    """One thing to colour by (method.md 6)."""

    key: str  #: what users type: `--metric`
    label: str
    meaning: str
    needs: Needs = "nothing"
    diverging: bool = False
    at_nodes: bool = False  #: only nodes have it
    worst_is_low: bool = False  #: whether `]` (next worst) looks for the lowest values or for the highest
    limit: float | None = None  #: end of the scale; None: from the rollout's own values
    middle: float = 0.0  #: of a diverging scale: between what harms and what helps
    unit: str = ""
    categorical: bool = False  #: names, not amounts: there is no worst
    probability: bool = False  #: told as one: below a hundredth, how far below says nothing


METRICS: tuple[Metric, ...] = (
    Metric(
        "alignment",
        "alignment",
        "cosine of the teacher's update with the ideal gradient",
        "objective",
        diverging=True,
        at_nodes=True,
        worst_is_low=True,
        limit=1.0,
    ),
    Metric(
        "gain",
        "gain",
        "first-order gain in success per unit of the update",
        "objective",
        diverging=True,
        at_nodes=True,
        worst_is_low=True,
    ),
    Metric(
        "p-positive",
        "P(alignment > 0)",
        "how sure the study is that the update helps here",
        "objective",
        diverging=True,
        at_nodes=True,
        worst_is_low=True,
        limit=1.0,
        middle=0.5,
        probability=True,
    ),
    Metric(
        "reliability",
        "reliability",
        "cosine to expect between the estimated and the true gradient",
        at_nodes=True,
        worst_is_low=True,
        limit=1.0,
    ),
    Metric(
        "alignment-difference",
        "difference of alignment",
        "alignment of the teacher minus that of a second one (i, then d)",
        "pair",
        diverging=True,
        at_nodes=True,
        worst_is_low=True,
        limit=2.0,
    ),
    Metric(
        "best-teacher",
        "best teacher",
        "which teacher has the highest alignment, nulls included",
        "all teachers",
        at_nodes=True,
        categorical=True,
    ),
    Metric(
        "advantage",
        "teacher advantage",
        "success the teacher's choice among the children would add",
        "teacher",
        diverging=True,
        at_nodes=True,
        worst_is_low=True,
    ),
    Metric(
        "log-ratio",
        "log T/P",
        "teacher's minus student's log-prob of the token",
        "teacher",
        diverging=True,
        worst_is_low=True,
        unit="nat",
    ),
    Metric("kl-student-teacher", "KL(P‖T)", "divergence of the teacher from the student", "teacher", unit="nat"),
    Metric("kl-teacher-student", "KL(T‖P)", "divergence of the student from the teacher", "teacher", unit="nat"),
    Metric("js", "JS", "Jensen-Shannon divergence of the two", "teacher", unit="nat"),
    Metric(
        "overlap",
        "top-K overlap",
        "share of the student's likeliest tokens that are among the teacher's",
        "teacher",
        worst_is_low=True,
        limit=1.0,
    ),
    Metric("student-entropy", "student entropy", "how undecided the student is", unit="nat"),
    Metric("teacher-entropy", "teacher entropy", "how undecided the teacher is", "teacher", unit="nat"),
    Metric(
        "entropy-difference",
        "entropy difference",
        "teacher's entropy minus the student's",
        "teacher",
        diverging=True,
        unit="nat",
    ),
    Metric(
        "student-logprob",
        "student log-prob",
        "log-probability of the token under the student",
        worst_is_low=True,
        unit="nat",
    ),
    Metric("p-succ", "p_succ", "success after the token that was taken", at_nodes=True, limit=1.0, probability=True),
)

BY_KEY = {metric.key: metric for metric in METRICS}


def metric(key: str) -> Metric:
    """The metric that a user named. Raises `ValueError` with what is allowed."""
    found = BY_KEY.get(key.lower().replace("_", "-"))
    if found is None:
        raise ValueError(f"there is no metric {key!r}: use one of {', '.join(BY_KEY)}")
    return found
