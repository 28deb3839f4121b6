"""A teacher's top-K comes back with the tokens that it had, rounded, from what it adds to the student's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.contents import ABOVE_ONE
from store.errors import StoreError
from store.rounding import next_lower, rounded
from store.schema import ABSENT_TOKEN, TOPK_BITS
from store.teacher_topk import Extras, TopK, check_topk, coarse, join_topk, shared_topk, split_topk, to_half

#: Bits of a float16 that are zero in what is kept.
SPARE = 10 - TOPK_BITS


def _made_up(seed: int, near: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, TopK]:
    """Tokens where both sides are known in whole; `near`: so near to each other that rounding makes many equal."""
    rng = np.random.default_rng(seed)
    length, vocab, width = int(rng.integers(0, 9)), int(rng.integers(6, 30)), int(rng.integers(1, 6))
    step = 1e-2 if near else 1.0
    student_TV, teacher_TV = (-8 - step * rng.normal(size=(length, vocab)) for _ in range(2))
    student_top, top = (np.argsort(-one, axis=1)[:, :width] for one in (student_TV, teacher_TV))
    n_T1 = rng.integers(0, width + 1, (length, 1)) if seed % 3 == 0 else np.full((length, 1), width)  # servers give fewer
    here = np.arange(width) < n_T1
    values = TopK(
        np.where(here, top, ABSENT_TOKEN),
        np.where(here, np.take_along_axis(teacher_TV, top, 1), np.nan),
        np.where(here, np.take_along_axis(student_TV, top, 1), np.nan),
    )
    at_student = np.take_along_axis(teacher_TV, student_top, 1)
    if seed % 3 == 0:  # and then what is not among them is unknown
        at_student[~(student_top[:, :, None] == values.token_id_TC[:, None, :]).any(-1)] = np.nan
    return student_top, np.take_along_axis(student_TV, student_top, 1), at_student, values


def _joined(student_top: np.ndarray, student_logprob: np.ndarray, kept: dict[str, np.ndarray]) -> TopK:
    extras = Extras(kept["extra_start"], kept["extra_token_id"], kept["extra_logprob"], kept["extra_student_logprob"])
    check_topk("here", kept["topk_n"], kept["extra_start"], student_top.shape[1])
    return join_topk(student_top, coarse(student_logprob), kept["logprob_at_student_topk"], kept["topk_n"], extras)


def _by_token(top: TopK, t: int) -> dict[int, tuple[float, float]]:
    columns = zip(top.token_id_TC[t].tolist(), coarse(top.logprob_TC[t]), coarse(top.student_logprob_TC[t]), strict=True)
    return {token: (float(logprob), float(student)) for token, logprob, student in columns if token != ABSENT_TOKEN}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_it_comes_back_token_for_token(seed: int, near: bool) -> None:
    student_top, student_logprob, at_student, top = _made_up(seed, near)
    kept = split_topk(student_top, at_student, top)
    found = _joined(student_top, student_logprob, kept)
    assert np.array_equal(found.logprob_TC, coarse(top.logprob_TC), equal_nan=True)
    for t in range(len(student_top)):
        assert _by_token(found, t) == _by_token(top, t)
    # A token that is outside although rounding makes it as likely as one inside is put a step lower, and no other value changes.
    moved = kept["logprob_at_student_topk"] != coarse(at_student)
    moved &= ~np.isnan(at_student)
    assert (kept["logprob_at_student_topk"][moved] == next_lower(coarse(at_student[moved]), TOPK_BITS)).all()
    shared = shared_topk(kept["logprob_at_student_topk"], kept["topk_n"] - np.diff(kept["extra_start"]))
    assert np.array_equal(shared, (student_top[:, :, None] == top.token_id_TC[:, None, :]).any(-1))


def test_equal_ones_come_in_a_fixed_order() -> None:
    student_top, student_logprob = np.array([[5, 3, 9]]), np.log([[0.4, 0.3, 0.2]])
    top = TopK(np.array([[7, 3, 5]]), np.log([[0.25, 0.25, 0.25]]), np.log([[0.01, 0.3, 0.4]]))
    kept = split_topk(student_top, np.log([[0.25, 0.25, 0.25]]), top)
    assert _joined(student_top, student_logprob, kept).token_id_TC.tolist() == [[5, 3, 7]]
    assert kept["extra_token_id"].tolist() == [7]
    assert kept["logprob_at_student_topk"][0, 2] < kept["logprob_at_student_topk"][0, 0]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_all_that_is_kept_of_it_is_coarse(seed: int, near: bool) -> None:
    """Also what was put a step lower: the bits that are to pack well are zero, and rounding again changes nothing."""
    student_top, _, at_student, top = _made_up(seed, near)
    kept = split_topk(student_top, at_student.astype(np.float32), top)
    for name in ("logprob_at_student_topk", "extra_logprob", "extra_student_logprob"):
        values = kept[name][~np.isnan(kept[name])]
        assert values.dtype == np.float16
        assert not (values.view(np.uint16) & (1 << SPARE) - 1).any()
        assert np.array_equal(coarse(values), values)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.floats(-4, 4))
def test_coarse_keeps_the_order_and_the_error_it_promises(seed: int, scale: float) -> None:
    """From -10,000 nat up to -0.00002, where float16 has no small numbers any more and the error is 2^-22 at most."""
    exact = -np.sort(np.exp(np.random.default_rng(seed).normal(scale, 3.0, 100)).clip(2e-5, 1e4)).astype(np.float32)
    found = coarse(exact)
    assert (np.diff(found) <= 0).all()
    error = np.abs(found.astype(np.float64) - exact)
    assert (error <= np.maximum(-exact * (2.0 ** -(TOPK_BITS + 1) + 1.01 * 2.0**-11), 2.0**-22)).all()
    assert (np.abs(np.exp(found.astype(np.float64)) - np.exp(exact.astype(np.float64))) <= 1e-3).all()


def test_what_rounding_adds_to_a_top_k_is_within_what_the_doctor_allows() -> None:
    """Also at its worst: 255 tokens, as many as can be kept, equally likely and all rounded upwards."""
    for width in (1, 16, 50, 255):
        likely = np.full(width, -np.log(width) - 1e-6)
        assert np.exp(coarse(likely).astype(np.float64)).sum() <= 1 + ABOVE_ONE["f2"]
    upwards = np.float64(1 - 2.0 ** -(TOPK_BITS + 1) - 2.0**-11)
    assert 255 * np.exp(-np.log(255) * upwards) <= 1 + ABOVE_ONE["f2"]


def test_one_step_is_the_same_in_every_direction_and_below_zero() -> None:
    of = np.float16([1.0, -1.0, 2.0, -2.0, 0.0, -0.0, -(2 - 2.0**-8)])
    expected = np.float16([1 - 2.0**-9, -1 - 2.0**-8, 2 - 2.0**-8, -2 - 2.0**-7, -(2.0**-22), -(2.0**-22), -2.0])
    assert np.array_equal(next_lower(of, 8), expected)
    assert np.array_equal(next_lower(np.float16([-1.0]), 10), np.nextafter(np.float16([-1.0]), np.float16(-2.0)))


def test_what_cannot_happen_is_kept_as_a_number() -> None:
    """A teacher that rules a token out gives it -inf; and what is kept stays so on its way through to_half."""
    kept = coarse(np.float32([-np.inf, -1e6, np.nan]))
    assert np.isfinite(kept[:2]).all()
    assert np.isnan(kept[2])
    assert np.array_equal(to_half(kept), kept, equal_nan=True)
    ids, ruled_out = np.array([[5, 3, 9]]), np.array([[-0.1, -np.inf, -np.inf]])
    split = split_topk(ids, ruled_out, TopK(np.array([[5, 3]]), ruled_out[:, :2], np.log([[0.4, 0.3]])))
    written = to_half(split["logprob_at_student_topk"])
    assert shared_topk(written, split["topk_n"] - np.diff(split["extra_start"])).tolist() == [[True, True, False]]


def test_extras_of_tokens_in_a_row() -> None:
    extras = Extras(np.array([0, 2, 2, 3]), np.array([4, 5, 6]), *(np.zeros(3, np.float16) for _ in range(2)))
    assert extras[1:].start_T1.tolist() == [0, 0, 1]
    assert extras[1:].token_id_E.tolist() == [6]
    assert extras[0:1].token_id_E.tolist() == [4, 5]
    assert extras[3:].start_T1.tolist() == [0]


def test_numbers_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(StoreError, match="here/topk_n holds 9"):
        check_topk("here", np.array([2, 9]), np.array([0, 0, 0]), 4)
    with pytest.raises(StoreError, match="here/extra_start gives a token more extras"):
        check_topk("here", np.array([2, 1]), np.array([0, 0, 2]), 4)


def test_rounding_is_half_to_even_and_leaves_what_is_no_number() -> None:
    values = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 1 + 2.0**-12, 1 + 3 * 2.0**-12, -(2 - 2.0**-13), 1e-45])
    expected = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 1.0, 1 + 2.0**-10, -2.0, 0.0]
    assert np.array_equal(rounded(values, 11), np.float32(expected), equal_nan=True)
    assert np.signbit(rounded(values, 11)[1])
    assert rounded(values, 23) is values


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_rounding_keeps_the_error_it_promises(seed: int) -> None:
    values = np.exp(np.random.default_rng(seed).normal(size=50) * 20).astype(np.float32)
    exact = values.astype(np.float64)
    assert (np.abs(rounded(values, 11) - exact) <= 2.0**-12 * exact).all()
