"""The findings of a store as text for a terminal, or as one JSON object with every number."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table
from rich.text import Text

import store
from compute.alignment import Support
from compute.estimators import Estimator
from compute.findings import FLIPPED, Finding, FindingRow, all_findings
from compute.findings.shape import ADDED_LATER
from compute.objectives import parse
from compute.statistics import Interval
from opd_tui.report.claims import Claim, claims
from opd_tui.text import Safe, cells, fold, safe
from store.errors import StoreError
from store.reader import Store

SCHEMA = "opd-tui/report/1"


#: Columns of a broad terminal, and of a very broad one.
BROAD, VERY_BROAD = 120, 150
#: A teacher's name has this much room even where numbers then have too little.
LEAST_NAME = 6


class Column(Struct, frozen=True):
    """One interval of a finding's rows, as it is shown; or one p-value."""

    key: str
    title: str
    scale: float = 1.0
    digits: int = 3
    alone: bool = False  #: without its interval
    signed: bool = True
    width: int = 0  #: terminals with fewer columns leave it out


_ALIGNMENT, _GAIN = Column("alignment", "alignment"), Column("gain", "gain x 1000", 1000.0, 1)
_P_ALIGNMENT, _P_GAIN = Column("p_alignment", "p", width=BROAD), Column("p_gain", "p", width=BROAD)
#: What fits a terminal of 80 columns, or a broader one; files have all of it, and the JSON the rest.
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "teacher_ranking": (
        _GAIN,
        replace(_P_GAIN, width=0),
        _ALIGNMENT,
        Column("pooled", "pooled", width=BROAD),
        Column("sr_weighted", "SR-weighted", digits=2, alone=True, width=BROAD),
        Column("share_positive", "positive", digits=2, alone=True, signed=False, width=BROAD),
        Column("reliability", "reliability", digits=2, alone=True, signed=False, width=VERY_BROAD),
        Column("probability_best", "best", digits=3, alone=True, signed=False, width=VERY_BROAD),
    ),
    "correct_incorrect": (
        Column("alignment_difference", "alignment"),
        _P_ALIGNMENT,
        Column("gain_difference", "gain x 1000", 1000.0, 1),
        _P_GAIN,
    ),
    "within_path_correlation": (
        Column("alignment", "rho of alignment", digits=2),
        _P_ALIGNMENT,
        Column("gain", "rho of gain", digits=2),
        _P_GAIN,
    ),
    "two_children": (Column("share", "share", digits=2, signed=False), _ALIGNMENT, _GAIN),
    "spread": (
        Column("mean", "mean alignment", digits=2),
        _GAIN,
        Column("std", "standard deviation", digits=2, signed=False),
    ),
    "selection_gain": (
        Column("gain_split", "gain x 1000, split", 1000.0, 1),
        Column("gain_unsplit", "unsplit", 1000.0, 1),
        Column("more_gain", "added, split", 1000.0, 1, width=BROAD),
    ),
    "counting": (
        Column("gap_mass", "gap mass", signed=False),
        Column("effective_n_on_path", "n on paths", digits=0, signed=False),
        Column("effective_n_off_path", "n off paths", digits=0, signed=False),
        Column("truncated", "cut off", digits=2, signed=False, width=BROAD),
    ),
}
_DEFAULT = (_ALIGNMENT, _GAIN)


def print_report(
    path: str,
    *,
    objectives: Sequence[str] = (),
    support: Support = "sliced",
    estimator: Estimator = "backup",
    as_json: bool = False,
) -> None:
    """Print all findings of the store at `path`, under the study's objectives or others.

    Raises `StoreError` where the store cannot be read or keeps less than an objective takes.
    """
    opened = store.open(path)
    names, found = found_in(opened, objectives=objectives, support=support, estimator=estimator)
    said = claims_of(opened, found)
    if as_json:
        head = {
            "schema": SCHEMA,
            "study_hash": opened.attributes.study_hash,
            "objectives": list(names),
            "support": support,
            "estimator": estimator,
            "level": 0.95,
        }
        sentences = [{"verdict": one.verdict, "finding": one.finding, "text": one.text} for one in said]
        findings = [finding.to_json() for finding in found]
        print(json.dumps({**head, "findings": findings, "claims": sentences}, ensure_ascii=False))
        return
    console = Console()
    added: set[str] = set()  #: the warnings about teachers that were added later, which every row of theirs has
    for finding in found:
        _print_finding(console, finding, added, by_objective=len(names) > 1)
        console.print()
        about = [one for one in said if one.finding == finding.name and one.verdict != "limit"]
        for one in about:
            _print_claim(console, one)
        if about:
            console.print()
    warned = {flag for finding in found for row in finding.rows for flag in row.flags}  # below their tables already
    for one in said:
        if one.verdict == "limit" and one.text not in warned:
            _print_claim(console, one)
    console.print()
    of = f" of the objective {safe(names[0])}" if len(names) > 1 else ""
    console.print(Text(f"✓: the numbers{of} support the sentence; ?: they do not support one. {_LEGEND}", "dim"))


def _print_finding(console: Console, finding: Finding, added: set[str], *, by_objective: bool) -> None:
    """Its title, its tables and their warnings; of those in `added` only what was not said before."""
    rest_on = {_n_questions(row) for row in finding.rows}
    shared = f"  n = {rest_on.pop()}" if len(rest_on) == 1 else ""
    console.print(Text.assemble((finding.title, "bold"), (shared, "dim")))
    for objective in dict.fromkeys(row.objective for row in finding.rows):
        rows = [row for row in finding.rows if row.objective == objective]
        if objective and by_objective:
            console.print(Text(f"objective {safe(objective)}"))
        console.print(table(finding, rows, counted=not shared, width=console.width))
        for flag, of in flags_of(rows).items():
            if flag in added:
                continue
            if flag.startswith(_ADDED):
                added.add(flag)
                whom = "; ".join(dict.fromkeys(safe(row.teacher) for row in rows if flag in row.flags))
            else:
                whom = "; ".join(of)
            console.print(Text(f"! {whom}: {flag}", "yellow"))


def claims_of(opened: Store, found: Sequence[Finding]) -> list[Claim]:
    """The sentences that follow from the findings of a store; none where no question is finished."""
    counts = opened.counts()
    return claims(found, counts) if counts.n_questions_done else []


#: What stands before a sentence, which the legend explains, and its style.
_MARKS: dict[str, tuple[str, str]] = {"supported": ("✓ ", "bold"), "not supported": ("? ", ""), "limit": ("limit: ", "yellow")}


def _print_claim(console: Console, claim: Claim) -> None:
    """A sentence in lines as wide as the terminal, all but the first indented."""
    mark, style = _MARKS[claim.verdict]
    first, *others = fold(Safe(mark + safe(claim.text)), console.width)
    console.print(Text(first, style))
    for line in fold(Safe(" ".join(others)), console.width - 2) if others else ():
        console.print(Text(f"  {line}", style))


def found_in(
    opened: Store, *, objectives: Sequence[str], support: Support, estimator: Estimator
) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """The objectives, which are the study's unless others are named, and all findings under them. Raises `StoreError`."""
    names = tuple(str(parse(name)) for name in objectives) or opened.attributes.objectives
    try:
        return names, all_findings(opened, objectives=names, support=support, estimator=estimator)
    except ValueError as error:  # an objective or estimator that asks for more than this store keeps
        raise StoreError(str(error)) from None


_ADDED = ADDED_LATER.partition(":")[0]
_LEGEND = (
    "95 % intervals over n questions, none below six. Believe gain before alignment: noise moves the mean cosine, and not the "
    "mean gain. p is the sign-flip test of the number before it. Nulls are dim; a teacher's own worth is what it earns beyond "
    "them. The interval of a null misses zero in one of twenty by chance; that of a temperature may miss it because sharpening "
    "alone earns something. Alignment is a local diagnostic of next-token logits, and no forecast of training. --json has every "
    "number, and from 120 columns on more of them are shown."
)


def flags_of(rows: Sequence[FindingRow]) -> dict[str, list[str]]:
    """Every warning once, with the rows that it is about."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for flag in row.flags:
            found.setdefault(flag, []).append(safe(f"{row.teacher} {row.group}".strip()))
    return found


def _n_questions(row: FindingRow) -> int:
    """How many questions the row's first interval rests on."""
    return next((interval.n for interval in row.intervals.values()), 0)


def table(finding: Finding, rows: Sequence[FindingRow], *, counted: bool, width: int) -> Table:
    """The rows, with their numbers of questions where they are `counted`. Teachers' names get the room that numbers leave."""
    titles, lines = lines_of(finding, rows, counted=counted, width=width)
    named = any(row.teacher for row in rows)
    grouped = _grouped(rows)
    taken = sum(max(map(cells, column)) + 1 for column in zip(titles, *lines, strict=True))
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    if named:
        room = max(min(14 if grouped else 20, width - taken), LEAST_NAME)
        table.add_column("teacher", no_wrap=True, overflow="ellipsis", max_width=room)
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if grouped and place == 0 else "right", no_wrap=True, overflow="ellipsis")
    for row, line in zip(rows, lines, strict=True):
        name = [name_of(row)] if named else []
        table.add_row(*map(Text, [*name, *line]), style="dim" if row.null else "")
    return table


def lines_of(
    finding: Finding, rows: Sequence[FindingRow], *, counted: bool, width: float = math.inf
) -> tuple[list[str], list[list[Safe]]]:
    """Titles and cells of the rows, without the teachers' names: the columns that a terminal of this width shows."""
    columns = [
        one
        for one in _COLUMNS.get(finding.name, _DEFAULT)
        if one.width <= width and any(one.key in row.intervals or one.key in row.numbers for row in rows)
    ]
    grouped = _grouped(rows)
    titles = [*([""] if grouped else []), *(column.title for column in columns), *(["n"] if counted else [])]
    lines = [
        [
            *([safe(row.group)] if grouped else []),
            *(safe(_cell(row, column)) for column in columns),
            *([safe(str(_n_questions(row)))] if counted else []),
        ]
        for row in rows
    ]
    return titles, lines


def _grouped(rows: Sequence[FindingRow]) -> bool:
    return any(row.group and row.group != FLIPPED for row in rows)


def name_of(row: FindingRow) -> Safe:
    """The teacher of a row, as it is shown."""
    return safe(f"flipped {row.teacher}" if row.group == FLIPPED else row.teacher)


def _cell(row: FindingRow, column: Column) -> str:
    value = row.intervals.get(column.key)
    if value is None:
        return _p_value(row.numbers[column.key]) if column.key in row.numbers else ""
    return _interval(value, column)


def _p_value(p: float) -> str:
    return "-" if math.isnan(p) else "<.001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")


def _interval(value: Interval, column: Column) -> str:
    if math.isnan(value.mean):
        return "-"
    sign = "+" if column.signed else ""
    mean, low, high = (f"{column.scale * one:{sign}.{column.digits}f}" for one in (value.mean, value.low, value.high))
    return mean if column.alone or math.isnan(value.low) else f"{mean} [{low}, {high}]"
