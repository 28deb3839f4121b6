"""A report as a document: what was run, what follows from the numbers, tables. `markdown` and `html` write it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

import store
from compute.alignment import Support
from compute.estimators import Estimator
from compute.findings import Finding
from opd_tui.extras import require
from opd_tui.info import describe, how_many_questions
from opd_tui.report.claims import Claim, claims
from opd_tui.report.terminal import flags_of, found_in, lines_of, name_of
from opd_tui.text import Safe, safe
from opd_tui.usage import WrongUsage
from opd_tui.whole_file import whole_file
from store.errors import StoreError

VERDICTS = {
    "supported": "What the numbers support",
    "not supported": "What they do not support",
    "limit": "What limits them",
}
LEGEND = (
    "Intervals are 95 %, over questions, and there is none below six. Gain is the first-order gain in success per unit of the "
    "update, times 1000; noise moves the mean cosine (alignment), and not the mean gain. p is the sign-flip test. Nulls earn "
    "nothing of themselves; a temperature earns what sharpening alone does; a flipped teacher has random signs."
)


class Table(Struct, frozen=True):
    """Rows of one finding under one objective."""

    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[Safe, ...], ...]
    nulls: tuple[bool, ...]
    warnings: tuple[Safe, ...]


class Section(Struct, frozen=True):
    """One finding."""

    finding: Finding
    tables: tuple[Table, ...]


class Document(Struct, frozen=True):
    """Everything that a report says."""

    title: Safe
    ran: tuple[tuple[str, Safe], ...]
    cost: tuple[tuple[str, str], ...]
    teachers: tuple[tuple[Safe, ...], ...]  #: id, what it is, model
    claims: tuple[Claim, ...]
    objective: Safe  #: that the sentences and plots are about
    sections: tuple[Section, ...]


def write_report(
    path: str,
    out: str,
    *,
    objectives: Sequence[str] = (),
    support: Support = "sliced",
    estimator: Estimator = "backup",
) -> None:
    """Write the report of the store at `path` to `out`, which ends in .html or .md.

    Raises StoreError where the store cannot be read, where the file cannot be written, and where the plots of an HTML file
    lack their extra; WrongUsage for other endings.
    """
    ending = Path(out).suffix.lower()
    if ending not in (".html", ".htm", ".md"):
        raise WrongUsage(f"A report is written as .html or .md, and {out} ends in neither.")
    if ending == ".md":
        from opd_tui.report.markdown import markdown

        text = markdown(document(path, objectives, support, estimator))
    else:
        require("matplotlib", "report", "The plots need", besides="A .md has none.")  # before a store is scored for it
        from opd_tui.report.html import html

        text = html(document(path, objectives, support, estimator))
    with whole_file(out) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def document(path: str, objectives: Sequence[str] = (), support: Support = "sliced", estimator: Estimator = "backup") -> Document:
    """Read and score the store at `path`. Raises StoreError."""
    opened = store.open(path)
    names, found = found_in(opened, objectives=objectives, support=support, estimator=estimator)
    about = describe(path)
    if not about["n_questions_done"]:
        raise StoreError(f"{path} holds no finished question yet, so there is nothing to report.")
    said = claims(found, opened.counts())
    settings = f"support {support}, estimator {estimator}, objectives {', '.join(names)}"
    return Document(
        title=safe(f"Report on {os.path.basename(os.path.normpath(path))}"),
        ran=(*_ran(about, opened.attributes.study, opened.attributes.provenance), ("scored with", safe(settings))),
        cost=_cost(about),
        teachers=tuple(
            (safe(one["id"]), safe(one["description"] or one["kind"]), safe(one["model"]), safe("null" if one["null"] else ""))
            for one in about["teachers"]
        ),
        claims=tuple(replace(one, text=safe(one.text), code=safe(one.code)) for one in said),
        objective=safe(names[0]),
        sections=tuple(Section(finding, _tables(finding)) for finding in found),
    )


def _ran(about: dict[str, Any], study: str, provenance: dict[str, Any]) -> tuple[tuple[str, Safe], ...]:
    """Student, questions, versions: as the store says them."""
    try:
        settings = tomllib.loads(study)
    except tomllib.TOMLDecodeError:
        settings = {}
    task, sampling = (settings[key] if isinstance(settings.get(key), dict) else {} for key in ("task", "sampling"))
    versions = provenance.get("versions", {})
    found = {
        "student": about["student"],
        "task": ", ".join(f"{key} = {value}" for key, value in task.items() if isinstance(value, str | int | float)),
        "sampling": ", ".join(f"{key} = {value}" for key, value in sampling.items()),
        "made with": "; ".join(about["made_with"]),
        "versions": ", ".join(f"{key} {value}" for key, value in versions.items()) if isinstance(versions, dict) else "",
        "seed": str(provenance.get("seed", "")),
        "study hash": about["study_hash"],
    }
    return tuple((name, safe(str(value))) for name, value in found.items() if value != "")


def _cost(about: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    n_nodes = about["n_nodes"]
    found = {
        "questions": how_many_questions(about),
        "rollouts kept": f"{about['n_rollouts']:,}",
        "tokens of these": f"{about['n_tokens']:,}",
        "nodes": f"{n_nodes:,}",
        "completions": f"{about['n_completions']:,}",
        "completions a node": f"{about['n_completions'] / n_nodes:,.0f}" if n_nodes else "",
    }
    return tuple((name, value) for name, value in found.items() if value)


def _tables(finding: Finding) -> tuple[Table, ...]:
    """One table per objective, and one of what is about none."""
    tables = []
    for objective in dict.fromkeys(row.objective for row in finding.rows):
        rows = [row for row in finding.rows if row.objective == objective]
        titles, lines = lines_of(finding, rows, counted=True)
        named = any(row.teacher for row in rows)
        tables.append(
            Table(
                caption=f"objective {safe(objective)}" if objective else "the study",
                titles=(*(["teacher"] if named else []), *titles),
                rows=tuple((*([name_of(row)] if named else []), *line) for row, line in zip(rows, lines, strict=True)),
                nulls=tuple(row.null for row in rows),
                warnings=tuple(safe(f"{'; '.join(of)}: {flag}") for flag, of in flags_of(rows).items()),
            )
        )
    return tuple(tables)
