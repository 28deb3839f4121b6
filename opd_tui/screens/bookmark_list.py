"""All bookmarks of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from opd_tui.bookmarks import Bookmark, Bookmarks
from opd_tui.palette import Palette
from opd_tui.screens.dialog import Dialog
from opd_tui.text import safe
from opd_tui.widgets.rows import Cell, Column, RowList


class BookmarkRows(RowList):
    """One bookmark a row."""

    def __init__(self, bookmarks: Bookmarks) -> None:
        columns = (Column("question", None, "left", "tail"), Column("rollout", 7), Column("token", 7), Column("text", 20, "left"))
        super().__init__(columns, "no bookmark yet: b sets one at a token", id="bookmark-rows")
        self.bookmarks = bookmarks
        self.set_count(len(bookmarks.all), 0)

    def cells(self, row: int) -> Sequence[Cell]:
        """Where it is, and what stands there."""
        one = self.bookmarks.all[row]
        return (
            Cell(safe(one.question_id)),
            Cell(str(one.rollout)),
            Cell(str(one.token)),
            Cell(safe(one.text), self.palette.ink.dim),
        )


class BookmarkList(Dialog[Bookmark]):
    """Enter goes there, `d` takes it away."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("d", "remove", "remove the bookmark")]

    def __init__(self, bookmarks: Bookmarks, palette: Palette) -> None:
        super().__init__("bookmarks", "enter goes there   d removes it", BookmarkRows(bookmarks), palette)
        self.bookmarks = bookmarks

    def choose(self, row: int) -> None:
        """Go there."""
        self.dismiss(self.bookmarks.all[row])

    def action_remove(self) -> None:
        """Take the current one away."""
        if self.bookmarks.all:
            self.bookmarks.toggle(self.bookmarks.all[self.rows.cursor])
            self.rows.set_count(len(self.bookmarks.all), self.rows.cursor)
            self.rows.refresh()
