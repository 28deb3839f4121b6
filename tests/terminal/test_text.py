"""Every byte from data passes `opd_tui.text`, and nothing that a terminal obeys comes out."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from opd_tui.text import MAX_MARKS, Kind, Safe, blank, cells, cut, fit, fold, paragraphs, runs, safe, token

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)
HARD = st.sampled_from(
    [
        *(b"\x1b[2J", b"\xc2\x9b31m", b"\x80", b"\xe2\x80\xae", b"\xf0\x9f", b"\x98\x80", b"\xcc\x81"),
        *(b"\xe2\x80\x8d", b"", b"\n", b"[/b]", b"\xed\xa0\x80"),
    ]
)
TOKENS = st.lists(st.one_of(st.binary(max_size=6), HARD, st.text(max_size=4).map(str.encode)), max_size=30)


def obeyed(char: str) -> bool:
    """Whether a terminal does something else than draw it, or draws nothing."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or "\ufe00" <= char <= "\ufe0f"


@given(TOKENS)
def test_nothing_obeyed_comes_out_of_tokens(tokens: list[bytes]) -> None:
    assert not any(obeyed(char) for run in runs(tokens) for char in run.text)


@given(st.one_of(st.binary(max_size=60), ANY_TEXT))
def test_nothing_obeyed_comes_out_of_labels(data: bytes | str) -> None:
    for text in (safe(data), *paragraphs(data)):
        assert not any(obeyed(char) for char in text)
        text.encode("utf-8")  # no lone surrogate: it could not be written at all


@given(st.lists(st.one_of(st.binary(max_size=6), st.text("ab \u0301\u200d\u4e2d", max_size=20), st.text(max_size=3)), max_size=8))
def test_long_lines_are_made_safe_as_short_ones_are(pieces: list[bytes | str]) -> None:
    raw = b"words " + b"plain words ".join(
        one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one for one in pieces
    )
    assert safe(raw) == "".join(blank(run) if run.kind is Kind.SPACE else run.text for run in runs([raw]))


@given(TOKENS)
def test_every_token_has_a_run_and_runs_are_in_order(tokens: list[bytes]) -> None:
    found = runs(tokens)
    assert {place for run in found for place in range(run.first, run.last + 1)} == set(range(len(tokens)))
    assert all(left.first <= right.first and left.last <= right.last for left, right in zip(found, found[1:], strict=False))


@given(TOKENS)
def test_widths_are_those_that_the_renderer_uses(tokens: list[bytes]) -> None:
    for run in runs(tokens):
        assert run.width == cell_len(run.text) == cells(run.text) > 0
        assert cells(blank(run)) == run.width


@given(TOKENS)
def test_a_mark_never_comes_first_and_never_piles_up(tokens: list[bytes]) -> None:
    for run in runs(tokens):
        assert cell_len(run.text[0]) > 0
        longest = pile = 0
        for char in run.text:
            pile = pile + 1 if cell_len(char) == 0 else 0
            longest = max(longest, pile)
        assert longest <= MAX_MARKS


@given(st.text(), st.lists(st.integers(0, 400)))
def test_a_text_looks_the_same_however_it_is_cut_into_tokens(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    bounds = sorted({0, len(data), *(place for place in cuts if place <= len(data))})
    tokens = [data[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)]
    assert "".join(run.text for run in runs(tokens)) == "".join(run.text for run in runs([data] if data else []))


def test_a_character_in_four_tokens_is_one_glyph_that_they_share() -> None:
    assert [tuple(run) for run in runs([b"a", b"\xf0", b"\x9f", b"\x98", b"\x80"])] == [
        ("a", 1, Kind.TEXT, 0, 0),
        ("😀", 2, Kind.TEXT, 1, 4),
    ]


def test_a_mark_in_the_next_token_stays_on_its_letter() -> None:
    assert [tuple(run) for run in runs([b"ne", b"\xcc\x81e"])] == [
        ("n", 1, Kind.TEXT, 0, 0),
        ("e\u0301", 1, Kind.TEXT, 0, 1),
        ("e", 1, Kind.TEXT, 1, 1),
    ]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b]0;pwned\x07", "␛]0;pwned␇"),
        (b"\x7f\x00", "␡␀"),
        (b"\xc2\x9b31m", "⟨9B⟩31m"),
        (b"\x9b", "⟨x9B⟩"),
        ("a\u202eb\u2066".encode(), "a⟨202E⟩b⟨2066⟩"),
        ("\u200b\u2028\ufeff\u00ad".encode(), "⟨200B⟩⟨2028⟩⟨FEFF⟩⟨AD⟩"),
        ("❤\ufe0f".encode(), "❤ᵛ"),
        (b" a\n\tb", "·a↵→   b"),
        ("\u00a0\u3000".encode(), "⍽⍽"),
        (b"[/b][red]\\", "[/b][red]\\"),
        ("漢字한".encode(), "漢字한"),
    ],
)
def test_what_must_not_reach_the_terminal_is_visible(data: bytes, shown: str) -> None:
    assert token(data) == shown


def test_special_tokens_are_marked() -> None:
    assert [run.kind for run in runs([b"a", b"<end>"], {1})] == [Kind.TEXT, Kind.SPECIAL]


@given(ANY_TEXT, st.integers(0, 30))
def test_fit_takes_exactly_its_width(text: str, width: int) -> None:
    assert cell_len(fit(safe(text), width)) == width


@given(ANY_TEXT, st.integers(0, 30))
def test_cut_loses_nothing_and_keeps_marks_on_their_letters(text: str, width: int) -> None:
    shown = safe(text)
    head, tail = cut(shown, width)
    assert head + tail == shown
    assert cell_len(head) <= width
    assert not tail or cell_len(tail[0]) > 0


@given(ANY_TEXT, st.integers(2, 30))
def test_folded_lines_fit_and_lose_only_spaces(text: str, width: int) -> None:
    shown = safe(text)
    lines = fold(shown, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == shown.replace(" ", "")


def test_fit_cuts_with_an_ellipsis() -> None:
    assert fit(Safe("question"), 5) == "ques…"
