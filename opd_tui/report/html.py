"""A report as one HTML file that fetches nothing and runs nothing: sentences, plots, tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from opd_tui.markup import head, resource
from opd_tui.report.claims import Claim
from opd_tui.report.document import LEGEND, VERDICTS, Document, Section, Table
from opd_tui.report.plots import Plot, plots

_CLASSES = {"supported": "supported", "not supported": "open", "limit": "limit"}


def html(document: Document) -> str:
    """The whole file."""
    return "".join(_parts(document))


def _parts(document: Document) -> Iterator[str]:
    # the styles that matplotlib puts on its elements have to be let in; no text of a store can make an element
    yield head(document.title, resource("report.css"), inline_styles=True)
    yield f"<body>\n<main>\n<h1>{escape(document.title)}</h1>\n"
    for verdict, heading in VERDICTS.items():
        said = [one for one in document.claims if one.verdict == verdict]
        if said:
            yield f"<h2>{heading}</h2>\n<ul>\n"
            yield from (f'<li class="{_CLASSES[verdict]}">{_sentence(one)}</li>\n' for one in said)
            yield "</ul>\n"
    yield f"<p>The sentences and plots are about the objective {escape(document.objective)}. {escape(LEGEND)}</p>\n"
    yield "<h2>What was run</h2>\n"
    yield _words("What was run, and how much", ("", ""), (*document.ran, *document.cost))
    yield _words("Teachers", ("teacher", "what it is", "model", "null"), document.teachers)
    drawn = plots([section.finding for section in document.sections], _objective(document))
    for section in document.sections:
        yield from _section(section, [plot for plot in drawn if plot.finding == section.finding.name])
    yield "</main>\n</body>\n</html>\n"


def _sentence(claim: Claim) -> str:
    before, code, after = claim.text.partition(f"`{claim.code}`") if claim.code else (claim.text, "", "")
    return f"{escape(before)}<code>{escape(claim.code)}</code>{escape(after)}" if code else escape(claim.text)


def _objective(document: Document) -> str:
    """The first objective under its own name, which may not be safe to draw."""
    return next(row.objective for row in document.sections[0].finding.rows)


def _section(section: Section, drawn: Sequence[Plot]) -> Iterator[str]:
    yield f"<section>\n<h2>{escape(section.finding.title)}</h2>\n"
    yield from (f"<figure><figcaption>{escape(plot.title)}</figcaption>\n{plot.svg}</figure>\n" for plot in drawn)
    for table in section.tables:
        yield _table(table, f"{section.finding.title}: {table.caption}")
        yield from (f'<p class="warning">! {escape(warning)}</p>\n' for warning in table.warnings)
    yield "</section>\n"


def _table(table: Table, caption: str) -> str:
    rows = []
    for row, null in zip(table.rows, table.nulls, strict=True):
        first, *others = row
        mark = " (null)" if null and table.titles[0] == "teacher" else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        kind = ' class="null"' if null else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(first)}{mark}</th>{cells}</tr>\n')
    titles = "".join(_title(title) for title in table.titles)
    # a region that scrolls is reached with the Tab key
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">\n'
        f"<table><caption>{escape(table.caption)}</caption>"
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table></div>\n"
    )


def _title(title: str) -> str:
    return f'<th scope="col">{escape(title)}</th>' if title else "<td></td>"


def _words(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head_ = f"<thead><tr>{''.join(map(_title, titles))}</tr></thead>" if any(titles) else ""
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    return f'<table class="words"><caption>{escape(caption)}</caption>{head_}<tbody>\n{lines}</tbody></table>\n'
