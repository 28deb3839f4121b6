"""Between which values a number lies that a served teacher cannot give, from the two tails that are known.

At a position student and teacher are known on the same C tokens; p and t are the masses that are left, spread in an
unknown way over n further tokens. No token of the teacher's tail is more likely than the least likely one of its top, the
*cap*. Both KLs and JS can only fall when tokens are lumped, which bounds them from below; from above a KL has no bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compute.served.known import ROUNDING
from store.schema import DIVERGENCES

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least and greatest values, [..]; divergences with a last axis in the order of the schema."""

    entropy_low: Array
    entropy_high: Array
    divergence_low: Array
    divergence_high: Array


def bounds(student_logprob: ArrayLike, teacher_logprob: ArrayLike, vocab_size: int) -> Bounds:
    """Bounds from the teacher's C most likely tokens: log-probabilities of both sides at them, [.., C], NaN where unknown.

    These are `student_logprob_TC` and `logprob_TC` of `Rollout.teacher_topk` (method.md 6).
    """
    logp, logt = np.asarray(student_logprob, dtype=np.float64), np.asarray(teacher_logprob, dtype=np.float64)
    there = ~np.isnan(logp + logt)
    logp, logt = np.where(there, logp, -np.inf), np.where(there, logt, -np.inf)
    P, T = np.exp(logp), np.exp(logt)
    n = np.maximum(vocab_size - there.sum(-1), 0)
    p, t = (np.where(n > 0, np.clip(1.0 - mass.sum(-1), 0.0, 1.0), 0.0) for mass in (P, T))
    # A tail is 1 less a sum: where tokens are left, it may be larger by that sum's rounding than it looks.
    p_most, t_most = (np.where(n > 0, tail + ROUNDING, 0.0) for tail in (p, t))
    cap = np.minimum(t_most, np.min(np.where(there, T, 1.0), axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_r = np.where(there, logt - logp, 0.0)
        log_p, log_t = np.log(p), np.log(t)
        entropy = -_sum(T, np.where(there, logt, 0.0))
        entropy_low = entropy - _times(t, np.log(cap))
        entropy_high = entropy + _times(t_most, np.log(np.maximum(n, 1)) - np.log(t_most))
        reverse = -_sum(P, log_r) + _times(p, log_p - np.log(t_most))
        forward = _sum(T, log_r) + _times(t, log_t - np.log(p_most))
        middle = np.where(there, np.logaddexp(logp, logt) - np.log(2.0), 0.0)
        js = 0.5 * (_sum(P, np.where(there, logp, 0.0) - middle) + _sum(T, np.where(there, logt, 0.0) - middle))
        log_m = np.log((p + t) / 2.0)
        js_low = js + 0.5 * (_times(p, log_p - log_m) + _times(t, log_t - log_m))
        js_high = js + 0.5 * np.log(2.0) * (p_most + t_most)
        squares = ((P - T) ** 2).sum(-1)
        l2_low = np.sqrt(squares + _times((p - t) ** 2, 1.0 / np.maximum(n, 1)))
        l2_high = np.sqrt(squares + p_most**2 + t_most * cap)
        dot, PP, TT = (P * T).sum(-1), (P * P).sum(-1), (T * T).sum(-1)
        cosine_low = dot / np.sqrt((PP + p_most**2) * (TT + t_most * cap))
        least = (PP + p**2 / np.maximum(n, 1)) * (TT + t**2 / np.maximum(n, 1))
        cosine_high = np.minimum(1.0, (dot + p_most * cap) / np.sqrt(least))
    nothing_left = n == 0
    low = {"kl_student_teacher": reverse, "kl_teacher_student": forward, "js": js_low, "l2": l2_low, "cosine": cosine_low}
    high = {
        "kl_student_teacher": np.where(nothing_left, reverse, np.inf),
        "kl_teacher_student": np.where(nothing_left, forward, np.inf),
        "js": np.minimum(js_high, np.log(2.0)),
        "l2": l2_high,
        "cosine": cosine_high,
    }
    return Bounds(
        entropy_low=entropy_low,
        entropy_high=np.where(nothing_left, entropy, entropy_high),
        divergence_low=np.stack([np.maximum(low[name], 0.0) for name in DIVERGENCES], axis=-1),
        divergence_high=np.stack([high[name] for name in DIVERGENCES], axis=-1),
    )


def _sum(mass: Array, value: Array) -> Array:
    return np.asarray(np.where(mass > 0.0, mass * value, 0.0).sum(-1))


def _times(mass: Array, value: Array) -> Array:
    """mass * value, 0 where there is no mass."""
    return np.where(mass > 0.0, mass * value, 0.0)
