"""The lists of Charts: marks with their numbers, the nodes behind one, and the matrix of teachers and objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment

from opd_tui.numbers import count, signed, signed_interval
from opd_tui.palette import Scale
from opd_tui.text import Safe, safe
from opd_tui.widgets.lines import Panel, Spans, ink, ljust, rjust, span
from opd_tui.widgets.rows import Cell, Column, RowList

if TYPE_CHECKING:
    from opd_tui.charts import Behind, Mark, Study

#: Alignment is a cosine.
SCALE = Scale(-1.0, 1.0, diverging=True)
#: Cells of a column of the matrix: with interval and count, and with the count alone.
BROAD, SLIM = 21, 11


class MarkList(RowList):
    """Every mark of a chart: its place and sign on the plot, and its numbers."""

    def __init__(self, *, id: str | None = None) -> None:
        columns = (
            Column("", 3, side="left"),
            Column("mark", side="left"),
            Column("align", 5),
            Column("95%", 13),
            Column("points", 6),
            Column("q", 4),
        )
        super().__init__(columns, "nothing is scored yet", id=id)
        self.marks: Sequence[Mark] = ()
        self.numbered = False

    def show(self, marks: Sequence[Mark], cursor: int, *, numbered: bool) -> None:
        """Show `marks`; `numbered`: the plot has a number for each place."""
        self.marks, self.numbered = marks, numbered
        self.set_count(len(marks), cursor)

    def cells(self, row: int) -> Sequence[Cell]:
        """Sign, name, mean and interval, nodes, questions."""
        mark = self.marks[row]
        dim = self.palette.ink.dim
        place = f"{round(mark.x)}" if self.numbered else ""
        return (
            Cell(f"{place}{mark.series.value}", dim),
            Cell(mark.label),
            Cell(signed(mark.mean), self.palette.sign(mark.mean), bold=True),
            Cell(signed_interval(mark.low, mark.high), dim),
            Cell(count(mark.n_nodes), dim),
            Cell(str(mark.n_questions), dim),
        )


class NodeList(RowList):
    """The nodes behind a mark, from the worst to the best."""

    def __init__(self, *, id: str | None = None) -> None:
        columns = (Column("question", side="left", keep="tail"), Column("rollout", 8), Column("token", 6), Column("align", 6))
        super().__init__(columns, "no node is behind this mark", id=id)
        self.behind: Behind | None = None
        self._study: Study | None = None

    def show(self, study: Study, behind: Behind) -> None:
        """Show the nodes, the cursor on the typical one."""
        self._study, self.behind = study, behind
        self.set_count(len(behind), behind.typical)

    def question_id(self, row: int) -> str | None:
        """The question of a row, as stored."""
        if self._study is None or self.behind is None:
            return None
        return self._study.ids.get(int(self.behind.question_N[row]))

    def cells(self, row: int) -> Sequence[Cell]:
        """Question, rollout with its outcome, position, alignment."""
        assert self.behind is not None
        colours = self.palette.ink
        correct, value = bool(self.behind.correct_N[row]), float(self.behind.value_N[row])
        return (
            Cell(safe(self.question_id(row) or "")),
            Cell(f"{int(self.behind.rollout_N[row])} {'✓' if correct else '✗'}", colours.good if correct else colours.bad),
            Cell(str(int(self.behind.position_N[row])), colours.dim),
            Cell(signed(value), self.palette.sign(value), bold=True),
        )


class Matrix(Panel, can_focus=False):
    """Teachers by objectives: mean alignment as a colour, and always as a number, with interval and nodes."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[Study, Sequence[Mark], int] | None = None

    def on_resize(self) -> None:
        """At the new width."""
        if self._shown is not None:
            self.matrix(*self._shown)

    def matrix(self, study: Study, marks: Sequence[Mark], current: int) -> None:
        """Show `marks`, teachers one below the other; columns around the current one, as many as find room."""
        self._shown = study, marks, current
        if not marks:
            self.show([])
            return
        dim = ink(self.palette.ink.dim)
        n = len(study.objectives)
        name = min(max(len(label) for label in study.teachers) + 1, 20)
        room = self.scrollable_size.width - name
        each = BROAD if room >= BROAD * n else SLIM
        n_shown = min(max(room // each, 1), n)
        chosen = marks[current]
        first = min(max(chosen.objective - n_shown // 2, 0), n - n_shown)
        columns = range(first, first + n_shown)
        head = [span(" " * name), *(ljust(f" {o + 1} {study.objectives[o]}", each, dim) for o in columns)]
        lines: list[Spans] = [head]
        for m, teacher in enumerate(study.teachers):
            row: list[Segment] = [
                span("›" if m == chosen.teacher else " ", ink(self.palette.ink.accent, bold=True)),
                ljust(Safe(teacher), name - 1, ink(self.palette.ink.dim if study.null_M[m] else self.palette.ink.text)),
            ]
            for mark in (marks[m * n + o] for o in columns):
                row += self._cell(mark, each, mark is chosen)
            lines.append(row)
        note = f" columns {first + 1} to {first + n_shown} of {n}" if n_shown < n else ""
        self.show([*lines, [], [span(note, dim)]])
        self.reveal(chosen.teacher + 1)

    def _cell(self, mark: Mark, width: int, current: bool) -> list[Segment]:
        style = self.palette.value(SCALE.step(mark.mean), diverging=True)
        dim = ink(self.palette.ink.dim)
        number = rjust(signed(mark.mean), 5, style + ink(reverse=True, bold=True) if current else style)
        arrow = span("›" if current else " ", ink(self.palette.ink.accent, bold=True))
        if width == SLIM:
            return [arrow, number, rjust(str(mark.n_nodes), 4, dim), span(" ")]
        return [arrow, number, ljust(signed_interval(mark.low, mark.high), 11, dim), rjust(str(mark.n_nodes), 4, dim)]
