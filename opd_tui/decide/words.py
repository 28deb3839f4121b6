"""The words of `opd-tui decide`, and what is wrong about them (exit code 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

StorePath = Annotated[str, typer.Argument(metavar="S.zarr", help="A store that `opd-tui compute` wrote.")]


def decide(
    path: StorePath,
    kind: Annotated[
        Literal["routing", "gate", "go-no-go", "weights"],
        typer.Option(
            "--kind",
            help="routing: which teacher each question gets. gate: a rule on cheap features that says which tokens get it. "
            "go-no-go: whether to distil at all. weights: a weight per token of the stored rollouts, for one --teacher.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="File to write. routing: .json, .jsonl or .parquet; gate, go-no-go: .json; weights: .jsonl or .npz.",
        ),
    ],
    objective: Annotated[str, typer.Option(help="Decide under this objective, in place of the study's first.")] = "",
    teacher: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this teacher (repeatable). Weights take one, unless the study has only one."),
    ] = None,
    format: Annotated[
        Literal["plain", "trl", "verl", "tinker", "prime-rl", "skyrl"],
        typer.Option("--format", help="Routing and weights: rows as this trainer takes them; docs/decide.md says how."),
    ] = "plain",
    by: Annotated[
        Literal["gate", "posterior", "probability"],
        typer.Option(
            help="Weights: 1 where the gate lets a token in; 1 where P(align > 0) is at least one half; or that probability. "
            "0 elsewhere, and where nothing is known."
        ),
    ] = "gate",
    worth: Annotated[float, typer.Option(help="go-no-go: the mean gain from which on distilling is worth it.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of what is dealt out and drawn.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Say what was found as one JSON object.")] = False,
) -> None:
    """Say which teacher, which tokens, or whether at all, and write it for a trainer."""
    from compute.objectives import parse
    from opd_tui.decide.results import ENDINGS
    from opd_tui.decide.results import decide as decided
    from opd_tui.decide.rows import MASKS_ONLY

    ending = Path(out).suffix
    if ending not in ENDINGS[kind]:
        raise typer.BadParameter(f"-o: {kind} is written to a file that ends in {', '.join(ENDINGS[kind])}.")
    if format != "plain" and kind in ("gate", "go-no-go"):
        raise typer.BadParameter(f"--format is for routing and weights; {kind} has one form.")
    if format != "plain" and ending in (".json", ".npz"):
        raise typer.BadParameter(f"--format {format} takes rows: name a file that ends in .jsonl.")
    if by != "gate" and kind != "weights":
        raise typer.BadParameter("--by is for weights.")
    if worth and kind != "go-no-go":
        raise typer.BadParameter("--worth is for go-no-go.")
    if by == "probability" and format in MASKS_ONLY:
        raise typer.BadParameter(f"{format} takes masks of 0 and 1: use --by gate or --by posterior.")
    if seed < 0:
        raise typer.BadParameter("--seed is 0 or more.")
    try:
        objective = str(parse(objective)) if objective else ""
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    decided(
        path,
        kind,
        out,
        objective=objective,
        teachers=tuple(teacher or ()),
        format=format,
        by=by,
        worth=worth,
        seed=seed,
        as_json=json,
    )
