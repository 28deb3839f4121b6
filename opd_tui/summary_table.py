"""The table that a whole study comes to: every teacher and null, on correct and on incorrect rollouts."""

from __future__ import annotations

import math
from collections.abc import Collection

from rich.console import Console
from rich.table import Table
from rich.text import Text

import store
from compute.findings import added_later, correct_incorrect, gather
from compute.statistics import Interval
from compute.summary import SummaryRow, summarise
from opd_tui.report.terminal import flags_of
from opd_tui.text import safe
from store.words import counted


def print_summary(path: str) -> None:
    """Print one table per objective to standard output."""
    evidence = gather(store.open(path))
    nulls = evidence.null_teachers
    summary = summarise(evidence.nodes, evidence.paths, evidence.scores, null_teachers=nulls)
    compared = correct_incorrect(evidence)
    console = Console()
    for objective in dict.fromkeys(row.objective for row in summary.rows):
        rows = [row for row in summary.rows if row.objective == objective]
        counts = [max(row.n_questions for row in rows if row.outcome == outcome) for outcome in ("correct", "incorrect")]
        title = f"objective {safe(objective)}: {counted(counts[0], 'question')} with correct paths, {counts[1]} with incorrect"
        console.print(Text(title, "bold"))
        console.print(_table(rows, nulls))
        for flag, of in flags_of([row for row in compared.rows if row.objective == objective]).items():
            console.print(Text(f"incorrect against correct, {'; '.join(of)}: {flag}", "yellow"))
        console.print()
    for teacher in evidence.judged_only:
        for flag in added_later(evidence, teacher):
            console.print(Text(f"! {safe(teacher)}: {flag}", "yellow"))
    console.print(Text(_LEGEND, "dim"))


_LEGEND = (
    "Means over questions with 95 % t intervals (none below 6 questions). Alignment: cosine "
    "of the ideal gradient and the teacher's update. Gain: first-order gain in success per "
    "unit of that update, which counting noise does not bias. Nulls (dim) have no direction "
    "of their own: what a teacher earns beyond them is its own. No forecast of training."
)


def _table(rows: list[SummaryRow], nulls: Collection[str]) -> Table:
    """Teachers, then nulls, each on correct and on incorrect rollouts."""
    by_name: dict[tuple[bool, str], dict[str, SummaryRow]] = {}
    for row in rows:
        name = row.teacher if not row.null or row.teacher in nulls else f"flipped {row.teacher}"
        by_name.setdefault((row.null, name), {})[row.outcome] = row
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("teacher", no_wrap=True, overflow="ellipsis", max_width=22)
    table.add_column("paths")
    table.add_column("alignment", justify="right", no_wrap=True)
    table.add_column("gain x 1000", justify="right", no_wrap=True)
    for (null, name), outcomes in sorted(by_name.items(), key=lambda entry: entry[0][0]):
        for outcome in ("correct", "incorrect"):
            row = outcomes[outcome]
            label = Text(safe(name) if outcome == "correct" else "")
            cells = (label, Text(outcome), Text(_interval(row.alignment, 1.0, 3)), Text(_interval(row.gain, 1000.0, 1)))
            table.add_row(*cells, style="dim" if null else "")
    return table


def _interval(value: Interval, scale: float, digits: int) -> str:
    if math.isnan(value.mean):
        return "-"
    mean = f"{scale * value.mean:+.{digits}f}"
    return mean if math.isnan(value.low) else f"{mean} [{scale * value.low:+.{digits}f}, {scale * value.high:+.{digits}f}]"
