"""A report as Markdown: tables and sentences, for a repository or a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from opd_tui.report.claims import Claim
from opd_tui.report.document import LEGEND, VERDICTS, Document, Table

#: What Markdown, or HTML in it, would read as markup, wherever it stands; a cell ends at a `|`.
_SPECIAL = re.compile(
    r"""
      [\\`*{}<|~$]                        # always
    | \[(?![-+]?[0-9.]+,\ [-+]?[0-9.]+\](?![(:\[]))  # but for intervals: [ and what is behind it would be a link
    | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])  # inside of a word it is a letter
    | &(?=[#A-Za-z])                        # as the beginning of an entity
    | (?<=[A-Za-z]):(?=//) | (?<=www)\. | @  # where an address would become a link
    | ^(?:>|[-+](?=\s|$)|\#{1,6}(?=\s|$))  # at the beginning: a quotation, a list, a heading
    """,
    re.VERBOSE,
)
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


def escaped(text: str) -> str:
    """`text` as it is, whatever Markdown would make of it, with as few backslashes as that takes."""
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(lambda found: f"\\{found[0]}", text))


def code_span(text: str) -> str:
    """`text` as inline code, whatever it holds."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _sentence(claim: Claim) -> str:
    before, code, after = claim.text.partition(f"`{claim.code}`") if claim.code else (claim.text, "", "")
    return f"{escaped(before)}{code_span(claim.code)}{escaped(after)}" if code else escaped(claim.text)


def markdown(document: Document) -> str:
    """The whole document."""
    return "\n".join(_lines(document))


def _lines(document: Document) -> Iterator[str]:
    yield f"# {escaped(document.title)}\n"
    for verdict, heading in VERDICTS.items():
        said = [one for one in document.claims if one.verdict == verdict]
        if said:
            yield f"## {heading}\n"
            yield from (f"- {_sentence(one)}" for one in said)
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
