"""Any objective, chosen live: the study's are kept exactly, others are made from what the store keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from compute.objectives import TABLE, Objective, parse
from opd_tui.palette import Palette
from opd_tui.screens.dialog import Dialog
from opd_tui.text import safe
from opd_tui.widgets.rows import Cell, Column, RowList


class ObjectiveRows(RowList, can_focus=False):
    """Every row of `compute.objectives.TABLE`."""

    def __init__(self, there: Sequence[str]) -> None:
        super().__init__(
            (Column("", 5, "left"), Column("objective", 30, "left"), Column("loss", None, "left")), "", id="objective-rows"
        )
        self.there = there
        self.set_count(len(TABLE), 0)

    def spelling(self, row: int) -> str:
        """As it is stored: an objective of the study of that name, or the default one."""
        name = TABLE[row].name
        return next((one for one in self.there if parse(one).name == name), str(parse(name)))

    def cells(self, row: int) -> Sequence[Cell]:
        """Whether it is one of those that are shown, its spelling, its loss."""
        found: Objective = TABLE[row]
        spelling = self.spelling(row)
        return (Cell("shown" if spelling in self.there else ""), Cell(spelling), Cell(found.loss, self.palette.ink.dim))


class Objectives(Dialog[str]):
    """Arrows choose a row, and its spelling can be edited: `jsd(0.3)`. Enter scores everything under it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1)", "objective up", show=False),
        Binding("down", "step(1)", "objective down", show=False),
    ]

    def __init__(self, there: Sequence[str], current: int, palette: Palette, refused: str = "", why: str = "") -> None:
        """`there`: the objectives that are scored now, as `parse` reads them. `refused`: one that the store cannot, and why."""
        self._there = there
        self._field = Input(refused or (there[current] if current < len(there) else ""), id="objective-field", compact=True)
        super().__init__(
            "objective",
            "enter scores everything under it   ↑ ↓ choose   parameters can be edited",
            ObjectiveRows(there),
            palette,
            why,
        )

    def framed(self) -> ComposeResult:
        """The field below the rows."""
        yield from super().framed()
        yield self._field

    def on_mount(self) -> None:
        """The keys go to the field; the row of the current objective is marked."""
        super().on_mount()
        names = [one.name for one in TABLE]
        self.rows.move(names.index(parse(self._field.value).name) if self._field.value else 0, tell=False)
        self._field.focus()

    def action_step(self, by: int) -> None:
        """Another row, and its spelling."""
        self.rows.action_step(by)
        self._spell()

    def _spell(self) -> None:
        assert isinstance(self.rows, ObjectiveRows)
        self._field.value = self.rows.spelling(self.rows.cursor)

    def choose(self, row: int) -> None:
        """A click: the spelling of that row."""
        self._spell()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        try:
            self.dismiss(str(parse(self._field.value)))
        except ValueError as error:
            self.say(safe(str(error)))
