"""The trie of paths, its gaps, and which of its nodes and tokens are targeted."""

from __future__ import annotations

import numpy as np
import pytest

from compute.study import Targeting
from compute.targeting import children, nominate, windows
from compute.tree import Path, Trie
from store.schema import NOWHERE, PATH_END_TOKEN, REST_TOKEN, ChildKind, path_end

END = 9


def path(tokens, probabilities, correct=True):
    return Path(tuple(tokens), np.log(np.array(probabilities, dtype=np.float32)), correct)


@pytest.fixture
def trie():
    """Two paths that part after the first token."""
    return Trie([path([1, 2, 3, END], [0.5, 0.6, 0.7, 0.8]), path([1, 4, END], [0.5, 0.3, 0.9], correct=False)])


def test_shared_prefixes_are_one_node(trie):
    assert len(trie.nodes) == 1 + 1 + 3 + 2
    assert trie.forks() == [1]
    assert trie.along(0)[:2] == trie.along(1)[:2]
    assert trie.prefix(trie.along(1)[2]) == (1, 4)


def test_a_chain_runs_to_the_next_target_or_the_end(trie):
    root, fork = 0, 1
    to_fork = trie.chain(root, 1, {root, fork})
    assert (to_fork.positions, to_fork.next_node, to_fork.gap_mass) == ((), fork, 0.0)
    to_end = trie.chain(fork, 2, {root, fork})
    assert to_end.positions == (2, 3)
    assert to_end.next_node == NOWHERE
    assert to_end.outcome == 1
    assert np.exp(to_end.continue_logprob) == pytest.approx(0.7 * 0.8)
    assert to_end.exit_masses() == pytest.approx([0.3, 0.7 * 0.2])
    assert to_end.exit_masses().sum() == pytest.approx(to_end.gap_mass)


@pytest.mark.parametrize(
    ("tokens", "stratum"),
    [
        ([1, 4, END], (1, path_end(4))),  # follows a path to its end
        ([1, 2, 5], (1, 2)),  # leaves in the gap after the fork
        ([1, 7], (1, 7)),  # takes a candidate of the fork
        ([1, 8], (1, REST_TOKEN)),  # takes none of its children
        ([5, 5], (NOWHERE, PATH_END_TOKEN)),  # leaves above the first targeted node
    ],
)
def test_every_free_completion_has_one_stratum(trie, tokens, stratum):
    assert trie.exit(tokens, {1}, {1: {2, 4, 7}}) == stratum


def test_windows_double():
    assert [(one.start, one.stop) for one in windows(400, 50)] == [(0, 50), (50, 150), (150, 350), (350, 400)]


def test_nomination_takes_the_best_of_each_window_and_says_who():
    gradient = np.zeros((2, 8))
    gradient[0, [1, 6]] = [3, 2]
    gradient[1, [2, 6]] = [1, 5]
    bits = nominate(gradient, np.zeros((2, 8)), Targeting(first_window=4, k=1, r=1))
    assert bits.tolist() == [0, 1, 0, 0, 0, 0, 2, 0]  # 0-4: position 1 by teacher 0; 4-8: position 6 by teacher 1
    assert nominate(np.zeros((0, 8)), np.zeros((0, 8)), Targeting()).sum() == 0


def test_children_are_the_likely_ones_and_the_rest_has_all_other_mass():
    logp = np.log(np.array([0.5, 0.3, 0.15, 0.01, 0.04]))
    logt = np.log(np.array([[0.1, 0.1, 0.1, 0.65, 0.05], [0.01, 0.01, 0.01, 0.01, 0.96]]))
    tokens, kinds, logprobs, bits, theirs = children(logp, logt, [2], [1], 0.05, np.array([True, False]))
    assert tokens.tolist() == [0, 1, 2, 3, REST_TOKEN]  # 4 is likely only under a teacher that takes no part
    assert kinds.tolist() == [ChildKind.CANDIDATE, ChildKind.END, ChildKind.ON_PATH, ChildKind.CANDIDATE, ChildKind.REST]
    assert np.exp(logprobs).sum() == pytest.approx(1)
    assert np.exp(theirs).sum(axis=1) == pytest.approx([1, 1])
    assert [bool(one & 1) for one in bits] == [True, True, True, True, False]
    assert [bool(one >> 31) for one in bits] == [True, True, True, False, False]
