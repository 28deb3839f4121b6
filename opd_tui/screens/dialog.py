"""A list in a window of its own: the base of the dialogs that choose something."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from opd_tui.palette import Palette
from opd_tui.text import Safe, fold
from opd_tui.widgets.lines import Panel, ink, span
from opd_tui.widgets.rows import RowList

Result = TypeVar("Result")


class Dialog(ModalScreen[Result | None], Generic[Result]):
    """Rows to choose from, and a line of keys below them, in one frame. Esc goes back with nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "back")]

    def __init__(self, title: str, hint: str, rows: RowList, palette: Palette, sentence: str = "") -> None:
        """`title`, `hint` and `sentence`, which stands below the rows at first: literals, or safe text."""
        super().__init__()
        self._sentence = sentence
        self._heading, self.hint, self.rows, self.palette = title, hint, rows, palette
        self.line = Panel(id="dialog-line")

    def compose(self) -> ComposeResult:
        """The frame, and everything in it."""
        self.rows.add_class("dialog-rows")
        with Vertical(id="dialog") as frame:
            frame.border_title = Content(self._heading)
            frame.border_subtitle = Content("esc goes back")
            yield from self.framed()

    def framed(self) -> ComposeResult:
        """The rows, and the line below them."""
        yield self.rows
        yield self.line

    def on_mount(self) -> None:
        """The keys go to the rows."""
        for pane in (self.rows, self.line):
            pane.use(self.palette)
        self.rows.focus()
        self._fit()
        self.call_after_refresh(self._say_again)

    def say(self, sentence: str) -> None:
        """What stands below the rows: a sentence of ours or safe text, or which keys there are."""
        self._sentence = sentence
        colours = self.palette.ink
        style = ink(colours.bad if sentence else colours.dim, bold=bool(sentence))
        self.line.show(
            [[span(f" {line}", style)] for line in fold(Safe(sentence or self.hint), self.line.scrollable_size.width - 2)]
        )
        self._fit()

    def on_resize(self) -> None:
        """Break the line anew, and find the room that is left for the rows."""
        self.call_after_refresh(self._say_again)

    def _say_again(self) -> None:
        self.say(self._sentence)

    def _fit(self) -> None:
        """As many rows as there are, or as the window has room for beside the frame and everything else in it."""
        others = sum(pane.virtual_size.height for pane in self.query("#dialog > *") if pane is not self.rows)
        self.rows.styles.height = max(min(self.rows.virtual_size.height, self.app.size.height - others - 2), 2)

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
