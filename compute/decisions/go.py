"""Whether to distil from a teacher: go, no-go or undecided, and what this study could have seen.

A verdict is about the mean gain over questions (method.md 4: questions are the unit, null teachers with every study):

    go        the gain is above what is worth it, above that of every named null, and above the sign-flipped null
    no-go     the gain is below what is worth it, or below that of a named null
    undecided the study is too small to say either

All conditions of a go hold at 2.5 % each, so together at 2.5 % at most; those of a no-go, of which one suffices, share
2.5 %. So at most 5 % of verdicts are wrong. What the study could have seen is the gain that it would have called
surely positive in 80 % of studies of its size, from the spread of its questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.decisions.gains import averages_of, judged_teachers, question_gains
from compute.decisions.sharpening import sharpening_note, temperature_of
from compute.evidence import Evidence
from compute.findings.shape import added_later
from compute.halves import pooled
from compute.statistics import MIN_QUESTIONS, Interval, bootstrap_t, jackknife_t, sign_flip_test, t_interval, t_quantile
from store.words import counted

Array = NDArray[np.float64]

WRONG = 0.05
POWER = 0.8
FLIPS = 999
#: The bootstrap-t interval is asked for this part of the errors that the t interval is: with 6-20 questions of which few
#: weigh much on one side, t alone is wrong in up to 12 % of verdicts, and both together so in at most 5 %.
STRICTER = 0.6


class Against(Struct, frozen=True):
    """The gain less that of a named null, paired by question."""

    null: str
    difference: Interval
    detectable: float


class Flipped(Struct, frozen=True):
    """What mean gain the teacher's own nodes give with random signs: the sign-flipped null, many times over."""

    low: float  #: 2.5 % of the draws lie below
    high: float
    p: float  #: two-sided: how often a draw lies as far from 0 as the gain


class GoNoGo(Struct, frozen=True):
    """One teacher's verdict."""

    teacher: str
    objective: str
    verdict: str  #: "go", "no-go" or "undecided"
    sentence: str
    gain: Interval
    alignment: Interval
    pooled: Interval  #: gain over the length of the ideal gradient: the share of what could be gained to first order
    p_gain: float  #: sign-flip test over questions
    worth: float  #: gain that would be worth it
    detectable: float  #: gain that is seen in 80 % of studies of this size
    against: tuple[Against, ...]
    flipped: Flipped
    temperature: float | None  #: where the teacher is the student at another temperature
    warnings: tuple[str, ...]


def go_no_go(
    evidence: Evidence,
    *,
    objective: str | None = None,
    teachers: Sequence[str] | None = None,
    worth: float = 0.0,
    seed: int = 0,
) -> tuple[GoNoGo, ...]:
    """A verdict on each of the teachers (by default all that are no nulls). Raises ValueError as `question_gains`."""
    gains = question_gains(evidence, objective)
    found = []
    for teacher in judged_teachers(evidence, teachers):
        m = gains.row(teacher)
        gain_Q = gains.gain_VMQ[0, m]
        nulls = [name for name in gains.teachers if name in gains.nulls and name != teacher]
        differences = {name: gain_Q - gains.gain_VMQ[0, gains.row(name)] for name in nulls}
        against = tuple(Against(name, t_interval(d_Q), detectable(d_Q)) for name, d_Q in differences.items())
        flipped = _flipped(evidence, gains.gain_MP[m], averages_of(evidence, gains, gains.gain_MP[m]), gains.counted_P, seed)
        verdict, why = judge_means(gain_Q, differences, worth, flipped)
        temperature = temperature_of(evidence.nodes, teacher)
        warnings = (() if temperature is None else (sharpening_note(teacher, temperature),)) + added_later(evidence, teacher)
        found.append(
            GoNoGo(
                teacher=teacher,
                objective=gains.objective,
                verdict=verdict,
                sentence=" ".join([why, *(warnings if temperature is not None else ())]),
                gain=t_interval(gain_Q),
                alignment=t_interval(gains.alignment_VMQ[0, m]),
                pooled=jackknife_t(np.stack([gain_Q, gains.squared_Q], axis=1), pooled),
                p_gain=sign_flip_test(gain_Q, seed),
                worth=worth,
                detectable=detectable(gain_Q),
                against=against,
                flipped=flipped,
                temperature=temperature,
                warnings=warnings,
            )
        )
    return tuple(found)


def judge_means(
    gain_Q: Array, differences: dict[str, Array], worth: float = 0.0, flipped: Flipped | None = None
) -> tuple[str, str]:
    """The verdict and its sentence, from gains of questions and what they are beyond each named null."""
    gain_Q = gain_Q[np.isfinite(gain_Q)]
    n = gain_Q.size
    if n < MIN_QUESTIONS:
        return "undecided", f"Undecided: no interval for {counted(n, 'question')}; {MIN_QUESTIONS} are the least."
    gain = t_interval(gain_Q)
    beside = {"what is worth it": gain_Q - worth}
    beside |= {f"the null {name}": d_Q for name, d_Q in differences.items()}
    spoken = f"{gain.mean:+.2g} [{gain.low:+.2g}, {gain.high:+.2g}] over {n} questions"
    missing = [name for name, x_Q in beside.items() if not surely_above(x_Q, WRONG)]
    if flipped is not None and not gain.mean > flipped.high:
        missing.append("the sign-flipped null")
    if not missing:
        beyond = f", beyond {counted(len(differences), 'named null')}" if differences else ""
        return "go", f"Go: the mean gain is {spoken}{beyond}."
    level = WRONG / len(beside)
    if surely_above(worth - gain_Q, level):
        what = "the teacher harms" if worth <= 0.0 else f"less than the {worth:g} that is worth it"
        return "no-go", f"No-go: the mean gain is {spoken}: {what}."
    for name, d_Q in differences.items():
        if surely_above(-d_Q, level):
            return "no-go", f"No-go: the mean gain is {spoken}, less than that of the null {name}."
    spread = max([detectable(gain_Q), *(detectable(d_Q) for d_Q in differences.values())])
    return "undecided", (
        f"Undecided: the mean gain is {spoken}, not told apart from {', '.join(missing)}; "
        f"a study of this size sees a gain of {spread:.2g} in 80 of 100 cases."
    )


def surely_above(value_Q: Array, wrong: float) -> bool:
    """Whether a mean over questions is above 0, wrong on this side in half of `wrong`.

    The t interval says so, and the bootstrap-t interval, and the sign-flip test.
    """
    value_Q = value_Q[np.isfinite(value_Q)]
    if value_Q.size < MIN_QUESTIONS or not t_interval(value_Q, 1.0 - wrong).low > 0.0:
        return False
    return bootstrap_t(value_Q, 1.0 - STRICTER * wrong).low > 0.0 and sign_flip_test(value_Q) <= WRONG


def detectable(value_Q: Array, power: float = POWER, wrong: float = STRICTER * WRONG) -> float:
    """The mean that is found with this power among so many questions, so far spread; NaN for fewer than 6.

    That of a t test, and a little more where questions are few, for all three of `surely_above` have to see it: held
    against simulated studies, it was found in 72 % of those of 6 questions and in 81-83 % of those of 10 to 40.
    """
    value_Q = value_Q[np.isfinite(value_Q)]
    n = value_Q.size
    if n < MIN_QUESTIONS:
        return math.nan
    few = 1.0 + 1.5 / n
    return few * (t_quantile(1.0 - wrong / 2.0, n - 1) + t_quantile(power, n - 1)) * float(value_Q.std(ddof=1)) / math.sqrt(n)


def _flipped(evidence: Evidence, gain_P: Array, gain_Q: Array, counted_P: NDArray[np.bool_], seed: int) -> Flipped:
    """Mean gains with a random sign per node. What each node weighs in the mean over questions is worked out once."""
    averages = evidence.averages
    counted_P = counted_P & np.isfinite(gain_P)
    n_L = np.bincount(averages.path_P[counted_P], minlength=len(averages.question_L))
    of_path_Q = np.bincount(averages.question_L[n_L > 0], minlength=len(averages.numbers_Q))
    n_questions = int((of_path_Q > 0).sum())
    if not n_questions:
        return Flipped(math.nan, math.nan, math.nan)
    path_p = averages.path_P[counted_P]
    share_p = gain_P[counted_P] / n_L[path_p] / of_path_Q[averages.question_L[path_p]] / n_questions
    share_N = np.bincount(averages.node_P[counted_P], share_p)
    share_N = share_N[share_N != 0.0]
    rng = np.random.default_rng([seed, 7])
    drawn_F = np.array([float(rng.choice((-1.0, 1.0), share_N.size) @ share_N) for _ in range(FLIPS)])
    low, high = np.quantile(drawn_F, [0.025, 0.975]).tolist()
    as_far = np.count_nonzero(np.abs(drawn_F) >= abs(float(np.nanmean(gain_Q))) * (1.0 - 1e-12))
    return Flipped(low, high, float((1 + as_far) / (FLIPS + 1)))
