"""Panes of lines: what it takes to make them longer and shorter."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import App, ComposeResult
from textual.geometry import Region

from opd_tui.widgets.lines import Lines, Panel, Spans, span

WINDOW = 10


class OnePane(App[None]):
    """A panel of ten lines that says how often the screen was laid out."""

    CSS = f"Panel {{ height: {WINDOW}; overflow-x: hidden; scrollbar-gutter: stable; scrollbar-size-vertical: 1; }}"

    def __init__(self) -> None:
        super().__init__()
        self.panel, self.layouts = Panel(), 0

    def compose(self) -> ComposeResult:
        yield self.panel

    def on_mount(self) -> None:
        self.screen.screen_layout_refresh_signal.subscribe(self, self._laid_out)

    def _laid_out(self, _: object) -> None:
        self.layouts += 1


def numbered(n: int) -> Sequence[Spans]:
    return [[span(f"line {number}")] for number in range(n)]


async def test_a_longer_or_shorter_list_is_no_reason_to_lay_out_the_screen() -> None:
    app = OnePane()
    async with app.run_test() as pilot:
        app.panel.show(numbered(50))
        await pilot.pause()
        app.panel.scroll_to(y=40, animate=False)
        await pilot.pause()
        app.layouts = 0
        app.panel.show(numbered(60))
        await pilot.pause()
        assert (app.panel.scroll_offset.y, app.panel.max_scroll_y) == (40, 50)
        assert app.panel.vertical_scrollbar.window_virtual_size == 60
        app.panel.show(numbered(30))
        await pilot.pause()
        assert app.panel.scroll_offset.y == app.panel.max_scroll_y == 20  # the last lines, and nothing below them
        assert app.layouts == 0


class Counting(Lines):
    """Lines that say how often they were asked for, and which one is marked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.word, self.marked = 0, "before", -1

    def spans(self, y: int) -> Spans:
        self.asked += 1
        return [span(f"{self.word if y % 2 else 'always'} {y}"), span(" marked" if y == self.marked else "")]


class OneCounting(App[None]):
    CSS = f"Counting {{ height: {WINDOW}; overflow: hidden; }}"

    def __init__(self) -> None:
        super().__init__()
        self.lines = Counting()

    def compose(self) -> ComposeResult:
        yield self.lines


async def test_a_line_that_changed_is_made_once_and_not_drawn_as_it_was_before_the_last_change() -> None:
    app = OneCounting()
    async with app.run_test() as pilot:
        await pilot.pause()
        lines = app.lines
        lines.asked, lines.word = 0, "after"
        lines.redraw_changed()
        await pilot.pause()
        assert lines.asked == WINDOW
        assert shown(app) == [f"{'after' if y % 2 else 'always'} {y}" for y in range(WINDOW)]
        lines.word = "too soon"
        lines.redraw_changed()
        lines.word, lines.marked = "last", 3  # before any of it was painted
        lines.refresh(Region(0, 3, WINDOW, 1))
        await pilot.pause()
        assert shown(app)[3] == "last 3 marked"
        assert "too soon" not in "".join(shown(app))


def shown(app: App[None]) -> list[str]:
    """The text of the first lines of the screen."""
    strips = app.screen._compositor.render_strips(app.screen.size)
    return [strip.text.rstrip() for strip in strips[:WINDOW]]


async def test_a_bar_comes_and_goes_with_lines_that_do_not_fit() -> None:
    app = OnePane()
    async with app.run_test() as pilot:
        for n in (WINDOW, WINDOW + 1, 50, 3):
            app.panel.show(numbered(n))
            await pilot.pause()
            assert app.panel.show_vertical_scrollbar == (n > WINDOW)
        assert app.panel.scroll_offset.y == 0
