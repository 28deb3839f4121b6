"""Halves: independent, complete, and what they say of noise is true."""

from __future__ import annotations

import numpy as np
import pytest
from made_nodes import Child, Group, make_nodes, rest
from msgspec.structs import replace

from benchmarks.made_tables import shares
from benchmarks.small_language_model import SmallStudy, small_study
from compute.alignment import SUPPORTS, Support
from compute.averages import Averages
from compute.halves import corrected, pooled, split, squared_norm
from compute.scores import Scores, score, score_estimates
from store.schema import ForcedKind
from store.tables import Nodes


@pytest.fixture(scope="module")
def small() -> SmallStudy:
    return small_study("mixing", 30, 2, objectives=("reverse_kl",))


def drawn(study: SmallStudy, n_min: int, seed: int = 0) -> Nodes:
    return study.simulate(shares(study.children, n_min), times=1, seed=seed)


def exact(nodes: Nodes, scores: Scores, study: SmallStudy) -> Scores:
    """The same nodes and kept children with the true p_succ."""
    nothing_NK = np.zeros_like(study.p_succ_NK)
    truth = replace(scores.estimates, p_succ_NK=study.p_succ_NK, value_N=study.value_N, variance_NK=nothing_NK)
    return score_estimates(nodes, truth, support=scores.support)


@pytest.mark.parametrize("support", SUPPORTS)
def test_every_half_is_scored_as_if_it_were_all(small: SmallStudy, support: Support) -> None:
    """From the groups of one half alone, with the children that all completions keep."""
    nodes = drawn(small, 40)
    scores = score(nodes, n_sig=20, support=support)
    halves = split(nodes, scores)
    for half in (0, 1):
        rows = np.flatnonzero(nodes.group_half_G == half)
        groups = {name: getattr(nodes, name)[rows] for name in Nodes.__struct_fields__ if name.startswith("group_")}
        alone = score(replace(nodes, **groups), n_sig=1, support=support)
        kept_NK = scores.estimates.kept_NK
        same_N = (alone.estimates.kept_NK == kept_NK).all(axis=1) & (kept_NK.sum(axis=1) >= 2)
        assert same_N.sum() > 200
        np.testing.assert_allclose(halves.alignment_HMON[half][..., same_N], alone.alignment_MON[..., same_N], atol=1e-12)
        at = same_N & alone.decision_point_N
        np.testing.assert_allclose(halves.gain_HMON[half][..., at], alone.gain_MON[..., at], atol=1e-12)
        np.testing.assert_allclose(halves.gain_se_HMON[half][..., at], alone.gain_se_MON[..., at], atol=1e-12)
        np.testing.assert_allclose(halves.squared_norm_HN[half][at], squared_norm(nodes, alone)[at], atol=1e-12)
        np.testing.assert_array_equal(halves.decision_point_HN[half][same_N], alone.decision_point_N[same_N])


def test_the_halves_are_independent_and_each_unbiased(small: SmallStudy) -> None:
    nodes = drawn(small, 20)
    scores = score(nodes, n_sig=10)
    halves, true = split(nodes, scores), exact(nodes, scores, small)
    known_N = np.isfinite(halves.gain_HMON).all(axis=(0, 1, 2)) & true.decision_point_N
    error_HMN = (halves.gain_HMON[:, :, 0] - true.gain_MON[:, 0])[..., known_N]
    for error_HN in error_HMN.transpose(1, 0, 2):
        n = error_HN.shape[1]
        assert abs(np.corrcoef(error_HN)[0, 1]) < 4.0 / np.sqrt(n)
        assert (np.abs(error_HN.mean(axis=1)) < 4.0 * error_HN.std(axis=1) / np.sqrt(n)).all()


def counted(half: int, token: int, n: int, n_success: int) -> Group:
    return Group(0, ForcedKind.TOKEN, token, 0, token, n, n_success, half)


def one_node(*groups: Group) -> Nodes:
    children = [Child(0, 0.5), Child(1, 0.3), rest(0.2)]
    remaining = [Group(0, ForcedKind.REST, -1, 0, -2, 10, 5, half) for half in (0, 1)]
    T = np.array([[[0.3, 0.5, 0.2]]])
    P = np.array([0.5, 0.3, 0.2])
    fbar_MNO = (P * np.log(T / P)).sum(axis=-1)[..., None]
    return make_nodes(
        [children], [*groups, *remaining], teachers=("t",), teacher_MNK=T, objectives=("reverse_kl",), fbar_MNO=fbar_MNO
    )


def test_a_child_without_completions_in_one_half_leaves_the_node_out() -> None:
    nodes = one_node(counted(0, 0, 30, 10), counted(1, 0, 30, 12), counted(0, 1, 30, 20))
    scores = score(nodes, n_sig=20)
    assert np.isfinite(scores.alignment_MON).all()
    halves = split(nodes, scores)
    assert np.isnan(halves.gain_HMON).all() and np.isnan(halves.agreement_N).all() and not halves.decision_point_HN.any()
    assert np.isnan(halves.squared_norm_HN).all()


def test_gain_is_known_where_one_half_shows_no_difference() -> None:
    """Half 1 has equal rates: no decision point there and no cosine, but a gain, so that half 0 can be judged by it."""
    nodes = one_node(counted(0, 0, 20, 5), counted(0, 1, 20, 15), counted(1, 0, 20, 10), counted(1, 1, 20, 10))
    halves = split(nodes, score(nodes, n_sig=20))
    assert halves.decision_point_HN.tolist() == [[True], [False]]
    assert np.isfinite(halves.alignment_HMON[0, 0, 0, 0]) and np.isnan(halves.alignment_HMON[1, 0, 0, 0])
    assert halves.gain_HMON[1, 0, 0, 0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("support", SUPPORTS)
def test_the_squared_norm_is_unbiased(small: SmallStudy, support: Support) -> None:
    nodes = drawn(small, 10)
    scores = score(nodes, n_sig=5, support=support)
    true = exact(nodes, scores, small)
    whole_N = scores.n_kept_N >= 2
    error_N = (squared_norm(nodes, scores) - squared_norm(nodes, true))[whole_N]
    assert abs(error_N.mean()) < 4.0 * error_N.std() / np.sqrt(len(error_N))
    noise_N = np.nansum(scores.ideal_NK**2 - true.ideal_NK**2, axis=1)[whole_N]
    assert noise_N.mean() > 10.0 * noise_N.std() / np.sqrt(len(noise_N))  # without trCov it is too large


@pytest.mark.parametrize("n_min", [10, 20, 50])
def test_pooled_is_not_shrunk_by_noise_and_corrected_less_than_raw(small: SmallStudy, n_min: int) -> None:
    nodes, averages = drawn(small, n_min, seed=n_min), Averages.of(small.paths)
    scores = score(nodes, n_sig=n_min / 2)
    true, halves = exact(nodes, scores, small), split(nodes, scores)

    def mean_of(of: Scores, m: int) -> np.ndarray:
        columns_CN = np.stack([of.alignment_MON[m, 0], of.gain_MON[m, 0], squared_norm(nodes, of), halves.agreement_N])
        shown_N = np.isfinite(scores.alignment_MON[m, 0])
        return np.asarray(np.nanmean(averages.question_means(np.where(shown_N, columns_CN, np.nan)[:, averages.node_P]), axis=1))

    for teacher in ("informed", "noisy"):
        m = nodes.teachers.index(teacher)
        found_C, true_C = mean_of(scores, m), mean_of(true, m)
        assert abs(pooled(found_C[1:3]) - pooled(true_C[1:3])) < 0.035
        raw, truth, mended = found_C[0], true_C[0], float(corrected(found_C[[0, 3]]))
        if teacher == "informed":
            assert raw < 0.75 * truth and raw < mended < 1.1 * truth
            assert truth - mended < 0.75 * (truth - raw)


def test_ratios_without_signal_are_nothing() -> None:
    assert np.isnan(pooled(np.array([0.1, -0.01]))) and np.isnan(pooled(np.array([0.1, 0.0])))
    assert pooled(np.array([0.1, 0.04])) == pytest.approx(0.5)
    assert np.isnan(corrected(np.array([0.1, -0.2]))) and corrected(np.array([0.2, 1.0])) == pytest.approx(0.2)
    assert corrected(np.array([0.2, 1 / 3])) == pytest.approx(0.2 / np.sqrt(0.5))
    np.testing.assert_allclose(pooled(np.array([[0.1, 0.04], [0.3, 1.0]])), [0.5, 0.3])
