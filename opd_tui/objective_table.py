"""The list of objectives, as a table or as JSON."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compute.objectives import TABLE, Parameter, parse

SCHEMA = "opd-tui/objectives/1"


def print_objectives(*, as_json: bool) -> None:
    """Print every row of `compute.objectives.TABLE`."""
    if as_json:
        rows = [
            {
                "name": one.name,
                "default": str(parse(one.name)),
                "loss": one.loss,
                "parameters": {parameter.name: parameter.default for parameter in one.parameters},
                "needs": list(one.needs),
            }
            for one in TABLE
        ]
        print(json.dumps({"schema": SCHEMA, "objectives": rows}, ensure_ascii=False))
        return
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("objective", no_wrap=True)
    table.add_column("loss")
    table.add_column("parameters")
    for one in TABLE:
        names = ", ".join(parameter.name for parameter in one.parameters)
        table.add_row(
            Text(f"{one.name}({names})" if names else one.name), Text(one.loss), Text("; ".join(map(_allowed, one.parameters)))
        )
    console = Console()
    console.print(table)
    console.print(
        Text(
            "Those named by `study.objectives` are kept exactly; others can be switched to when looking, but for minillm, which "
            "teachers must read completions for, and k beyond the study's `keep.top_k`.",
            "dim",
        )
    )


def _allowed(parameter: Parameter) -> str:
    if parameter.words:
        return ", ".join(parameter.words)
    return f"{parameter.low:g} to {parameter.high:g}, default {parameter.default}"
