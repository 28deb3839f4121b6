"""A report as Markdown: tables and sentences, for a repository or a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from opd_tui.report_document import LEGEND, VERDICTS, Document, Table

#: What Markdown, or HTML in it, would read as markup; a cell ends at a `|`.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def escaped(text: str) -> str:
    """`text` as it is, whatever Markdown would make of it."""
    return _SPECIAL.sub(r"\\\1", text)


def markdown(document: Document) -> str:
    """The whole document."""
    return "\n".join(_lines(document))


def _lines(document: Document) -> Iterator[str]:
    yield f"# {escaped(document.title)}\n"
    for verdict, heading in VERDICTS.items():
        said = [one for one in document.claims if one.verdict == verdict]
        if said:
            yield f"## {heading}\n"
            yield from (f"- {escaped(one.text)}" for one in said)
            yield ""
    yield f"The sentences are about the objective {escaped(document.objective)}. {escaped(LEGEND)}\n"
    yield "## What was run\n"
    yield from _table(("", ""), [(name, escaped(value)) for name, value in (*document.ran, *document.cost)])
    yield from _table(("teacher", "what it is", "model", ""), [tuple(map(escaped, row)) for row in document.teachers])
    for section in document.sections:
        yield f"## {escaped(section.finding.title)}\n"
        for table in section.tables:
            if len(section.tables) > 1:
                yield f"{escaped(table.caption)}\n"
            yield from _of(table)
            yield from (f"- {escaped(warning)}" for warning in table.warnings)
            if table.warnings:
                yield ""


def _of(table: Table) -> Iterator[str]:
    rows = [
        (f"{escaped(row[0])} (null)" if null and table.titles[0] == "teacher" else escaped(row[0]), *map(escaped, row[1:]))
        for row, null in zip(table.rows, table.nulls, strict=True)
    ]
    yield from _table(tuple(map(escaped, table.titles)), rows, numbers=True)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join(['---'] + ['---:' if numbers else '---'] * (len(titles) - 1))}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
