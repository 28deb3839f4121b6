"""Numbers, bars, steps and places: small pure things that panes rely on."""

from __future__ import annotations

from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_tui.bars import bins, diverging_bar, level
from opd_tui.colouring import Colouring
from opd_tui.metrics import METRICS, metric
from opd_tui.numbers import NONE, effective, interval, plain, prob, signed
from opd_tui.palette import NEUTRAL, STEPS, Depth, Palette, Scale, contrast, depth_of, letters_on, mark, marks
from opd_tui.place import Place, parse_goto, parse_place
from opd_tui.walk import next_of, next_ranked, ranked, sign_flips

ALIGNMENT = Scale(-1.0, 1.0, diverging=True)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.314, "+.31"), (-0.62, "−.62"), (1, "+1.0"), (-0.004, ".00"), (0.999, "+1.0"), (12.3, "+12"), (nan, NONE), (inf, NONE)],
)
def test_signed(value: float, shown: str) -> None:
    assert signed(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.41, ".41"), (1, "1.0"), (0.003, "<.01"), (0, ".00"), (nan, NONE)])
def test_prob(value: float, shown: str) -> None:
    assert prob(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(598.2, "598"), (0.0004, "4e−4"), (-3.25, "−3.25"), (12.345, "12.3"), (0, "0.00")])
def test_plain(value: float, shown: str) -> None:
    assert plain(value) == shown


def test_an_interval_without_ends_is_nothing() -> None:
    assert interval(0.57, 0.93) == "[.57,.93]"
    assert interval(nan, 1.0) == ""


@given(st.floats(-1, 1), st.integers(1, 12))
def test_a_bar_keeps_its_width_and_its_side(value: float, half: int) -> None:
    bar = diverging_bar(value, 1.0, half)
    assert len(bar) == 2 * half + 1
    assert bar[half] == "│"
    assert bar[half + 1 :].strip() == "" or value > 0
    assert bar[:half].strip() == "" or value < 0


@given(st.lists(st.one_of(st.floats(-1, 1), st.just(nan)), max_size=60), st.integers(1, 30))
def test_every_value_falls_in_one_bin(values: list[float], width: int) -> None:
    found = bins(values, width)
    assert len(found) == width
    there = [place for place, value in enumerate(values) if isfinite(value)]
    assert sorted(place for places in found for place in places) == there


def test_no_value_has_no_step_and_no_bar() -> None:
    assert ALIGNMENT.step(nan) is None
    assert level(nan, -1, 1) == "·"
    assert mark(None, diverging=True) == " "
    assert Palette(Depth.TRUECOLOR, dark=True).value(None, diverging=True).bgcolor is None


@given(st.floats(-2, 2))
def test_steps_are_symmetric_and_zero_is_the_middle(value: float) -> None:
    step, opposite = ALIGNMENT.step(value), ALIGNMENT.step(-value)
    assert step is not None and opposite is not None
    assert ALIGNMENT.step(0.0) == NEUTRAL
    assert step + opposite == STEPS - 1 or abs(value * STEPS) % 1 < 1e-6


@pytest.mark.parametrize("depth", [Depth.TRUECOLOR, Depth.EIGHT_BIT, Depth.STANDARD])
@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("diverging", [True, False])
def test_every_step_can_be_read(depth: Depth, dark: bool, diverging: bool) -> None:
    fills = Palette(depth, dark).fills(diverging)
    assert len(fills) == STEPS
    assert all(contrast(letters_on(fill), fill) >= 4.5 for fill in fills)


@pytest.mark.parametrize("depth", [Depth.TRUECOLOR, Depth.EIGHT_BIT])
@pytest.mark.parametrize("dark", [True, False])
def test_sequential_steps_get_ever_further_from_the_ground(depth: Depth, dark: bool) -> None:
    ground = "#101216" if dark else "#fbfbfc"
    away = [contrast(fill, ground) for fill in Palette(depth, dark).fills(diverging=False)]
    assert away == sorted(away)


@given(st.integers(0, STEPS - 1), st.integers(1, 8))
def test_marks_say_the_sign_without_colour(step: int, width: int) -> None:
    text = marks(step, diverging=True, width=width)
    assert len(text) == width
    assert text.strip() == {True: "+", False: "−"}[step > NEUTRAL] * len(text.strip()) if step != NEUTRAL else text[0] == "·"


def test_the_depth_follows_the_terminal() -> None:
    assert [depth_of(system, no_color=False) for system in ("truecolor", "256", "standard", None)] == list(Depth)
    assert depth_of("truecolor", no_color=True) is Depth.NONE


def test_places_are_named_as_people_type_them() -> None:
    questions = {"q1", "a/b", "a/b/3"}
    assert parse_place("q1", questions) == Place("q1")
    assert parse_place("q1/2", questions) == Place("q1", 2)
    assert parse_place("q1/2/47", questions) == Place("q1", 2, 47)
    assert parse_place("a/b/3", questions) == Place("a/b/3")
    assert parse_place("a/b/4/5", questions) == Place("a/b", 4, 5)
    assert str(Place("q1", 2, 47)) == "q1/2/47"


@pytest.mark.parametrize("text", ["q2", "q1/x", "q1/1/2/3", "", "q1/-1"])
def test_places_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="there is no place"):
        parse_place(text, {"q1"})


def test_metrics_are_named_and_unique() -> None:
    assert metric("KL_student_teacher").key == "kl-student-teacher"
    assert len({one.key for one in METRICS}) == len(METRICS)
    with pytest.raises(ValueError, match="use one of alignment, gain"):
        metric("colour")


def test_walks() -> None:
    colouring = Colouring([nan, 0.5, -0.2, nan, -0.9, 0.1, 0.4], ALIGNMENT, frozenset({5}))
    assert next_of([1, 4, 6], 4, 1) == 6
    assert next_of([1, 4, 6], 4, -1) == 1
    assert next_of([1, 4, 6], 6, 1) is None
    assert ranked(colouring, worst_is_low=True) == [4, 2, 5, 6, 1]
    assert ranked(colouring, worst_is_low=False) == [1, 6, 5, 2, 4]
    assert next_ranked([4, 2, 1], None, 1) == 4
    assert next_ranked([4, 2, 1], None, -1) == 1
    assert next_ranked([4, 2, 1], 4, 1) == 2
    assert next_ranked([4, 2, 1], 1, 1) is None
    assert next_ranked([], None, 1) is None
    assert sign_flips(colouring) == [2, 6]


@pytest.mark.parametrize(
    ("n", "text"),
    [(40, "40"), (999.6, "1.0k"), (4512, "4.5k"), (9951, "10k"), (451_234, "451k"), (2e6, ">1M"), (inf, "∞"), (nan, "")],
)
def test_an_effective_count_takes_four_cells(n, text):
    assert effective(n) == text


def test_a_place_may_be_named_in_part() -> None:
    questions, here = {"q1", "q12", "a/b", "a/geometry-7"}, Place("q12", 3, 40)
    for text, place in (
        ("a/b/4/5", Place("a/b", 4, 5)),
        ("/2", Place("q12", 2)),
        ("/2/7", Place("q12", 2, 7)),
        ("//7", Place("q12", 3, 7)),
        (" 7 ", Place("q12", 3, 7)),
        ("GEO", Place("a/geometry-7")),
        ("12/0/1", Place("q12", 0, 1)),
    ):
        assert parse_goto(text, questions, here) == place
    assert parse_goto("7", {*questions, "7"}, here) == Place("7")
    for text, words in (
        ("", "is wanted"),
        ("/", "numbers are places of this question"),
        ("/1/2/3", "numbers are places"),
        ("q", "2 questions have 'q'"),
        ("geo/x", "rollout and token are numbers, as in a/geometry-7/1/40"),
        ("geometri", "did you mean"),
        ("zzz", "in this store"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_goto(text, questions, here)
    with pytest.raises(ValueError, match="no question is open"):
        parse_goto("/1", questions, None)
