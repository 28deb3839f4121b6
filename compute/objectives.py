"""Distillation objectives: how each one would move the student's next-token logits.

At a node the student gives token j the probability P_j, the teacher T_j; r = T/P. Every objective here has a
direction of descent, with respect to the student's logits, of one form:

    update_j = P_j (f_j - fbar),    fbar = sum_k P_k f_k                                         (method.md 2)

and differs from the others in f alone. The functions below are in the order of that page's table. Most know a token by
r alone; what the others need besides is said by `Objective.needs`.

An objective is spelled by its name and, where it has some, its parameters: ``reverse_kl``, ``jsd(0.5)``,
``top_k_reverse_kl(16, renormalised)``.

Log-probabilities are in nat; the last axis runs over the children of a node or over the whole vocabulary; NaN marks
an absent child. Student and teacher broadcast: [N, K] against [M, N, K] gives [M, N, K].
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]
#: What an f may need beside the two log-probabilities, as arrays over the same children.
Need = Literal["in_top_k", "top_k_mass", "top_k_mean", "later", "p_succ"]
Given = Mapping[Need, ArrayLike]

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
    if beta == 0.0:
        return forward_kl(log_P, log_T)
    if beta == 1.0:
        return reverse_kl(log_P, log_T)
    scale = 1.0 / beta if beta < JSD_END else 1.0 / (1.0 - beta) if 1.0 - beta < JSD_END else 1.0
    return np.asarray(scale * (1.0 - beta) * _log_mixed(log_T - log_P, beta), dtype=np.float64)


def skewed_forward_kl(log_P: Array, log_T: Array, a: float) -> Array:
    """KL(T‖m), m = aT + (1-a)P: f = (1-a) T/m. At a = 1 there is nothing left to learn."""
    return np.asarray((1.0 - a) / (a + (1.0 - a) * np.exp(log_P - log_T)), dtype=np.float64)


def skewed_reverse_kl(log_P: Array, log_T: Array, a: float) -> Array:
    """KL(P‖m), m = (1-a)T + aP: f = log(m/P) + a P/m. At a = 1 there is nothing left to learn."""
    log_r = log_T - log_P
    return np.asarray(_log_mixed(log_r, 1.0 - a) + a / ((1.0 - a) * np.exp(log_r) + a), dtype=np.float64)


def total_variation(log_P: Array, log_T: Array) -> Array:
    """sum |T - P| / 2: f = sign(T - P) / 2."""
    return np.sign(difference(log_T, log_P)) / 2.0


def squared_error(log_P: Array, log_T: Array) -> Array:
    """sum (T - P)^2 / 2, on probabilities: f = T - P."""
    return difference(np.exp(log_T), np.exp(log_P))


def chi2(log_P: Array, log_T: Array) -> Array:
    """sum (T - P)^2 / P: f = r^2 - 1, held below exp(700)."""
    return np.expm1(np.minimum(2.0 * (log_T - log_P), -LOG_FLOOR))


def hellinger(log_P: Array, log_T: Array) -> Array:
    """sum (sqrt T - sqrt P)^2 / 2: f = (sqrt r - 1) / 2."""
    return np.expm1((log_T - log_P) / 2.0) / 2.0


def top_k_reverse_kl(
    log_P: Array, log_T: Array, k: float, form: str, in_top_k: Bool, top_k_mass: Array, top_k_mean: Array
) -> Array:
    """Reverse KL over K, the student's k most likely tokens, in the three forms that trainers use.

    whole: sum_K P log(P/T), not renormalised, f = -1[K] (1 + log(P/T)); renormalised: KL of both given K,
    f = 1[K] (l_j - lbar_K) / P(K), l = log r; stop_gradient: the log-ratio as a reward, f = 1[K] log r.
    `top_k_mass` is P(K) and `top_k_mean` lbar_K, with a last axis of 1.
    """
    log_r = log_T - log_P
    if form == "whole":
        f_k = log_r - 1.0
    elif form == "stop_gradient":
        f_k = log_r
    else:
        f_k = difference(log_r, top_k_mean) / top_k_mass
    return np.where(in_top_k, f_k, 0.0 * log_r)


def k3_reward(log_P: Array, log_T: Array) -> Array:
    """Schulman's k3 as the reward of a policy gradient: f = log r - r, that is reverse minus forward KL."""
    log_r = log_T - log_P
    return np.asarray(log_r - np.exp(log_r), dtype=np.float64)


def top_k_penalty(log_P: Array, log_T: Array) -> Array:
    """A top-k KL subtracted from the advantage whatever token was sampled: f = 0, no signal in expectation."""
    return 0.0 * (log_T - log_P)


def minillm(log_P: Array, log_T: Array, later: Array) -> Array:
    """Sequence-level reverse KL by reward-to-go: f = log r_j + F(u, j).

    `later` is F: the expected sum of -KL(P‖T) at the positions after the child (method.md 3).
    """
    return log_T - log_P + later


def dr_grpo(log_P: Array, log_T: Array, p_succ: Array) -> Array:
    """Dr. GRPO in expectation, up to 1/std(R): f = p, the ideal gradient. The teacher takes no part."""
    return p_succ + 0.0 * (log_T + log_P)


def _log_mixed(log_r: Array, share: float) -> Array:
    """log(1 + share (r - 1)): log1p keeps its digits while that is near 1, logaddexp does far from it."""
    if share == 0.0:
        return 0.0 * log_r
    if share == 1.0:
        return log_r
    excess = share * np.expm1(log_r)
    return np.where(
        np.abs(excess) < 0.5,
        np.log1p(np.clip(excess, -0.5, 0.5)),
        np.logaddexp(np.log1p(-share), np.log(share) + log_r),
    )


class Parameter(Struct, frozen=True):
    """A parameter of an objective: a number between two bounds, or one of a few words."""

    name: str
    default: float | str
    low: float = 0.0
    high: float = 1.0
    words: tuple[str, ...] = ()


class Objective(Struct, frozen=True):
    """One row of the table."""

    name: str
    loss: str  #: for people
    f: Callable[..., Array]  #: f(log_P, log_T, one argument per parameter, one keyword per need)
    parameters: tuple[Parameter, ...] = ()  #: in the order of the spelling
    needs: tuple[Need, ...] = ()


_SKEW = (Parameter("a", 0.1),)
_FORMS = ("renormalised", "whole", "stop_gradient")

TABLE: tuple[Objective, ...] = (
    Objective("reverse_kl", "KL(P‖T)", reverse_kl),
    Objective("forward_kl", "KL(T‖P)", forward_kl),
    Objective("jsd", "beta KL(T‖M) + (1-beta) KL(P‖M), M = beta T + (1-beta) P", jsd, (Parameter("beta", 0.5),)),
    Objective("skewed_forward_kl", "KL(T‖m), m = aT + (1-a)P", skewed_forward_kl, _SKEW),
    Objective("skewed_reverse_kl", "KL(P‖m), m = (1-a)T + aP", skewed_reverse_kl, _SKEW),
    Objective("total_variation", "sum |T - P| / 2", total_variation),
    Objective("squared_error", "sum (T - P)^2 / 2", squared_error),
    Objective("chi2", "sum (T - P)^2 / P", chi2),
    Objective("hellinger", "sum (sqrt T - sqrt P)^2 / 2", hellinger),
    Objective(
        "top_k_reverse_kl",
        "KL(P‖T) over the student's k most likely tokens",
        top_k_reverse_kl,
        (Parameter("k", 16, low=1, high=1e6), Parameter("form", "renormalised", words=_FORMS)),
        ("in_top_k", "top_k_mass", "top_k_mean"),
    ),
    Objective(
        "sampled_token",
        "policy gradient of log T(y)/P(y) + constant, in expectation",
        lambda log_P, log_T, constant: reverse_kl(log_P, log_T) + constant,
        (Parameter("constant", 0.0, low=-1e6, high=1e6),),
    ),
    Objective("k3_reward", "k3 as the reward: reverse minus forward KL", k3_reward),
    Objective("k3_loss", "k3 as the loss: forward KL in disguise", forward_kl),
    Objective("top_k_penalty", "a top-k KL as a penalty whatever was sampled: no signal", top_k_penalty),
    Objective("minillm", "sequence-level KL(P‖T) by reward-to-go", minillm, needs=("later",)),
    Objective("dr_grpo", "the reward alone, in expectation", dr_grpo, needs=("p_succ",)),
)
NAMES: tuple[str, ...] = tuple(objective.name for objective in TABLE)
_BY_NAME = {objective.name: objective for objective in TABLE}
_SPELLING = re.compile(r"\s*([a-z0-9_]+)\s*(?:\(([^()]*)\))?\s*", re.IGNORECASE)


class Spelling(Struct, frozen=True):
    """An objective with its parameters filled in. `str()` gives the one spelling under which it is stored."""

    name: str
    parameters: tuple[tuple[str, float | str], ...]

    def __str__(self) -> str:
        values = ", ".join(value if isinstance(value, str) else f"{value:.12g}" for _, value in self.parameters)
        return f"{self.name}({values})" if values else self.name

    @property
    def needs(self) -> tuple[Need, ...]:
        """What its f needs beside the two log-probabilities."""
        return _BY_NAME[self.name].needs

    @property
    def follows_completions(self) -> bool:
        """Whether its f is estimated from completions, as p_succ is."""
        return bool({"later", "p_succ"} & set(self.needs))

    @property
    def loss(self) -> str:
        """Its loss, for people."""
        return _BY_NAME[self.name].loss

    def parameter(self, name: str) -> float | str:
        """The value of a parameter that the objective has."""
        return dict(self.parameters)[name]


def parse(spelling: str | Spelling, **params: float | str) -> Spelling:
    """Read a spelling such as ``jsd(0.5)``, ``jsd(beta=0.5)`` or ``jsd``; `params` give parameters by name.

    Raises ValueError, in one sentence, for an unknown name, a parameter that the objective does not have, one that
    is given twice, or one that is not what it must be.
    """
    if isinstance(spelling, Spelling):
        return spelling
    match = _SPELLING.fullmatch(spelling)
    name = match.group(1) if match else spelling
    if match is None or name not in _BY_NAME:
        nearest = difflib.get_close_matches(name.lower(), NAMES, n=1)
        meant = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"Unknown objective {spelling!r}{meant} Allowed: {', '.join(NAMES)}.")
    allowed = {parameter.name: parameter for parameter in _BY_NAME[name].parameters}
    given: dict[str, float | str] = {}
    texts = [part for part in (match.group(2) or "").split(",") if part.strip()]
    entries: list[tuple[str, float | str]] = []
    for place, text in enumerate(texts):
        key, _, value = text.rpartition("=")
        key = key.strip() or (list(allowed)[place] if place < len(allowed) else f"parameter {place + 1}")
        entries.append((key, value.strip()))
    for key, value in (*entries, *params.items()):
        if key not in allowed:
            raise ValueError(
                f"Objective {name!r} has no {key!r} (in {spelling!r}); it takes {', '.join(allowed) or 'no parameter'}."
            )
        if key in given:
            raise ValueError(f"Objective {spelling!r}: {key!r} is given twice.")
        given[key] = _value(allowed[key], value, spelling)
    return Spelling(name, tuple((key, given.get(key, parameter.default)) for key, parameter in allowed.items()))


def _value(parameter: Parameter, value: float | str, spelling: str) -> float | str:
    """A parameter's value as it must be, or a sentence that says what is wrong with it."""
    if parameter.words:
        if value not in parameter.words:
            raise ValueError(f"Objective {spelling!r}: {parameter.name!r} must be {', '.join(parameter.words)}, not {value!r}.")
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"Objective {spelling!r}: {parameter.name!r} must be a number, not {value!r}.") from None
    if not parameter.low <= number <= parameter.high:
        bounds = f"between {parameter.low:g} and {parameter.high:g}"
        raise ValueError(f"Objective {spelling!r}: {parameter.name!r} must lie {bounds}, not {number:g}.")
    return number


def f(
    name: str | Spelling,
    student_logprob: ArrayLike,
    teacher_logprob: ArrayLike,
    *,
    given: Given | None = None,
    **params: float | str,
) -> Array:
    """f_j of the objective, finite wherever the log-probabilities are not NaN.

    `given` has what the objective needs besides. Without it, the given children are taken for the whole vocabulary
    where the student's top k is wanted. Raises ValueError where something else is lacking.
    """
    spelling = parse(name, **params)
    log_P, log_T = _log(student_logprob), _log(teacher_logprob)
    given = dict(given or {})
    if "in_top_k" in spelling.needs and "in_top_k" not in given:
        given |= top_k(log_P, log_T, int(spelling.parameter("k")))
    if lacking := [need for need in spelling.needs if need not in given]:
        raise ValueError(f"Objective {str(spelling)!r} needs {' and '.join(repr(need) for need in lacking)} for every child.")
    arrays = {need: np.asarray(given[need]) for need in spelling.needs}
    with np.errstate(invalid="ignore"):  # absent children
        return _BY_NAME[spelling.name].f(log_P, log_T, *(value for _, value in spelling.parameters), **arrays)


def top_k(log_P: Array, log_T: Array, k: int) -> Given:
    """The student's k most likely children of the last axis (of equal ones the first), their mass, and their mean log r."""
    order = np.argsort(np.where(np.isnan(log_P), np.inf, -log_P), axis=-1, kind="stable")
    found = np.zeros(log_P.shape, dtype=bool)
    np.put_along_axis(found, order[..., :k], True, axis=-1)
    P = np.where(found & ~np.isnan(log_P), np.exp(log_P), 0.0)
    return {"in_top_k": found, "top_k_mass": P.sum(axis=-1, keepdims=True), "top_k_mean": mean(P, log_T - log_P)[..., None]}


def fbar(
    name: str | Spelling,
    student_logprob: ArrayLike,
    teacher_logprob: ArrayLike,
    *,
    given: Given | None = None,
    **params: float | str,
) -> Array:
    """sum_k P_k f_k over the last axis, which should be the whole vocabulary. Drops the last axis."""
    return mean(np.exp(_log(student_logprob)), f(name, student_logprob, teacher_logprob, given=given, **params))


def update(
    name: str | Spelling,
    student_logprob: ArrayLike,
    teacher_logprob: ArrayLike,
    *,
    given: Given | None = None,
    **params: float | str,
) -> Array:
    """The direction of descent P_j (f_j - fbar), with fbar over the given children. NaN where a child is absent."""
    f_k = f(name, student_logprob, teacher_logprob, given=given, **params)
    P = np.exp(_log(student_logprob))
    return np.asarray(P * difference(f_k, mean(P, f_k)[..., None]), dtype=np.float64)


def update_about(
    name: str | Spelling,
    student_logprob: ArrayLike,
    teacher_logprob: ArrayLike,
    fbar: ArrayLike,
    *,
    given: Given | None = None,
    **params: float | str,
) -> Array:
    """P_j (f_j - fbar) for children that are not the whole vocabulary, with the fbar of all of it."""
    f_k = f(name, student_logprob, teacher_logprob, given=given, **params)
    P = np.exp(_log(student_logprob))
    return np.asarray(P * difference(f_k, np.asarray(fbar, dtype=np.float64)[..., None]), dtype=np.float64)


def phi_divergence(
    phi: Callable[[Array], Array], derivative: Callable[[Array], Array], student_logprob: ArrayLike, teacher_logprob: ArrayLike
) -> Array:
    """f_j = r phi'(r) - phi(r) of the loss sum_k P_k phi(r_k), for any phi (method.md 2)."""
    r = forward_kl(_log(student_logprob), _log(teacher_logprob))
    return np.asarray(r * derivative(r) - phi(r), dtype=np.float64)


def sampled_token_update(
    student_logprob: ArrayLike, teacher_logprob: ArrayLike, taken: ArrayLike, constant: float = 0.0
) -> Array:
    """The update of the token y that was sampled: w (onehot(y)_j - P_j), w = log T(y)/P(y) + constant (the paper: -1).

    `taken` is True at y, which must be one of the children; its mean over y ~ P is the update of `reverse_kl`
    whatever the constant. NaN where no child was taken, or a child is absent.
    """
    log_P, log_T = _log(student_logprob), _log(teacher_logprob)
    onehot = np.broadcast_to(np.asarray(taken, dtype=bool), np.broadcast_shapes(log_P.shape, log_T.shape))
    w = np.where(onehot, log_T - log_P, 0.0).sum(axis=-1, keepdims=True) + constant
    w = np.where(onehot.sum(axis=-1, keepdims=True) == 1, w, np.nan)
    return np.asarray(w * (onehot - np.exp(log_P)) + 0.0 * log_T, dtype=np.float64)


def dr_grpo_sample(student_logprob: ArrayLike, n: ArrayLike, n_success: ArrayLike, group_mean: ArrayLike) -> Array:
    """Dr. GRPO's update at a node from one group of unforced rollouts, not in expectation.

    (1/N_u) sum_i A_i (onehot(r_i)_j - P_j), A_i = (R_i - mean R) / std R, with mean and (population) standard
    deviation over the whole group; n_k rollouts passed through child k, n_success_k of them correct. NaN where no
    rollout came by, or where the group has one outcome only.
    """
    P = np.exp(_log(student_logprob))
    n_k, n_success_k = np.asarray(n, dtype=np.float64), np.asarray(n_success, dtype=np.float64)
    group = np.asarray(group_mean, dtype=np.float64)
    A_sum_k = n_success_k - n_k * group
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt(group * (1.0 - group))
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
