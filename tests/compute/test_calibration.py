"""Estimates, intervals and probabilities keep what they promise, on exact small language models (see docs/calibration.md)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration import bias, sureness
from benchmarks.small_language_model import VARIANTS, small_study


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [10, 20, 100])
def test_backup_is_unbiased_its_variance_is_what_it_says_and_its_intervals_cover(variant: str, n: int) -> None:
    found = bias(small_study(variant, 4, 11), "backup", n, times=200, seed=n)
    assert abs(found.mean) <= 4 * found.se
    assert found.rms <= 0.004
    assert 0.95 <= found.variance_ratio <= 1.05
    assert 0.87 <= found.coverage <= 0.92


@pytest.mark.parametrize("variant", VARIANTS)
def test_on_policy_is_unbiased_and_plain_is_not(variant: str) -> None:
    study = small_study(variant, 4, 11)
    on_policy, plain = (bias(study, estimator, 20, times=200, seed=1) for estimator in ("on_policy", "plain"))
    assert abs(on_policy.mean) <= 4 * on_policy.se
    assert on_policy.rms <= 0.01
    assert plain.rms >= 0.05


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("n", "tolerance"), [(10, 0.05), (20, 0.03), (100, 0.03)])
def test_a_probability_is_how_often_it_comes_true(variant: str, n: int, tolerance: float) -> None:
    found = sureness(variant, n, n_questions=30, studies=2, seed=100)
    assert len(found.p_positive_X) > 3000
    assert found.calibration_error <= tolerance
    assert np.mean((found.p_positive_X > 0.05) & (found.p_positive_X < 0.95)) > 0.2  # it is not sure of everything
    assert found.reliability_error <= (0.15 if n >= 20 else 0.2)
