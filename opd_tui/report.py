"""The findings of a store as text for a terminal, or as one JSON object with every number."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

import store
from compute.findings import FLIPPED, Finding, FindingRow, all_findings
from compute.objectives import parse
from compute.statistics import Interval
from opd_tui.text import safe
from store.errors import StoreError

SCHEMA = "opd-tui/report/1"


@dataclass(frozen=True, slots=True)
class Column:
    """One interval of a finding's rows, as it is shown."""

    key: str
    title: str
    scale: float = 1.0
    digits: int = 3
    alone: bool = False  #: without its interval


_ALIGNMENT, _GAIN = Column("alignment", "alignment"), Column("gain", "gain x 1000", 1000.0, 1)
#: What fits a terminal of 80 columns; the JSON has the rest.
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "teacher_ranking": (_GAIN, _ALIGNMENT, Column("share_positive", "positive", digits=2, alone=True)),
    "correct_incorrect": (
        Column("alignment_difference", "alignment"),
        Column("gain_difference", "gain x 1000", 1000.0, 1),
    ),
    "within_path_correlation": (Column("alignment", "rho of alignment", digits=2), Column("gain", "rho of gain", digits=2)),
    "two_children": (Column("share", "share", digits=2), _ALIGNMENT, _GAIN),
    "spread": (Column("mean", "mean"), Column("std", "standard deviation")),
    "selection_gain": (
        Column("gain_split", "gain x 1000, split", 1000.0, 1),
        Column("gain_unsplit", "unsplit", 1000.0, 1),
    ),
    "counting": (
        Column("gap_mass", "gap mass"),
        Column("effective_n_on_path", "n on paths", digits=0),
        Column("effective_n_off_path", "n off paths", digits=0),
    ),
}
_DEFAULT = (_ALIGNMENT, _GAIN)


def print_report(path: str, *, objectives: Sequence[str] = (), as_json: bool = False) -> None:
    """Print all findings of the store at `path`, under the study's objectives or others.

    Raises `StoreError` where the store cannot be read or keeps less than an objective takes.
    """
    opened = store.open(path)
    names = tuple(str(parse(name)) for name in objectives) or opened.attributes.objectives
    try:
        found = all_findings(opened, objectives=names)
    except ValueError as error:  # an objective that asks for more than this store keeps
        raise StoreError(str(error)) from None
    if as_json:
        head = {"schema": SCHEMA, "study_hash": opened.attributes.study_hash, "objectives": list(names)}
        print(json.dumps({**head, "findings": [finding.to_json() for finding in found]}, ensure_ascii=False))
        return
    console = Console()
    for finding in found:
        console.print(Text(finding.title, "bold"))
        for objective in dict.fromkeys(row.objective for row in finding.rows):
            rows = [row for row in finding.rows if row.objective == objective]
            if objective and len(names) > 1:
                console.print(Text(f"objective {safe(objective)}"))
            console.print(_table(finding, rows))
            for flag, of in _flags(rows).items():
                console.print(Text(f"! {'; '.join(of)}: {flag}", "yellow"))
        console.print()
    console.print(Text(_LEGEND, "dim"))


_LEGEND = (
    "95 % intervals over questions, none below six. Believe gain before alignment: noise moves the mean cosine, and not the "
    "mean gain. Nulls are dim; a teacher's own worth is what it earns beyond them. Alignment is a local diagnostic of next-token "
    "logits, and no forecast of training. --json has every number."
)


def _flags(rows: Sequence[FindingRow]) -> dict[str, list[str]]:
    """Every warning once, with the rows that it is about."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for flag in row.flags:
            found.setdefault(flag, []).append(safe(f"{row.teacher} {row.group}".strip()))
    return found


def _table(finding: Finding, rows: Sequence[FindingRow]) -> Table:
    columns = [one for one in _COLUMNS.get(finding.name, _DEFAULT) if any(one.key in row.intervals for row in rows)]
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    named = any(row.teacher for row in rows)
    grouped = any(row.group and row.group != FLIPPED for row in rows)
    if named:
        table.add_column("teacher", no_wrap=True, overflow="ellipsis", max_width=14 if grouped else 20)
    if grouped:
        table.add_column("", no_wrap=True, overflow="ellipsis")
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for row in rows:
        names = [Text(safe(f"flipped {row.teacher}" if row.group == FLIPPED else row.teacher))] if named else []
        names += [Text(safe(row.group))] if grouped else []
        table.add_row(*names, *(_cell(row, column) for column in columns), style="dim" if row.null else "")
    return table


def _cell(row: FindingRow, column: Column) -> Text:
    value = row.intervals.get(column.key)
    return Text(_interval(value, column) if value is not None else "")


def _interval(value: Interval, column: Column) -> str:
    if math.isnan(value.mean):
        return "-"
    sign = "" if column.digits == 0 else "+"
    mean, low, high = (f"{column.scale * one:{sign}.{column.digits}f}" for one in (value.mean, value.low, value.high))
    return mean if column.alone or math.isnan(value.low) else f"{mean} [{low}, {high}]"
