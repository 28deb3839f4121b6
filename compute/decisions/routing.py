"""Which teacher each question gets (method.md 7): chosen by one half of the completions, judged by the other (section 4).

Gains of a question are noisy, so each is drawn towards what the teachers gain on all *other* questions: for question q

    gain_q = gamma_q + noise      noise ~ N(0, S_q)      gamma_q ~ N(mu, L)

with a coordinate per teacher and null. The halves tell S from L: noise is what the two halves disagree in, and L the
covariance across the halves, which noise does not reach. mu, L and S come from the other questions alone, so that what
judges a question has had no say in what it gets. The chance to be the best is that of draws of gamma_q. Where the best
is not beyond 0 and all nulls in at least half of the draws, no teacher is given: keep the reference policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.decisions.gains import Gains, judged_teachers, question_gains
from compute.decisions.sharpening import sharpening_note, temperature_of
from compute.evidence import Evidence
from compute.findings.shape import added_later
from compute.statistics import MIN_QUESTIONS, Interval, t_interval

Array = NDArray[np.float64]

DRAWS = 1000
FALLBACK = "No teacher is beyond its null: keep the reference policy."


class Route(Struct, frozen=True):
    """What one question gets. The choice for use is made from all completions; what judges it, from halves."""

    question: int  #: number of the question
    teacher: str | None  #: None: no teacher is beyond its null, keep the reference policy
    probability_best: float  #: that of all teachers the likeliest is the best; it is `likeliest`, given or not
    probability_beyond_null: float
    expected_gain: float  #: of `likeliest`, drawn towards what it gains elsewhere
    likeliest: str
    #: each half chose so, and the other half says what that is worth: the mean of both directions, 0 where none was given
    chosen_by_halves: tuple[str | None, str | None]
    gain: float
    alignment: float  #: mean cosine of the same; NaN where no teacher was given


class Routing(Struct, frozen=True):
    """Totals and the routes."""

    objective: str
    teachers: tuple[str, ...]
    nulls: tuple[str, ...]
    routes: tuple[Route, ...]
    gain: Interval  #: of routing, a question without a teacher earning nothing
    gain_single: Interval  #: of the teacher that is best on the other questions, given to every question
    more_than_single: Interval  #: paired by question
    single: str  #: the best teacher of all
    gain_each: dict[str, Interval]  #: every teacher on all questions, chosen by nothing
    share_routed: float
    sentence: str
    warnings: tuple[str, ...]


def routing(
    evidence: Evidence, *, objective: str | None = None, teachers: Sequence[str] | None = None, seed: int = 0
) -> Routing:
    """A teacher for every question. Raises ValueError as `question_gains`, and for fewer than 6 questions."""
    gains = question_gains(evidence, objective)
    names = judged_teachers(evidence, teachers)
    nulls = tuple(name for name in gains.teachers if name in gains.nulls and name not in names)
    rows = [gains.row(name) for name in (*names, *nulls)]
    scored = [row for row in rows if np.isfinite(gains.gain_VMQ[:, row]).all()]
    if len(gains.numbers_Q) < MIN_QUESTIONS or not any(row in scored for row in rows[: len(names)]):
        raise ValueError(
            f"Routing takes {MIN_QUESTIONS} questions in which the teachers are scored; there are {len(gains.numbers_Q)}."
        )
    names = tuple(name for name in names if gains.row(name) in scored)
    return _routed(gains, names, tuple(name for name in nulls if gains.row(name) in scored), evidence, seed)


def _routed(gains: Gains, names: tuple[str, ...], nulls: tuple[str, ...], evidence: Evidence, seed: int) -> Routing:
    rows = [gains.row(name) for name in (*names, *nulls)]
    gain_VMQ, alignment_VMQ = gains.gain_VMQ[:, rows], gains.alignment_VMQ[:, rows]
    M, Q = len(names), gain_VMQ.shape[2]
    odds = odds_of(gain_VMQ, gains.se_Q, M, seed)
    worth_DQ, single_DQ, cosine_DQ = (np.full((2, Q), np.nan) for _ in range(3))
    routes = []
    for q in range(Q):
        others_M = np.delete(gain_VMQ[0, :M], q, axis=1).mean(axis=1)
        for half in (0, 1):
            chosen, other = odds[1 + half][q].given, 2 - half
            worth_DQ[half, q] = 0.0 if chosen is None else gain_VMQ[other, chosen, q]
            cosine_DQ[half, q] = np.nan if chosen is None else alignment_VMQ[other, chosen, q]
            single_DQ[half, q] = gain_VMQ[other, int(others_M.argmax()), q]
        whole = odds[0][q]
        cosines = cosine_DQ[:, q][np.isfinite(cosine_DQ[:, q])]
        routes.append(
            Route(
                question=int(gains.numbers_Q[q]),
                teacher=None if whole.given is None else names[whole.given],
                probability_best=whole.best,
                probability_beyond_null=whole.beyond,
                expected_gain=whole.expected,
                likeliest=names[whole.likeliest],
                chosen_by_halves=tuple(  # type: ignore[arg-type]
                    None if odds[v][q].given is None else names[odds[v][q].given] for v in (1, 2)  # type: ignore[index]
                ),
                gain=float(worth_DQ[:, q].mean()),
                alignment=float(cosines.mean()) if cosines.size else math.nan,
            )
        )
    worth_Q, single_Q = worth_DQ.mean(axis=0), single_DQ.mean(axis=0)
    gain, more = t_interval(worth_Q), t_interval(worth_Q - single_Q)
    single = names[int(gain_VMQ[0, :M].mean(axis=1).argmax())]
    share = float(np.mean([route.teacher is not None for route in routes]))
    found = {name: temperature_of(evidence.nodes, name) for name in names}
    notes = [sharpening_note(name, temperature) for name, temperature in found.items() if temperature is not None]
    return Routing(
        objective=gains.objective,
        teachers=names,
        nulls=nulls,
        routes=tuple(routes),
        gain=gain,
        gain_single=t_interval(single_Q),
        more_than_single=more,
        single=single,
        gain_each={name: t_interval(gain_VMQ[0, m]) for m, name in enumerate(names)},
        share_routed=share,
        sentence=_sentence(gain, more, single, share, Q),
        warnings=(*notes, *(flag for name in names for flag in added_later(evidence, name))),
    )


@dataclass(frozen=True, slots=True)
class Odds:
    """What the draws of one question say; teachers by row."""

    likeliest: int
    best: float
    beyond: float
    expected: float

    @property
    def given(self) -> int | None:
        """The teacher that the question gets, if any."""
        return self.likeliest if self.beyond >= 0.5 and self.expected > 0.0 else None


def odds_of(gain_VMQ: Array, se_Q: Array, n_teachers: int, seed: int = 0, draws: int = DRAWS) -> tuple[list[Odds], ...]:
    """Of all completions, half 0 and half 1: for every question the odds of the first `n_teachers` rows; the rest are nulls."""
    Q = gain_VMQ.shape[2]
    loud_Q = np.where(np.isfinite(se_Q) & (se_Q > 0.0), se_Q, np.nan) ** 2
    loud_Q = np.where(np.isfinite(loud_Q), loud_Q, np.nanmean(loud_Q) if np.isfinite(loud_Q).any() else 1.0)
    found: tuple[list[Odds], ...] = ([], [], [])
    normal_2DM = np.random.default_rng(seed).standard_normal((2, draws, gain_VMQ.shape[1]))
    for q in range(Q):
        other = np.arange(Q) != q
        first_MQ, second_MQ = gain_VMQ[1][:, other], gain_VMQ[2][:, other]
        scale = float(loud_Q[q] / loud_Q[other].mean())
        noise_MM = scale * ((first_MQ - second_MQ) @ (first_MQ - second_MQ).T) / (2.0 * (Q - 1))  # of one half
        mean_MQ = (first_MQ + second_MQ) / 2.0
        mu_M = mean_MQ.mean(axis=1)
        cross_MM = _centred(first_MQ) @ _centred(second_MQ).T / (Q - 2)
        true_MM = _positive((cross_MM + cross_MM.T) / 2.0)
        mu_MM = _centred(mean_MQ) @ _centred(mean_MQ).T / ((Q - 2) * (Q - 1))
        for v, part in enumerate((noise_MM / 2.0, noise_MM, noise_MM)):
            pull_MM = true_MM @ np.linalg.pinv(true_MM + part, hermitian=True)
            rest_MM = _positive(true_MM - pull_MM @ true_MM)
            mu_DM = mu_M + normal_2DM[0] @ _root(mu_MM)
            draw_DM = mu_DM + (gain_VMQ[v, :, q] - mu_DM) @ pull_MM.T + normal_2DM[1] @ _root(rest_MM)
            found[v].append(_odds(draw_DM, n_teachers))
    return found


def _odds(draw_DM: Array, n_teachers: int) -> Odds:
    mine_DM, nulls_DM = draw_DM[:, :n_teachers], draw_DM[:, n_teachers:]
    likeliest = int(mine_DM.mean(axis=0).argmax())
    bar_D = np.maximum(0.0, nulls_DM.max(axis=1)) if nulls_DM.shape[1] else np.zeros(len(draw_DM))
    return Odds(
        likeliest=likeliest,
        best=float(np.mean(mine_DM.argmax(axis=1) == likeliest)),
        beyond=float(np.mean(mine_DM[:, likeliest] > bar_D)),
        expected=float(mine_DM[:, likeliest].mean()),
    )


def _centred(value_MQ: Array) -> Array:
    return np.asarray(value_MQ - value_MQ.mean(axis=1, keepdims=True))


def _positive(value_MM: Array) -> Array:
    """The nearest covariance: what an estimate has of negative variance is nothing."""
    values, vectors = np.linalg.eigh((value_MM + value_MM.T) / 2.0)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _root(value_MM: Array) -> Array:
    values, vectors = np.linalg.eigh(value_MM)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def _sentence(gain: Interval, more: Interval, single: str, share: float, n: int) -> str:
    spoken = f"{gain.mean:+.2g} [{gain.low:+.2g}, {gain.high:+.2g}] a question, judged by completions that did not choose"
    if share == 0.0:
        return f"{FALLBACK} ({n} questions; routing by halves earned {spoken}.)"
    if more.low > 0.0:
        return f"Routing earns {spoken}: more than {single} everywhere by {more.mean:.2g} [{more.low:.2g}, {more.high:.2g}]."
    return f"Routing earns {spoken}: not surely more than {single} everywhere ({more.mean:+.2g} [{more.low:+.2g}, {more.high:+.2g}])."
