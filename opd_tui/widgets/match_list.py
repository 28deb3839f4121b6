"""The list of matches."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from opd_tui.numbers import NONE, plain, signed
from opd_tui.place import NOWHERE
from opd_tui.search.matches import Matches
from opd_tui.search.names import Level
from opd_tui.text import Safe, safe
from opd_tui.widgets.rows import Cell, Column, RowList

#: Numbers that may be below zero are shown with their sign.
SIGNED = ("align", "gain", "advantage", "log_ratio", "mean_align", "worst_align")


class MatchList(RowList):
    """Every match with its place, its number and its token; what is narrow leaves the text out."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__((Column("", side="left"),), "", id=id)
        self.matches = Matches()
        self._signed = False

    def show(self, matches: Matches, level: Level, value: str, cursor: int, empty: str) -> None:
        """Show `matches` of a level. `value`: what the number is, "" for none; `empty`: what stands there if there is nothing."""
        self.matches, self.empty = matches, empty
        self._signed = value.startswith(SIGNED)
        columns = [Column("question", side="left", keep="tail")]
        columns += [Column("rollout", 7)] if level >= Level.ROLLOUT else []
        columns += [Column("token", 6)] if level >= Level.TOKEN else []
        columns += [Column(safe(value), max(8, min(len(value), 18)))] if value else []
        columns += [Column("text", side="left")] if level >= Level.TOKEN else []
        if [column.title for column in columns] != [column.title for column in self.columns]:
            self.columns = columns
            self.refresh()
        self.set_count(len(matches.matches), cursor)

    def cells(self, row: int) -> Sequence[Cell]:
        """What the columns ask for."""
        match = self.matches.matches[row]
        number = signed(match.value) if self._signed else _number(match.value)
        by_title = {
            "question": Cell(match.label),
            "rollout": Cell(_index(match.rollout)),
            "token": Cell(_index(match.position)),
            "text": Cell(match.text, self.palette.ink.dim),
        }
        color = self.palette.sign(match.value) if self._signed else None
        return [by_title.get(column.title) or Cell(number, color) for column in self.columns]


def _index(value: int) -> Safe:
    return Safe(NONE if value == NOWHERE else str(value))


def _number(value: float) -> str:
    if value == inf:
        return "∞"
    return str(int(value)) if value.is_integer() and abs(value) < 1e9 else plain(value, 3)
