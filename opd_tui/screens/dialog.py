"""A list in a window of its own: the base of the dialogs that choose something."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen

from opd_tui.palette import Palette
from opd_tui.text import Safe, fold
from opd_tui.widgets.lines import Panel, ink, span
from opd_tui.widgets.rows import RowList

Result = TypeVar("Result")


class Dialog(ModalScreen[Result | None], Generic[Result]):
    """Rows to choose from, and a line of keys below them. Esc goes back with nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "back")]

    def __init__(self, title: str, hint: str, rows: RowList, palette: Palette) -> None:
        """`title` and `hint`: literals, or safe text."""
        super().__init__()
        self._heading, self.hint, self.rows, self.palette = title, hint, rows, palette
        self.line = Panel(id="dialog-line")

    def compose(self) -> ComposeResult:
        """The rows."""
        self.rows.border_title = Content(self._heading)
        self.rows.border_subtitle = Content("esc goes back")
        self.rows.add_class("dialog-rows")
        yield self.rows
        yield self.line

    def on_mount(self) -> None:
        """The keys go to the rows."""
        for pane in (self.rows, self.line):
            pane.use(self.palette)
        self.rows.focus()
        self.call_after_refresh(self.say, "")

    def say(self, sentence: str) -> None:
        """What stands below the rows: a sentence of ours or safe text, or which keys there are."""
        colours = self.palette.ink
        style = ink(colours.bad if sentence else colours.dim, bold=bool(sentence))
        self.line.show(
            [[span(f" {line}", style)] for line in fold(Safe(sentence or self.hint), self.line.scrollable_size.width - 2)]
        )

    def action_leave(self) -> None:
        """Back, with nothing."""
        self.dismiss(None)

    @on(RowList.Opened)
    def _opened(self, message: RowList.Opened) -> None:
        message.stop()
        self.choose(message.row)

    @on(RowList.Moved)
    def _moved(self, message: RowList.Moved) -> None:
        message.stop()

    def choose(self, row: int) -> None:
        """A row was chosen."""
        raise NotImplementedError  # as in `Lines.spans`
