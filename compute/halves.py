"""Every score once more from each half of the completions, and what only two halves can say.

Completions are cut in two by the parity of their sample number, and every stratum, back-up and V is recomputed from
each half (method.md 4); halving finished values would not do, because neighbouring nodes share completions. The two
halves see the same nodes and the same kept children (those of all completions: the effective count knows nothing of
outcomes), and their noise is independent. Hence nodes that are chosen on one half are judged fairly on the other
(compute.selection), and the cosine between the two ideal gradients says how reliable a gradient is.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from compute.alignment import cosine, gain, gain_se, lump, trace_of_covariance
from compute.estimators import Estimator, estimate
from compute.scores import Scores, over_support, score_estimates
from store.tables import Nodes

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]


class Halves(Struct, frozen=True):
    """Scores of each half, the first axis. NaN at nodes of which one half lacks a kept child or V."""

    decision_point_HN: Bool  #: two kept children or more, and SR > 0 in this half
    alignment_HMON: Array  #: NaN where the node is no decision point of this half
    gain_HMON: Array  #: of every node with two kept children: no outcome has a say in where it is known
    gain_se_HMON: Array
    squared_norm_HN: Array  #: |g|^2 less what noise adds to it
    agreement_N: Array  #: cosine of the two ideal gradients; NaN where one of them is zero


def split(nodes: Nodes, scores: Scores, *, estimator: Estimator = "backup") -> Halves:
    """Score the same nodes from each half. `scores` are those of all completions, by the same estimator.

    What `minillm` estimates of later tokens is not cut in two: its update is that of all completions.
    """
    estimates = [estimate(nodes, n_sig=0.0, estimator=estimator, half=half) for half in (0, 1)]
    kept_NK = scores.estimates.kept_NK
    known_N = kept_NK.sum(axis=1) >= 2
    for half in estimates:
        known_N &= ~(kept_NK & np.isnan(half.p_succ_NK)).any(axis=1)
        if scores.support != "renormalised":
            known_N &= ~np.isnan(half.value_N)
    kept_NK = kept_NK & known_N[:, None]
    halves = [
        score_estimates(nodes, replace(half, kept_NK=kept_NK), support=scores.support, objectives=scores.objectives)
        for half in estimates
    ]
    return Halves(
        decision_point_HN=np.stack([half.decision_point_N for half in halves]),
        alignment_HMON=np.stack([half.alignment_MON for half in halves]),
        gain_HMON=np.stack([gain(_whole(half, half.ideal_NK), _whole(half, half.update_MONK)) for half in halves]),
        gain_se_HMON=np.stack([_gain_se(nodes, half) for half in halves]),
        squared_norm_HN=np.stack([squared_norm(nodes, half) for half in halves]),
        agreement_N=cosine(*(_whole(half, half.ideal_NK) for half in halves)),
    )


def squared_norm(nodes: Nodes, scores: Scores) -> Array:
    """|g|^2 - tr Cov of every node: the squared length of the gradient, less what noise adds to it. [N].

    Unbiased, and so below 0 at some nodes: it is for means alone (`pooled`). NaN where no child is kept.
    """
    estimates, whole_NK = scores.estimates, _whole(scores, scores.ideal_NK)
    student_NK = over_support(nodes, nodes.logprob_NK, estimates.kept_NK, scores.support)
    noise_N = trace_of_covariance(student_NK, estimates.variance_NK, estimates.kept_NK, scores.support)
    return np.where(np.isnan(whole_NK).all(axis=1), np.nan, np.nansum(whole_NK**2, axis=1) - noise_N)


def pooled(mean_C: Array) -> Array:
    """mean(gain) / sqrt(mean(|g|^2 - tr Cov)): a cosine that noise does not shrink. [.., 2] -> [..]; NaN without signal."""
    gain_, squared = mean_C[..., 0], mean_C[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(squared > 0.0, gain_ / np.sqrt(squared), np.nan), dtype=np.float64)


def corrected(mean_C: Array) -> Array:
    """raw / sqrt(2r/(1+r)): the raw mean cosine corrected by the split-half cosine r. [.., 2] -> [..]; NaN for r <= 0.

    Approximate: it can be up to 9 % too large.
    """
    raw, r = mean_C[..., 0], mean_C[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(r > 0.0, raw / np.sqrt(2.0 * r / (1.0 + r)), np.nan), dtype=np.float64)


def _whole(scores: Scores, vector: Array) -> Array:
    """A vector with the coordinate more that the lumped support has."""
    return lump(vector) if scores.support == "lumped" else vector


def _gain_se(nodes: Nodes, scores: Scores) -> Array:
    student_NK = over_support(nodes, nodes.logprob_NK, scores.estimates.kept_NK, scores.support)
    return gain_se(student_NK, scores.update_MONK, scores.estimates.variance_NK, scores.support)
