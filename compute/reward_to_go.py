"""F of `minillm`: what a teacher's divergence still to come is worth, by the same back-up as p_succ (method.md 3).

F(u, k) is the expected sum of -KL(P‖T) at all positions after child k of node u, in nat:

    a child off the paths           mean of what the teacher said of its completions
    a token that ends the response  0
    a child on a path               -(expected KL of the gap) + c * F(next) + (1 - c) * mean of its gap stratum;
                                    nothing is left after the path's end
    F(u) = -KL_u + sum_k P_k F(u, k)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute import objectives
from compute.estimators import NEGLIGIBLE, tree_of
from compute.whole import mean_f
from store.schema import NOWHERE, ChildKind
from store.tables import Nodes

Array = NDArray[np.float64]


def expected_later(nodes: Nodes) -> tuple[Array, Array]:
    """F(u, k) of every child, [M, N, K], and F(u) of every node, [M, N]; NaN where completions were not read.

    Raises ValueError for a table that was read without what this takes.
    """
    if nodes.later_n_MNK is None or nodes.later_sum_MNK is None or nodes.gap_kl_MNK is None:
        raise ValueError("Objective 'minillm': read the nodes with whole=True to score it.")
    if len(nodes) and not (nodes.later_n_MNK > 0).any():
        raise ValueError(
            "Objective 'minillm': no completion of this study was read by its teachers; compute it with minillm among "
            "`study.objectives`."
        )
    n_MNK, sum_MNK = nodes.later_n_MNK.astype(np.float64), nodes.later_sum_MNK.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        read_MNK = np.where(n_MNK > 0, sum_MNK / n_MNK, np.nan)
    on_path_NK, present_NK = nodes.kind_NK == ChildKind.ON_PATH, nodes.kind_NK != ChildKind.ABSENT
    stay_NK = np.where(on_path_NK, np.exp(np.minimum(nodes.continue_logprob_NK.astype(np.float64), 0.0)), 0.0)
    # A gap too light for completions of its own adds nothing that could be seen.
    own_MNK = np.where(on_path_NK & (1.0 - stay_NK < NEGLIGIBLE), 0.0, read_MNK)
    own_MNK = np.where(nodes.kind_NK == ChildKind.END, 0.0, own_MNK)
    P_NK = np.where(present_NK, np.exp(nodes.logprob_NK.astype(np.float64)), 0.0)
    minus_KL_MN = minus_kl(nodes)
    later_MNK = np.full(own_MNK.shape, np.nan)
    node_MN = np.full(own_MNK.shape[:2], np.nan)
    for level in reversed(tree_of(nodes)[2]):
        next_nK = nodes.next_NK[level]
        ahead_MnK = np.where(next_nK == NOWHERE, 0.0, node_MN[:, next_nK])
        gap_MnK = (1.0 - stay_NK[level]) * own_MNK[:, level]
        followed_MnK = stay_NK[level] * ahead_MnK + gap_MnK - nodes.gap_kl_MNK[:, level]
        later_MnK = np.where(on_path_NK[level], followed_MnK, own_MNK[:, level])
        later_MNK[:, level] = np.where(present_NK[level], later_MnK, np.nan)
        known_MnK = np.isfinite(later_MnK) | (P_NK[level] < NEGLIGIBLE)
        total_Mn = np.where(np.isfinite(later_MnK), P_NK[level] * later_MnK, 0.0).sum(axis=-1)
        node_MN[:, level] = np.where(known_MnK.all(axis=-1), minus_KL_MN[:, level] + total_Mn, np.nan)
    return later_MNK, node_MN


def minus_kl(nodes: Nodes) -> Array:
    """-KL(P‖T) at every node over the whole vocabulary, [M, N]: fbar of reverse KL."""
    if "reverse_kl" in nodes.objectives:
        return nodes.fbar_MNO[..., nodes.objectives.index("reverse_kl")].astype(np.float64)
    return mean_f(objectives.parse("reverse_kl"), nodes)
