"""Estimates, intervals and probabilities keep what they promise, on exact small language models (see docs/calibration.md)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration import bias, narrowed, null_coverage, sureness
from benchmarks.small_language_model import TARGETINGS, VARIANTS, Targeting, Variant, small_study
from compute.allocation import Allocation

pytestmark = pytest.mark.full


@pytest.mark.parametrize("targeting", TARGETINGS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [10, 20, 100])
def test_backup_is_unbiased_its_variance_is_what_it_says_and_its_intervals_cover(
    variant: Variant, targeting: Targeting, n: int
) -> None:
    found = bias(small_study(variant, 4, 11, targeting=targeting), "backup", n, times=120, seed=n)
    assert abs(found.mean) <= 4 * found.se
    assert found.rms <= 0.005
    assert 0.95 <= found.variance_ratio <= 1.05
    assert 0.87 <= found.coverage <= 0.92
    assert 0.86 <= found.on_path_coverage <= 0.93


@pytest.mark.parametrize("variant", VARIANTS)
def test_on_policy_is_unbiased_and_plain_is_not(variant: Variant) -> None:
    study = small_study(variant, 4, 11)
    on_policy, plain = (bias(study, estimator, 20, times=80, seed=1) for estimator in ("on_policy", "plain"))
    assert abs(on_policy.mean) <= 4 * on_policy.se
    assert on_policy.rms <= 0.01
    assert plain.rms >= 0.05


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("targeting", "allocation", "n", "tolerance"),
    [
        ("dense", "neyman", 10, 0.05),
        ("dense", "neyman", 20, 0.03),
        ("dense", "neyman", 100, 0.03),
        ("sparse", "neyman", 20, 0.03),
        ("dense", "shares", 20, 0.03),
    ],
)
def test_a_probability_is_how_often_it_comes_true(
    variant: Variant, targeting: Targeting, allocation: Allocation, n: int, tolerance: float
) -> None:
    found = sureness(variant, n, targeting=targeting, allocation=allocation, n_questions=30, studies=3, seed=100)
    assert len(found.p_positive_X) > 3000
    assert found.calibration_error <= tolerance
    assert np.mean((found.p_positive_X > 0.05) & (found.p_positive_X < 0.95)) > 0.15  # it is not sure of everything
    assert found.reliability_errors[0] <= 0.06
    # The worst bin of few studies; where gaps are wide and gradients smaller than their noise it can be off by more.
    default = targeting == "dense" and allocation == "neyman"
    assert found.reliability_errors[1] <= (0.25 if targeting == "sparse" else 0.15 if default and n >= 20 else 0.2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interval_holds_the_cosine_of_teachers_that_do_not_know_everything(variant: Variant) -> None:
    """Nominal 90 %. A teacher whose cosine is 1 everywhere lies beyond the upper end where counts are small."""
    found = sureness(variant, 20, n_questions=30, studies=2, seed=100)
    assert 0.86 <= found.cosine_coverage("noisy", "sharpened", "perturbed", "ignorant") <= 0.93


def test_the_fitted_pseudo_count_narrows_intervals_where_tokens_decide_and_still_covers() -> None:
    study = small_study("sticky", 40, 1, stickiness=0.3)
    safe, fitted, pseudo_count, width = narrowed(study, 10, times=10, seed=3)
    assert pseudo_count < 0.6 and width < 0.95
    assert safe > 0.92 and 0.88 <= fitted <= 0.92


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_interval_of_a_sign_flipped_null_holds_zero(variant: Variant) -> None:
    for coverage in null_coverage(variant, n=20, n_questions=10, studies=45, seed=0).values():
        assert 0.93 <= coverage <= 0.97
