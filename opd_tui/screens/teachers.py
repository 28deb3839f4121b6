"""The teachers of the study, side by side: who they are, and what they are worth over all questions."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType

from opd_tui.numbers import signed, signed_interval
from opd_tui.palette import Palette
from opd_tui.screens.dialog import Dialog
from opd_tui.widgets.rows import Cell, Column, RowList

if TYPE_CHECKING:
    from opd_tui.facts import Mean, TeacherFacts

#: The teacher to look through, or the one to hold it against.
Choice = tuple[Literal["look", "second"], int]
NAN = float("nan")
WIDE = 96


class TeacherRows(RowList):
    """One teacher a row; in a narrow window without intervals."""

    def __init__(self, teachers: Sequence[TeacherFacts], means: Sequence[Mean | None], current: int, second: int | None) -> None:
        super().__init__(self._columns(wide=True), "the study has no teachers", id="teacher-rows")
        self.teachers, self.means, self.second = teachers, means, second
        self.set_count(len(teachers), current)
        self._current = current

    @staticmethod
    def _columns(wide: bool) -> tuple[Column, ...]:
        numbers = (Column("align", 5), Column("95%", 13, "left"), Column("gain", 6), Column("95%", 15, "left")) if wide else (
            Column("align", 5), Column("gain", 6)
        )  # fmt: skip
        return (
            Column("teacher", 18 if wide else 14, "left"),
            Column("what", None, "left"),
            *numbers,
            Column("✓", 5),
            Column("✗", 5),
        )

    def on_resize(self) -> None:
        """Leave out what there is no room for."""
        self.columns = self._columns(self.scrollable_size.width >= WIDE)
        self.refresh()

    def cells(self, row: int) -> Sequence[Cell]:
        """Name, kind and description; alignment and gain with intervals; correct and incorrect."""
        teacher, mean = self.teachers[row], self.means[row]
        dim = self.palette.ink.dim
        values = (mean.mean, mean.gain, mean.correct, mean.incorrect) if mean else (NAN,) * 4
        align, gain, correct, incorrect = (
            Cell(signed(value, digits), self.palette.sign(value)) for value, digits in zip(values, (2, 3, 2, 2), strict=True)
        )
        role = "›" if row == self._current else "−" if row == self.second else " "
        marks = "".join((", null" if teacher.null else "", ", added later" if teacher.late else ""))
        known = f": {teacher.description}" if teacher.description else ""
        name = (Cell(f"{role} {teacher.label}"), Cell(f"{teacher.context}{marks}{known}", dim))
        if len(self.columns) == 6:
            return (*name, align, gain, correct, incorrect)
        ends = (signed_interval(mean.low, mean.high), _interval3(mean.gain_low, mean.gain_high)) if mean else ("", "")
        return (*name, align, Cell(ends[0], dim), gain, Cell(ends[1], dim), correct, incorrect)


def _interval3(low: float, high: float) -> str:
    return f"[{signed(low, 3)},{signed(high, 3)}]" if isfinite(low) and isfinite(high) else ""


class Teachers(Dialog[Choice]):
    """Enter looks through a teacher, `d` holds the current one against it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "second", "difference to this teacher"),
        Binding("i", "leave", "back", show=False),
    ]

    def __init__(
        self,
        teachers: Sequence[TeacherFacts],
        means: Sequence[Mean | None],
        current: int,
        second: int | None,
        about: str,
        palette: Palette,
    ) -> None:
        """`about`: what the means are of, as safe text."""
        rows = TeacherRows(teachers, means, current, second)
        super().__init__(
            f"teachers: {about}", "enter looks through it   d takes it as the second one   − is the second", rows, palette
        )

    def choose(self, row: int) -> None:
        """Look through this teacher."""
        self.dismiss(("look", row))

    def action_second(self) -> None:
        """Hold the current teacher against this one."""
        self.dismiss(("second", self.rows.cursor))
