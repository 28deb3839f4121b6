"""Charts: what its keys do, at both sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from opd_tui.charts import Chart
from opd_tui.metrics import METRICS
from opd_tui.palette import Depth
from opd_tui.screens.browse import Browse
from opd_tui.screens.charts import Charts
from opd_tui.screens.help import Help
from tests.conftest import CHAIN_SUMS
from tests.synthetic import question_record
from tests.terminal.driving import NARROW, SIZES, WIDE, browsing, picture, until

SHIPPED = CHAIN_SUMS / "chain_sums.zarr"


@asynccontextmanager
async def charting(
    path: Path, size: tuple[int, int] = WIDE, depth: Depth = Depth.TRUECOLOR
) -> AsyncIterator[tuple[Pilot[None], Browse, Charts]]:
    """Charts, opened from Browse."""
    async with browsing(path, size, depth=depth) as (pilot, browse):
        await pilot.press("g")
        await until(pilot, lambda: isinstance(pilot.app.screen, Charts) and pilot.app.screen.settled)
        screen = pilot.app.screen
        assert isinstance(screen, Charts)
        await pilot.pause()
        yield pilot, browse, screen


async def press(pilot: Pilot[None], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await pilot.pause()


@SIZES
async def test_every_chart_has_a_number_beside_every_mark(size: tuple[int, int]) -> None:
    async with charting(SHIPPED, size) as (pilot, _, screen):
        for chart in Chart:
            assert screen.chart is chart
            shown = picture(pilot)
            assert chart.title in shown and chart.meaning[:30] in shown
            mark = screen.marks.marks[0]
            assert mark.label[:12] in shown and str(mark.n_nodes) in shown
            assert "esc back" in screen.keys.text and "enter" in screen.keys.text
            await press(pilot, "g")
        assert screen.chart is Chart.OUTCOME
        for key, there in (("G", Chart.DIFFICULTY), ("right", Chart.OUTCOME), ("left", Chart.DIFFICULTY), ("tab", Chart.OUTCOME)):
            await press(pilot, key)
            assert screen.chart is there


@SIZES
async def test_marks_are_chosen_and_the_plot_follows(size: tuple[int, int]) -> None:
    async with charting(SHIPPED, size) as (pilot, _, screen):
        before = picture(pilot)
        await press(pilot, "down", "down")
        assert screen.marks.cursor == 2
        assert picture(pilot) != before
        await press(pilot, "g", "G")
        assert screen.marks.cursor == 2
        await press(pilot, "end")
        assert screen.marks.cursor == len(screen.marks.marks) - 1


@SIZES
async def test_enter_opens_the_nodes_and_enter_again_the_tokens(size: tuple[int, int]) -> None:
    async with charting(SHIPPED, size) as (pilot, browse, screen):
        await press(pilot, "down", "down", "down", "enter")
        assert screen.nodes.has_focus and screen.nodes.behind is not None
        behind, row = screen.nodes.behind, screen.nodes.cursor
        assert row == behind.typical
        assert "worst first" in picture(pilot)
        await press(pilot, "home")
        assert screen.nodes.cursor == 0
        wanted = screen.nodes.question_id(0), int(behind.rollout_N[0]), int(behind.position_N[0])
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is browse and browse.settled)
        session = browse.session
        assert (session.question_id, session.rollout, session.token) == wanted
        assert session.teacher == 1 and session.metric is METRICS[0]
        value = session.colouring.values[session.token]
        assert value == pytest.approx(float(behind.value_N[0]), abs=1e-6)


async def test_escape_goes_back_step_by_step() -> None:
    async with charting(SHIPPED) as (pilot, browse, screen):
        await press(pilot, "enter", "escape")
        assert screen.marks.has_focus and not screen.nodes.display
        await press(pilot, "enter", "g")
        assert screen.chart is Chart.DEPTH and screen.marks.display
        before = browse.session.question_id, browse.session.token
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is browse)
        assert (browse.session.question_id, browse.session.token) == before


async def test_teacher_and_objective_choose_the_chart_or_its_mark() -> None:
    async with charting(SHIPPED) as (pilot, browse, screen):
        await press(pilot, "t")
        assert screen.marks.marks[screen.marks.cursor].teacher == 1
        await press(pilot, "2")
        assert {mark.objective for mark in screen.marks.marks} == {1}
        assert "forward_kl" in picture(pilot)
        await press(pilot, "g", "T", "T")
        assert {mark.teacher for mark in screen.marks.marks} == {5}
        assert "null-t1.3" in picture(pilot)
        await press(pilot, "g", "t")
        mark = screen.marks.marks[screen.marks.cursor]
        assert screen.chart is Chart.MATRIX and (mark.teacher, mark.objective) == (0, 1)
        await press(pilot, "9")
        assert "there is no objective 9" in picture(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is browse)
        assert browse.session.objective == 1 and "forward_kl" in browse.legend.text


async def test_it_can_be_drawn_without_any_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with charting(SHIPPED, depth=Depth.NONE) as (pilot, _, _):
        assert pilot.app.no_color
        for chart in Chart:
            assert chart.title in picture(pilot)
            await press(pilot, "down", "g")


@SIZES
async def test_help_is_there(size: tuple[int, int]) -> None:
    async with charting(SHIPPED, size) as (pilot, _, screen):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Help))
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)


async def test_a_study_too_large_to_score_says_so(calm_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opd_tui.charts.MOST_SCORES", 10)
    async with charting(calm_store) as (pilot, browse, _):
        assert "too many to draw here" in picture(pilot)
        await press(pilot, "g", "g", "g", "enter", "t", "2", "down")
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is browse)


async def test_an_empty_store_says_so_and_fills_when_it_grows(empty_store: Path) -> None:
    from store.writer import publish

    async with charting(empty_store) as (pilot, _, screen):
        assert "no node is measured yet" in picture(pilot)
        await press(pilot, "enter", "t", "1", "g", "G")
        publish(empty_store, "p-1", question_record(1))
        await until(pilot, lambda: screen.study is not None and screen.settled)
        assert screen.marks.marks


@pytest.mark.parametrize(("depth", "size"), zip(Depth, (WIDE, NARROW, WIDE, NARROW), strict=True))
async def test_every_depth_of_colour_and_hostile_names(hostile_store: Path, depth: Depth, size: tuple[int, int]) -> None:
    async with charting(hostile_store, size, depth) as (pilot, _, screen):
        for _ in Chart:
            await press(pilot, "g", "down", "enter", "down", "escape")
            shown = picture(pilot)
            assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), 127, 0x9B, 0x202E)}
        pilot.app.theme = "opd-light"
        await until(pilot, lambda: not screen.marks.palette.dark)


async def test_another_size_draws_anew() -> None:
    async with charting(SHIPPED) as (pilot, _, screen):
        for chart in Chart:
            assert screen.chart is chart
            await pilot.resize_terminal(*NARROW)
            await pilot.pause()
            await pilot.resize_terminal(*WIDE)
            await pilot.pause()
            assert chart.title in picture(pilot)
            await press(pilot, "g")
