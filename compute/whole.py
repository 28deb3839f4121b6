"""The whole vocabulary at a node, kept in a few numbers, so that any objective can be switched to when looking.

The mean fbar of an objective runs over all tokens, of which a store keeps the children alone. Those are exact here;
the others, the *rest*, are summed up when the study is computed:

    by bins of log r: the student's mass, the teacher's mass, and the mean of log r. An f that knows a token by r alone
    is taken in each bin for a + b log r + c r through both ends and the middle, whose sum these three give exactly. So
    both KLs and k3 are exact, and total variation, which is constant in a bin; of other objectives the error is some
    1e-3 of the update where the rest is half of the vocabulary's mass, and less with the mass of the rest.
    the sums of P T, P^2 and T^2/P, with which squared error and chi2 are exact.
    log-probabilities of the student's top k under both, which top-k objectives need.

Logarithms of masses, -inf for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute import objectives
from compute.objectives import LOG_FLOOR, Spelling
from store.schema import RATIO_EDGES, REST_MOMENTS, ChildKind
from store.tables import Nodes

Array = NDArray[np.float64]

_BINS = len(RATIO_EDGES) + 1


@dataclass(frozen=True, slots=True)
class Whole:
    """What is kept of the whole vocabulary at one node."""

    topk_logprob_C: Array  #: of the student's most likely tokens, falling
    teacher_topk_logprob_MC: Array  #: of the same tokens
    rest_moment_MB: Array  #: in the order of `store.schema.REST_MOMENTS`


def whole(logp_V: Array, logt_MV: Array, tokens: NDArray[np.integer[Any]], top_k: int) -> Whole:
    """What is kept of a node whose children are `tokens`."""
    rest_V = np.ones(len(logp_V), dtype=bool)
    rest_V[tokens] = False
    top = np.argsort(-logp_V, kind="stable")[:top_k]
    return Whole(logp_V[top], logt_MV[:, top], rest_moments(logp_V, logt_MV, rest_V))


def rest_moments(logp_V: Array, logt_MV: Array, rest_V: NDArray[np.bool_]) -> Array:
    """Sums over the tokens of `rest_V`, as the store keeps them: [M, moment], in the order of `store.schema.REST_MOMENTS`."""
    logp, logt_MV = np.maximum(logp_V[rest_V], LOG_FLOOR), np.maximum(logt_MV[:, rest_V], LOG_FLOOR)
    found = np.full((len(logt_MV), len(REST_MOMENTS)), -np.inf)
    found[:, 2 * _BINS : 3 * _BINS] = 0.0
    for moments, logt in zip(found, logt_MV, strict=True):
        if np.isnan(logt).any():  # a served teacher need not say what each token has
            moments[:] = np.nan
            continue
        log_r = logt - logp
        bins = np.searchsorted(RATIO_EDGES, log_r, side="right")
        for b in np.unique(bins):
            there = bins == b
            moments[b], moments[_BINS + b] = _log_sum(logp[there]), _log_sum(logt[there])
            moments[2 * _BINS + b] = np.exp(logp[there] - moments[b]) @ log_r[there]
        if logp.size:
            moments[3 * _BINS :] = _log_sum(logp + logt), _log_sum(2.0 * logp), _log_sum(2.0 * logt - logp)
    return found


def mean_f(spelling: Spelling, nodes: Nodes) -> Array:
    """fbar over the whole vocabulary, [M, N], of an objective whose fbar is not stored.

    Raises ValueError for a table that was read without what this takes.
    """
    topk_NC, topk_MNC, moments_MNB = nodes.topk_logprob_NC, nodes.teacher_topk_logprob_MNC, nodes.rest_moment_MNB
    if topk_NC is None or topk_MNC is None or moments_MNB is None:
        raise ValueError(f"Objective {str(spelling)!r} is none of the study's; read the nodes with whole=True to switch to it.")
    if spelling.name == "top_k_reverse_kl":
        k = int(spelling.parameter("k"))
        if k > topk_NC.shape[1]:
            raise ValueError(
                f"Objective {str(spelling)!r}: this store keeps the student's {topk_NC.shape[1]} most likely tokens, not {k}."
            )
        top_NC, top_MNC = topk_NC[:, :k].astype(np.float64), topk_MNC[..., :k].astype(np.float64)
        f_MNC = objectives.f(spelling, top_NC, top_MNC)
        return np.asarray(np.where(np.isnan(top_NC), 0.0, np.exp(top_NC) * f_MNC).sum(axis=-1), dtype=np.float64)
    listed_NK = ~np.isin(nodes.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
    student_NK = np.where(listed_NK, nodes.logprob_NK, np.nan).astype(np.float64)
    teacher_MNK = np.where(listed_NK, nodes.teacher_logprob_MNK, np.nan).astype(np.float64)
    f_MNK = objectives.f(spelling, student_NK, teacher_MNK)
    children_MN = np.nansum(np.exp(student_NK) * f_MNK, axis=-1)
    unknown_MN = np.isnan(moments_MNB).any(axis=-1)
    # f = r has the teacher's whole mass for its mean, whoever has it.
    without = {"forward_kl": 1.0, "k3_loss": 1.0, "top_k_penalty": 0.0}.get(spelling.name, np.nan)
    return np.where(unknown_MN, without, children_MN + _rest_mean(spelling, np.asarray(moments_MNB, dtype=np.float64)))


def _rest_mean(spelling: Spelling, moments_MNB: Array) -> Array:
    """sum P f over the rest of the vocabulary: [M, N]."""
    log_P, log_T = moments_MNB[..., :_BINS], moments_MNB[..., _BINS : 2 * _BINS]
    P, T, mean_log_r = np.exp(log_P), np.exp(log_T), moments_MNB[..., 2 * _BINS : 3 * _BINS]
    PT, PP, TT_over_P = (np.exp(moments_MNB[..., 3 * _BINS + n]) for n in range(3))
    if spelling.name == "squared_error":
        return np.asarray(PT - PP)
    if spelling.name == "chi2":
        return np.asarray(TT_over_P - P.sum(axis=-1))
    middle, reach = _nodes_of_bins(log_P, log_T, mean_log_r)
    low, mid, high = (objectives.f(spelling, np.zeros(()), middle + step * reach) for step in (-1.0, 0.0, 1.0))
    # f = mid + b y + c (e^y - 1) at y = -reach, 0, reach from the middle of the bin.
    c = (low + high - 2.0 * mid) / (np.exp(reach) + np.exp(-reach) - 2.0)
    b = (high - mid - c * np.expm1(reach)) / reach
    sums = mid * P + b * (mean_log_r - middle) * P + c * (T * np.exp(-middle) - P)
    return np.asarray(np.where(np.isfinite(log_P), sums, 0.0).sum(axis=-1))


def _nodes_of_bins(log_P: Array, log_T: Array, mean_log_r: Array) -> tuple[Array, Array]:
    """Middle and half width of every bin, a hair inside its edges. The outer two reach twice as far as their mean."""
    edges = np.asarray(RATIO_EDGES)
    middle, reach = np.zeros_like(log_P), np.ones_like(log_P)
    middle[..., 1:-1], reach[..., 1:-1] = (edges[1:] + edges[:-1]) / 2.0, np.diff(edges) / 2.0 * (1.0 - 1e-9)
    with np.errstate(invalid="ignore"):
        reach[..., 0] = np.fmax(edges[0] - mean_log_r[..., 0], 1.0)
        reach[..., -1] = np.fmax(log_T[..., -1] - log_P[..., -1] - edges[-1], 1.0)
    middle[..., 0], middle[..., -1] = edges[0] - reach[..., 0], edges[-1] + reach[..., -1]
    return middle, reach


def top_k_given(spelling: Spelling, nodes: Nodes) -> objectives.Given:
    """Which children are in the student's top k, its mass and its mean log r, from the store's top k."""
    assert nodes.topk_logprob_NC is not None
    assert nodes.teacher_topk_logprob_MNC is not None
    k = int(spelling.parameter("k"))
    top_NC = nodes.topk_logprob_NC[:, :k].astype(np.float64)
    top_MNC = nodes.teacher_topk_logprob_MNC[..., :k].astype(np.float64)
    P_NC = np.exp(top_NC)
    token_NK = ~np.isin(nodes.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
    with np.errstate(invalid="ignore"):
        mass_N1 = np.nansum(P_NC, axis=-1, keepdims=True)
        least_N1 = np.min(np.where(np.isnan(top_NC), np.inf, top_NC), axis=-1, keepdims=True)
        mean_MN1 = objectives.mean(P_NC, top_MNC - top_NC)[..., None]
        unknown_MN1 = (np.isnan(top_MNC) & ~np.isnan(top_NC)).any(axis=-1, keepdims=True)
        mean_MN1 = np.where(unknown_MN1, np.nan, mean_MN1)
        return {"in_top_k": token_NK & (nodes.logprob_NK >= least_N1), "top_k_mass": mass_N1, "top_k_mean": mean_MN1}


def _log_sum(logs: Array) -> float:
    top = logs.max()
    return float(top + np.log(np.exp(logs - top).sum()))
