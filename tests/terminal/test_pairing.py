"""Which rollouts are compared, where they part, and what of one belongs to what of the other."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pytest

from opd_tui.pairing import Lock, Sketch, fork, nearest, pair_nodes, partner, shared_prefix
from opd_tui.palette import Scale
from opd_tui.reading import Library
from opd_tui.side_by_side import one_scale
from store.errors import StoreError
from tests.conftest import CHAIN_SUMS


@pytest.mark.parametrize(
    ("left", "right", "shared"),
    [([], [], 0), ([1, 2], [], 0), ([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 4], 2), ([1, 2], [1, 2], 2), ([3], [1], 0)],
)
def test_the_shared_prefix_ends_before_the_first_difference(left: list[int], right: list[int], shared: int) -> None:
    assert shared_prefix(left, right) == shared_prefix(right, left) == shared


def test_the_nearest_has_the_opposite_outcome_though_another_shares_more() -> None:
    here = Sketch(2, True, [1, 2, 3])
    others = [Sketch(0, True, [1, 2, 3, 4]), Sketch(1, False, [1, 9]), Sketch(3, False, [9]), here]
    found = nearest(here, others)
    assert found is not None and found.index == 1


def test_of_those_that_share_as_much_the_first_is_taken() -> None:
    here = Sketch(0, False, [1, 2, 3])
    found = nearest(here, [Sketch(5, True, [1, 2]), Sketch(4, True, [1, 2, 9]), Sketch(3, True, [1])])
    assert found is not None and found.index == 4


def test_without_an_opposite_outcome_the_nearest_other_is_taken_and_alone_there_is_none() -> None:
    here = Sketch(0, False, [1, 2, 3])
    found = nearest(here, [here, Sketch(1, False, [7]), Sketch(2, False, [1])])
    assert found is not None and found.index == 2
    assert nearest(here, [here]) is None
    assert nearest(here, []) is None


def test_shared_nodes_go_together_first_then_the_kth_with_the_kth() -> None:
    left = {2: 10, 5: 11, 8: 12, 9: 13}  # position -> row
    right = {2: 10, 5: 11, 7: 20, 30: 21, 31: 22}
    assert pair_nodes(left, right) == ((2, 2), (5, 5), (8, 7), (9, 30))
    assert pair_nodes(right, left) == ((2, 2), (5, 5), (7, 8), (30, 9))
    assert pair_nodes(left, {}) == ()


def test_each_lock_moves_the_other_side_its_own_way() -> None:
    pairs = ((2, 2), (8, 20))
    where = {lock: [partner(lock, token, n_shared=5, pairs=pairs, n_other=25) for token in (1, 4, 6, 8, 40)] for lock in Lock}
    assert where[Lock.PREFIX] == [1, 4, 6, 8, 24]
    assert where[Lock.NODE] == [1, 4, 2, 20, 20]
    assert where[Lock.FREE] == [None] * 5
    assert partner(Lock.NODE, 9, n_shared=5, pairs=(), n_other=25) == 5
    assert partner(Lock.PREFIX, 9, n_shared=0, pairs=(), n_other=0) is None


def test_the_key_goes_through_all_locks() -> None:
    assert [Lock.PREFIX.next, Lock.NODE.next, Lock.FREE.next] == [Lock.NODE, Lock.FREE, Lock.PREFIX]


def test_both_sides_have_one_scale() -> None:
    assert one_scale(Scale(-1.0, 1.0, True), Scale(-3.0, 3.0, True)) == Scale(-3.0, 3.0, True)
    assert one_scale(Scale(0.5, 1.0, False), Scale(0.0, 0.7, False)) == Scale(0.0, 1.0, False)


def test_the_fork_of_a_real_study_says_what_node_pane_and_tokens_say() -> None:
    library = Library(str(CHAIN_SUMS / "chain_sums.zarr"))
    both = library.comparison("q000", 8, None)
    assert both.opposite and both.may_be_opposite
    assert both.left.rollout.correct and not both.right.rollout.correct
    shared = both.n_shared
    assert both.left.rollout.token_id_T[:shared].tolist() == both.right.rollout.token_id_T[:shared].tolist()
    found = fork(both, 0)
    assert found is not None and found.position == shared and found.number == 1
    node = both.left.node(shared, 1, 0)
    assert node is not None
    assert (found.teachers[1].alignment, found.teachers[1].gain) == (node.objectives[0].alignment, node.objectives[0].gain)
    by_id = {child.token_id: child for child in node.children}
    for branch, page, said in (
        (found.left, both.left, found.teachers[1].left),
        (found.right, both.right, found.teachers[1].right),
    ):
        child = by_id[int(page.rollout.token_id_T[shared])]
        assert (branch.label, branch.p_succ, branch.low, branch.high) == (child.label, child.p_succ, child.low, child.high)
        assert branch.p_student == pytest.approx(child.p_student, rel=1e-3)
        assert said == pytest.approx(child.p_teacher, rel=1e-3)


def test_a_rollout_beside_itself_has_no_fork() -> None:
    library = Library(str(CHAIN_SUMS / "chain_sums.zarr"))
    both = library.comparison("q000", 8, 8)
    assert both.n_shared == both.left.n_tokens and not both.opposite
    assert fork(both, 0) is None


def test_a_fork_that_is_no_node_has_no_estimate(calm_store: Path) -> None:
    library = Library(str(calm_store))
    both = library.comparison("q005", 0, 1)  # a question without success has no nodes
    assert not both.may_be_opposite
    found = fork(both, 0)
    assert found is not None and found.number is None
    assert isnan(found.left.p_succ) and isnan(found.teachers[0].alignment)
    assert 0 <= found.left.p_student <= 1 and 0 <= found.teachers[0].right <= 1


def test_what_is_not_there_is_refused_in_a_sentence(calm_store: Path) -> None:
    library = Library(str(calm_store))
    with pytest.raises(StoreError, match="77"):
        library.comparison("q000", 0, 77)
