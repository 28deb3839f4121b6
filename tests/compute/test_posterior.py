"""How sure a node is: pages equal the study, exact nodes are sure, and the prior learns what a teacher knows."""

from __future__ import annotations

import numpy as np
import pytest
from made_nodes import Child, Group, end, make_nodes, rest, to_end
from msgspec.structs import replace
from numpy.typing import NDArray

from benchmarks.made_tables import every_child, shares
from benchmarks.small_language_model import SmallStudy, small_study
from compute.alignment import SUPPORTS
from compute.posterior import MIN_CONTRASTS, SIGMA_S, Posterior, Prior, fit, fit_mixture, posterior
from compute.scores import Scores, score
from store.schema import NOWHERE, REST_TOKEN, ForcedKind
from store.tables import Nodes

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def study() -> SmallStudy:
    return small_study("mixing", 12, 0)


def judged(study: SmallStudy, nodes: Nodes, **settings: object) -> tuple[Scores, Prior, Posterior]:
    scores = score(nodes, n_sig=10, **settings)  # type: ignore[arg-type]
    prior = fit(nodes, scores)
    return scores, prior, posterior(nodes, scores, prior)


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_page_is_told_what_the_study_is_told(study: SmallStudy, support: str) -> None:
    """The nodes of one question alone, with fewer children than the widest node, in a table of their own."""
    nodes = study.simulate(shares(study.children, 20), times=1, seed=0)
    _, prior, whole = judged(study, nodes, support=support)
    for question in (0, 7):
        page = question_of(nodes, question)
        of_page = posterior(page, score(page, n_sig=10, support=support), prior)  # type: ignore[arg-type]
        for field in Posterior.__struct_fields__:
            if field.endswith("N"):
                expected = getattr(whole, field)[..., nodes.question_N == question]
                np.testing.assert_allclose(getattr(of_page, field), expected, atol=1e-9, err_msg=field)


def question_of(nodes: Nodes, question: int) -> Nodes:
    """The rows of one question, its columns cut to its own children."""
    rows_N = nodes.question_N == question
    n_children = int((nodes.kind_NK[rows_N] != 0).sum(axis=1).max())
    new_N = np.where(rows_N, rows_N.cumsum() - 1, NOWHERE)
    new_N = np.append(new_N, NOWHERE)  # NOWHERE stays nowhere
    groups_G = rows_N[nodes.group_exit_node_G]
    changed = {}
    for field in Nodes.__struct_fields__:
        value = getattr(nodes, field)
        if field.endswith("_G"):
            changed[field] = value[groups_G]
        elif field.endswith("_NK"):
            changed[field] = value[rows_N][:, :n_children]
        elif field.endswith("_N"):
            changed[field] = value[rows_N]
    page = replace(nodes, **changed)
    return replace(
        page,
        parent_N=new_N[page.parent_N],
        next_NK=new_N[page.next_NK],
        group_launch_node_G=new_N[page.group_launch_node_G],
        group_exit_node_G=new_N[page.group_exit_node_G],
        teacher_logprob_MNK=nodes.teacher_logprob_MNK[:, rows_N][..., :n_children],
        fbar_MNO=nodes.fbar_MNO[:, rows_N],
    )


def test_what_is_asked_together_and_how_often_changes_nothing_and_the_seed_does(study: SmallStudy) -> None:
    nodes = study.simulate(shares(study.children, 20), times=1, seed=0)
    scores, prior, first = judged(study, nodes)
    again, other = posterior(nodes, scores, prior), posterior(nodes, scores, prior, seed=1)
    np.testing.assert_array_equal(again.cosine_low_MON, first.cosine_low_MON)
    assert not np.allclose(other.cosine_low_MON, first.cosine_low_MON, equal_nan=True)
    np.testing.assert_array_equal(other.p_positive_MON, first.p_positive_MON)  # in closed form
    without = posterior(nodes, scores, prior, level=None)
    assert np.isnan(without.cosine_low_MON).all() and np.isnan(without.cosine_sd_MON).all()
    np.testing.assert_array_equal(without.p_positive_MON, first.p_positive_MON)
    np.testing.assert_array_equal(without.reliability_N, first.reliability_N)
    more, another = (posterior(nodes, scores, prior, n_draws=2048, seed=seed) for seed in (2, 3))
    scored = np.isfinite(more.cosine_low_MON)
    np.testing.assert_allclose(more.cosine_sd_MON[scored], another.cosine_sd_MON[scored], atol=0.1)


@pytest.mark.parametrize("support", SUPPORTS)
def test_every_score_has_its_sureness_and_ends_are_in_order(study: SmallStudy, support: str) -> None:
    nodes = study.simulate(shares(study.children, 20), times=1, seed=0)
    scores, _, told = judged(study, nodes, support=support)
    scored_MON = np.isfinite(scores.alignment_MON)
    for value_MON in (told.p_positive_MON, told.cosine_low_MON, told.cosine_high_MON, told.cosine_sd_MON):
        np.testing.assert_array_equal(np.isfinite(value_MON), scored_MON)
    np.testing.assert_array_equal(np.isfinite(told.reliability_N), scored_MON.any(axis=(0, 1)))
    p, low, high = (x[scored_MON] for x in (told.p_positive_MON, told.cosine_low_MON, told.cosine_high_MON))
    assert ((p >= 0) & (p <= 1) & (low >= -1) & (low <= high) & (high <= 1)).all()
    # The closed form and the draws tell of the same thing.
    draws = posterior(nodes, scores, fit(nodes, scores), level=0.8, n_draws=2048)
    assert (draws.cosine_low_MON[scored_MON][p > 0.93] > 0.0).all()
    assert (draws.cosine_high_MON[scored_MON][p < 0.07] < 0.0).all()
    assert (draws.cosine_low_MON[scored_MON][p < 0.87] <= 0.0).all()


def test_more_completions_make_surer_and_a_narrower_interval_has_a_lower_level(study: SmallStudy) -> None:
    by_n = {}
    for n in (10, 100):
        nodes = study.simulate(shares(study.children, n), times=1, seed=n)
        by_n[n] = judged(study, nodes)[2]
    assert np.nanmean(by_n[100].reliability_N) > np.nanmean(by_n[10].reliability_N) + 0.1
    assert np.nanmean(by_n[100].cosine_sd_MON) < 0.9 * np.nanmean(by_n[10].cosine_sd_MON)
    scores, prior, wide = judged(study, nodes)
    narrow = posterior(nodes, scores, prior, level=0.5)
    scored = np.isfinite(wide.cosine_low_MON)
    assert (narrow.cosine_low_MON >= wide.cosine_low_MON)[scored].all()
    assert (narrow.cosine_high_MON <= wide.cosine_high_MON)[scored].all()


def test_the_prior_learns_what_a_teacher_knows(study: SmallStudy) -> None:
    """An informed teacher is right at large differences, its opposite wrong there; an ignorant one is a coin."""
    nodes = study.simulate(shares(study.children, 50), times=1, seed=0)
    scores, prior, told = judged(study, nodes)
    of = dict(zip(scores.teachers, prior.positive_MOS[:, 0], strict=True))
    assert (of["informed"][SIGMA_S > 0.1] > 0.99).all() and (np.abs(of["ignorant"] - 0.5) < 0.15).all()
    assert (np.diff(of["noisy"]) >= 0.0).all() and of["noisy"][-1] > 0.8 > of["noisy"][4]
    kappa = dict(zip(scores.teachers, prior.kappa_MO[:, 0], strict=True))
    assert kappa["informed"] > 1.3 > kappa["ignorant"]
    turned = replace(scores, update_MONK=-scores.update_MONK, alignment_MON=-scores.alignment_MON)
    opposite = posterior(nodes, turned, fit(nodes, turned))
    np.testing.assert_allclose(opposite.p_positive_MON, 1.0 - told.p_positive_MON, atol=1e-9)


def test_equal_children_are_a_coin() -> None:
    """All siblings equal: no teacher's sign can be known, and the estimated gradient points nowhere."""
    rng = np.random.default_rng(0)
    P = rng.dirichlet(np.full(4, 3.0), 400)
    tree = [[*(Child(k, P_k) for k, P_k in enumerate(P_K[:3])), rest(P_K[3])] for P_K in P]
    groups = [
        Group(row, ForcedKind.TOKEN if k < 3 else ForcedKind.REST, k, row, k if k < 3 else REST_TOKEN, 20, rng.binomial(20, 0.4))
        for row in range(400)
        for k in range(4)
    ]
    T = np.stack([rng.dirichlet(np.full(4, 3.0), 400) for _ in range(2)])
    fbar_MNO = np.einsum("nk,mnk->mn", P, np.log(T / P))[..., None]
    nodes = make_nodes(tree, groups, teachers=("a", "b"), teacher_MNK=T, objectives=("reverse_kl",), fbar_MNO=fbar_MNO)
    scores = score(nodes, n_sig=20)
    told = posterior(nodes, scores, fit(nodes, scores))
    # One node in a hundred looks unlike the others by luck.
    assert (np.nanquantile(np.abs(told.p_positive_MON - 0.5), [0.5, 0.95]) < [0.06, 0.2]).all()
    assert np.nanmean(told.reliability_N) < 0.3
    assert np.nanmean(told.cosine_sd_MON) > 0.5


def test_exact_outcomes_are_sure() -> None:
    tree = [[to_end(0, 0.5, 1), end(1, 0.3, 0), end(2, 0.2, 1)]]
    T = np.array([[[0.7, 0.2, 0.1]]])
    fbar_MNO = (np.array([0.5, 0.3, 0.2]) * np.log(T / [0.5, 0.3, 0.2])).sum(axis=-1)[..., None]
    nodes = make_nodes(tree, teachers=("t",), teacher_MNK=T, objectives=("reverse_kl",), fbar_MNO=fbar_MNO)
    scores = score(nodes, n_sig=20)
    told = posterior(nodes, scores, fit(nodes, scores))
    alignment = scores.alignment_MON[0, 0, 0]
    assert told.p_positive_MON[0, 0, 0] == pytest.approx(float(alignment > 0), abs=1e-3)
    assert told.reliability_N[0] == pytest.approx(1.0)
    np.testing.assert_allclose([told.cosine_low_MON[0, 0, 0], told.cosine_high_MON[0, 0, 0]], alignment, atol=1e-6)
    assert not told.calibrated_MO[0, 0]  # one contrast


def test_few_contrasts_are_marked_and_so_is_an_update_that_follows_the_counts(study: SmallStudy) -> None:
    nodes = study.simulate(shares(study.children, 20), times=1, seed=0)
    scores = score(nodes, n_sig=10, objectives=["reverse_kl", "dr_grpo"])
    prior = fit(nodes, scores)
    assert prior.calibrated_MO[:, 0].all() and not prior.calibrated_MO[:, 1].any()
    some_N = np.zeros(len(nodes), dtype=bool)
    for n, calibrated in ((MIN_CONTRASTS, True), (MIN_CONTRASTS - 1, False)):
        some_N[:] = np.cumsum(np.isfinite(scores.alignment_MON[0, 0])) <= n
        few = replace(scores, alignment_MON=np.where(some_N, scores.alignment_MON, np.nan))
        assert fit(nodes, few).n_contrasts_MO[0, 0] == n
        assert fit(nodes, few).calibrated_MO[0, 0] == calibrated


@pytest.mark.parametrize("estimator", ["on_policy", "plain", "backup"])
def test_every_estimator_can_be_judged(study: SmallStudy, estimator: str) -> None:
    launches = [*study.initial_rollouts(20), *every_child(study.children, 20)]
    _, _, told = judged(study, study.simulate(launches, times=1, seed=0), estimator=estimator)
    assert np.isfinite(told.p_positive_MON).mean() > 0.9


def test_a_study_without_scores_or_nodes_says_nothing() -> None:
    nodes = make_nodes([[Child(0, 0.5), rest(0.5)]], teachers=("t",), teacher_MNK=np.ones((1, 1, 2)), objectives=("reverse_kl",))
    for table in (nodes, make_nodes([], teachers=("t",), teacher_MNK=np.ones((1, 0, 1)), objectives=("reverse_kl",))):
        scores = score(table, n_sig=20)
        told = posterior(table, scores, fit(table, scores))
        assert np.isnan(told.p_positive_MON).all() and not told.calibrated_MO.any()


def test_a_prior_of_other_teachers_is_refused(study: SmallStudy) -> None:
    nodes = study.simulate(shares(study.children, 20), times=1, seed=0)
    prior = fit(nodes, score(nodes, n_sig=10))
    with pytest.raises(ValueError, match="fit it to scores of the same teachers and objectives"):
        posterior(nodes, score(nodes, n_sig=10, objectives=["reverse_kl"]), prior)


def test_the_mixture_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    sigma_S, weight_S = np.array([0.01, 0.3, 3.0]), np.array([0.5, 0.2, 0.3])
    sd_X = np.hypot(rng.choice(sigma_S, 20_000, p=weight_S), 0.05)
    x_X = rng.normal(size=20_000) * sd_X
    variance_S = sigma_S**2 + 0.05**2
    log_likelihood_XS = -0.5 * (x_X[:, None] ** 2 / variance_S + np.log(variance_S))
    np.testing.assert_allclose(fit_mixture(log_likelihood_XS), weight_S, atol=0.02)
