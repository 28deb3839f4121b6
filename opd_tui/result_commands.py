"""Commands of `opd-tui` that give what a store holds to people and to their tools. `register` puts them into the command line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opd_tui.decide.words import decide
from store.words import are, counted

if TYPE_CHECKING:
    from opd_tui.export.rows import Selection, Told

StorePath = Annotated[str, typer.Argument(metavar="S.zarr", help="A store that `opd-tui compute` wrote.")]

#: Rows that take more than a few seconds.
_MANY_ROWS = 100_000


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(export)
    app.command()(report)
    app.command()(decide)
    app.command("objectives")(objectives_command)


def export(
    path: StorePath,
    out: Annotated[
        str,
        typer.Option("-o", "--out", metavar="FILE", help="File to write; - for standard output (jsonl, csv, html, svg)."),
    ],
    format: Annotated[
        Literal["jsonl", "csv", "parquet", "npz", "zarr", "html", "svg", "png"] | None,
        typer.Option(
            "--format",
            help="What FILE ends in, unless said: .zip is zarr, no ending jsonl. "
            "jsonl, csv, parquet, npz: one token under one teacher a row. csv: text that begins like a formula gets a ' in "
            "front. parquet: columns with types, for pandas, polars and DuckDB. npz: arrays by name. zarr: the chosen questions "
            "as a store of their own, one file where FILE ends in .zip; `opd-tui browse` opens it. html: coloured rollouts for "
            "any browser. svg, png: the explorer's screen at a place.",
        ),
    ] = None,
    question: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this question (repeatable).")] = None,
    rollout: Annotated[list[int] | None, typer.Option(metavar="NUMBER", help="Only this rollout (repeatable).")] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Only this teacher (repeatable). With zarr: of the teachers added later; the study's own all stay."
        ),
    ] = None,
    tokens: Annotated[str, typer.Option(metavar="A:B", help="Only token positions A to B - 1.")] = "",
    objective: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Score under this objective, in place of the study's (repeatable).")
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="EXPR",
            help="Only rows that match, such as 'incorrect & align < -0.5 & n > 20' (docs/filtering.md has all names). Of "
            "questions or rollouts: all of their rows. Names without brackets are about the teacher of the row and the first "
            "objective. With zarr: questions that have a match under the first teacher.",
        ),
    ] = "",
) -> None:
    """Write a slice of a store to a file."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # a scheduler's end leaves nothing unfinished either
    from opd_tui.export.job import chosen_format

    chosen = chosen_format(out, format)
    if chosen == "zarr":
        _export_store(path, out, question, teacher, where, rows_only=bool(rollout or tokens or objective))
        return
    if chosen in ("parquet", "npz", "png") and out == "-":
        raise typer.BadParameter(f"{chosen.capitalize()} is no text: name a file with -o.")
    from compute.objectives import parse
    from opd_tui.export.rows import Selection, parse_range, write
    from opd_tui.search.expression import ExpressionError

    try:
        positions = parse_range(tokens)
        objectives = tuple(str(parse(name)) for name in objective or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    selection = Selection(tuple(question or ()), tuple(rollout or ()), tuple(teacher or ()), positions, objectives, where)
    match chosen:
        case "html" | "svg" | "png":
            _export_page(path, selection, chosen, out)
            return
    try:
        with _told(path, selection, chosen, out) as told:
            n = write(path, selection, chosen, out, told=told)
    except ExpressionError as error:
        raise _wrong_where(error) from None
    if out != "-":
        from opd_tui.text import safe

        print(f"{counted(n, 'row')} {are(n)} in {safe(out)}.")


@contextmanager
def _told(path: str, selection: Selection, format: str, out: str) -> Iterator[Told | None]:
    """Of an export that takes long: how much it will be, and then how far it is; on standard error."""
    import store
    from opd_tui.export.rows import count

    opened = store.open(path)
    n = count(opened, selection) if out != "-" else 0
    if n < _MANY_ROWS:
        yield None
        return
    from rich.console import Console

    from opd_tui.copied import shown
    from opd_tui.export.job import in_words
    from opd_tui.text import safe

    print(f"{in_words(n, format)}{'; --where takes some of them' if selection.where else ''}.", file=sys.stderr)
    with shown(Console(stderr=True), f"Writing {safe(os.path.basename(out))}") as told:
        yield told


def _export_page(path: str, selection: Selection, format: Literal["html", "svg", "png"], out: str) -> None:
    from opd_tui.text import safe

    if selection.where:
        raise typer.BadParameter("--where chooses rows, and a page or a picture has none: choose with --question and --rollout.")
    if format == "html":
        if selection.positions:
            raise typer.BadParameter("An HTML page holds whole rollouts: choose with --question, --rollout and --teacher.")
        from opd_tui.export.html import write_html

        n = write_html(path, selection, out)
        said = f"{counted(n, 'rollout')} {are(n)} in {safe(out)}."
    else:
        from opd_tui.export.picture import write_picture

        write_picture(path, selection, format, out)
        said = f"The picture is in {safe(out)}."
    if out != "-":
        print(said)


def _export_store(
    path: str, out: str, questions: list[str] | None, teachers: list[str] | None, where: str, *, rows_only: bool
) -> None:
    if rows_only:
        raise typer.BadParameter(
            "A slice in zarr holds whole questions, whatever they are scored under: choose with --question and --teacher, "
            "not with --rollout, --tokens or --objective."
        )
    if out == "-":
        raise typer.BadParameter("A store does not go to standard output: name a file that ends in .zip, or a folder, with -o.")
    if where:
        questions = _matching(path, where, questions)
    from opd_tui.copied import copy_with_progress

    print(copy_with_progress([path], out, questions=questions or None, teachers=teachers or None))


def _matching(path: str, where: str, questions: list[str] | None) -> list[str]:
    """Those of the questions that have a match."""
    import store
    from opd_tui.export.where import matching_questions
    from opd_tui.search.expression import ExpressionError
    from store.errors import StoreError

    try:
        found = matching_questions(store.open(path), where)
    except ExpressionError as error:
        raise _wrong_where(error) from None
    found = [one for one in found if not questions or one in questions]
    if not found:
        raise StoreError("No question matches --where: there is nothing to write.")
    return found


def report(
    path: StorePath,
    objective: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Under this objective, in place of the study's (repeatable).")
    ] = None,
    support: Annotated[
        Literal["sliced", "renormalised", "lumped"], typer.Option(help="How tokens that are no kept children take part.")
    ] = "sliced",
    estimator: Annotated[
        Literal["backup", "on_policy", "plain"],
        typer.Option(help="How p_succ is estimated; the others take a study whose allocation was uniform, and plain is biased."),
    ] = "backup",
    json: Annotated[bool, typer.Option("--json", help="One JSON object with every number.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="Write it to FILE.html, with plots, or to FILE.md, and say what follows."
        ),
    ] = None,
) -> None:
    """Say what a study found, with intervals: teachers, outcomes, depth, difficulty, selection."""
    if json and out:
        raise typer.BadParameter("Ask for --json or for a file with -o, not for both.")
    from compute.objectives import parse

    try:
        objectives = tuple(str(parse(name)) for name in objective or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if out:
        from opd_tui.report.document import write_report
        from opd_tui.text import safe

        write_report(path, out, objectives=objectives, support=support, estimator=estimator)
        print(f"The report is in {safe(out)}.")
        return
    from opd_tui.report.terminal import print_report

    print_report(path, objectives=objectives, support=support, estimator=estimator, as_json=json)


def objectives_command(
    trainer: Annotated[
        Literal["verl", "trl", "tinker", "prime-rl", "skyrl", "torchrl"] | None,
        typer.Option(help="Say what the distillation settings of this trainer really optimise."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its settings: .yaml, .toml, .json, or lines `key=value` as on a command line."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="S.zarr", help="And how the study's teachers do under that objective there.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List the distillation objectives that scores can be computed for, or name that of a trainer's settings."""
    if trainer is None or config is None:
        if trainer is not None or config is not None or store is not None:
            raise typer.BadParameter("--trainer and --config FILE go together, and --store S.zarr with both.")
        from opd_tui.objective_table import print_objectives

        print_objectives(as_json=json)
        return
    from opd_tui.trainer_objective import print_meaning

    print_meaning(trainer, config, store, as_json=json)


def _wrong_where(error: ValueError) -> typer.BadParameter:
    """What is wrong with an expression, as a sentence; one that asks what was meant ends already."""
    said = f"--where, {error}"
    return typer.BadParameter(said if said.endswith("?") else f"{said}.")
