"""Which teacher each question gets (method.md 7): chosen by one half of the completions, judged by the other (section 4).

Gains of a question are noisy, so each is drawn towards what the teachers gain on all *other* questions: for question q

    gain_q = gamma_q + noise      noise ~ N(0, S_q)      gamma_q ~ N(mu, L)

with a coordinate per teacher and null. The halves tell S from L: noise is what the two halves disagree in, and L the
covariance across the halves, which noise does not reach. mu, L and S come from the other questions alone, so that what
judges a question has had no say in what it gets; how little a few questions say of them counts in the draws. The chance
to be the best is that of draws of gamma_q. Where the best is not beyond 0 and all nulls in four of five draws, no teacher
is given: keep the reference policy.
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

#: Draws of a question's gains, and how many values of mu, L and S these are spread over.
DRAWS, REPLICATES = 1024, 64
#: Questions for every row and one more that covariances in which all rows are alike count for.
SHRINK = 4.0
#: A teacher is given where it is beyond 0 and every null in this share of the draws.
BEYOND = 0.8
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


def routing(evidence: Evidence, *, objective: str | None = None, teachers: Sequence[str] | None = None, seed: int = 0) -> Routing:
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
                teacher=_name(names, whole.given),
                probability_best=whole.best,
                probability_beyond_null=whole.beyond,
                expected_gain=whole.expected,
                likeliest=names[whole.likeliest],
                chosen_by_halves=(_name(names, odds[1][q].given), _name(names, odds[2][q].given)),
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
        return self.likeliest if self.beyond >= BEYOND and self.expected > 0.0 else None


def odds_of(gain_VMQ: Array, se_Q: Array, n_teachers: int, seed: int = 0) -> tuple[list[Odds], ...]:
    """Of all completions, half 0 and half 1: for every question the odds of the first `n_teachers` rows; the rest are nulls."""
    M, Q = gain_VMQ.shape[1:]
    loud_Q = np.where(np.isfinite(se_Q) & (se_Q > 0.0), se_Q, np.nan) ** 2
    loud_Q = np.where(np.isfinite(loud_Q), loud_Q, np.nanmean(loud_Q) if np.isfinite(loud_Q).any() else 1.0)
    rng = np.random.default_rng(seed)
    normal_BDM = rng.standard_normal((REPLICATES, DRAWS // REPLICATES, M))
    moments = _Moments.of(gain_VMQ, loud_Q, rng.standard_exponential((REPLICATES, Q)))
    found: tuple[list[Odds], ...] = ([], [], [])
    for q in range(Q):
        mu_BM, true_BMM, noise_BMM = moments.without(q)
        noise_BMM = loud_Q[q] * noise_BMM  # of one half
        for v, part_BMM in enumerate((noise_BMM / 2.0, noise_BMM, noise_BMM)):
            pull_BMM = true_BMM @ np.linalg.pinv(true_BMM + part_BMM, hermitian=True)
            rest_BMM = _positive(true_BMM - pull_BMM @ true_BMM)
            centre_BM = mu_BM + np.einsum("bmk,bk->bm", pull_BMM, gain_VMQ[v, :, q] - mu_BM)
            draw_BDM = centre_BM[:, None] + normal_BDM @ _root(rest_BMM)
            found[v].append(_odds(draw_BDM.reshape(-1, M), n_teachers))
    return found


@dataclass(frozen=True, slots=True)
class _Moments:
    """Sums over questions, each replicate with weights of its own (the Bayesian bootstrap): what mu, L and S may be."""

    weight_BQ: Array
    columns: tuple[Array, ...]  #: per question: first half by second, and noise by loudness, [Q, M, M]; the halves, [Q, M]
    sums: tuple[Array, ...]  #: of these, weighted

    @classmethod
    def of(cls, gain_VMQ: Array, loud_Q: Array, weight_BQ: Array) -> _Moments:
        first_QM, second_QM = gain_VMQ[1].T, gain_VMQ[2].T
        apart_QM = (first_QM - second_QM) / np.sqrt(2.0 * loud_Q)[:, None]
        products = (first_QM[:, :, None] * second_QM[:, None], apart_QM[:, :, None] * apart_QM[:, None], first_QM, second_QM)
        sums = tuple(np.tensordot(weight_BQ, product, axes=1) for product in products)
        return cls(weight_BQ, products, sums)

    def without(self, q: int) -> tuple[Array, Array, Array]:
        """mu [B, M], L [B, M, M] and the noise of one half at loudness 1, from all questions but one."""
        own_B = self.weight_BQ[:, q]
        total_B = self.weight_BQ.sum(axis=1) - own_B
        cross, noise, first, second = (
            (total - np.multiply.outer(own_B, product[q])) / total_B.reshape(-1, *[1] * product[q].ndim)
            for total, product in zip(self.sums, self.columns, strict=True)
        )
        squares_B = ((self.weight_BQ**2).sum(axis=1) - own_B**2) / total_B**2
        cross = (cross - first[:, :, None] * second[:, None]) / (1.0 - squares_B)[:, None, None]
        n_questions, n_rows = self.weight_BQ.shape[1] - 1, first.shape[1]
        alike = SHRINK * (n_rows + 1) / (SHRINK * (n_rows + 1) + n_questions)
        true = _positive(_alike((cross + np.swapaxes(cross, 1, 2)) / 2.0, alike))
        return (first + second) / 2.0, true, _alike(noise, alike)


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


def _alike(value_BMM: Array, share: float) -> Array:
    """Drawn towards a covariance in which all rows are alike, for few questions tell few entries."""
    M = value_BMM.shape[-1]
    variance_B = np.trace(value_BMM, axis1=1, axis2=2) / M
    shared_B = (value_BMM.sum(axis=(1, 2)) - M * variance_B) / max(M * (M - 1), 1)
    eye = np.eye(M)
    target_BMM = variance_B[:, None, None] * eye + shared_B[:, None, None] * (1.0 - eye)
    return np.asarray((1.0 - share) * value_BMM + share * target_BMM)


def _positive(value_BMM: Array) -> Array:
    """The nearest covariances: what an estimate has of negative variance is nothing."""
    values, vectors = np.linalg.eigh((value_BMM + np.swapaxes(value_BMM, 1, 2)) / 2.0)
    return np.asarray((vectors * np.maximum(values, 0.0)[:, None]) @ np.swapaxes(vectors, 1, 2))


def _root(value_BMM: Array) -> Array:
    values, vectors = np.linalg.eigh(value_BMM)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[:, None]) @ np.swapaxes(vectors, 1, 2))


def _sentence(gain: Interval, more: Interval, single: str, share: float, n: int) -> str:
    spoken = f"{gain.mean:+.2g} [{gain.low:+.2g}, {gain.high:+.2g}] a question, judged by completions that did not choose"
    if share == 0.0:
        return f"{FALLBACK} ({n} questions; routing by halves earned {spoken}.)"
    beyond = f"{more.mean:+.2g} [{more.low:+.2g}, {more.high:+.2g}]"
    return f"Routing earns {spoken}: {'' if more.low > 0.0 else 'not surely '}more than {single} everywhere, by {beyond}."


def _name(names: tuple[str, ...], row: int | None) -> str | None:
    return None if row is None else names[row]
