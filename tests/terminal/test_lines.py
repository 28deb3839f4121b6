"""Panes of lines: what it takes to make them longer and shorter."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import App, ComposeResult

from opd_tui.widgets.lines import Panel, Spans, span

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


async def test_a_bar_comes_and_goes_with_lines_that_do_not_fit() -> None:
    app = OnePane()
    async with app.run_test() as pilot:
        for n in (WINDOW, WINDOW + 1, 50, 3):
            app.panel.show(numbered(n))
            await pilot.pause()
            assert app.panel.show_vertical_scrollbar == (n > WINDOW)
        assert app.panel.scroll_offset.y == 0
