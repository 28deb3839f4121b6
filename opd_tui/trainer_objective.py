"""What a trainer's settings really optimise, and how a study's teachers do under it: `opd-tui objectives --trainer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from compute.findings import Finding, gather, teacher_ranking
from compute.findings.shape import warned
from compute.trainers import TRAINERS, Meaning, read_settings
from opd_tui.report.terminal import table
from opd_tui.text import safe
from store.errors import StoreError

SCHEMA = "opd-tui/trainer-objective/1"


def print_meaning(trainer: str, config: Path, store_path: str | None, *, as_json: bool) -> None:
    """Print the objective of a configuration, in a sentence, and with a store each teacher's alignment and gain under it.

    Raises `SettingsError` where the configuration cannot be read, `StoreError` where the store cannot be scored so.
    """
    settings = read_settings(config)
    meaning = TRAINERS[trainer](settings)
    finding = ranking(store_path, meaning.objective) if store_path is not None and meaning.objective is not None else None
    if as_json:
        print(json.dumps(_as_json(trainer, meaning, settings.found, settings.defaults, finding), ensure_ascii=False, default=str))
        return
    console = Console()
    console.print(Text(safe(meaning.sentence), "bold"))
    console.print(Text(safe(f"update of logit j = P_j (f_j - fbar), f_j = {meaning.f}, r = T/P")))
    name = meaning.objective or "none: no study scores it"
    near = "" if meaning.exact or meaning.objective is None else " (the nearest one)"
    console.print(Text(safe(f"objective of a study: {name}{near}")))
    for note in meaning.notes:
        console.print(Text(safe(f"- {note}")))
    read = ", ".join([*(f"{key} = {value}" for key, value in settings.found.items())])
    assumed = ", ".join(f"{key} = {value}" for key, value in settings.defaults.items())
    console.print(Text(safe(f"read: {read}" + (f"; taken for the trainer's defaults: {assumed}" if assumed else "")), "dim"))
    console.print(Text(safe(f"looked up in {meaning.source}"), "dim"))
    if store_path is not None and finding is None:
        console.print(Text("No teacher is scored, because a study has no such objective.", "yellow"))
    if finding is not None:
        _print_ranking(console, finding)


def ranking(path: str, objective: str) -> Finding:
    """The teachers of a store under an objective, by falling gain. Raises `StoreError`."""
    import store

    opened = store.open(path)
    try:
        evidence = gather(opened, objectives=[objective])
    except ValueError as error:  # an objective that asks for more than this store keeps
        raise StoreError(str(error)) from None
    return warned(teacher_ranking(evidence), "backup", evidence)


def _print_ranking(console: Console, finding: Finding) -> None:
    console.print()
    console.print(Text(finding.title, "bold"))
    console.print(table(finding, finding.rows, counted=True, width=console.width))
    for flag in dict.fromkeys(flag for row in finding.rows for flag in row.flags):
        console.print(Text(f"! {safe(flag)}", "yellow"))
    console.print(Text("95 % intervals over n questions, none below six. Believe gain before alignment. Nulls are dim.", "dim"))


def _as_json(
    trainer: str, meaning: Meaning, found: dict[str, Any], defaults: dict[str, Any], finding: Finding | None
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "trainer": trainer,
        "objective": meaning.objective,
        "exact": meaning.exact,
        "f": meaning.f,
        "sentence": meaning.sentence,
        "notes": list(meaning.notes),
        "settings": found,
        "defaults": defaults,
        "source": meaning.source,
        "teachers": finding.to_json()["rows"] if finding is not None else None,
    }
