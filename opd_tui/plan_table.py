"""What a study will take: the command `opd-tui compute --plan`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from opd_tui.text import safe

if TYPE_CHECKING:
    from compute.plan import Estimate, StudyPlan

_SECONDS = ((86400.0 * 2, 86400.0, "days"), (5400.0, 3600.0, "h"), (90.0, 60.0, "min"), (0.0, 1.0, "s"))
_BYTES = ((1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (0.0, 1e3, "kB"))


def as_json(study: str, plan: StudyPlan) -> dict[str, Any]:
    """The plan as the stable JSON contract of `opd-tui compute --plan --json`."""
    rate = plan.tokens_per_second
    return {
        "schema": "opd-tui/plan/1",
        "study": study,
        "n_questions_planned": plan.n_questions,
        "n_questions_done": plan.n_done,
        "n_questions_left": plan.n_left,
        "n_pilot": plan.n_pilot,
        "n_pilot_scored": plan.n_pilot_scored,
        "n_rollouts": plan.n_rollouts,
        "demonstrations": _numbers(plan.demonstrations),
        "completions": _numbers(plan.completions),
        "tokens": _numbers(plan.tokens),
        "bytes": _numbers(plan.bytes),
        "seconds": {name: round(value, 1) for name, value in _ends(plan.seconds).items()},
        "tokens_per_second": round(rate) if math.isfinite(rate) else None,
    }


def print_plan(study: str, plan: StudyPlan, *, json_: bool) -> None:
    """The plan for people, or as one JSON object."""
    if json_:
        print(json.dumps(as_json(study, plan), indent=2))
        return
    table = Table.grid(padding=(0, 2))
    for name, text in _rows(study, plan).items():
        table.add_row(Text(name, "bold"), Text(safe(text)))
    console = Console()
    console.print(table)
    if plan.n_pilot:
        note = (
            f"From {plan.n_pilot} of these questions, tried in small on this machine; in brackets, if all were like the "
            "lightest of them and like the heaviest. Nothing was written."
        )
        console.print(Text(note, "dim"))


def _rows(study: str, plan: StudyPlan) -> dict[str, str]:
    there = f", {plan.n_done:,} of them in the store" if plan.n_done else ""
    rows = {"study": study, "questions": f"{plan.n_questions:,}{there}; {plan.n_left:,} to do"}
    if not plan.n_left:
        return rows
    if plan.n_pilot_scored < plan.n_pilot:
        rows["questions"] += f" ({plan.n_pilot_scored} of {plan.n_pilot} tried can be scored)"
    rate = f", at {_rounded(plan.tokens_per_second)} tokens/s" if math.isfinite(plan.tokens_per_second) else ""
    return {
        **rows,
        "initial rollouts": f"{plan.n_rollouts:,}",
        "demonstrations": _range(plan.demonstrations, _rounded) + " tries",
        "completions": _range(plan.completions, _rounded),
        "tokens sampled": _range(plan.tokens, _rounded),
        "on disk": _range(plan.bytes, lambda value: _in_units(value, _BYTES)),
        "time": _range(plan.seconds, lambda value: _in_units(value, _SECONDS)) + rate,
    }


def _ends(estimate: Estimate) -> dict[str, float]:
    return {"about": estimate.about, "low": estimate.low, "high": estimate.high}


def _numbers(estimate: Estimate) -> dict[str, int]:
    return {name: round(value) for name, value in _ends(estimate).items()}


def _range(estimate: Estimate, shown: Any) -> str:
    about, low, high = map(shown, _ends(estimate).values())
    return f"about {about}" + (f" ({low} to {high})" if low != high else "")


def _rounded(value: float) -> str:
    """Two digits: more would promise too much."""
    if value < 100:
        return f"{value:.0f}"
    return f"{round(value, 1 - math.floor(math.log10(value))):,.0f}"


def _in_units(value: float, units: tuple[tuple[float, float, str], ...]) -> str:
    scale, name = next((scale, name) for least, scale, name in units if value >= least)
    return f"{value / scale:.1f} {name}" if value / scale < 10 else f"{_rounded(value / scale)} {name}"
