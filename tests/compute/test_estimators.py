"""The back-up: unbiased, sure of itself to the right degree, and NaN only where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_nodes import Child, Group, end, every_child, make_nodes, on_path, rest, simulate, to_end, true_values
from msgspec.structs import replace

from compute.estimators import BIASED, ESTIMATORS, Estimator, estimate, fit_pseudo_count, passing_counts, stratum_counts
from compute.statistics import beta_quantile
from store.schema import ABSENT_TOKEN, NOWHERE, PATH_END_TOKEN, REST_TOKEN, ForcedKind

TOKEN, NONE, REST, GAP = ForcedKind.TOKEN, ForcedKind.NONE, ForcedKind.REST, ForcedKind.GAP

#: Two paths that fork at the second node: gaps, an exact end token, ends of both outcomes.
FORK = [
    [on_path(0, 0.5, 1, stay=0.8, mean=0.7), Child(1, 0.3, mean=0.2), end(2, 0.1, 1), rest(0.1, 0.5)],
    [on_path(3, 0.4, 2, mean=0.1), on_path(4, 0.4, 3, stay=0.5, mean=0.6), rest(0.2, 0.3)],
    [to_end(5, 0.7, 1, stay=0.9, mean=0.25), Child(6, 0.25, mean=0.9), rest(0.05, 0.4)],
    [to_end(7, 0.6, 0, stay=0.3, mean=0.8), Child(8, 0.3, mean=0.35), rest(0.1, 0.15)],
]


def forced(row: int, token: int, n: int, n_success: int, half: int = 0) -> Group:
    """Completions forced at a child off the paths, or in a gap."""
    return Group(row, TOKEN, token, row, token, n, n_success, half)


def random_tree(seed: int, depth: int = 4) -> list[list[Child]]:
    rng = np.random.default_rng(seed)
    tree = []
    for row in range(depth):
        P, mean, stay = rng.dirichlet(np.full(4, 2.0)), rng.uniform(0, 1, 4), rng.uniform(0.3, 1.0)
        along = on_path(0, P[0], row + 1, stay, mean[0]) if row < depth - 1 else to_end(0, P[0], row % 2, stay, mean[0])
        tree.append([along, Child(1, P[1], mean=mean[1]), Child(2, P[2], mean=mean[2]), rest(P[3], mean[3])])
    return tree


def test_the_back_up_by_hand() -> None:
    tree = [
        [on_path(0, 0.5, 1, stay=0.8), Child(1, 0.3), end(2, 0.1, 1), rest(0.1)],
        [to_end(3, 0.6, 1, stay=0.5), Child(4, 0.3), rest(0.1)],
    ]
    groups = [
        *(forced(0, 0, 10, 5), forced(0, 1, 20, 4), forced(0, REST_TOKEN, 4, 1)),
        *(forced(1, 3, 5, 1), forced(1, 4, 10, 7), forced(1, REST_TOKEN, 4, 2)),
    ]
    e = estimate(make_nodes(tree, groups), n_sig=10)
    end_child, below = 0.5 * 1 + 0.5 * 0.2, 0.6 * 0.6 + 0.3 * 0.7 + 0.1 * 0.5
    np.testing.assert_allclose(e.p_succ_NK[1, :3], [end_child, 0.7, 0.5])
    assert e.value_N[1] == pytest.approx(below)
    along = 0.8 * below + 0.2 * 0.5
    np.testing.assert_allclose(e.p_succ_NK[0], [along, 0.2, 1.0, 0.25])
    assert e.value_N[0] == pytest.approx(0.5 * along + 0.3 * 0.2 + 0.1 + 0.1 * 0.25)
    var_below = (0.6 * 0.5) ** 2 * 0.16 / 4 + 0.3**2 * 0.21 / 9 + 0.1**2 * 0.25 / 3
    assert e.value_variance_N[1] == pytest.approx(var_below)
    assert e.variance_NK[0, 0] == pytest.approx(0.8**2 * var_below + 0.2**2 * 0.25 / 9)
    assert e.variance_NK[0, 2] == 0.0 and np.isinf(e.effective_n_NK[0, 2])
    inverse_below = (0.6 * 0.5) ** 2 / 5 + 0.3**2 / 10 + 0.1**2 / 4
    assert e.value_effective_n_N[1] == pytest.approx(1 / inverse_below)
    assert e.effective_n_NK[0, 0] == pytest.approx(1 / (0.8**2 * inverse_below + 0.2**2 / 10))
    np.testing.assert_allclose(e.gap_mass_NK, [[0.2, np.nan, np.nan, np.nan], [0.5, np.nan, np.nan, np.nan]])
    # The rest is never kept; the end token always is; child 3 of node 1 has 5 / 0.5^2 = 20.
    np.testing.assert_array_equal(e.kept_NK, [[True, True, True, False], [True, True, False, False]])
    assert np.isnan(e.p_succ_NK[1, 3]) and np.isnan(e.low_NK[1, 3])


@pytest.mark.parametrize("tree", [FORK, random_tree(0), random_tree(1)], ids=["fork", "random0", "random1"])
@pytest.mark.parametrize("estimator", [one for one in ESTIMATORS if one not in BIASED])
def test_estimates_are_unbiased_and_know_their_variance(tree: list[list[Child]], estimator: Estimator) -> None:
    """4,000 simulated studies: means within 4.5 standard errors, stated variances right to 6 % on average."""
    times = 4000
    nodes = simulate(tree, every_child(tree, 12, n_initial=40), times=times, seed=0)
    e = estimate(nodes, n_sig=10, estimator=estimator)
    K = e.p_succ_NK.shape[1]
    p_RNK, variance_RNK = e.p_succ_NK.reshape(times, -1, K), e.variance_NK.reshape(times, -1, K)
    p, V = true_values(tree)
    ratios = []
    for row, siblings in enumerate(tree):
        for k in range(len(siblings)):
            draws, sd = p_RNK[:, row, k], p_RNK[:, row, k].std()
            assert draws.mean() == pytest.approx(p[row][k], abs=4.5 * sd / np.sqrt(times) + 1e-12)
            if sd > 1e-9:
                ratios.append(variance_RNK[:, row, k].mean() / draws.var())
        values = e.value_N.reshape(times, -1)[:, row]
        assert values.mean() == pytest.approx(V[row], abs=4.5 * values.std() / np.sqrt(times))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.06)


def test_pooling_everything_is_biased() -> None:
    """Forced branches are over-counted in their ancestors: why `plain` is not the default."""
    nodes = simulate(FORK, every_child(FORK, 40, n_initial=40), times=500, seed=0)
    plain = estimate(nodes, n_sig=10, estimator="plain").p_succ_NK.reshape(500, 4, -1)[:, 0, 0].mean()
    assert abs(plain - true_values(FORK)[0][0][0]) > 0.03


def test_intervals_cover_as_often_as_they_say_on_average() -> None:
    """Nominal 95 %, averaged over trees, children and strata of 10 to 100 completions, true p in [.02, .98].

    Back-ups of strata of 10 alone fall to .93.
    """
    covered_on_path, covered_off = [], []
    for seed in range(12):
        tree = random_tree(seed)
        p = np.array(true_values(tree)[0])
        usual = (p > 0.02) & (p < 0.98)
        for n in (10, 20, 100):
            e = estimate(simulate(tree, every_child(tree, n), times=200, seed=seed), n_sig=5)
            covered = ((e.low_NK.reshape(200, *p.shape) <= p) & (p <= e.high_NK.reshape(200, *p.shape))).mean(axis=0)
            covered_on_path += list(covered[:, 0][usual[:, 0]])
            covered_off += list(covered[:, 1:3][usual[:, 1:3]])
    assert 0.935 <= np.mean(covered_on_path) <= 0.965
    assert 0.94 <= np.mean(covered_off) <= 0.965
    assert min(covered_on_path) > 0.85


def test_a_child_off_the_paths_has_a_jeffreys_interval_with_its_ends() -> None:
    tree = [[Child(0, 0.4), Child(1, 0.3), Child(2, 0.2), rest(0.1)]]
    groups = [forced(0, 0, 20, 7), forced(0, 1, 20, 0), forced(0, 2, 20, 20), forced(0, REST_TOKEN, 3, 1)]
    e = estimate(make_nodes(tree, groups), n_sig=20)
    np.testing.assert_allclose(
        e.low_NK[0], [*beta_quantile(0.025, [7.5], [13.5]), 0.0, *beta_quantile(0.025, [20.5], [0.5]), e.low_NK[0, 3]]
    )
    np.testing.assert_allclose(
        e.high_NK[0], [*beta_quantile(0.975, [7.5], [13.5]), *beta_quantile(0.975, [0.5], [20.5]), 1.0, e.high_NK[0, 3]]
    )


def test_a_backed_up_child_uses_the_smoothed_effective_count() -> None:
    """Two strata of weight 1/2: q~ = (S + v)/(N + 1), var~ = sum w^2 q~(1 - q~)/N, v the child's own value."""
    tree = [[on_path(0, 0.9, 1), rest(0.1)], [Child(1, 0.5), rest(0.5)]]
    e = estimate(make_nodes(tree, [forced(0, REST_TOKEN, 4, 2), forced(1, 1, 10, 0), forced(1, REST_TOKEN, 20, 16)]), n_sig=5)
    v = 0.5 * 0.0 + 0.5 * 0.8
    q1, q2 = (0 + v) / 11, (16 + v) / 21
    q_smoothed, var_smoothed = (q1 + q2) / 2, q1 * (1 - q1) / 10 / 4 + q2 * (1 - q2) / 20 / 4
    n = q_smoothed * (1 - q_smoothed) / var_smoothed
    assert e.low_NK[0, 0] == pytest.approx(float(beta_quantile(0.025, v * n + 0.5, (1 - v) * n + 0.5)))
    assert e.high_NK[0, 0] == pytest.approx(float(beta_quantile(0.975, v * n + 0.5, (1 - v) * n + 0.5)))


def test_a_smaller_pseudo_count_trusts_strata_without_success_more() -> None:
    """q~ = (S + m v)/(N + m): off the paths nothing changes, and the estimates themselves never do."""
    tree = [[on_path(0, 0.9, 1), rest(0.1)], [Child(1, 0.5), rest(0.5)]]
    nodes = make_nodes(tree, [forced(0, REST_TOKEN, 4, 2), forced(1, 1, 10, 0), forced(1, REST_TOKEN, 20, 20)])
    one, tenth = estimate(nodes, n_sig=5), estimate(nodes, n_sig=5, pseudo_count=0.1)
    assert (tenth.high_NK - tenth.low_NK)[0, 0] < 0.5 * (one.high_NK - one.low_NK)[0, 0]
    np.testing.assert_array_equal(tenth.high_NK[1], one.high_NK[1])
    np.testing.assert_array_equal(tenth.variance_NK, one.variance_NK)
    # Smoothed at the value of node 1, which is 1/2: q~ = .05/10.1 and q~(1 - q~)/10.
    assert tenth.smoothed_variance_NK[1, 0] == pytest.approx(0.05 / 10.1 * (1 - 0.05 / 10.1) / 10)


def test_the_pseudo_count_of_a_study_is_found_again() -> None:
    """Strata drawn from Beta(m V, m (1 - V)); at most 1, and 1 where nothing is known."""
    rng = np.random.default_rng(0)
    for m in (0.1, 0.4):
        rates = rng.beta(m * 0.4, m * 0.6, (300, 6))
        tree = [[Child(k, 1 / 6) for k in range(6)] for _ in rates]
        groups = [forced(row, k, 20, rng.binomial(20, rates[row, k])) for row in range(300) for k in range(6)]
        # The node's value is estimated from the same six strata, which makes them look more alike than they are.
        assert m <= fit_pseudo_count(make_nodes(tree, groups)) <= 2.0 * m
    alike = [forced(row, k, 20, rng.binomial(20, 0.4)) for row in range(300) for k in range(6)]
    assert fit_pseudo_count(make_nodes(tree, alike)) == 1.0
    assert fit_pseudo_count(make_nodes(tree)) == 1.0 and fit_pseudo_count(make_nodes([])) == 1.0


def test_intervals_have_the_level_asked_for() -> None:
    nodes = make_nodes([[Child(0, 0.5), rest(0.5)]], [forced(0, 0, 20, 7), forced(0, REST_TOKEN, 5, 3)])
    e = estimate(nodes, n_sig=5, level=0.9)
    np.testing.assert_allclose([e.low_NK[0, 0], e.high_NK[0, 0]], beta_quantile([0.05, 0.95], 7.5, 13.5))
    with pytest.raises(ValueError, match="must lie between 0 and 1, not 95"):
        estimate(nodes, n_sig=5, level=95)
    with pytest.raises(ValueError, match="above 0 and at most 1, not 0"):
        estimate(nodes, n_sig=5, pseudo_count=0)


def test_an_exact_outcome_is_a_point() -> None:
    tree = [[to_end(0, 0.5, 1), end(1, 0.4, 0), rest(0.1)]]
    e = estimate(make_nodes(tree, [forced(0, REST_TOKEN, 4, 2)]), n_sig=20)
    np.testing.assert_array_equal(e.low_NK[0, :2], [1.0, 0.0])
    np.testing.assert_array_equal(e.high_NK[0, :2], [1.0, 0.0])
    np.testing.assert_array_equal(e.variance_NK[0, :2], [0.0, 0.0])
    np.testing.assert_array_equal(e.kept_NK[0], [True, True, False])


@pytest.mark.parametrize(("mass", "known"), [(9e-7, True), (2e-6, False)])
def test_only_a_negligible_mass_may_be_unknown(mass: float, known: bool) -> None:
    """A rest, a candidate and a gap without completions: within a node, and within a child."""
    candidate = [[Child(0, 1.0 - mass), rest(mass)]]
    assert np.isfinite(estimate(make_nodes(candidate, [forced(0, 0, 20, 5)]), n_sig=20).value_N[0]) == known
    gap = [[to_end(0, 0.5, 1, stay=1.0 - mass), Child(1, 0.5)]]
    e = estimate(make_nodes(gap, [forced(0, 1, 20, 5)]), n_sig=20)
    assert np.isfinite(e.p_succ_NK[0, 0]) == known
    if known:
        assert e.p_succ_NK[0, 0] == 1.0 and e.value_N[0] == pytest.approx(0.625)


def test_a_missing_rest_leaves_the_value_unknown_but_not_the_children() -> None:
    e = estimate(make_nodes([[Child(0, 0.6), Child(1, 0.3)]], [forced(0, 0, 20, 5), forced(0, 1, 20, 10)]), n_sig=20)
    assert np.isnan(e.value_N[0]) and np.isnan(e.value_effective_n_N[0])
    np.testing.assert_allclose(e.p_succ_NK[0], [0.25, 0.5])


def test_an_unknown_child_spoils_what_is_above_it_only() -> None:
    tree = [[on_path(0, 0.5, 1), Child(1, 0.5)], [Child(2, 0.5), Child(3, 0.5)]]
    e = estimate(make_nodes(tree, [forced(0, 1, 20, 5), forced(1, 2, 20, 10)]), n_sig=20)
    np.testing.assert_array_equal(np.isnan(e.p_succ_NK), [[True, False], [False, True]])
    assert np.isnan(e.value_N).all() and not e.kept_NK[0, 0]


def test_one_completion_says_nothing_of_its_variance() -> None:
    e = estimate(make_nodes([[Child(0, 0.5), rest(0.5)]], [forced(0, 0, 20, 10), forced(0, REST_TOKEN, 1, 1)]), n_sig=20)
    assert e.variance_NK[0, 1] == 0.25


def test_the_effective_count_knows_nothing_of_outcomes() -> None:
    counts = simulate(FORK, every_child(FORK, 12, n_initial=40), times=1, seed=0)
    nodes = [make_nodes(FORK, groups_of(counts, share)) for share in (0.0, 0.5, 1.0)]
    effective = [estimate(n, n_sig=10).effective_n_NK for n in nodes]
    np.testing.assert_array_equal(effective[0], effective[1])
    np.testing.assert_array_equal(effective[0], effective[2])


def groups_of(nodes: object, share: float) -> list[Group]:
    """The groups of a table again, with a share of successes put in."""
    names = ("launch_node", "forced_kind", "forced_token", "exit_node", "exit_token", "n")
    columns = [getattr(nodes, f"group_{name}_G").tolist() for name in names]
    return [Group(*row, int(share * row[-1])) for row in zip(*columns, strict=True)]


def test_completions_are_matched_by_exit_and_a_paths_end_is_no_stratum() -> None:
    groups = [
        Group(NOWHERE, NONE, ABSENT_TOKEN, 2, 6, 3, 1),
        Group(NOWHERE, NONE, ABSENT_TOKEN, 2, PATH_END_TOKEN, 9, 9),
        Group(NOWHERE, NONE, ABSENT_TOKEN, NOWHERE, ABSENT_TOKEN, 5, 5),
        Group(0, GAP, 0, 0, 0, 4, 2),
        Group(0, REST, ABSENT_TOKEN, 0, REST_TOKEN, 4, 1),
        Group(1, TOKEN, 3, 2, 6, 2, 2),
    ]
    counts = stratum_counts(make_nodes(FORK, groups))
    np.testing.assert_array_equal(counts.n_NK[:, :2], [[4, 0], [0, 0], [0, 5], [0, 0]])
    np.testing.assert_array_equal(counts.n_success_NK[:, :2], [[2, 0], [0, 0], [0, 3], [0, 0]])
    assert counts.n_NK[0, 3] == 4 and counts.n_NK.sum() == 13


def test_passing_counts_follow_every_completion_up_to_its_launch() -> None:
    groups = [
        Group(NOWHERE, NONE, ABSENT_TOKEN, 2, 6, 3, 1),
        Group(NOWHERE, NONE, ABSENT_TOKEN, 2, PATH_END_TOKEN, 9, 9),
        Group(0, GAP, 0, 0, 0, 4, 2),
        Group(1, TOKEN, 3, 2, 6, 2, 2),
        Group(2, TOKEN, 6, 2, 6, 7, 0),
    ]
    nodes = make_nodes(FORK, groups)
    np.testing.assert_array_equal(passing_counts(nodes, "unforced").n_NK[:3, :2], [[12, 0], [12, 0], [9, 3]])
    np.testing.assert_array_equal(passing_counts(nodes, "on_policy").n_NK[:3, :2], [[12, 0], [14, 0], [9, 12]])
    np.testing.assert_array_equal(passing_counts(nodes, "plain").n_NK[:3, :2], [[25, 0], [21, 0], [9, 12]])
    np.testing.assert_array_equal(passing_counts(nodes, "plain").n_success_NK[:3, :2], [[14, 0], [12, 0], [9, 3]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_of_rows_and_children_changes_nothing(seed: int) -> None:
    """The same tree, its nodes and children shuffled."""
    rng = np.random.default_rng(seed)
    counts = simulate(FORK, every_child(FORK, 12, n_initial=40), times=1, seed=seed)
    share = 0.4
    row_of, column_of = rng.permutation(len(FORK)), [rng.permutation(len(siblings)) for siblings in FORK]
    shuffled: list[list[Child]] = [[] for _ in FORK]
    for row, siblings in enumerate(FORK):
        moved = [
            Child(c.token, c.probability, c.kind, NOWHERE if c.next == NOWHERE else int(row_of[c.next]), c.stay, c.outcome)
            for c in siblings
        ]
        shuffled[row_of[row]] = [moved[k] for k in column_of[row]]
    groups = groups_of(counts, share)
    moved_groups = [
        Group(
            NOWHERE if g.launch == NOWHERE else int(row_of[g.launch]),
            g.forced,
            g.forced_token,
            int(row_of[g.exit_node]),
            *rest_of(g),
        )
        for g in groups
    ]
    for estimator in ("backup", "on_policy", "plain"):
        e = estimate(make_nodes(FORK, groups), n_sig=10, estimator=estimator)
        e_ = estimate(make_nodes(shuffled, moved_groups), n_sig=10, estimator=estimator)
        np.testing.assert_allclose(e_.value_N[row_of], e.value_N, atol=1e-14)
        for row, columns in enumerate(column_of):
            np.testing.assert_allclose(e_.p_succ_NK[row_of[row], : len(columns)], e.p_succ_NK[row, columns], atol=1e-14)


def rest_of(group: Group) -> tuple[int, int, int]:
    return group.exit_token, group.n, group.n_success


def test_halves_are_recomputed_from_their_own_completions() -> None:
    tree = [[on_path(0, 0.5, 1), rest(0.5)], [Child(1, 0.5), rest(0.5)]]
    counts = {
        0: [(0, REST_TOKEN, 10, 2), (1, 1, 10, 7), (1, REST_TOKEN, 4, 3)],
        1: [(0, REST_TOKEN, 8, 4), (1, 1, 12, 3), (1, REST_TOKEN, 6, 3)],
    }
    by_half = {h: [forced(*row, half=h) for row in rows] for h, rows in counts.items()}
    nodes = make_nodes(tree, [*by_half[0], *by_half[1]])
    for half in (0, 1):
        alone = estimate(make_nodes(tree, by_half[half]), n_sig=5)
        np.testing.assert_array_equal(estimate(nodes, n_sig=5, half=half).p_succ_NK, alone.p_succ_NK)
        np.testing.assert_array_equal(estimate(nodes, n_sig=5, half=half).value_N, alone.value_N)
    np.testing.assert_array_equal(estimate(nodes, n_sig=5).n_NK[1], [22, 10])


def test_float32_probabilities_are_probabilities() -> None:
    """Stored log-probabilities miss 1 by rounding; the value must neither be lost nor leave [0, 1]."""
    tree = [[to_end(0, 0.1, 1), end(1, 0.7, 1), end(2, 0.2, 1)]]
    nodes = make_nodes(tree)
    nodes = replace(
        nodes, logprob_NK=nodes.logprob_NK.astype(np.float32), continue_logprob_NK=np.array([[1e-8, np.nan, np.nan]], np.float32)
    )
    e = estimate(nodes, n_sig=20)
    assert e.value_N[0] == 1.0


def test_a_table_without_nodes_or_without_completions() -> None:
    assert estimate(make_nodes([]), n_sig=20).value_N.shape == (0,)
    assert np.isnan(estimate(make_nodes(FORK), n_sig=20).value_N).all()


def test_wrong_tables_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves node 1 by token 99, which names 0 of its children"):
        estimate(make_nodes(FORK, [forced(1, 99, 1, 1)]), n_sig=20)
    circle, circle_from_a_root = [1, 0], [1, 2, 1]
    for following in (circle, circle_from_a_root):
        with pytest.raises(ValueError, match="follows two children or itself"):
            estimate(make_nodes([[on_path(0, 1.0, row)] for row in following]), n_sig=20)
    gap_only = [Group(0, ForcedKind.GAP, 0, 0, 0, 5, 2), Group(0, ForcedKind.TOKEN, 1, 0, 1, 5, 2)]
    with pytest.raises(ValueError, match='"uniform"'):
        estimate(make_nodes([[on_path(0, 0.5, NOWHERE, 0.9), Child(1, 0.5)]], gap_only), n_sig=0, estimator="on_policy")
    with pytest.raises(ValueError, match="Unknown estimator 'pooled'"):
        estimate(make_nodes(FORK), n_sig=20, estimator="pooled")  # type: ignore[arg-type]
