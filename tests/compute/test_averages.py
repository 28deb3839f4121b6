"""Means along the tree, by hand."""

from __future__ import annotations

import numpy as np

from compute.averages import Averages, group_means, shared_questions
from store.tables import Paths

NAN = float("nan")


def paths(rows: list[tuple[int, bool, list[int]]]) -> Paths:
    return Paths(
        question_L=np.array([q for q, _, _ in rows]),
        rollout_index_L=np.arange(len(rows)),
        correct_L=np.array([c for _, c, _ in rows], dtype=bool),
        start_L1=np.cumsum([0, *(len(n) for _, _, n in rows)]),
        node_P=np.array([n for _, _, nodes in rows for n in nodes], dtype=np.int64),
    )


def test_entries_paths_questions() -> None:
    averages = Averages.of(paths([(7, True, [0, 1]), (5, False, [2]), (7, False, [0, 3])]))
    assert averages.numbers_Q.tolist() == [5, 7]
    assert averages.question_P.tolist() == [1, 1, 0, 1, 1]
    value_P = np.array([1.0, 3.0, 5.0, NAN, 8.0])
    np.testing.assert_allclose(averages.over_paths(value_P), [2.0, 5.0, 8.0])
    np.testing.assert_allclose(averages.question_means(value_P), [5.0, 5.0])
    np.testing.assert_allclose(averages.question_means(value_P, "correct"), [NAN, 2.0])
    np.testing.assert_allclose(averages.question_means(np.stack([value_P, -value_P]), "incorrect"), [[5.0, 8.0], [-5.0, -8.0]])


def test_what_both_outcomes_share_is_the_prefix_up_to_the_fork() -> None:
    """Nodes 0 and 1 lie on a correct and on an incorrect path; 2 on two correct ones; 4 in another question."""
    rows = [(0, True, [0, 1, 2]), (0, True, [0, 1, 2]), (0, False, [0, 1, 3]), (1, True, [4])]
    found_P = Averages.of(paths(rows)).both_outcomes()
    assert found_P.tolist() == [True, True, False, True, True, False, True, True, False, False]


def test_group_means_leave_out_what_is_not_there() -> None:
    value_XI = np.array([[1.0, NAN, 3.0], [NAN, NAN, np.inf]])
    np.testing.assert_allclose(group_means(value_XI, np.array([0, 0, 2]), 3), [[1.0, NAN, 3.0], [NAN, NAN, NAN]])
    assert group_means(np.zeros((2, 0)), np.zeros(0, dtype=np.int64), 0).shape == (2, 0)


def test_a_teacher_without_scores_takes_no_question_from_others() -> None:
    scored_MQ = np.array([[True, True, False], [True, False, True], [False, False, False]])
    assert shared_questions(scored_MQ).tolist() == [True, False, False]
    assert not shared_questions(np.zeros((2, 3))).any() and shared_questions(np.zeros((0, 3))).tolist() == [False] * 3
