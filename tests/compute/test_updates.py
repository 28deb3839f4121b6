"""Updates that follow what was sampled: of the token a path took, and of Dr. GRPO's group of rollouts."""

from __future__ import annotations

import numpy as np
from made_nodes import Child, Group, make_nodes, on_path, to_end

from compute import objectives
from compute.updates import dr_grpo_sample_update, sampled_token_update, taken
from store.schema import NOWHERE, ForcedKind
from store.tables import Paths

#: A correct and an incorrect path that part at the second node.
FORK = [
    [on_path(0, 0.6, 1), Child(1, 0.4)],
    [to_end(2, 0.5, 1), to_end(3, 0.3, 0), Child(4, 0.2)],
]
PATHS = Paths(
    question_L=np.array([0, 0]),
    rollout_index_L=np.array([3, 5]),
    correct_L=np.array([True, False]),
    start_L1=np.array([0, 2, 4]),
    node_P=np.array([0, 1, 0, 1]),
)
TEACHER = np.array([[[0.3, 0.7, np.nan], [0.2, 0.2, 0.6]]])


def test_the_sampled_token_is_the_one_that_each_path_took():
    nodes = make_nodes(FORK, teachers=("t",), teacher_MNK=TEACHER)
    assert taken(nodes, PATHS).argmax(axis=1).tolist() == [0, 0, 0, 1]
    found = sampled_token_update(nodes, PATHS, nodes.logprob_NK, nodes.teacher_logprob_MNK, constant=-1.0)
    logp, logt = nodes.logprob_NK[1], nodes.teacher_logprob_MNK[0, 1]
    for entry, token in ((1, 0), (3, 1)):
        expected = objectives.sampled_token_update(logp, logt, np.arange(3) == token, -1.0)
        np.testing.assert_allclose(found[0, entry], expected, atol=1e-15)
        # By hand: (log T/P of the token taken, and the constant) times (onehot - P).
        by_hand = (logt[token] - logp[token] - 1.0) * ((np.arange(3) == token) - np.exp(logp))
        np.testing.assert_allclose(found[0, entry], by_hand, atol=1e-12)


def test_dr_grpo_of_a_group_counts_unforced_rollouts_through_every_child():
    none = ForcedKind.NONE
    groups = [
        Group(NOWHERE, none, NOWHERE, 0, 1, 30, 6),  # left at the first node
        Group(NOWHERE, none, NOWHERE, 1, 4, 10, 9),  # went on to the second, and left there
        Group(0, ForcedKind.TOKEN, 1, 0, 1, 50, 50),  # forced: not of the group
    ]
    nodes = make_nodes(FORK, groups)
    found = dr_grpo_sample_update(nodes, nodes.logprob_NK, [15 / 40, 15 / 40])
    rewards = {0: [1] * 9 + [0], 1: [1] * 6 + [0] * 24}  # of those through either child of the first node
    mean, std = 15 / 40, np.sqrt(15 / 40 * 25 / 40)
    P = np.array([0.6, 0.4])
    by_hand = sum((r - mean) / std * ((np.arange(2) == child) - P) for child, all_ in rewards.items() for r in all_) / 40
    np.testing.assert_allclose(found[0, :2], by_hand, atol=1e-12)
    assert found[0, 0] > 0 > found[0, 1]


def test_dr_grpo_of_a_group_is_undefined_where_no_rollout_of_it_came_by():
    nodes = make_nodes(FORK, [Group(0, ForcedKind.TOKEN, 1, 0, 1, 50, 20)])
    assert np.isnan(dr_grpo_sample_update(nodes, nodes.logprob_NK, [0.4, 0.4])).all()
