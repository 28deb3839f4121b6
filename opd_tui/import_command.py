"""The command `opd-tui import`: rollouts that a trainer wrote, in place of sampled ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from store.words import are, counted


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("import")(import_command)


def import_command(
    rollouts: Annotated[Path, typer.Argument(metavar="ROLLOUTS.jsonl", help="What the trainer wrote; a table may be .parquet.")],
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study that they are the initial rollouts of.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="S.zarr", help="The store; computing goes on where it stopped.")],
    format: Annotated[Literal["verl", "trl", "prime-rl", "verifiers", "openai"], typer.Option("--from", help="Who wrote them.")],
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave broken lines out; their numbers are told.")] = False,
    force_mismatch: Annotated[
        bool, typer.Option("--force-mismatch", help="Take rollouts that the student's own words contradict; the store says so.")
    ] = False,
    step: Annotated[int | None, typer.Option(help="Take the rollouts of this policy step alone.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Compute at most so many further questions; 0 for all.")] = 0,
    device: Annotated[str, typer.Option(help="Run every model here instead of where the study says: cpu, cuda, ...")] = "",
    engine: Annotated[str, typer.Option(metavar="NAME", help="Run completions on transformers, vllm or FILE.py:FUNCTION.")] = "",
    log_file: Annotated[Path | None, typer.Option("--log-file", metavar="FILE", help="Append every line, with its time.")] = None,
) -> None:
    """Compute a study on rollouts that a trainer wrote, in place of sampled ones. Resumes by itself."""
    from compute.errors import ComputeError, Interrupted
    from compute.progress import Reporter
    from compute.stopping import signals_at_once
    from opd_tui.examples import extra_missing

    if extra_missing():
        raise ComputeError("Importing needs the extra [compute]; install it: pip install 'opd-tui[compute]'.")
    reporter = Reporter(0, log=log_file)
    try:
        with signals_at_once():
            from compute.imported.setup import Options, prepare_import
            from compute.runner import run

            options = Options(format, skip_bad, force_mismatch, step)
            setup = prepare_import(rollouts, study, out, options, reporter, device=device, engine=engine)
            outcome = run(setup, out, reporter, limit=limit)
    except Interrupted as error:
        raise Interrupted(f"Interrupted ({error}). What is finished is kept in {out}; the same command goes on.") from None
    n, questions = outcome.n_done, counted(outcome.n_planned, "question")
    print(f"{n:,} of {questions} {are(n)} in {out} ({outcome.seconds:.0f} s).", file=sys.stderr)
