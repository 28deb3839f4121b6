"""Where tokens stand, without an app."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opd_tui.layout import KEPT_WIDTHS, Flow, Layout, layout
from opd_tui.text import runs

HARD = [b"\n\n", b" " * 9, b"\t", b"x" * 50, "漢字".encode(), "é".encode(), b"\xf0\x9f", b"\x98\x80", b"", b"\x1b"]
WORDS = st.sampled_from([b" the", b"sum", b" of", b"\n", *HARD])
TOKENS = st.lists(st.one_of(WORDS, st.binary(max_size=5)), max_size=40)
WIDTHS = st.integers(3, 40)


def text_of(found: Layout) -> str:
    return "".join(piece.text for line in found.lines for piece in line.pieces)


@given(TOKENS, WIDTHS)
def test_nothing_is_lost_and_no_line_is_too_long(tokens: list[bytes], width: int) -> None:
    shown = runs(tokens)
    found = layout(shown, width)
    assert text_of(found) == "".join(run.text for run in shown)
    narrowest = max((run.width for run in shown if len(run.text) == 1), default=1)
    assert all(line.width <= max(width, narrowest + 1) for line in found.lines)


@given(TOKENS, WIDTHS)
def test_pieces_follow_each_other_without_a_hole(tokens: list[bytes], width: int) -> None:
    for line in layout(runs(tokens), width).lines:
        x = 0
        for piece in line.pieces:
            assert piece.x == x
            x += piece.width


@given(TOKENS, WIDTHS)
def test_every_token_has_cells_and_is_found_under_them(tokens: list[bytes], width: int) -> None:
    found = layout(runs(tokens), width)
    assert len(found.line_T) == len(tokens)
    for token in range(len(tokens)):
        spans = found.spans(token)
        assert spans
        assert spans[0].y == found.line_T[token]
        for y, x, size in spans:
            pieces = found.lines[y].pieces
            assert any(piece.first <= token <= piece.last for piece in pieces if x <= piece.x < x + size)


@given(TOKENS, WIDTHS, st.integers(-5, 5))
def test_up_and_down_stay_within_the_rollout(tokens: list[bytes], width: int, by: int) -> None:
    found = layout(runs(tokens), width)
    for token in range(len(tokens)):
        assert 0 <= found.above(token, by, found.column(token)) < len(tokens)


def test_a_line_breaks_before_the_word_that_does_not_fit() -> None:
    found = layout(runs([b"To", b" solve", b" this", b"\n", b"ok"]), 10)
    assert ["".join(piece.text for piece in line.pieces) for line in found.lines] == ["To·solve", "·this↵", "ok"]
    assert found.first_L == (0, 2, 4)


def test_a_line_end_never_begins_a_line_of_its_own_after_a_full_one() -> None:
    found = layout(runs([b"abcdefghi", b"\n"]), 10)
    assert ["".join(piece.text for piece in line.pieces) for line in found.lines] == ["abcdefghi↵"]


def test_scripts_without_spaces_break_between_tokens() -> None:
    found = layout(runs(["漢字".encode()] * 4), 10)
    assert [line.width for line in found.lines] == [8, 8]


def test_tokens_of_one_character_share_its_cells() -> None:
    found = layout(runs([b"a", b"\xf0\x9f", b"\x98\x80", b"b"]), 10)
    assert found.spans(1) == found.spans(2) == [(0, 1, 2)]


def test_lines_are_broken_once_for_each_width_they_are_shown_at() -> None:
    flow = Flow(runs([b"To", b" solve", b" this"]))
    assert flow.at(10) == layout(flow.runs, 10)
    assert flow.at(20) == layout(flow.runs, 20)
    assert flow.at(10) is flow.at(10)
    first = flow.at(10)
    for width in range(30, 30 + KEPT_WIDTHS):  # the window is being resized: what it was like before is not kept for ever
        assert flow.at(width).width == width
    assert flow.at(10) is not first
    narrow = Flow(runs([b"To", b" solve"]))
    narrow.prepare(0)  # nobody knows the width yet
    narrow.prepare(10)
    assert narrow.at(10) is narrow.at(10) == layout(narrow.runs, 10)
