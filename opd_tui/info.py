"""What is in a store, and how far it is: the command `opd-tui info`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

import store
from compute.findings.shape import ADDED_LATER
from compute.screening import DIFFICULTIES, difficulty
from opd_tui.text import safe
from store.reader import Store


def describe(path: str) -> dict[str, Any]:
    """The store at `path` as the stable JSON contract of `opd-tui info --json`."""
    opened = store.open(path)
    attributes, counts = opened.attributes, opened.counts()
    bins = Counter(difficulty(row.n_correct, row.n_rollouts) for row in opened.questions())
    return {
        "schema": "opd-tui/info/1",
        "study_hash": attributes.study_hash,
        "student": attributes.student,
        "teachers": [
            {
                "id": one.id,
                "kind": one.kind,
                "context": one.context,
                "model": one.model,
                "null": one.null,
                "description": one.description,
                "added": one in opened.added_teachers,
                "judged_only": _judged_only(opened, one.id),
            }
            for one in opened.teachers
        ],
        "objectives": list(attributes.objectives),
        "made_with": list(opened.made_with),
        "imported": attributes.provenance.get("imported"),
        "n_questions_planned": counts.n_questions_planned,
        "n_questions_chosen": counts.n_questions_chosen or None,  #: of a slice
        "n_questions_done": counts.n_questions_done,
        "n_rollouts": counts.n_rollouts,
        "n_tokens": counts.n_tokens,
        "n_nodes": counts.n_nodes,
        "n_completions": counts.n_completions,
        "complete": counts.complete,
        "difficulty": {name: bins[name] for name in DIFFICULTIES},  #: of the questions, by their initial rollouts
    }


def _judged_only(opened: Store, teacher: str) -> dict[str, int] | None:
    """Of a teacher that was added later: at how many nodes it is judged, of how many that others nominated without it."""
    judged, nominated = opened.judged(teacher)
    return {"n_judged": judged, "n_nominated_by_others": nominated} if nominated else None


def _mark(teacher: dict[str, Any]) -> str:
    counts = teacher["judged_only"]
    if not counts:
        return " (added later)" if teacher["added"] else ""
    return f" ({ADDED_LATER.format(*counts.values()).rstrip('.').lower()})"


def how_many_questions(description: dict[str, Any]) -> str:
    """How many questions there are, of how many."""
    done, planned, chosen = (description[f"n_questions_{which}"] for which in ("done", "planned", "chosen"))
    some = f"{done:,}" if chosen in (None, done) else f"{done:,} of {chosen:,}"
    return f"{done:,} of {planned:,}" if chosen is None else f"{some}, a slice of {planned:,}"


def print_info(description: dict[str, Any]) -> None:
    """The same for people."""
    table = Table.grid(padding=(0, 2))
    command = "import" if description["imported"] else "compute"
    go_on = not description["complete"] and not description["n_questions_chosen"]
    rows = {
        "student": description["student"],
        "questions": how_many_questions(description) + (f" (go on with opd-tui {command})" if go_on else ""),
        "difficulty": ", ".join(f"{count:,} {name}" for name, count in description["difficulty"].items()),
        "rollouts": f"{description['n_rollouts']:,}",
        "tokens": f"{description['n_tokens']:,}",
        "nodes": f"{description['n_nodes']:,} measured; where kept children differ, one is a decision point",
        "completions": f"{description['n_completions']:,}",
        "objectives": ", ".join(description["objectives"]),
        "made with": "; ".join(description["made_with"]),
        "study hash": description["study_hash"],
    }
    for name, value in rows.items():
        table.add_row(Text(name, "bold"), Text(safe(str(value))))
    for teacher in description["teachers"]:
        table.add_row(Text("teacher", "bold"), Text(safe(f"{teacher['id']}: {teacher['description']}{_mark(teacher)}")))
    Console().print(table)
