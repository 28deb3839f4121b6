"""Lists of any length: a heading, rows drawn on demand, one of them current."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from msgspec import Struct
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message

from opd_tui.text import Safe, fit_tail
from opd_tui.widgets.lines import Lines, Spans, ink, ljust, rjust, span


class Column(Struct, frozen=True):
    """A column. One without width takes what the others leave."""

    title: str
    width: int | None = None
    side: Literal["left", "right"] = "right"
    keep: Literal["head", "tail"] = "head"  #: what is left of a text that does not fit


class Cell(Struct, frozen=True):
    """What stands in a column of a row."""

    text: str  #: a literal, a number or `Safe`
    color: str | None = None
    bold: bool = False


class RowList(Lines, can_focus=True):
    """Rows with a cursor. Subclasses say what stands in them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", "row up", show=False),
        Binding("down,j", "step(1)", "row down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home", "to(0)", "first row", show=False),
        Binding("end", "to(-1)", "last row", show=False),
        Binding("enter", "open", "open", show=False),
    ]

    @dataclass
    class Moved(Message):
        """The cursor stands on another row."""

        rows: RowList
        row: int

        @property
        def control(self) -> RowList:
            """The list, for `@on`."""
            return self.rows

    @dataclass
    class Opened(Message):
        """The current row was chosen: enter, or a click."""

        rows: RowList
        row: int

        @property
        def control(self) -> RowList:
            """The list, for `@on`."""
            return self.rows

    def __init__(self, columns: Sequence[Column], empty: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.empty = empty
        self.cursor = 0
        self._n = 0

    def cells(self, row: int) -> Sequence[Cell]:
        """What stands in `row`, one cell a column."""
        raise NotImplementedError  # every list fills its own, as in `Lines.spans`

    def set_count(self, n: int, cursor: int) -> None:
        """There are `n` rows now, the cursor on `cursor`."""
        self._n = n
        self.cursor = min(max(cursor, 0), max(n - 1, 0))
        self.set_height(n + 1)
        self.reveal_row()
        self.redraw_changed()

    def reveal_row(self) -> None:
        """Scroll to the cursor; the heading keeps the first line."""
        top, window = self.scroll_offset.y, max(self.scrollable_size.height - 1, 1)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + window:
            self.scroll_to(y=self.cursor - window + 1, animate=False)

    def on_resize(self) -> None:
        """Keep the cursor in the window."""
        self.reveal_row()

    def move(self, row: int, *, tell: bool = True) -> None:
        """Put the cursor on `row`, as nearly as there is one."""
        row = min(max(row, 0), max(self._n - 1, 0))
        if row == self.cursor or not self._n:
            return
        before, self.cursor = self.cursor, row
        for changed in (before, row):
            self.refresh(Region(0, changed + 1 - self.scroll_offset.y, self.scrollable_size.width, 1))
        self.reveal_row()
        if tell:
            self.post_message(self.Moved(self, row))

    def action_step(self, by: int) -> None:
        """Down by rows."""
        self.move(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Down by windows."""
        self.move(self.cursor + by * max(self.scrollable_size.height - 2, 1))

    def action_to(self, row: int) -> None:
        """To a row, counted from the end where negative."""
        self.move(row % self._n if self._n else 0)

    def action_open(self) -> None:
        """Choose the current row."""
        if self._n:
            self.post_message(self.Opened(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Choose the row that the mouse points at."""
        offset = event.get_content_offset(self)
        if offset is not None and 1 <= offset.y <= self._n - self.scroll_offset.y:
            self.move(offset.y - 1 + self.scroll_offset.y)
            self.action_open()

    def spans(self, y: int) -> Spans:
        """The heading in the first line of the window, rows below."""
        colours = self.palette.ink
        if y == self.scroll_offset.y:
            return self._heading()
        row = y - 1
        if row >= self._n:
            return [span(f" {self.empty}", ink(colours.dim))] if not self._n and row == 0 else ()
        current = row == self.cursor
        fill = (colours.selected if self.has_focus or not current else None) if current else None
        spans = [span("›" if current else " ", ink(colours.accent, fill, bold=True))]
        for column, width, cell in zip(self.columns, self._widths(), self.cells(row), strict=True):
            place = ljust if column.side == "left" else rjust
            style = ink(cell.color or colours.text, fill, bold=cell.bold or (current and column is self.columns[0]))
            text = fit_tail(Safe(cell.text), width) if column.keep == "tail" else Safe(cell.text)
            spans += [place(text, width, style), span(" ", ink(fill=fill))]
        return spans

    def _heading(self) -> list[Segment]:
        style = ink(self.palette.ink.dim)
        spans = [span(" ")]
        for column, width in zip(self.columns, self._widths(), strict=True):
            place = ljust if column.side == "left" else rjust
            spans += [place(column.title, width, style), span(" ")]
        return spans

    def _widths(self) -> list[int]:
        fixed = sum(column.width + 1 for column in self.columns if column.width is not None)
        loose = [column for column in self.columns if column.width is None]
        each = max((self.scrollable_size.width - 1 - fixed - len(loose)) // max(len(loose), 1), 3)
        return [column.width if column.width is not None else each for column in self.columns]
