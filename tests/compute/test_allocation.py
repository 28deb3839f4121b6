"""Completions are shared out by probabilities alone: where they count most, none below what keeps a child."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_nodes import Child, end, make_nodes, on_path, rest, simulate, to_end, true_values

from benchmarks.made_tables import Launch
from compute.alignment import cosine, ideal_gradient, trace_of_covariance
from compute.allocation import (
    ALLOCATIONS,
    LEAST,
    Allotment,
    Tree,
    allot,
    cost,
    error_coefficients,
    floors,
    neyman,
    shares,
    tree,
    uniform,
)
from compute.estimators import estimate
from store.schema import NOWHERE, ChildKind, ForcedKind
from store.tables import Nodes


def made_tree(seed: int, depth: int = 4) -> list[list[Child]]:
    """A path that forks into two, with gaps, ends of both outcomes and an exact end token."""
    rng = np.random.default_rng(seed)
    children = []
    for row in range(depth):
        P, mean, stay = rng.dirichlet(np.full(5, 0.7)), rng.uniform(0, 1, 5), rng.uniform(0.3, 1.0, 2)
        next_row = row + 1 if row < depth - 2 else NOWHERE
        along = (
            on_path(0, P[0], next_row, stay[0], mean[0]) if next_row != NOWHERE else to_end(0, P[0], row % 2, stay[0], mean[0])
        )
        siblings = [along, Child(1, P[1], mean=mean[1]), Child(2, P[2], mean=mean[2]), end(3, P[3], 1), rest(P[4], mean[4])]
        if row == depth - 3:  # both of the last two nodes follow this one
            siblings[1] = on_path(1, P[1], depth - 1, stay[1], mean[1])
        children.append(siblings)
    return children


def of(nodes: Nodes, **costs: object) -> Tree:
    return tree(nodes.kind_NK, nodes.logprob_NK, nodes.next_NK, nodes.continue_logprob_NK, **costs)


def launches(children: list[list[Child]], allotted: Allotment) -> list[Launch]:
    own_kind = {ChildKind.CANDIDATE: ForcedKind.TOKEN, ChildKind.REST: ForcedKind.REST, ChildKind.ON_PATH: ForcedKind.GAP}
    own = [
        Launch(int(row), own_kind[ChildKind(children[row][k].kind)], int(allotted.own_NK[row, k]), int(k))
        for row, k in np.argwhere(allotted.own_NK > 0)
    ]
    through = [
        Launch(int(row), ForcedKind.TOKEN, int(allotted.through_NK[row, k]), int(k))
        for row, k in np.argwhere(allotted.through_NK > 0)
    ]
    return own + through


@pytest.mark.parametrize("seed", range(5))
def test_the_coefficients_are_those_of_the_errors_that_estimates_state(seed: int) -> None:
    """sum_s K_s/n_s against the effective counts of the back-up and the trace of the gradient's covariance."""
    children = made_tree(seed)
    allotted = neyman(of(make_nodes(children)), 600, 5)
    nodes = simulate(children, launches(children, allotted), times=1, seed=0)
    variance_NK = 1.0 / estimate(nodes, n_sig=5).effective_n_NK  # of q (1 - q) = 1
    token_NK = ~np.isin(nodes.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
    errors_N = trace_of_covariance(nodes.logprob_NK, variance_NK, token_NK)
    alike_N = trace_of_covariance(nodes.logprob_NK, np.ones(variance_NK.shape), token_NK)
    K_NK, n_NK = error_coefficients(of(nodes)), allotted.own_NK
    assert (K_NK / np.maximum(n_NK, 1)).sum() == pytest.approx((errors_N / alike_N).sum(), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_exchange_of_completions_between_two_strata_lowers_the_error(seed: int) -> None:
    made = of(make_nodes(made_tree(seed)))
    K_NK, n_NK = error_coefficients(made), neyman(made, 20_000, 20).own_NK.astype(float)
    gives, takes = np.argwhere(n_NK > floors(made, 20)), np.argwhere(n_NK > 0)
    assert len(gives) > 3
    for a in map(tuple, gives):
        for b in map(tuple, takes):
            after = n_NK.copy()
            after[a] -= 2  # numbers are whole: one more or less may be rounding
            after[b] += 2
            at = n_NK > 0
            assert (K_NK[at] / after[at]).sum() >= (K_NK[at] / n_NK[at]).sum() * (1 - 1e-12) or a == b


@pytest.mark.parametrize("seed", range(5))
def test_neyman_keeps_the_children_that_uniform_keeps_and_takes_no_more(seed: int) -> None:
    children = made_tree(seed)
    made = of(make_nodes(children))
    even, shared = allot(made, "uniform", n_min=30, n_sig=20), allot(made, "neyman", n_min=30, n_sig=20)
    assert even.n_completions - 20 <= shared.n_completions <= even.n_completions
    by_uniform = estimate(simulate(children, launches(children, even), times=1, seed=0), n_sig=20, estimator="on_policy")
    by_neyman = estimate(simulate(children, launches(children, shared), times=1, seed=0), n_sig=20)
    np.testing.assert_array_equal(by_neyman.kept_NK, by_uniform.kept_NK)
    token_NK = ~np.isin(made.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
    np.testing.assert_array_equal(by_neyman.kept_NK, token_NK)


def test_every_stratum_has_completions_in_both_halves_under_every_allocation() -> None:
    children = made_tree(1)
    made = of(make_nodes(children))
    for allocation in ALLOCATIONS:
        nodes = simulate(children, launches(children, allot(made, allocation, n_min=4, n_sig=2)), times=20, seed=0)
        for half in (0, 1):
            assert not np.isnan(estimate(nodes, n_sig=0, half=half).value_N).any(), (allocation, half)


def test_uniform_and_shares_by_hand() -> None:
    children = [
        [on_path(0, 0.5, 1, stay=0.8, mean=0.5), Child(1, 0.3, mean=0.5), end(2, 0.1, 1), rest(0.1, 0.5)],
        [to_end(0, 0.9, 1, stay=1.0), Child(1, 0.1, mean=0.5), rest(1e-9, 0.5)],
    ]
    made = of(make_nodes(children))
    even = uniform(made, 40)
    np.testing.assert_array_equal(even.through_NK, [[40, 0, 0, 0], [40, 0, 0, 0]])
    np.testing.assert_array_equal(even.own_NK, [[3, 40, 0, 10], [0, 40, 0, 0]])  # no gap, no rest, nothing to launch there
    shared = shares(made, 40)
    np.testing.assert_array_equal(shared.own_NK, [[8, 40, 0, 10], [0, 40, 0, 0]])
    assert shared.through_NK.sum() == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(ALLOCATIONS), st.integers(1, 3000), st.integers(0, 3000))
def test_a_larger_budget_takes_nothing_away(seed: int, allocation: str, budget: int, more: int) -> None:
    nodes = make_nodes(made_tree(seed))
    rng = np.random.default_rng(seed)
    made = of(nodes, cost_NK=rng.uniform(0.5, 3.0, nodes.kind_NK.shape), cost_N=rng.uniform(0.5, 3.0, len(nodes)))
    smaller, larger = (allot(made, allocation, n_min=50, n_sig=20, budget=b) for b in (budget, budget + more))
    assert (larger.own_NK >= smaller.own_NK).all() and (larger.through_NK >= smaller.through_NK).all()
    assert larger.sure >= smaller.sure
    least = floors(made, 0) if allocation == "neyman" else None
    for allotted, given_ in ((smaller, budget), (larger, budget + more)):
        if cost(made, allotted) > given_:  # only where even the least is more than the budget
            at_least = (
                replace(allotted, own_NK=least)
                if least is not None
                else (uniform if allocation == "uniform" else shares)(made, LEAST)
            )
            assert cost(made, allotted) == cost(made, at_least)


def test_costly_completions_are_fewer() -> None:
    nodes = make_nodes([[Child(0, 0.5, mean=0.5), Child(1, 0.5, mean=0.5)]])
    allotted = neyman(of(nodes, cost_NK=np.array([[1.0, 4.0]])), 600.0, 20)
    assert allotted.own_NK.tolist() == [[200, 100]]  # n ~ 1/sqrt(cost), and 200 + 4 * 100 is the budget


def test_simulated_gradients_are_nearer_the_truth_with_fewer_completions() -> None:
    """With 60 % of the completions the error of the cosine with the true gradient is below that of uniform counts."""
    errors = np.zeros(2)
    for seed in range(6):
        children = made_tree(seed, depth=6)
        p, V = (np.array(one) for one in true_values(children))
        made = of(make_nodes(children))
        even = uniform(made, 50)
        fewer = neyman(made, 0.6 * even.n_completions, 20)
        for way, (allotted, estimator) in enumerate(((even, "on_policy"), (fewer, "backup"))):
            nodes = simulate(children, launches(children, allotted), times=200, seed=seed)
            e = estimate(nodes, n_sig=0, estimator=estimator)
            kept_NK = np.where(e.kept_NK, nodes.logprob_NK, np.nan)
            truth_NK = ideal_gradient(kept_NK, np.tile(p, (200, 1)), value=np.tile(V, 200))
            errors[way] += 1.0 - np.nanmean(cosine(ideal_gradient(kept_NK, e.p_succ_NK, value=e.value_N), truth_NK))
    assert errors[1] < 0.95 * errors[0]


def test_nodes_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="sort the nodes by depth"):
        of(make_nodes([[to_end(0, 1.0, 1)], [on_path(0, 1.0, 0)]]))


def test_a_tree_without_nodes_or_strata_needs_nothing() -> None:
    for allocation in ALLOCATIONS:
        assert allot(of(make_nodes([])), allocation, n_min=10, n_sig=5).n_completions == 0
        assert allot(of(make_nodes([[end(0, 0.5, 1), end(1, 0.5, 0)]])), allocation, n_min=10, n_sig=5).n_completions == 0
