"""Export: what of the store, in which format, to which file; and how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from opd_tui.export.job import ENDINGS, FORMATS, TEACHERS, WHATS, Format, Order, Teachers, What
from opd_tui.palette import Palette
from opd_tui.screens.dialog import Dialog
from opd_tui.text import safe
from opd_tui.widgets.rows import Cell, Column, RowList

if TYPE_CHECKING:
    from opd_tui.loader import Exporting

MakeOrder = Callable[[What, Teachers, Format, str], Order]


class Choices(RowList):
    """One question a row, with the answer that is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "turn(-1)", "answer before", show=False),
        Binding("right,l", "turn(1)", "next answer", show=False),
        Binding("enter", "screen.other", "on to the file", show=False),
    ]

    def __init__(self, rows: Sequence[tuple[str, Sequence[Any]]], changed: Callable[[], None]) -> None:
        super().__init__((Column("", 10, "left"), Column("", None, "left")), "", id="export-rows")
        self._rows, self._changed = rows, changed
        self._chosen = [0] * len(rows)
        self.set_count(len(rows), 0)

    def answer(self, row: int) -> Any:
        """What is chosen."""
        return self._rows[row][1][self._chosen[row]]

    def cells(self, row: int) -> Sequence[Cell]:
        """The question and its answer."""
        return (Cell(self._rows[row][0], self.palette.ink.dim), Cell(f"‹ {self.answer(row)} ›"))

    def action_turn(self, by: int) -> None:
        """Another answer."""
        self._chosen[self.cursor] = (self._chosen[self.cursor] + by) % len(self._rows[self.cursor][1])
        self.redraw_changed()
        self._changed()


class ExportDialog(Dialog[None]):
    """Rows with answers, and a field for the file. Enter there writes it; esc leaves, and what is being written goes on."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab,shift+tab", "other", "choices, file", show=False)]

    def __init__(self, order: MakeOrder, export: Callable[[Order], None], palette: Palette) -> None:
        rows = Choices((("what", WHATS), ("teachers", TEACHERS), ("format", FORMATS)), self._changed)
        super().__init__("export", "", rows, palette)
        self.choices = rows
        self._order, self._export = order, export
        self._field = Input("export.jsonl", id="export-file", compact=True)
        self._replacing = ""  #: a file that is there already, and of which that was said
        self._writing = False
        self._noun = ""  #: what is counted while it is written

    def framed(self) -> ComposeResult:
        """The field below the choices."""
        yield from super().framed()
        yield self._field

    def on_mount(self) -> None:
        """Say what it will be."""
        super().on_mount()
        self._changed()

    @property
    def order(self) -> Order:
        """What is chosen."""
        out = os.path.abspath(os.path.expanduser(self._field.value.strip()))
        return self._order(self.choices.answer(0), self.choices.answer(1), self.choices.answer(2), out)

    def _changed(self) -> None:
        stem, ending = os.path.splitext(self._field.value)
        chosen = ENDINGS[self.choices.answer(2)]
        if ending[1:] in ENDINGS.values() and ending[1:] != chosen:
            self._field.value = f"{stem}.{chosen}"
        order = self.order
        self.hint = f"{order.refusal or order.estimate}   ← → change   enter: the file, and again: write it"
        if not self._writing:
            self.call_after_refresh(self.say, "")

    def action_other(self) -> None:
        """From the choices to the file, and back."""
        self.set_focus(self.rows if self._field.has_focus else self._field)

    def choose(self, row: int) -> None:
        """A click: the next answer."""
        self.choices.action_turn(1)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        order = self.order
        if self._writing:
            self.say("one file at a time: this one is being written")
        elif order.refusal:
            self.say(order.refusal)
        elif not self._field.value.strip() or os.path.isdir(order.out):
            self.say("name a file to write to")
        elif os.path.exists(order.out) and order.format == "zarr":
            self.say(f"something is there already, and a store replaces nothing: name another file than {safe(order.out)}")
        elif os.path.exists(order.out) and self._replacing != order.out:
            self._replacing = order.out
            self.say(f"a file is there already, enter once more replaces it: {safe(order.out)}")
        else:
            self._writing, self._noun = True, order.noun
            self._export(order)
            self.hint = f"writing {order.estimate} ..."
            self.say("")

    def progress(self, found: Exporting | str) -> None:
        """How far it is; a sentence where it failed; done, and back to the tokens."""
        if isinstance(found, str):
            self._writing = False
            self.say(safe(found))
        elif found.sentence:
            self.dismiss(None)
        else:
            self.hint = f"{found.done:,} of about {found.total:,} {self._noun} are written"
            self.say("")
