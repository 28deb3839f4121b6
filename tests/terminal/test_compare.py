"""Compare: what its keys do, at both sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import isfinite
from pathlib import Path

import pytest
from textual.pilot import Pilot

from opd_tui.app import Wish
from opd_tui.metrics import METRICS
from opd_tui.numbers import effective
from opd_tui.pairing import Lock
from opd_tui.palette import Depth
from opd_tui.screens.browse import Browse
from opd_tui.screens.compare import Compare
from opd_tui.screens.help import Help
from opd_tui.side_by_side import LEFT, RIGHT
from tests.conftest import CHAIN_SUMS
from tests.synthetic import question_record, write_store
from tests.terminal.driving import NARROW, SIZES, WIDE, browsing, picture, until

SHIPPED = CHAIN_SUMS / "chain_sums.zarr"


@asynccontextmanager
async def comparing(
    path: Path, at: str, size: tuple[int, int] = WIDE, depth: Depth = Depth.TRUECOLOR
) -> AsyncIterator[tuple[Pilot[None], Browse, Compare]]:
    """Compare, opened from Browse at a place."""
    async with browsing(path, size, wish=Wish(at), depth=depth) as (pilot, browse):
        await pilot.press("c")
        await until(pilot, lambda: isinstance(pilot.app.screen, Compare) and pilot.app.screen.settled)
        screen = pilot.app.screen
        assert isinstance(screen, Compare)
        await pilot.pause()
        yield pilot, browse, screen


async def press(pilot: Pilot[None], screen: Compare, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await until(pilot, lambda: screen.settled)
        await pilot.pause()


def pair(screen: Compare) -> tuple[int, int]:
    both = screen.two.both
    assert both is not None
    return both.left.index, both.right.index


@SIZES
async def test_it_opens_with_the_nearest_of_opposite_outcome(size: tuple[int, int]) -> None:
    async with comparing(SHIPPED, "q000/8", size) as (pilot, _, screen):
        assert pair(screen) == (8, 14)
        shown = picture(pilot)
        for words in ("✓ correct", "✗ incorrect", "fork at token 0", "p_succ", "student", "lock same token", ".73 [.72,.74]"):
            assert words in shown
        for key in ("tab", "r/R", "e/E", "L", "enter", "esc"):
            assert key in screen.keys.text


@SIZES
async def test_it_begins_where_one_stood_and_goes_back_there(calm_store: Path, size: tuple[int, int]) -> None:
    async with comparing(calm_store, "q001/0/0", size) as (pilot, browse, screen):
        both = screen.two.both
        assert both is not None and both.n_shared > 0
        assert screen.two.cursors == [0, 0]  # on what both share
        await press(pilot, screen, "f")
        assert screen.two.cursors == [both.n_shared, both.n_shared]
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is browse and browse.settled)
        assert browse.session.token == 0 == browse.tokens.cursor
        last = both.left.n_tokens - 1
        await pilot.press("end", "c")
        await until(pilot, lambda: isinstance(pilot.app.screen, Compare) and pilot.app.screen.settled)
        again = pilot.app.screen
        assert isinstance(again, Compare) and again.two.active == LEFT
        assert again.two.cursors == [last, min(last, both.right.n_tokens - 1)] == [side.cursor for side in again.sides]
        assert f"›{last}/{both.left.n_tokens}" in picture(pilot)
        await press(pilot, again, "r")
        assert again.two.both is not None and again.two.cursors[LEFT] == again.two.both.n_shared  # of another pair: the fork
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is browse and browse.settled)
        assert browse.session.token == last == browse.tokens.cursor


async def test_what_the_columns_of_the_fork_mean_is_there_with_every_teacher() -> None:
    async with comparing(SHIPPED, "q005/1", NARROW) as (pilot, _, screen):
        assert screen.session.catalogue is not None
        n = len(screen.session.catalogue.teachers)
        for key in (*["t"] * (n - 1), *["T"] * (n - 1)):
            await press(pilot, screen, key)
            lines = screen.fork.text.splitlines()
            assert len(lines) <= screen.fork.scrollable_size.height and not screen.fork.scroll_offset.y
            assert f"of {n}" in lines[0] and "align" in lines[0] and "gain" in lines[0]
            assert any(line.startswith(f"›{screen.session.teacher_label}") for line in lines)


@pytest.mark.parametrize("size", [WIDE, NARROW, (60, 24), (40, 24)])
async def test_the_number_of_completions_is_always_there(size: tuple[int, int]) -> None:
    async with comparing(SHIPPED, "q000/1/1", size) as (_, _, screen):
        fork = screen.two.fork
        assert fork is not None
        shown = [line.split() for line in screen.fork.text.splitlines()]
        counts = [effective(branch.n) for branch in (fork.left, fork.right)]
        below = next((words[1:] for words in shown if words[:1] == ["n"]), None)
        beside = next(words for words in shown if words[:1] == ["p_succ"])
        assert below == counts if below is not None else [beside[4], beside[8]] == counts
        assert screen.fork.scrollable_size.width >= max(map(len, screen.fork.text.splitlines())) or size[0] < 80


@SIZES
async def test_the_cursors_move_as_they_are_locked(calm_store: Path, size: tuple[int, int]) -> None:
    async with comparing(calm_store, "q000/0", size) as (pilot, _, screen):
        two = screen.two
        await press(pilot, screen, "home", "right")
        assert two.cursors == [1, 1] == [side.cursor for side in screen.sides]
        await press(pilot, screen, "end")
        assert two.both is not None
        assert two.cursors[RIGHT] == min(two.both.left.n_tokens, two.both.right.n_tokens) - 1
        await press(pilot, screen, "f", "L")
        assert two.lock is Lock.NODE and "lock node by node" in picture(pilot)
        alone = [(a, b) for a, b in two.both.node_pairs if a > two.both.n_shared]
        await press(pilot, screen, "n")
        while two.cursors[LEFT] != alone[0][0]:
            await press(pilot, screen, "n")
        assert two.cursors[RIGHT] == alone[0][1] == screen.sides[RIGHT].cursor
        await press(pilot, screen, "L", "home")
        assert two.lock is Lock.FREE
        assert two.cursors == [0, alone[0][1]]
        await press(pilot, screen, "L", "N")
        assert two.lock is Lock.PREFIX and two.cursors[LEFT] == two.cursors[RIGHT]


async def test_both_cursors_stand_on_one_line_of_the_window(tmp_path: Path) -> None:
    path = write_store(tmp_path / "long.zarr", n_questions=1, response_tokens=(150, 200))
    async with comparing(path, "q000/0", NARROW) as (pilot, _, screen):
        left, right = screen.sides
        for key in ("home", *["pagedown"] * 3, "down", "up", "up", "tab", "down", "L", "n", "n", "n", "N"):
            await press(pilot, screen, key)
            await pilot.pause()
            other = screen.sides[1 - screen.two.active]
            at_an_end = other.scroll_offset.y in (0, other.virtual_size.height - other.scrollable_size.height)
            assert left.cursor_row == right.cursor_row or at_an_end
            assert all(0 <= side.cursor_row < side.scrollable_size.height for side in screen.sides)


@SIZES
async def test_the_gutter_says_what_is_shared_and_no_character_is_lost(calm_store: Path, size: tuple[int, int]) -> None:
    async with comparing(calm_store, "q001/0", size) as (_, _, screen):
        assert screen.two.both is not None
        n_shared = screen.two.both.n_shared
        assert n_shared > 0
        for side in screen.sides:
            marks = ""
            for line in side._layout.lines:
                gutter, text = "".join(segment.text for segment in side._token_spans(line))[:6], side._token_spans(line)[1:]
                assert "".join(segment.text for segment in text) == "".join(piece.text for piece in line.pieces)
                marks += gutter[4]
            assert marks.rstrip() in ("»", "=" * (len(marks.rstrip()) - 1) + "»")


@SIZES
async def test_tab_gives_the_keys_to_the_other_side(calm_store: Path, size: tuple[int, int]) -> None:
    async with comparing(calm_store, "q000/0", size) as (pilot, _, screen):
        await press(pilot, screen, "f", "L", "L", "tab", "end")
        two = screen.two
        assert two.active == RIGHT and two.both is not None
        assert two.cursors[RIGHT] == two.both.right.n_tokens - 1
        assert two.cursors[LEFT] == two.both.n_shared
        await press(pilot, screen, "shift+tab", "right")
        assert two.active == LEFT and two.cursors[LEFT] == two.both.n_shared + 1


@SIZES
async def test_other_rollouts_are_chosen_on_either_side(size: tuple[int, int]) -> None:
    async with comparing(SHIPPED, "q000/8", size) as (pilot, _, screen):
        await press(pilot, screen, "r")
        assert pair(screen) == (8, 15)
        await press(pilot, screen, "r")
        assert pair(screen) == (8, 1)
        assert "no rollout of opposite" not in picture(pilot)
        await press(pilot, screen, "R")
        assert pair(screen) == (8, 15)
        await press(pilot, screen, "e")
        assert pair(screen) == (14, 15)
        await press(pilot, screen, "E", "o")
        assert pair(screen) == (8, 14)


async def test_keys_that_come_faster_than_pages_are_all_counted() -> None:
    async with comparing(SHIPPED, "q000/8") as (pilot, _, screen):
        screen.action_other(RIGHT, 1)
        screen.action_other(RIGHT, 1)
        screen.action_other(LEFT, 1)
        await until(pilot, lambda: screen.settled)
        assert pair(screen) == (14, 1)


async def test_metric_teacher_and_objective_are_those_of_browse(calm_store: Path) -> None:
    async with comparing(calm_store, "q000/0") as (pilot, browse, screen):
        before = picture(pilot)
        await press(pilot, screen, "t")
        assert browse.session.teacher == 1 and "self-1c" in screen.legend.text
        assert picture(pilot) != before
        await press(pilot, screen, "T", "2")
        assert "forward_kl" in screen.legend.text and "forward_kl" in picture(pilot)
        await press(pilot, screen, "9")
        assert "there is no objective 9" in picture(pilot)
        for metric in METRICS:
            assert browse.session.metric is metric
            assert screen.two.colouring(LEFT).scale == screen.two.colouring(RIGHT).scale
            await press(pilot, screen, "m")
        await press(pilot, screen, "M", "escape")
        await until(pilot, lambda: pilot.app.screen is browse)
        assert METRICS[-1].label in browse.legend.text


async def test_worst_best_and_sign_flips_walk_the_active_side(calm_store: Path) -> None:
    async with comparing(calm_store, "q000/0") as (pilot, _, screen):
        two = screen.two
        await press(pilot, screen, "]")
        values = two.colouring(LEFT).values
        assert values[two.cursors[LEFT]] == min(value for value in values if isfinite(value))
        await press(pilot, screen, "tab", "[")
        values = two.colouring(RIGHT).values
        assert values[two.cursors[RIGHT]] == max(value for value in values if isfinite(value))
        await press(pilot, screen, "home", "w", "W", "W", "W")
        assert "no change of sign" in picture(pilot)
        await press(pilot, screen, "end", "n")
        assert "no node further on" in picture(pilot)


@SIZES
async def test_enter_opens_the_place_and_escape_goes_back(calm_store: Path, size: tuple[int, int]) -> None:
    async with comparing(calm_store, "q000/0/7", size) as (pilot, browse, screen):
        right = pair(screen)[1]
        await press(pilot, screen, "tab", "home", "right", "right", "enter")
        await until(pilot, lambda: pilot.app.screen is browse and browse.settled)
        assert (browse.session.rollout, browse.session.token) == (right, 2)
        await pilot.press("c")
        await until(pilot, lambda: isinstance(pilot.app.screen, Compare) and pilot.app.screen.settled)
        await pilot.press("end", "escape")
        await until(pilot, lambda: pilot.app.screen is browse)
        assert (browse.session.rollout, browse.session.token) == (right, 2)


@SIZES
async def test_help_marks_and_whitespace(calm_store: Path, size: tuple[int, int]) -> None:
    async with comparing(calm_store, "q000/0", size) as (pilot, _, screen):
        await press(pilot, screen, "u", "v")
        assert all(side.marks and not side.whitespace for side in screen.sides)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Help))
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)


async def test_the_command_palette_has_the_keys_of_compare(calm_store: Path) -> None:
    async with comparing(calm_store, "q000/0") as (pilot, _, screen):
        await pilot.press("ctrl+p", *"how both sides", "enter")
        await until(pilot, lambda: pilot.app.screen is screen and screen.two.lock is Lock.NODE)


async def test_a_question_without_opposite_outcomes_says_so(calm_store: Path) -> None:
    async with comparing(calm_store, "q005/1") as (pilot, _, screen):
        assert "no rollout of opposite outcome" in picture(pilot)
        assert "no estimate" in picture(pilot)
        await press(pilot, screen, "n", "]", "w", "L", "n", "t", "m", "m", "m", "]")


async def test_one_rollout_alone_is_a_sentence_in_browse(empty_store: Path) -> None:
    from store.writer import publish

    publish(empty_store, "p-1", question_record(1, n_rollouts=1))
    async with browsing(empty_store) as (pilot, browse):
        await pilot.press("c")
        await pilot.pause()
        assert pilot.app.screen is browse
        assert "one rollout only" in picture(pilot)


async def test_two_rollouts_have_no_third(empty_store: Path) -> None:
    from store.writer import publish

    publish(empty_store, "p-1", question_record(1, n_rollouts=2))
    async with comparing(empty_store, "q001/0") as (pilot, _, screen):
        await press(pilot, screen, "r")
        assert "no third rollout" in picture(pilot)


@pytest.mark.parametrize(("depth", "size"), zip(Depth, (WIDE, NARROW, WIDE, NARROW), strict=True))
async def test_every_depth_of_colour_and_hostile_text(hostile_store: Path, depth: Depth, size: tuple[int, int]) -> None:
    async with comparing(hostile_store, "q000/0", size, depth) as (pilot, _, screen):
        assert all(side.marks is (depth in (Depth.STANDARD, Depth.NONE)) for side in screen.sides)
        await press(pilot, screen, "end", "r", "tab", "e", "L", "n", "n")
        shown = picture(pilot)
        assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), 127, 0x9B, 0x202E)}
        pilot.app.theme = "opd-light"
        await until(pilot, lambda: not screen.fork.palette.dark)


async def test_a_click_chooses_side_and_token(calm_store: Path) -> None:
    async with comparing(calm_store, "q000/0") as (pilot, _, screen):
        await press(pilot, screen, "L", "L", "home")
        right = screen.sides[RIGHT]
        span = right._layout.spans(3)[0]
        await pilot.click(right, offset=(span.x + 6, span.y + right._top - right.scroll_offset.y))
        await pilot.pause()
        assert screen.two.active == RIGHT and screen.two.cursors[RIGHT] == 3 and screen.two.cursors[LEFT] == 0
        await pilot.click(screen.tracks[LEFT], offset=(20, 0))
        await pilot.pause()
        assert screen.two.cursors[LEFT] > 0
