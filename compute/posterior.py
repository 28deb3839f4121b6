"""How sure a node's scores are: P(Align > 0), an interval for the cosine, and how far the gradient can be trusted.

What a study teaches of its nodes is a `Prior`, fitted once over all of them (method.md 4). In units of sqrt(V (1 - V)), the
success rates q_k of a node's children are

    q_k ~ N(m, sigma^2)    sigma ~ pi, an empirical-Bayes scale mixture on a grid, by EM; m unknown

and the sign of an alignment is that of x = sum_k u_k q_k, u = a/|a| with <g, d> = sum_k a_k p_k. For a direction d that knows
nothing of q, x ~ N(0, sigma^2). What a teacher knows under an objective is two numbers more:

    |x| is that of N(0, (kappa sigma)^2)    kappa > 1: the update lies along the differences of q; < 1: across them
    P(x > 0) = Phi(c sigma)                 c = 0: a coin; c > 0: right where differences are large; infinite: always

Without c, a teacher that is right wherever one can see would be called a coin wherever one cannot. Every node is then judged by
its own counts under this prior: P(Align > 0) in closed form, the rest by draws. All nodes share their random numbers, so that a
page of nodes is told what the whole study is told.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute import objectives
from compute.alignment import contrast, lump
from compute.scores import Scores, over_support
from compute.statistics import normal_cdf
from store.tables import Nodes

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: The grid of sigma: the standard deviation of p over children, in units of sqrt(V (1 - V)).
SIGMA_S: Array = np.geomspace(0.003, 1.0, 13)
#: The grids of kappa and of c; c = 0 in the middle.
KAPPA: Array = np.geomspace(0.25, 4.0, 17)
SHARPNESS: Array = np.r_[-np.geomspace(1000.0, 0.3, 13), 0.0, np.geomspace(0.3, 1000.0, 13)]
#: A share of positive contrasts is never taken for surer than this.
SUREST = 0.999
#: Fewer contrasts (scored nodes) than this say too little of a teacher and objective.
MIN_CONTRASTS = 20
#: The variance of what is known exactly, so that it can be divided by.
EXACT = 1e-20
#: Nodes that a fit looks at, at most: evenly spaced among all.
FIT_NODES = 20_000
#: Draws times nodes worked on at once, which bounds memory.
BLOCK = 200_000


class Prior(Struct, frozen=True):
    """What a study teaches of its nodes, its teachers and its objectives."""

    teachers: tuple[str, ...]
    objectives: tuple[str, ...]
    weight_S: Array  #: pi over SIGMA_S
    kappa_MO: Array
    positive_MOS: Array  #: P(x > 0) at each sigma, averaged over the c that the study leaves possible
    n_contrasts_MO: NDArray[np.int64]  #: scored nodes that the fit looked at
    calibrated_MO: Bool  #: enough contrasts; and an update that does not follow the completions that judge it


class Posterior(Struct, frozen=True):
    """How sure the scores of some nodes are. NaN where there is no score."""

    p_positive_MON: Array  #: P(Align > 0)
    cosine_low_MON: Array
    cosine_high_MON: Array
    cosine_sd_MON: Array
    reliability_N: Array  #: expected cosine between the estimated gradient and the true one
    calibrated_MO: Bool  #: where False, `p_positive` and the interval are a guess


def fit_mixture(log_likelihood_XS: Array, tolerance: float = 1e-5) -> Array:
    """The weights pi of a mixture that make rows of likelihoods most likely, by EM from equal weights; equal for no rows."""
    X, S = log_likelihood_XS.shape
    weight_S = np.full(S, 1.0 / S)
    if X == 0:
        return weight_S
    likelihood_XS = np.exp(log_likelihood_XS - log_likelihood_XS.max(axis=1, keepdims=True))
    for _ in range(1000):
        previous_S = weight_S
        weight_S = previous_S * (likelihood_XS.T @ (1.0 / (likelihood_XS @ previous_S))) / X
        if np.abs(weight_S - previous_S).max() < tolerance:
            break
    return weight_S


def fit(nodes: Nodes, scores: Scores) -> Prior:
    """Learn from all scored nodes of a study. `scores` are those of `nodes`, of any estimator and support.

    An update is taken for known: the noise in the F of `minillm` is not looked at.
    """
    return fit_tables([(nodes, scores)])


def fit_tables(tables: Sequence[tuple[Nodes, Scores]]) -> Prior:
    """As `fit`, from one table or more that were scored under the same teachers and objectives, each by itself."""
    scores = tables[0][1]
    n_teachers, n_objectives = scores.alignment_MON.shape[:2]
    rows_of = [_scored(one) for _, one in tables]
    step = max(1, -(-sum(map(len, rows_of)) // FIT_NODES))
    children, seen = [], 0
    for (nodes, one), rows in zip(tables, rows_of, strict=True):
        children += [_children(nodes, one, some) for some in _blocks(rows[-seen % step :: step], len(SIGMA_S))]
        seen += len(rows)
    weight_S = fit_mixture(np.concatenate([c.log_likelihood_nS for c in children] or [np.zeros((0, len(SIGMA_S)))]))
    kappa_MO, positive_MOS = np.ones((n_teachers, n_objectives)), np.full((n_teachers, n_objectives, len(SIGMA_S)), 0.5)
    n_MO = np.zeros((n_teachers, n_objectives), dtype=np.int64)
    for m in range(n_teachers):
        for o in range(n_objectives):
            along = [c.along(m, o) for c in children]
            n_MO[m, o] = sum(np.count_nonzero(a.there_n) for a in along)
            if n_MO[m, o]:
                kappa_MO[m, o], positive_MOS[m, o] = _fit_direction(children, along, weight_S)
    follows_O = np.array([objectives.parse(name).follows_completions for name in scores.objectives], dtype=bool)
    return Prior(
        teachers=scores.teachers,
        objectives=scores.objectives,
        weight_S=weight_S,
        kappa_MO=kappa_MO,
        positive_MOS=positive_MOS,
        n_contrasts_MO=n_MO,
        calibrated_MO=(n_MO >= MIN_CONTRASTS) & ~follows_O,
    )


def _fit_direction(children: Sequence[_Children], along: Sequence[_Along], weight_S: Array) -> tuple[float, Array]:
    """kappa, by maximum likelihood, and P(x > 0) at each sigma, averaged over c, of one teacher and objective."""
    log_nS = np.concatenate([c.log_likelihood_nS[a.there_n] for c, a in zip(children, along, strict=True)])
    log_nS = log_nS + np.log(np.maximum(weight_S, 1e-300))
    x_n = np.concatenate([a.x_n[a.there_n] for a in along])
    variance_nS = np.concatenate([a.variance_nS[a.there_n] for a in along])
    kappa = float(max(KAPPA, key=lambda kappa: float(_log_sum(log_nS + _magnitude(x_n, variance_nS, kappa)).sum())))
    log_nS = log_nS + _magnitude(x_n, variance_nS, kappa)
    joint_nS, up_nS = np.exp(log_nS - log_nS.max(axis=1, keepdims=True)), _up(x_n, variance_nS, kappa)
    share_CS = np.clip(normal_cdf(SHARPNESS[:, None] * SIGMA_S), 1.0 - SUREST, SUREST)
    by_sharpness_nC = (joint_nS * up_nS) @ share_CS.T + (joint_nS * (1.0 - up_nS)) @ (1.0 - share_CS.T)
    log_C = np.log(by_sharpness_nC).sum(axis=0)
    weight_C = np.exp(log_C - log_C.max())
    return kappa, weight_C @ share_CS / weight_C.sum()


def posterior(
    nodes: Nodes, scores: Scores, prior: Prior, *, level: float | None = 0.95, seed: int = 0, n_draws: int = 256
) -> Posterior:
    """How sure the scores of these nodes are: all of a study, or one page of it, under the prior of the study.

    `level` of the intervals of the cosine; None leaves them and its deviation out, which take most of the time.
    Raises ValueError for a prior that was fitted to other teachers or objectives.
    """
    if (prior.teachers, prior.objectives) != (scores.teachers, scores.objectives):
        raise ValueError(
            f"The prior is for teachers {', '.join(prior.teachers)} and objectives {', '.join(prior.objectives)}, the scores are "
            f"not; fit it to scores of the same teachers and objectives."
        )
    shape = scores.alignment_MON.shape
    p_positive, low, high, sd = (np.full(shape, np.nan) for _ in range(4))
    reliability_N = np.full(shape[-1], np.nan)
    normal_ZD, order_D = _normal_draws(seed, scores.ideal_NK.shape[1] + 2, n_draws)
    for rows in _blocks(_scored(scores), normal_ZD.shape[1]):
        children = _children(nodes, scores, rows)
        draws = _Draws(children, prior.weight_S, normal_ZD, order_D)
        reliability_N[rows] = draws.reliability_n
        for m in range(shape[0]):
            for o in range(shape[1]):
                along, kappa, share_S = children.along(m, o), prior.kappa_MO[m, o], prior.positive_MOS[m, o]
                here = np.where(along.there_n, 1.0, np.nan)
                p_positive[m, o, rows] = here * _p_positive(children, along, prior.weight_S, kappa, share_S)
                if level is None:
                    continue
                cosine_nD, weight_nD = draws.cosines(along, kappa, share_S)
                ends_and_sd = _summary(cosine_nD, weight_nD, level)
                low[m, o, rows], high[m, o, rows], sd[m, o, rows] = (here * one_n for one_n in ends_and_sd)
    return Posterior(p_positive, low, high, sd, reliability_N, prior.calibrated_MO)


@lru_cache(maxsize=8)
def _normal_draws(seed: int, n_rows: int, n_draws: int) -> tuple[Array, NDArray[np.int64]]:
    """Standard normal draws with their opposites [Z, D], and an order of D. More rows leave the first ones as they are: the
    widest node of a page changes no other. Not by numpy.random, which takes 7 MB of the explorer for nothing else."""
    gauss = random.Random(seed).gauss
    normal_ZD = np.array([[gauss(0.0, 1.0) for _ in range(-(-n_draws // 2))] for _ in range(n_rows)])
    normal_ZD = np.concatenate([normal_ZD, -normal_ZD], axis=1)
    n = normal_ZD.shape[1]
    return normal_ZD, np.array(random.Random(seed + 1).sample(range(n), n))


class _Along(Struct, frozen=True):
    """The contrast of one teacher and objective at the nodes of a block."""

    there_n: Bool
    u_nK: Array  #: a / |a|
    length_n: Array  #: |a| / |d|
    x_n: Array
    variance_nS: Array  #: of x, given sigma


class _Children(Struct, frozen=True):
    """The children of the nodes of a block, their rates in units of sqrt(V (1 - V))."""

    scores: Scores
    rows_n: NDArray[np.int64]
    student_nK: Array  #: log-probabilities over the support
    P_nK: Array  #: 0 for a child that takes no part
    q_nK: Array
    variance_nKS: Array  #: of q, given sigma; 1 for a child that takes no part
    log_likelihood_nS: Array

    def along(self, m: int, o: int) -> _Along:
        """The contrast of teacher m under objective o."""
        update_nK = self.scores.update_MONK[m, o, self.rows_n]
        a_nK = np.where(self.P_nK > 0.0, contrast(self.student_nK, update_nK, self.scores.support), 0.0)
        size_n = np.sqrt((a_nK * a_nK).sum(axis=1))
        there_n = (size_n > 0.0) & np.isfinite(self.scores.alignment_MON[m, o, self.rows_n])
        u_nK = np.where(there_n[:, None], a_nK / np.where(size_n > 0.0, size_n, 1.0)[:, None], 0.0)
        variance_nS = np.einsum("nk,nks->ns", u_nK * u_nK, self.variance_nKS)
        whole_nK = lump(update_nK) if self.scores.support == "lumped" else update_nK
        with np.errstate(invalid="ignore", divide="ignore"):
            length_n = size_n / np.sqrt(np.nansum(whole_nK**2, axis=1))
        return _Along(there_n, u_nK, length_n, (u_nK * self.q_nK).sum(axis=1), np.maximum(variance_nS, EXACT))


def _scored(scores: Scores) -> NDArray[np.int64]:
    return np.flatnonzero(np.isfinite(scores.alignment_MON).any(axis=(0, 1)))


def _blocks(rows: NDArray[np.int64], times: int) -> Iterator[NDArray[np.int64]]:
    """The rows in blocks that bound memory."""
    size = max(1, BLOCK // times)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _children(nodes: Nodes, scores: Scores, rows: NDArray[np.int64]) -> _Children:
    """Rates, variances and the likelihood of each sigma, for some nodes.

    Given sigma, a child's success rate has the mean V and the variance sigma^2 V (1 - V), as of Beta(m V, m (1 - V)) with
    m = 1/sigma^2 - 1: the variance of its mean is E[q (1 - q)]/N under what is then known of q. It is V (1 - V)/N for
    siblings that are alike, whatever few completions say, and almost 0 where all agree and siblings are far apart. A
    child backed up from many strata has its smoothed variance.
    """
    e = scores.estimates
    student_nK = over_support(nodes, nodes.logprob_NK, e.kept_NK, scores.support)[rows]
    p_nK, N_nK, S_nK = (x[rows].astype(np.float64) for x in (e.p_succ_NK, e.n_NK, e.n_success_NK))
    P_nK = np.where(np.isnan(p_nK), 0.0, np.exp(np.where(np.isnan(student_nK), -np.inf, student_nK)))
    p_nK = np.where(P_nK > 0.0, p_nK, 0.0)
    V_n1 = np.clip((P_nK * p_nK).sum(axis=1, keepdims=True) / P_nK.sum(axis=1, keepdims=True), 1e-6, 1.0 - 1e-6)
    spread_n1 = V_n1 * (1.0 - V_n1)
    m_S = 1.0 / SIGMA_S**2 - 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        total_nKS = N_nK[..., None] + m_S
        q_nKS = (S_nK[..., None] + m_S * V_n1[..., None]) / total_nKS
        direct_nKS = q_nKS * (1.0 - q_nKS) * total_nKS / (total_nKS + 1.0) / N_nK[..., None]
    is_direct_nK = np.isclose(e.effective_n_NK[rows], N_nK, rtol=1e-6)
    variance_nKS = np.where(is_direct_nK[..., None], direct_nKS, e.smoothed_variance_NK[rows][..., None])
    variance_nKS = np.where((P_nK > 0.0)[..., None], np.maximum(variance_nKS / spread_n1[..., None], EXACT), 1.0)
    q_nK = p_nK / np.sqrt(spread_n1)
    return _Children(scores, rows, student_nK, P_nK, q_nK, variance_nKS, _log_likelihood(P_nK > 0.0, q_nK, variance_nKS))


def _log_likelihood(takes_part_nK: Bool, q_nK: Array, variance_nKS: Array) -> Array:
    """log density of the node's rates at each sigma, m integrated out (the restricted likelihood)."""
    total_nKS = SIGMA_S**2 + variance_nKS
    precision_nKS = np.where(takes_part_nK[..., None], 1.0 / total_nKS, 0.0)
    sum_nS = precision_nKS.sum(axis=1)
    m_nS = np.einsum("nks,nk->ns", precision_nKS, q_nK) / sum_nS
    miss_nKS = q_nK[..., None] - m_nS[:, None, :]
    log_total_nKS = np.where(takes_part_nK[..., None], np.log(total_nKS), 0.0)
    return np.asarray(-0.5 * ((log_total_nKS + precision_nKS * miss_nKS**2).sum(axis=1) + np.log(sum_nS)), dtype=np.float64)


def _magnitude(x_n: Array, variance_nS: Array, kappa: float) -> Array:
    """How much likelier x is made by kappa, at each sigma: a logarithm."""
    plain_nS, scaled_nS = SIGMA_S**2 + variance_nS, (kappa * SIGMA_S) ** 2 + variance_nS
    x2_n1 = x_n[:, None] ** 2
    return np.asarray(-0.5 * (x2_n1 / scaled_nS - x2_n1 / plain_nS + np.log(scaled_nS / plain_nS)), dtype=np.float64)


def _given_x(x_n: Array, variance_nS: Array, kappa: float) -> tuple[Array, Array]:
    """Mean and variance of the true contrast at each sigma, before its sign is weighed."""
    prior_S = (kappa * SIGMA_S) ** 2
    shrink_nS = prior_S / (prior_S + variance_nS)
    return shrink_nS * x_n[:, None], shrink_nS * variance_nS


def _up(x_n: Array, variance_nS: Array, kappa: float) -> Array:
    mean_nS, variance_nS = _given_x(x_n, variance_nS, kappa)
    return normal_cdf(mean_nS / np.sqrt(variance_nS))


def _log_sum(log_nS: Array) -> Array:
    top_n1 = log_nS.max(axis=1, keepdims=True)
    return np.asarray(top_n1[:, 0] + np.log(np.exp(log_nS - top_n1).sum(axis=1)), dtype=np.float64)


def _p_positive(children: _Children, along: _Along, weight_S: Array, kappa: float, share_S: Array) -> Array:
    joint_nS = children.log_likelihood_nS + _magnitude(along.x_n, along.variance_nS, kappa)
    joint_nS = np.exp(joint_nS - joint_nS.max(axis=1, keepdims=True)) * weight_S
    up_nS = _up(along.x_n, along.variance_nS, kappa)
    positive_n, negative_n = joint_nS * up_nS @ share_S, joint_nS * (1.0 - up_nS) @ (1.0 - share_S)
    return np.asarray(positive_n / (positive_n + negative_n), dtype=np.float64)


class _Draws:
    """Draws of the true rates of a block's nodes, under the prior of a direction that knows nothing.

    A teacher's own prior weighs them: importance weights for how large and of which sign its contrast is.
    """

    def __init__(self, children: _Children, weight_S: Array, normal_ZD: Array, order_D: NDArray[np.int64]) -> None:
        self.children = children
        joint_nS = np.exp(children.log_likelihood_nS - children.log_likelihood_nS.max(axis=1, keepdims=True)) * weight_S
        joint_nS /= joint_nS.sum(axis=1, keepdims=True)
        n_draws = normal_ZD.shape[1]
        # Sigma by even steps through its distribution, in an order that has nothing to do with the normal numbers.
        steps_D = (order_D + 0.5) / n_draws
        upto_nS = joint_nS.cumsum(axis=1)
        upto_nS[:, -1] = np.inf
        self.at_nD = (upto_nS[:, :, None] < steps_D).sum(axis=1)
        self.row_n1 = np.arange(len(joint_nS))[:, None]
        self.normal_D, of_m_D, of_q_KD = normal_ZD[0], normal_ZD[1], normal_ZD[2 : 2 + children.q_nK.shape[1]]

        takes_part_nK1 = (children.P_nK > 0.0)[..., None]
        total_nKS = SIGMA_S**2 + children.variance_nKS
        precision_nKS = np.where(takes_part_nK1, 1.0 / total_nKS, 0.0)
        sum_nS = precision_nKS.sum(axis=1)
        m_nS = np.einsum("nks,nk->ns", precision_nKS, children.q_nK) / sum_nS
        to_m_nKS = children.variance_nKS * precision_nKS  # how far a rate is drawn to the node's
        mean_nKS = children.q_nK[..., None] * (1.0 - to_m_nKS) + to_m_nKS * m_nS[:, None]
        own_nKS = np.where(takes_part_nK1, SIGMA_S**2 * children.variance_nKS / total_nKS, 0.0)
        m_nD = self._take(np.sqrt(1.0 / sum_nS)) * of_m_D
        self.q_nDK = np.stack(
            [
                self._take(mean_nKS[:, k]) + self._take(np.sqrt(own_nKS[:, k])) * z_D + self._take(to_m_nKS[:, k]) * m_nD
                for k, z_D in enumerate(of_q_KD)
            ],
            axis=-1,
        )
        # Covariance of the draws, averaged over sigma: diagonal, and the part that m brings.
        self.own_nK = np.einsum("nks,ns->nk", own_nKS, joint_nS)
        self.by_m_nK = np.einsum("nks,ns->nk", to_m_nKS * np.sqrt(1.0 / sum_nS)[:, None], joint_nS)

        kept_nK = ~np.isnan(children.scores.ideal_NK[children.rows_n])
        self.kept_nK = kept_nK
        self.g_nDK = self._gradient(self.q_nDK)
        self.g2_nD = np.einsum("ndk,ndk->nd", self.g_nDK, self.g_nDK)
        estimate_nK = self._gradient(children.q_nK[:, None])[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine_nD = np.einsum("ndk,nk->nd", self.g_nDK, estimate_nK) / np.sqrt(self.g2_nD)
            self.reliability_n = cosine_nD.mean(axis=1) / np.sqrt((estimate_nK**2).sum(axis=1))

    def cosines(self, along: _Along, kappa: float, share_S: Array) -> tuple[Array, Array]:
        """Draws of the cosine with one update, and their weights: [n, D] each.

        Every draw of rates is moved, the way its covariance goes, until its contrast is one that was drawn under the
        teacher's own prior.
        """
        mean_nS, variance_nS = _given_x(along.x_n, along.variance_nS, kappa)
        x_nD = self._take(mean_nS) + self._take(np.sqrt(variance_nS)) * self.normal_D
        share_D = share_S[self.at_nD]
        log_weight_nD = self._take(_magnitude(along.x_n, along.variance_nS, kappa))
        weight_nD = np.exp(log_weight_nD - log_weight_nD.max(axis=1, keepdims=True)) * np.where(
            x_nD > 0.0, share_D, 1.0 - share_D
        )
        move_nK = self.own_nK * along.u_nK + self.by_m_nK * (self.by_m_nK * along.u_nK).sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            move_nK = move_nK / (move_nK * along.u_nK).sum(axis=1, keepdims=True)
            g_nK = self._gradient(move_nK[:, None])[:, 0]
            by_nD = x_nD - np.einsum("ndk,nk->nd", self.q_nDK, along.u_nK)
            g2_nD = self.g2_nD + by_nD * (
                2.0 * np.einsum("ndk,nk->nd", self.g_nDK, g_nK) + by_nD * (g_nK**2).sum(axis=1)[:, None]
            )
            cosine_nD = along.length_n[:, None] * x_nD / np.sqrt(g2_nD)
        return np.clip(cosine_nD, -1.0, 1.0), weight_nD

    def _take(self, by_sigma_nS: Array) -> Array:
        """What belongs to the sigma of each draw: [n, D]."""
        return np.asarray(by_sigma_nS[self.row_n1, self.at_nD], dtype=np.float64)

    def _gradient(self, q_nDK: Array) -> Array:
        """g over the support, from rates: 0 elsewhere."""
        P_n1K = self.children.P_nK[:, None]
        g_nDK = np.where(self.kept_nK[:, None], P_n1K * (q_nDK - (P_n1K * q_nDK).sum(axis=-1, keepdims=True)), 0.0)
        return lump(g_nDK) if self.children.scores.support == "lumped" else g_nDK


def _summary(cosine_nD: Array, weight_nD: Array, level: float) -> tuple[Array, Array, Array]:
    """Lower and upper end of the central interval, and standard deviation, of weighted draws."""
    weight_nD = weight_nD / weight_nD.sum(axis=1, keepdims=True)
    mean_n1 = (weight_nD * cosine_nD).sum(axis=1, keepdims=True)
    sd_n = np.sqrt((weight_nD * (cosine_nD - mean_n1) ** 2).sum(axis=1))
    order_nD = np.argsort(cosine_nD, axis=1)
    cosine_nD, weight_nD = (np.take_along_axis(x, order_nD, axis=1) for x in (cosine_nD, weight_nD))
    upto_nD = weight_nD.cumsum(axis=1) - weight_nD / 2.0
    ends = []
    for p in (0.5 - level / 2.0, 0.5 + level / 2.0):
        at_n1 = np.clip((upto_nD < p).sum(axis=1, keepdims=True), 0, cosine_nD.shape[1] - 1)
        ends.append(np.take_along_axis(cosine_nD, at_n1, axis=1)[:, 0])
    return ends[0], ends[1], sd_n
