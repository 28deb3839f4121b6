"""Intervals and tests over questions, beside the t interval: ratios, skewed data, ranks, many tests at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compute.statistics import bootstrap_t, jackknife_t, sign_flip_test, sign_flip_tests, spearman, t_interval
from compute.summary import ratio


def mean(mean_C: np.ndarray) -> np.ndarray:
    return mean_C[..., 0]


def test_the_jackknife_of_a_mean_is_the_t_interval() -> None:
    x_Q = np.random.default_rng(0).normal(size=9)
    jackknife, t = jackknife_t(x_Q[:, None], mean), t_interval(x_Q)
    assert (jackknife.mean, jackknife.low, jackknife.high, jackknife.n) == pytest.approx((t.mean, t.low, t.high, t.n))


def test_jackknife_of_a_ratio_by_hand() -> None:
    x_QC = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 5.0], [4.0, 4.0], [5.0, 9.0], [6.0, 5.0]])
    without = [(21.0 - a) / (27.0 - b) for a, b in x_QC]
    se = math.sqrt(5.0 / 6.0 * sum((theta - sum(without) / 6.0) ** 2 for theta in without))
    found = jackknife_t(np.vstack([x_QC, [np.nan, 1.0]]), ratio)
    assert (found.mean, found.n) == (pytest.approx(21.0 / 27.0), 6)
    assert found.high - found.mean == pytest.approx(2.570581836 * se)  # t of .975 at 5 degrees of freedom


def test_few_questions_and_undefined_ratios_carry_no_interval() -> None:
    few = jackknife_t(np.ones((5, 2)), ratio)
    assert few.mean == 1.0 and math.isnan(few.low) and few.n == 5
    assert math.isnan(jackknife_t(np.empty((0, 2)), ratio).mean)
    undefined = jackknife_t(np.array([[1.0, 1.0], *[[0.0, 0.0]] * 6]), ratio)
    assert undefined.mean == 1.0 and math.isnan(undefined.low)
    assert math.isnan(bootstrap_t(np.ones(5)).low) and bootstrap_t(np.ones(8)).low == 1.0


@pytest.mark.parametrize("n", [8, 20])
def test_bootstrap_t_covers_skewed_data_better_than_t(n: int) -> None:
    rng = np.random.default_rng(n)
    studies = rng.exponential(size=(800, n))
    hits = np.array(
        [[interval.low <= 1.0 <= interval.high for interval in (bootstrap_t(x_Q, draws=400), t_interval(x_Q))] for x_Q in studies]
    )
    bootstrap, t = hits.mean(axis=0)
    assert bootstrap > t + 0.01
    assert 0.91 <= bootstrap <= 0.97


def ranks(x: np.ndarray) -> np.ndarray:
    return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2.0 for v in x])


def test_spearman_inside_groups() -> None:
    rng = np.random.default_rng(1)
    group_P = np.repeat([0, 1, 3], [12, 9, 5])
    x_P, y_P = rng.integers(0, 6, 26).astype(float), rng.normal(size=26)
    y_P[:12] += x_P[:12]
    x_P[3], y_P[15] = np.nan, np.nan
    shuffled = rng.permutation(26)
    rho_G = spearman(x_P[shuffled], y_P[shuffled], group_P[shuffled], 4)
    for group in (0, 1, 3):
        there = (group_P == group) & np.isfinite(x_P + y_P)
        assert rho_G[group] == pytest.approx(np.corrcoef(ranks(x_P[there]), ranks(y_P[there]))[0, 1])
    assert math.isnan(rho_G[2])


def test_spearman_needs_points_and_spread() -> None:
    assert math.isnan(spearman([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0, 0, 0], 1)[0])
    assert spearman([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, -9.0], [0] * 4, 1)[0] == pytest.approx(-1.0)
    assert math.isnan(spearman([1.0] * 4, [4.0, 3.0, 2.0, 1.0], [0] * 4, 1)[0])
    # Alignments of exactly 1 differ by rounding only.
    assert math.isnan(spearman(1.0 - 1e-15 * np.arange(4), [4.0, 3.0, 2.0, 1.0], [0] * 4, 1)[0])
    assert spearman([], [], np.zeros(0, dtype=np.int64), 0).shape == (0,)


@pytest.mark.parametrize("n", [4, 12, 15])
def test_many_sign_flip_tests_are_each_what_one_is(n: int) -> None:
    d_XQ = np.random.default_rng(n).normal(0.3, 1.0, (6, n))
    d_XQ[2, 1] = d_XQ[3, 1] = np.nan
    d_XQ[5] = np.nan
    p_X = sign_flip_tests(d_XQ)
    assert p_X[:5].tolist() == pytest.approx([sign_flip_test(d_Q) for d_Q in d_XQ[:5]])
    assert math.isnan(p_X[5])
