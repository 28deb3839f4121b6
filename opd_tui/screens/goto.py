"""Goto: a place, or a part of one."""

from __future__ import annotations

from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from opd_tui.palette import Palette
from opd_tui.screens.prompted import Line, Prompted
from opd_tui.text import fold, safe
from opd_tui.widgets.lines import Panel, Spans, ink, span

HOW = (
    "question            q007",
    "rollout, token      q007/1   q007/1/40   /1   /1/40   //40   40",
    "a part of a name is enough where no other question has it",
)


class Goto(Prompted):
    """Asks where to go."""

    def __init__(self, palette: Palette, here: str, go: Callable[[str], None]) -> None:
        """`here`: the current place, as it may be typed; `go` raises ValueError, in one sentence, where a place is none."""
        super().__init__(palette)
        self._here = here
        self._go = go

    def compose(self) -> ComposeResult:
        """A line, and what is wrong with it."""
        with Vertical(id="goto") as box:
            box.border_title = "go to QUESTION/ROLLOUT/TOKEN"
            box.border_subtitle = "enter goes, esc goes back"
            yield Line("", self._here)
            yield Panel(id="goto-note")

    def on_mount(self) -> None:
        """How places are written."""
        super().on_mount()
        self.call_after_refresh(self._hint)

    @on(Input.Changed)
    def _hint(self) -> None:
        dim = ink(self.palette.ink.dim)
        self._show([[span(line, dim)] for line in HOW])

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        try:
            self._go(message.value)
        except ValueError as error:
            note = self.query_one("#goto-note", Panel)
            style = ink(self.palette.ink.bad, bold=True)
            self._show([[span(line, style)] for line in fold(safe(str(error)), note.scrollable_size.width)])
        else:
            self.dismiss()

    def _show(self, lines: list[Spans]) -> None:
        self.query_one("#goto-note", Panel).show(lines)
