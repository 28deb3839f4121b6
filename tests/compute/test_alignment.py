"""Alignment, gain and advantage: teachers whose score is known, and the algebra behind the standard errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import objectives
from compute.alignment import (
    SUPPORTS,
    Support,
    contrast,
    contrast_variance,
    cosine,
    cut,
    gain,
    gain_se,
    ideal_gradient,
    lump,
    renormalise,
    teacher_advantage,
    trace_of_covariance,
)

SPELLINGS = ("reverse_kl", "forward_kl", "jsd(0.1)", "jsd(0.5)", "jsd(0.9)")
V = 12
seeds = st.integers(0, 2**32 - 1)
supports = st.sampled_from(SUPPORTS)


def node(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P, T and p of a node, from a seed."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(V)), rng.dirichlet(np.ones(V)), rng.uniform(size=V)


def vectors(
    support: Support, spelling: str, P: np.ndarray, T: np.ndarray, p: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """g and d under a support, from the whole vocabulary."""
    if support == "renormalised":
        log_P, log_T = renormalise(np.log(P), kept), renormalise(np.log(T), kept)
        return ideal_gradient(log_P, cut(p, kept)), objectives.update(spelling, log_P, log_T)
    g = cut(ideal_gradient(np.log(P), p), kept)
    d = cut(objectives.update(spelling, np.log(P), np.log(T)), kept)
    return (lump(g), lump(d)) if support == "lumped" else (g, d)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("n_kept", range(2, V + 1))
def test_a_teacher_tilted_by_success_is_aligned_under_reverse_kl_and_its_inverse_is_opposed(
    support: Support, n_kept: int
) -> None:
    """T ∝ P exp(p/tau): log r = p/tau - log Z, so d = g/tau."""
    for seed in range(5):
        P, _, p = node(seed)
        kept = np.arange(V) < n_kept
        for tau, sign in ((0.3, 1.0), (-0.3, -1.0)):
            T = P * np.exp(p / tau)
            g, d = vectors(support, "reverse_kl", P, T / T.sum(), p, kept)
            assert cosine(g, d) == pytest.approx(sign, abs=1e-12)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("n_kept", range(2, V + 1))
def test_a_teacher_shifted_by_success_is_aligned_under_forward_kl(support: Support, n_kept: int) -> None:
    """T = P (1 + eta (p - V)): r - 1 = eta (p - V), so d = eta g."""
    P, _, p = node(n_kept)
    T = P * (1.0 + 0.5 * (p - P @ p))
    g, d = vectors(support, "forward_kl", P, T, p, np.arange(V) < n_kept)
    assert cosine(g, d) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_teacher_equal_to_the_student_has_no_alignment_and_no_gain(support: Support, spelling: str) -> None:
    P, _, p = node(1)
    g, d = vectors(support, spelling, P, P, p, np.arange(V) < 4)
    assert np.isnan(cosine(g, d)) and np.isnan(gain(g, d))


@pytest.mark.parametrize("support", SUPPORTS)
def test_equal_children_have_no_ideal_direction(support: Support) -> None:
    P, T, _ = node(2)
    g, d = vectors(support, "reverse_kl", P, T, np.full(V, 0.3), np.arange(V) < 4)
    assert np.isnan(cosine(g, d))
    assert gain(g, d) == 0.0


def test_advantage_is_the_mean_difference_and_forward_kls_inner_product() -> None:
    """Adv = <T - P, p> over the whole vocabulary, which is <d, p> for forward KL."""
    P, T, p = node(3)
    assert teacher_advantage(np.log(P), np.log(T), p) == pytest.approx((T - P) @ p, abs=1e-14)
    assert teacher_advantage(np.log(P), np.log(T), p) == pytest.approx(
        objectives.update("forward_kl", np.log(P), np.log(T)) @ p, abs=1e-14
    )


def test_advantage_is_renormalised_over_the_kept_children() -> None:
    P, T, p = node(4)
    expected = (T[:3] / T[:3].sum() - P[:3] / P[:3].sum()) @ p[:3]
    assert teacher_advantage(np.log(P), np.log(T), cut(p, np.arange(V) < 3)) == pytest.approx(expected, abs=1e-14)
    assert np.isnan(teacher_advantage(np.log(P), np.log(T), np.full(V, np.nan)))


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from(SPELLINGS))
def test_two_renormalised_children_say_only_whether_the_teacher_knows_better(seed: int, spelling: str) -> None:
    """Any two zero-sum 2-vectors are parallel: the cosine is the sign of Adv, whatever the objective."""
    P, T, p = node(seed)
    kept = np.arange(V) < 2
    g, d = vectors("renormalised", spelling, P, T, p, kept)
    assert cosine(g, d) == pytest.approx(np.sign(teacher_advantage(np.log(P), np.log(T), cut(p, kept))), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_the_ideal_gradient_sums_to_zero_and_is_the_slope_of_success(seed: int) -> None:
    P, _, p = node(seed)
    g = ideal_gradient(np.log(P), p)
    assert abs(g.sum()) < 1e-14
    direction, h = np.random.default_rng(seed).normal(size=V), 1e-5

    def success(step: float) -> float:
        Q = P * np.exp(step * direction)
        return float(Q @ p / Q.sum())

    assert (success(h) - success(-h)) / (2 * h) == pytest.approx(g @ direction, abs=1e-8)


@settings(max_examples=50, deadline=None)
@given(seeds, supports, st.sampled_from(SPELLINGS))
def test_order_of_children_changes_no_score(seed: int, support: Support, spelling: str) -> None:
    P, T, p = node(seed)
    order, kept = np.random.default_rng(seed).permutation(V), np.arange(V) < 5
    g, d = vectors(support, spelling, P, T, p, kept)
    g_, d_ = vectors(support, spelling, P[order], T[order], p[order], kept[order])
    assert cosine(g_, d_) == pytest.approx(float(cosine(g, d)), abs=1e-10)
    assert gain(g_, d_) == pytest.approx(float(gain(g, d)), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(seeds, supports, st.integers(2, V))
def test_the_contrast_gives_the_inner_product_as_a_linear_function_of_success(seed: int, support: Support, n_kept: int) -> None:
    P, T, p = node(seed)
    kept = np.arange(V) < n_kept
    g, d = vectors(support, "reverse_kl", P, T, p, kept)
    log_P = renormalise(np.log(P), kept) if support == "renormalised" else np.log(P)
    kept_d = d[:V]
    a = contrast(log_P, kept_d, support)
    assert np.nansum(a * p) == pytest.approx(np.nansum(g * d), abs=1e-14)
    assert abs(np.nansum(a)) < 1e-14  # raising every child alike changes nothing
    assert gain(g, d) == pytest.approx(np.nansum(a * p) / np.sqrt(np.nansum(d * d)), abs=1e-13)
    variance = np.random.default_rng(seed).uniform(0, 0.01, V)
    expected = np.sqrt(np.nansum(a * a * variance) / np.nansum(d * d))
    assert gain_se(log_P, kept_d, variance, support) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(seeds, supports, st.integers(2, V - 1))
def test_the_trace_adds_up_the_variances_of_the_coordinates(seed: int, support: Support, n_kept: int) -> None:
    """Each coordinate of g is linear in p: its coefficients are had from unit vectors."""
    P, T, _ = node(seed)
    kept = np.arange(V) < n_kept
    variance = np.random.default_rng(seed).uniform(0, 0.01, V)
    log_P = renormalise(np.log(P), kept) if support == "renormalised" else np.log(P)
    slopes = np.array([vectors(support, "reverse_kl", P, T, unit, kept)[0] for unit in np.eye(V)])
    expected = np.nansum(variance[:, None] * slopes**2)
    assert trace_of_covariance(log_P, variance, kept, support) == pytest.approx(expected, rel=1e-10)


def test_gain_has_the_standard_error_it_states() -> None:
    rng = np.random.default_rng(0)
    P, T, p = node(5)
    kept = np.arange(V) < 6
    variance = rng.uniform(0, 0.01, V)
    draws = p + rng.normal(size=(20_000, V)) * np.sqrt(variance)
    _, d = vectors("sliced", "reverse_kl", P, T, p, kept)
    gains = gain(cut(ideal_gradient(np.log(P), draws), kept), d)
    se = gain_se(np.log(P), d, variance)
    assert gains.std() == pytest.approx(se, rel=0.03)
    assert gains.mean() == pytest.approx(float(gain(cut(ideal_gradient(np.log(P), p), kept), d)), abs=5 * se / np.sqrt(20_000))


def test_cosine_is_plain_geometry_where_vectors_are_whole() -> None:
    assert cosine([1.0, 0.0], [1.0, 1.0]) == pytest.approx(np.sqrt(0.5))
    assert cosine([1e-200, 0.0], [3e-250, 0.0]) == pytest.approx(1.0)
    np.testing.assert_allclose(cosine(np.eye(2), [[[1.0, 0.0]], [[0.0, 2.0]]]), [[1, 0], [0, 1]])


def test_absent_children_and_zero_vectors() -> None:
    assert cosine([1.0, 2.0, np.nan], [1.0, 2.0, 5.0]) == pytest.approx(1.0)
    assert np.isnan(cosine([0.0, 0.0], [1.0, 2.0]))
    assert np.isnan(cosine([1.0, 2.0], [0.0, 0.0]))
    assert np.isnan(cosine([np.nan, np.nan], [1.0, 2.0]))
    assert np.isnan(gain([1.0, 2.0], [0.0, 0.0]))
    assert np.isnan(gain_se(np.log([0.5, 0.5]), [0.0, 0.0], [0.1, 0.1]))
    assert contrast_variance([1.0, 2.0], [np.nan, 0.1]) == pytest.approx(0.4)
    assert np.isnan(lump([np.nan, np.nan])).all()
    np.testing.assert_allclose(lump([1.0, np.nan, 2.0]), [1.0, np.nan, 2.0, -3.0])


def test_renormalising_survives_tiny_probabilities_and_no_kept_child() -> None:
    log = renormalise([-900.0, -900.0, -1.0], [True, True, False])
    np.testing.assert_allclose(np.exp(log), [0.5, 0.5, np.nan])
    assert np.isnan(renormalise([-1.0, -2.0], [False, False])).all()
