"""The completions that a question's targets need: what is launched, under what key, for what budget, and where it counts."""

from __future__ import annotations

from pathlib import Path as File

import numpy as np
import pytest
from made_nodes import Child, Group, make_nodes, on_path, rest, to_end

import store
from compute.allocation import ALLOCATIONS
from compute.errors import StudyError
from compute.estimators import estimate, passing_counts, stratum_counts
from compute.progress import Reporter
from compute.runner import run
from compute.setup import prepare
from compute.study import Targeting, load
from compute.targeting import Plan, Target, plan, remaining
from compute.tree import Path, Trie
from compute.whole import Whole
from store.schema import ABSENT_TOKEN, PATH_END_TOKEN, REST_TOKEN, ChildKind, ForcedKind, path_end
from tests.conftest import small_study

END = 9
#: Lengths of initial rollouts: a completion launched at depth 1 is expected to be 3 tokens long.
LENGTHS = [2, 4, 6]


def path(tokens: list[int], probabilities: list[float], correct: bool = True) -> Path:
    return Path(tuple(tokens), np.log(np.array(probabilities, dtype=np.float32)), correct)


def target(node: int, tokens: list[int], kinds: list[int], probabilities: list[float]) -> Target:
    nothing = np.zeros((0, len(tokens)))
    return Target(
        node,
        1,
        np.array(tokens, dtype=np.int32),
        np.array(kinds, dtype=np.uint8),
        np.log(np.array(probabilities)),
        np.zeros(len(tokens), dtype=np.uint32),
        np.full(len(tokens), 255, dtype=np.uint8),
        nothing,
        nothing,
        Whole(np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0))),
    )


@pytest.fixture
def trie() -> Trie:
    """Two paths that part after the first token."""
    return Trie([path([1, 2, 3, END], [0.5, 0.6, 0.7, 0.8]), path([1, 4, END], [0.5, 0.3, 0.9], correct=False)])


@pytest.fixture
def fork() -> Target:
    return target(1, [2, 4, 7, END, REST_TOKEN], [2, 2, 1, 4, 3], [0.6, 0.3, 0.05, 0.04, 0.01])


def planned(trie: Trie, targets: list[Target], **settings: object) -> Plan:
    return plan(trie, targets, Targeting(**settings), 0, "q", LENGTHS)


def by_way(found: Plan) -> dict[tuple[ForcedKind, int], tuple[object, ...]]:
    return {(one.forced_kind, one.token): one.launches for one in found.batches}


def test_each_stratum_gets_its_share(trie: Trie, fork: Target) -> None:
    found = planned(trie, [fork], allocation="shares", n_min=40)
    batches = by_way(found)
    assert set(batches) == {
        (ForcedKind.GAP, 2),
        (ForcedKind.GAP, 4),
        (ForcedKind.TOKEN, 7),
        (ForcedKind.REST, REST_TOKEN),
    }  # an end token needs none
    assert len(batches[ForcedKind.TOKEN, 7]) == 40
    assert len(batches[ForcedKind.REST, REST_TOKEN]) == 10
    gap = batches[ForcedKind.GAP, 2]
    assert len(gap) == np.ceil(40 * (1 - 0.56))
    assert {(one.depth, one.excluded) for one in gap} == {(2, (3,)), (3, (END,))}
    assert {one.path for one in found.batches if one.token == 4} == {1}


def test_uniform_forces_the_token_of_a_path_too(trie: Trie, fork: Target) -> None:
    batches = by_way(planned(trie, [fork], allocation="uniform", n_min=40))
    assert {way: len(launches) for way, launches in batches.items()} == {
        (ForcedKind.TOKEN, 2): 40,
        (ForcedKind.GAP, 2): 3,
        (ForcedKind.TOKEN, 4): 40,
        (ForcedKind.GAP, 4): 3,
        (ForcedKind.TOKEN, 7): 40,
        (ForcedKind.REST, REST_TOKEN): 10,
    }
    forced = batches[ForcedKind.TOKEN, 2]
    assert {(one.depth, one.forced, one.excluded) for one in forced} == {(1, 2, ())}


def test_a_sample_is_the_same_draw_under_every_allocation_and_budget(trie: Trie, fork: Target) -> None:
    plans = [planned(trie, [fork], allocation=one) for one in ALLOCATIONS]
    plans += [planned(trie, [fork], budget_completions=budget) for budget in (100, 400, 401)]
    plans += [planned(trie, [fork], budget_tokens=budget) for budget in (1000, 2000)]
    longest: dict[object, tuple[object, ...]] = {}
    for one in map(by_way, plans):
        for way, launches in one.items():
            known = longest.get(way, ())
            assert launches[: len(known)] == known[: len(launches)]
            longest[way] = max(known, launches, key=len)
    keys = [launch.key for launches in longest.values() for launch in launches]
    assert len(set(keys)) == len(keys)


def test_exits_from_a_gap_follow_their_masses() -> None:
    long = Trie([path([1, 2, 3, END], [0.5, 0.9, 0.5, 0.2])])
    root = target(0, [1, 2, REST_TOKEN], [2, 1, 3], [0.5, 0.4, 0.1])
    gap = by_way(planned(long, [root], allocation="shares", n_min=4000))[ForcedKind.GAP, 1]
    depths = np.bincount([launch.depth for launch in gap], minlength=4)[1:]
    expected = np.array([0.1, 0.9 * 0.5, 0.45 * 0.8]) / (1 - 0.09)
    assert depths / depths.sum() == pytest.approx(expected, abs=0.03)


def test_what_remains_of_a_rollout() -> None:
    assert remaining(LENGTHS).tolist() == [4.0, 3.0, 3.0, 2.0, 2.0, 1.0, 1.0]
    assert remaining([]).tolist() == [1.0]


def test_a_budget_is_kept_in_completions_and_in_tokens(trie: Trie, fork: Target) -> None:
    for allocation in ALLOCATIONS:
        found = planned(trie, [fork], allocation=allocation, budget_completions=300)
        assert 280 <= found.n_completions <= 300 and not found.shortfall
        found = planned(trie, [fork], allocation=allocation, budget_tokens=900)
        # Exits from the gaps are drawn, so that their tokens are those expected only on average.
        assert found.n_tokens == pytest.approx(900, rel=0.06) and found.n_completions <= 0.5 * 900


def test_a_budget_that_is_too_small_says_so(trie: Trie, fork: Target) -> None:
    few = planned(trie, [fork], allocation="neyman", budget_completions=25)
    assert few.n_completions <= 25
    assert "holds 14 completions a child, fewer than n_sig = 20" in few.shortfall
    for allocation in ALLOCATIONS:
        too_few = planned(trie, [fork], allocation=allocation, budget_completions=3)
        assert "a budget of 3 completions is below the least that its children need" in too_few.shortfall
        assert {len(one.launches) for one in too_few.batches} <= {2, 3}
    assert not planned(trie, [fork], n_min=10, n_sig=20).shortfall  # no budget was given


def test_two_budgets_are_one_too_many(tmp_path: File) -> None:
    study = small_study(tmp_path)
    study.write_text(study.read_text().replace("k = 4\n", "k = 4\nbudget_tokens = 10\nbudget_completions = 10\n"))
    with pytest.raises(StudyError, match="`budget_completions` or `budget_tokens`, not both"):
        load(study)


def test_a_paths_end_counts_for_the_child_that_it_names() -> None:
    """Two children of one node lead to ends; unnamed, such a completion counts for neither."""
    nodes = make_nodes(
        [
            [on_path(0, 0.8, 1), rest(0.2)],
            [to_end(1, 0.5, 1), to_end(2, 0.4, 0), Child(3, 0.05), rest(0.05)],
        ],
        [
            Group(0, ForcedKind.TOKEN, 0, 1, path_end(1), 6, 6),
            Group(0, ForcedKind.TOKEN, 0, 1, path_end(2), 4, 0),
            Group(1, ForcedKind.TOKEN, 2, 1, path_end(2), 5, 0),
            Group(0, ForcedKind.TOKEN, 0, 1, PATH_END_TOKEN, 3, 3),
        ],
    )
    counts = passing_counts(nodes, "on_policy")
    np.testing.assert_array_equal(counts.n_NK, [[10, 0, 0, 0], [6, 9, 0, 0]])
    np.testing.assert_array_equal(counts.n_success_NK, [[6, 0, 0, 0], [6, 0, 0, 0]])
    assert stratum_counts(nodes).n_NK.sum() == 0


@pytest.fixture(scope="module")
def uniform_study(tmp_path_factory: pytest.TempPathFactory) -> File:
    """Six questions of the tiny student, 30 completions forced at every child, those on the paths too."""
    folder = tmp_path_factory.mktemp("uniform")
    study = small_study(folder, limit=6, n_min=30)
    study.write_text(study.read_text().replace("k = 4\n", 'k = 4\nallocation = "uniform"\n'))
    reporter = Reporter(0)
    run(prepare(study, reporter), folder / "s.zarr", reporter)
    return folder / "s.zarr"


def test_completions_forced_onto_a_path_count_where_they_leave_it(uniform_study: File) -> None:
    opened = store.open(uniform_study)
    ended, deeper, p_values = 0, 0, []
    for line in opened.questions():
        nodes = opened.nodes(line.id)
        on_path_NK = nodes.kind_NK == ChildKind.ON_PATH
        forced_G = nodes.group_forced_kind_G == ForcedKind.TOKEN
        for row, child in np.argwhere(on_path_NK):
            mine_G = forced_G & (nodes.group_launch_node_G == row) & (nodes.group_forced_token_G == nodes.token_NK[row, child])
            assert nodes.group_n_G[mine_G].sum() == 30
            ended += int(nodes.group_n_G[mine_G & (nodes.group_exit_token_G <= PATH_END_TOKEN)].sum())
            deeper += int(nodes.group_n_G[mine_G & (nodes.group_exit_node_G != row)].sum())
        by_exits, by_back_up = estimate(nodes, n_sig=20, estimator="on_policy"), estimate(nodes, n_sig=20)
        assert (by_exits.n_NK[on_path_NK] >= 30).all()
        assert np.isfinite(by_back_up.p_succ_NK[on_path_NK]).all()
        error_NK = (by_exits.p_succ_NK - by_back_up.p_succ_NK) / np.sqrt(by_exits.variance_NK + by_back_up.variance_NK + 1e-3)
        p_values += error_NK[on_path_NK].tolist()
    assert ended > 100 and deeper > 100
    assert abs(np.mean(p_values)) < 0.4 and np.std(p_values) < 1.5  # both estimate the same


def test_stored_completions_name_where_they_left(uniform_study: File) -> None:
    opened = store.open(uniform_study)
    for line in opened.questions():
        nodes = opened.nodes(line.id)
        exits = set(zip(nodes.group_exit_node_G.tolist(), nodes.group_exit_token_G.tolist(), strict=True))
        kept = {(one.exit_node, one.exit_token) for one in opened.completions(line.id)}
        assert kept <= exits and ABSENT_TOKEN not in {token for _, token in kept}
