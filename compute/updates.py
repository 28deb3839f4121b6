"""The update of any objective at every node of a table, from what the store keeps.

An objective of the study has its fbar stored; any other takes a table that was read with ``whole=True``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compute import objectives
from compute.alignment import Support
from compute.estimators import Estimates, passing_counts
from compute.objectives import Given, Spelling
from compute.reward_to_go import expected_later
from compute.whole import mean_f, top_k_given
from store.schema import NOWHERE, UNKNOWN_OUTCOME, ChildKind
from store.tables import Nodes, Paths

Array = NDArray[np.float64]


def takes_whole(spellings: Sequence[str], stored: Sequence[str]) -> bool:
    """Whether scoring these objectives takes a table read with ``whole=True``, where the study's own are `stored`."""
    parsed = [objectives.parse(name) for name in spellings]
    return any(str(one) not in stored or one.needs for one in parsed if one.needs != ("p_succ",))


def update(
    nodes: Nodes, spelling: Spelling, student_NK: Array, teacher_MNK: Array, estimates: Estimates, support: Support
) -> Array:
    """P_j (f_j - fbar) of every child, [M, N, K]; log-probabilities as the support wants them (`scores.over_support`).

    fbar is over the whole vocabulary, but over the given children for `renormalised`. Raises ValueError for a table that
    was read without what the objective takes.
    """
    given, fbar_MN = _given(nodes, spelling, estimates, support)
    if support == "renormalised":
        return objectives.update(spelling, student_NK, teacher_MNK, given=given)
    if fbar_MN is None:
        fbar_MN = _stored(nodes, spelling) if str(spelling) in nodes.objectives else mean_f(spelling, nodes)
    return objectives.update_about(spelling, student_NK, teacher_MNK, fbar_MN, given=given)


def _stored(nodes: Nodes, spelling: Spelling) -> Array:
    """fbar as the study computed it, over the whole vocabulary: [M, N]."""
    return nodes.fbar_MNO[..., nodes.objectives.index(str(spelling))].astype(np.float64)


def _given(nodes: Nodes, spelling: Spelling, estimates: Estimates, support: Support) -> tuple[Given, Array | None]:
    """What the f needs of every child, and the fbar that comes with it."""
    if spelling.name == "dr_grpo":
        return {"p_succ": estimates.p_succ_NK}, np.broadcast_to(estimates.value_N, (len(nodes.teachers), len(nodes)))
    if spelling.name == "minillm":
        later_MNK, node_MN = expected_later(nodes)
        return {"later": later_MNK}, node_MN
    if spelling.name == "top_k_reverse_kl" and support != "renormalised":
        return top_k_given(spelling, nodes), None
    return {}, None


def sampled_token_update(nodes: Nodes, paths: Paths, student_NK: Array, teacher_MNK: Array, constant: float = 0.0) -> Array:
    """The update of the token that each path really took at each of its nodes: [M, P, K], P as in `Paths.node_P`.

    NaN where it cannot be told which token a path took: two paths of one outcome that part at the last node of both.
    """
    taken_PK = taken(nodes, paths)
    return objectives.sampled_token_update(student_NK[paths.node_P], teacher_MNK[:, paths.node_P], taken_PK, constant)


def taken(nodes: Nodes, paths: Paths) -> NDArray[np.bool_]:
    """Which child each path took at each of its nodes: [P, K], at most one True in a row."""
    row_P = paths.node_P
    path_P = np.repeat(np.arange(len(paths.question_L)), np.diff(paths.start_L1))
    last_P = np.zeros(len(row_P), dtype=bool)
    last_P[paths.start_L1[1:][np.diff(paths.start_L1) > 0] - 1] = True
    next_P = np.where(last_P, NOWHERE, np.append(row_P[1:], NOWHERE))
    candidate_PK = (nodes.kind_NK[row_P] == ChildKind.ON_PATH) & (nodes.next_NK[row_P] == next_P[:, None])
    outcome_PK = nodes.outcome_NK[row_P]
    correct_P1 = paths.correct_L[path_P][:, None]
    candidate_PK &= ~last_P[:, None] | (outcome_PK == UNKNOWN_OUTCOME) | (outcome_PK == correct_P1)
    return np.asarray(candidate_PK & (candidate_PK.sum(axis=1) == 1)[:, None])


def dr_grpo_sample_update(nodes: Nodes, student_NK: Array, success_rate_N: ArrayLike) -> Array:
    """Dr. GRPO's update from the initial rollouts that count, not in expectation: [N, K].

    `success_rate_N` is the mean reward of each node's group. NaN where no initial rollout came by, as in every study of
    fewer than 100 initial rollouts a question (method.md 3).
    """
    counts = passing_counts(nodes, "unforced")
    present_NK = nodes.kind_NK != ChildKind.ABSENT
    n_NK, n_success_NK = (np.where(present_NK, a, 0) for a in (counts.n_NK, counts.n_success_NK))
    rate_N1 = np.asarray(success_rate_N, dtype=np.float64)[:, None]
    return objectives.dr_grpo_sample(student_NK, n_NK, n_success_NK, rate_N1)
