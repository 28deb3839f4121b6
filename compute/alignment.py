"""What a teacher's update does to the student's success: cosine, gain, advantage, and how sure they are.

At node u, child k has student probability P_k and success probability p_k; V = sum_k P_k p_k over the whole
vocabulary (the rest of it is one child). The ideal gradient of V in the student's logits is g_j = P_j (p_j - V)
and a distillation update is d_j = P_j (f_j - fbar) (see compute.objectives). Both are compared over S_u, the kept
children, under one of three supports (method.md 1):

    sliced         P, V and fbar over the whole vocabulary, both vectors cut to S_u
    renormalised   P and T renormalised over S_u first; V and fbar over S_u
    lumped         the sliced vectors with one coordinate more: minus the sum of the kept ones

The last axis runs over children; NaN marks an absent child or one that is not kept.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compute.objectives import difference, mean

Array = NDArray[np.float64]
Support = Literal["sliced", "renormalised", "lumped"]
SUPPORTS: tuple[Support, ...] = get_args(Support)


def ideal_gradient(student_logprob: ArrayLike, p_succ: ArrayLike, *, value: ArrayLike | None = None) -> Array:
    """g_j = P_j (p_j - V), the ascent direction of the student's success probability V in its logits.

    V is over the given children, so these should be the whole vocabulary; `value` gives V where they are not.
    """
    P, p = np.exp(_float(student_logprob)), _float(p_succ)
    V = mean(P, p + 0.0 * P) if value is None else _float(value)
    return np.asarray(P * difference(p, V[..., None]), dtype=np.float64)


def cosine(a: ArrayLike, b: ArrayLike) -> Array:
    """Cosine over the children that both vectors have. A zero vector has no direction: NaN, never 0."""
    a, b = _both(a, b)
    return np.asarray(np.clip(np.einsum("...k,...k->...", _unit(a), _unit(b)), -1.0, 1.0), dtype=np.float64)


def gain(ideal: ArrayLike, update: ArrayLike) -> Array:
    """<g, d> / |d|: first-order gain in success per unit of the update, linear in p. NaN where |d| = 0."""
    g, d = _both(ideal, update)
    return np.asarray(np.einsum("...k,...k->...", g, _unit(d)), dtype=np.float64)


def teacher_advantage(student_logprob: ArrayLike, teacher_logprob: ArrayLike, p_succ: ArrayLike) -> Array:
    """Adv = sum_k (T_k - P_k) p_k over the children whose p is given, P and T renormalised over them."""
    log_P, log_T, p = np.broadcast_arrays(_float(student_logprob), _float(teacher_logprob), _float(p_succ))
    kept = ~np.isnan(log_P + log_T + p)
    T_less_P = np.exp(renormalise(log_T, kept)) - np.exp(renormalise(log_P, kept))
    advantage = np.where(kept, T_less_P * np.where(kept, p, 0.0), 0.0).sum(axis=-1)
    return np.where(kept.any(axis=-1), advantage, np.nan)


def cut(vector: ArrayLike, kept: ArrayLike) -> Array:
    """The vector over the kept children only: NaN elsewhere."""
    return np.where(np.asarray(kept, dtype=bool), _float(vector), np.nan)


def renormalise(logprob: ArrayLike, kept: ArrayLike) -> Array:
    """Log-probabilities given that one of the kept children is taken; NaN elsewhere."""
    log = cut(logprob, kept)
    present = ~np.isnan(log)
    top = np.max(log, axis=-1, keepdims=True, where=present, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.sum(np.exp(log - top), axis=-1, keepdims=True, where=present)
    with np.errstate(divide="ignore"):
        return np.asarray(log - top - np.log(total), dtype=np.float64)


def lump(vector: ArrayLike) -> Array:
    """One coordinate more: all other tokens together, minus the sum of the kept ones (whole vectors sum to zero)."""
    kept = _float(vector)
    rest = np.where(np.isnan(kept).all(axis=-1), np.nan, -np.nansum(kept, axis=-1))
    return np.concatenate([kept, rest[..., None]], axis=-1)


def contrast(student_logprob: ArrayLike, direction: ArrayLike, support: Support = "sliced") -> Array:
    """The a_k of <g, d> = sum_k a_k p_k, for every child k whose probability is given.

    a_k = P_k (d_k 1[k in S_u] - sum_{j in S_u} P_j d_j). `direction` d is cut to S_u (NaN elsewhere); the
    probabilities are the whole node's, but for `renormalised` those given S_u, NaN elsewhere. Lumped: the extra
    coordinates are minus the sums, so <g, d> = sum_j g_j (d_j + sum d): the sliced form, for d_j + sum d.
    """
    P, d = np.exp(_float(student_logprob)), _float(direction)
    in_S = ~np.isnan(d)
    d = np.where(in_S, d, 0.0)
    if support == "lumped":
        d = np.where(in_S, d + d.sum(axis=-1, keepdims=True), 0.0)
    P_dot_d = np.sum(P * d, axis=-1, keepdims=True, where=in_S)
    return np.asarray(P * (d - P_dot_d), dtype=np.float64)


def contrast_variance(contrast_k: ArrayLike, variance: ArrayLike) -> Array:
    """Variance of sum_k a_k p_k: siblings share no completion, so sum_k a_k^2 var(p_k). NaN children are left out."""
    a, variance = np.broadcast_arrays(_float(contrast_k), _float(variance))
    return np.asarray(np.nansum(a * a * variance, axis=-1), dtype=np.float64)


def gain_se(student_logprob: ArrayLike, update: ArrayLike, variance: ArrayLike, support: Support = "sliced") -> Array:
    """Exact standard error of `gain`: that of sum_k a_k p_k, over |d|. Arguments as in `contrast`."""
    a = contrast(student_logprob, update, support)
    d = lump(update) if support == "lumped" else _float(update)
    squared_norm = np.nansum(d * d, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        se = np.sqrt(contrast_variance(a, variance) / squared_norm)
    return np.where(squared_norm > 0.0, se, np.nan)


def trace_of_covariance(student_logprob: ArrayLike, variance: ArrayLike, kept: ArrayLike, support: Support = "sliced") -> Array:
    """sum_j var(g_j) over S_u: what noise adds, in expectation, to |g|^2.

    g_j = P_j (p_j - V), hence var(g_j) = P_j^2 ((1 - 2 P_j) var_j + sum_k P_k^2 var_k). Probabilities as in
    `contrast`.
    """
    in_S = np.asarray(kept, dtype=bool)
    P, var = np.exp(_float(student_logprob)), _float(variance)
    var_V = np.nansum(P * P * var, axis=-1, keepdims=True)
    var_g = P * P * ((1.0 - 2.0 * P) * var + var_V)
    trace = np.nansum(np.where(in_S, var_g, 0.0), axis=-1)
    if support == "lumped":
        trace = trace + contrast_variance(contrast(student_logprob, np.where(in_S, 1.0, np.nan)), variance)
    return np.asarray(trace, dtype=np.float64)


def _float(a: ArrayLike) -> Array:
    return np.asarray(a, dtype=np.float64)


def _both(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Two vectors with 0 where either of them lacks a child."""
    a, b = np.broadcast_arrays(_float(a), _float(b))
    absent = np.isnan(a + b)
    return np.where(absent, 0.0, a), np.where(absent, 0.0, b)


def _unit(vector: Array) -> Array:
    """The direction of a vector, NaN for a zero vector. Scaled first, so that its square cannot underflow."""
    size = np.abs(vector).max(axis=-1, keepdims=True, initial=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = vector / size
        return np.asarray(scaled / np.sqrt(np.einsum("...k,...k->...", scaled, scaled))[..., None], dtype=np.float64)
