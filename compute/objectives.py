"""Distillation objectives: how each one would move the student's next-token logits.

At a node the student gives token j the probability P_j, the teacher T_j; r = T/P. Every objective here has a
direction of descent, with respect to the student's logits, of one form:

    update_j = P_j (f_j - fbar),    fbar = sum_k P_k f_k                                         (method.md 2)

and differs from the others in f alone. The functions below are in the order of that page's table.

An objective is spelled by its name and, where it has one, its parameter: ``reverse_kl``, ``jsd(0.5)``.

Log-probabilities are in nat; the last axis runs over the children of a node or over the whole vocabulary; NaN marks
an absent child. Student and teacher broadcast: [N, K] against [M, N, K] gives [M, N, K].
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Log-probabilities below this are raised to it: exp(-700) is still a normal float64, and so is exp(700), hence
#: P, r and P r = T stay finite and accurate where a softmax underflows to 0 or a token is masked with -inf.
LOG_FLOOR = -700.0
#: Two float64 numbers closer than this share of their size differ by rounding only.
ROUNDING = 1e-13
#: A JSD with beta within this distance of 0 or 1 would fade to a zero vector: it is divided by that distance.
JSD_END = 1e-3


def reverse_kl(log_P: Array, log_T: Array) -> Array:
    """KL(P‖T), and sampled-token OPD in expectation (the paper's "GKD"): f = log r."""
    return log_T - log_P


def forward_kl(log_P: Array, log_T: Array) -> Array:
    """KL(T‖P), cross-entropy on teacher samples: f = r."""
    return np.exp(log_T - log_P)


def jsd(log_P: Array, log_T: Array, beta: float) -> Array:
    """GKD's beta KL(T‖M) + (1-beta) KL(P‖M), M = beta T + (1-beta) P: f = (1-beta) log(M/P).

    Exactly 0 is forward KL and exactly 1 reverse KL. Nearer to an end than JSD_END, f is divided by the distance
    to that end, so that it tends to r - 1 and to log r. The scale of f changes neither cosine nor gain.
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"jsd(beta): beta must lie between 0 and 1, not {beta:g}.")
    if beta == 0.0:
        return forward_kl(log_P, log_T)
    if beta == 1.0:
        return reverse_kl(log_P, log_T)
    log_r = log_T - log_P
    # M/P = 1 + beta (r - 1): log1p keeps its digits while M is near P, logaddexp does far from it.
    excess = beta * np.expm1(log_r)
    log_M_over_P = np.where(
        np.abs(excess) < 0.5,
        np.log1p(np.clip(excess, -0.5, 0.5)),
        np.logaddexp(np.log1p(-beta), np.log(beta) + log_r),
    )
    scale = 1.0 / beta if beta < JSD_END else 1.0 / (1.0 - beta) if 1.0 - beta < JSD_END else 1.0
    return np.asarray(scale * (1.0 - beta) * log_M_over_P, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Objective:
    """One row of the table."""

    name: str
    loss: str  #: for people
    f: Callable[..., Array]  #: f(log_P, log_T, one argument per parameter)
    parameters: tuple[tuple[str, float], ...] = ()  #: names and defaults, in the order of the spelling


TABLE: tuple[Objective, ...] = (
    Objective("reverse_kl", "KL(P‖T)", reverse_kl),
    Objective("forward_kl", "KL(T‖P)", forward_kl),
    Objective("jsd", "beta KL(T‖M) + (1-beta) KL(P‖M), M = beta T + (1-beta) P", jsd, (("beta", 0.5),)),
)
NAMES: tuple[str, ...] = tuple(objective.name for objective in TABLE)
_BY_NAME = {objective.name: objective for objective in TABLE}
_SPELLING = re.compile(r"\s*([a-z0-9_]+)\s*(?:\(([^()]*)\))?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Spelling:
    """An objective with its parameters filled in. `str()` gives the one spelling under which it is stored."""

    name: str
    parameters: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        values = ", ".join(f"{value:.12g}" for _, value in self.parameters)
        return f"{self.name}({values})" if values else self.name


def parse(spelling: str, **params: float) -> Spelling:
    """Read a spelling such as ``jsd(0.5)``, ``jsd(beta=0.5)`` or ``jsd``; `params` give parameters by name.

    Raises ValueError, in one sentence, for an unknown name, a parameter that the objective does not have, one that
    is given twice, or one that is no number.
    """
    match = _SPELLING.fullmatch(spelling)
    name = match.group(1) if match else spelling
    if match is None or name not in _BY_NAME:
        nearest = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"Unknown objective {spelling!r}; did you mean {nearest!r}? Allowed: {', '.join(NAMES)}.")
    defaults = dict(_BY_NAME[name].parameters)
    given: dict[str, float] = {}
    for place, text in enumerate(part for part in (match.group(2) or "").split(",") if part.strip()):
        key, _, value = text.rpartition("=")
        key = key.strip() or (list(defaults)[place] if place < len(defaults) else f"parameter {place + 1}")
        _give(given, name, key, value.strip(), spelling)
    for key, number in params.items():
        _give(given, name, key, number, spelling)
    return Spelling(name, tuple((key, given.get(key, default)) for key, default in defaults.items()))


def _give(given: dict[str, float], name: str, key: str, value: str | float, spelling: str) -> None:
    """Enter one parameter, or say what is wrong with it."""
    allowed = [parameter for parameter, _ in _BY_NAME[name].parameters]
    if key not in allowed:
        raise ValueError(f"Objective {name!r} has no {key!r} (in {spelling!r}); it takes {', '.join(allowed) or 'no parameter'}.")
    if key in given:
        raise ValueError(f"Objective {spelling!r}: {key!r} is given twice.")
    try:
        given[key] = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"Objective {spelling!r}: {key!r} must be a number, not {value!r}.") from None


def f(name: str, student_logprob: ArrayLike, teacher_logprob: ArrayLike, **params: float) -> Array:
    """f_j of the objective, finite wherever the log-probabilities are not NaN."""
    log_P, log_T = _log(student_logprob), _log(teacher_logprob)
    spelling = parse(name, **params)
    with np.errstate(invalid="ignore"):  # absent children
        return _BY_NAME[spelling.name].f(log_P, log_T, **dict(spelling.parameters))


def fbar(name: str, student_logprob: ArrayLike, teacher_logprob: ArrayLike, **params: float) -> Array:
    """sum_k P_k f_k over the last axis, which should be the whole vocabulary. Drops the last axis."""
    return mean(np.exp(_log(student_logprob)), f(name, student_logprob, teacher_logprob, **params))


def update(name: str, student_logprob: ArrayLike, teacher_logprob: ArrayLike, **params: float) -> Array:
    """The direction of descent P_j (f_j - fbar), with fbar over the given children. NaN where a child is absent."""
    f_k = f(name, student_logprob, teacher_logprob, **params)
    P = np.exp(_log(student_logprob))
    return np.asarray(P * difference(f_k, mean(P, f_k)[..., None]), dtype=np.float64)


def update_about(name: str, student_logprob: ArrayLike, teacher_logprob: ArrayLike, fbar: ArrayLike, **params: float) -> Array:
    """P_j (f_j - fbar) for children that are not the whole vocabulary, with the fbar of all of it."""
    f_k = f(name, student_logprob, teacher_logprob, **params)
    P = np.exp(_log(student_logprob))
    return np.asarray(P * difference(f_k, np.asarray(fbar, dtype=np.float64)[..., None]), dtype=np.float64)


def dr_grpo_sample(student_logprob: ArrayLike, n: ArrayLike, n_success: ArrayLike, group_mean: float) -> Array:
    """Dr. GRPO's update at a node from one group of unforced rollouts, not in expectation.

    (1/N_u) sum_i A_i (onehot(r_i)_j - P_j), A_i = (R_i - mean R) / std R, with mean and (population) standard
    deviation over the whole group; n_k rollouts passed through child k, n_success_k of them correct. NaN where no
    rollout came by, or where the group has one outcome only.
    """
    P = np.exp(_log(student_logprob))
    n_k, n_success_k = np.asarray(n, dtype=np.float64), np.asarray(n_success, dtype=np.float64)
    A_sum_k = n_success_k - n_k * group_mean
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt(np.float64(group_mean * (1.0 - group_mean)))
        scale = 1.0 / (std * np.nansum(n_k, axis=-1, keepdims=True))
        return np.asarray((A_sum_k - P * np.nansum(A_sum_k, axis=-1, keepdims=True)) * scale, dtype=np.float64)


def mean(P: Array, f_k: Array) -> Array:
    """sum_k P_k f_k over the children that are there, P made to sum to 1 over them (it may miss 1 by rounding)."""
    weight = np.where(np.isnan(f_k), 0.0, np.broadcast_to(P, f_k.shape))
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.einsum("...k,...k->...", weight, np.where(np.isnan(f_k), 0.0, f_k))
        return np.asarray(total / weight.sum(axis=-1), dtype=np.float64)


def difference(a: ArrayLike, b: ArrayLike) -> Array:
    """a - b, exactly 0 where the two are equal up to rounding, so that T = P gives a zero vector and no direction."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    gap = a - b
    return np.where(np.abs(gap) <= ROUNDING * np.maximum(np.abs(a), np.abs(b)), 0.0, gap)


def _log(logprob: ArrayLike) -> NDArray[Any]:
    return np.maximum(np.asarray(logprob, dtype=np.float64), LOG_FLOOR)
