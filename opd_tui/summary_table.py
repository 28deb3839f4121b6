"""The table that a whole study comes to: every teacher and null, on correct and on incorrect rollouts."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

import store
from compute.scores import score
from compute.statistics import Interval
from compute.summary import Summary, SummaryRow, summarise
from opd_tui.text import safe


def summary_of(path: str) -> Summary:
    """The summary of the store at `path`, over all of its questions."""
    opened = store.open(path)
    nodes, paths = opened.study_nodes()
    nulls = [teacher.id for teacher in opened.teachers if teacher.null]
    return summarise(nodes, paths, score(nodes, n_sig=opened.attributes.n_sig), null_teachers=nulls)


def print_summary(path: str) -> None:
    """Print one table per objective to standard output."""
    summary = summary_of(path)
    opened = store.open(path)
    nulls = {teacher.id for teacher in opened.teachers if teacher.null}
    console = Console()
    for objective in dict.fromkeys(row.objective for row in summary.rows):
        rows = [row for row in summary.rows if row.objective == objective and row.outcome != "all"]
        console.print(_table(objective, rows, nulls))
    console.print(
        Text(
            "Mean over questions with its 95 % t interval (none below 6 questions). Alignment: cosine of the ideal gradient and the\n"
            "teacher's. Gain: first-order gain in success per unit of the teacher's update; counting noise does not bias it. Nulls are\n"
            "teachers without direction: what a teacher earns beyond them is its own. No forecast of training.",
            "dim",
        )
    )


def _table(objective: str, rows: list[SummaryRow], nulls: set[str]) -> Table:
    table = Table(title=f"objective {objective}", title_justify="left", header_style="bold", box=None, padding=(0, 1))
    for name in ("teacher", "rollouts", "alignment", "gain x 1000", "questions", "nodes"):
        table.add_column(name, justify="left" if name in ("teacher", "rollouts") else "right", no_wrap=True)
    ordered = sorted(rows, key=lambda row: row.null)  # real teachers first; the sort keeps the study's order
    before = ""
    for row in ordered:
        name = row.teacher if not row.null or row.teacher in nulls else f"{row.teacher}, signs flipped"
        label = Text(safe(name) if name != before else "", "dim" if row.null else "")
        before = name
        table.add_row(
            label,
            row.outcome,
            _interval(row.alignment),
            _interval(row.gain, 1000.0),
            str(row.n_questions),
            str(row.n_decision_points),
        )
    return table


def _interval(value: Interval, scale: float = 1.0) -> str:
    if math.isnan(value.mean):
        return "-"
    digits = 3 if scale == 1.0 else 2
    mean = f"{scale * value.mean:+.{digits}f}"
    return mean if math.isnan(value.low) else f"{mean} [{scale * value.low:+.{digits}f}, {scale * value.high:+.{digits}f}]"
