"""The command `opd-tui`: one function per word a user types. Errors are caught in `opd_tui.entry`.

Imports stay inside the functions: browsing must not load torch, nor anything else that it does not show.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opd_tui import import_command, result_commands, store_commands
from opd_tui.entry import DEBUG, Browsing, Failure, explore
from store.words import are, counted

if TYPE_CHECKING:
    from compute.progress import Reporter
    from compute.setup import Setup
    from store.place import PathLike

app = typer.Typer(
    name="opd-tui",
    help="The microscope for on-policy distillation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StorePath = Annotated[str, typer.Argument(metavar="S.zarr", help="A store that `opd-tui compute` wrote.")]
StudyPath = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="A study file; `opd-tui init` writes one.")]
Device = Annotated[str, typer.Option(help="Run every model here instead of where the study says: cpu, cuda, cuda:1, ...")]
Engine = Annotated[
    str,
    typer.Option(metavar="NAME", help="Run completions on transformers, vllm or FILE.py:FUNCTION, whatever the study says."),
]
LogFile = Annotated[Path | None, typer.Option("--log-file", metavar="FILE", help="Append every line, with its time.")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"opd-tui {version('opd-tui')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """The microscope for on-policy distillation."""
    DEBUG.append(debug)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the store goes.")] = Path("opd-tui-demo.zarr"),
) -> None:
    """Compute the built-in study on two tiny models, then open it; without a terminal, print its summary."""
    from opd_tui.examples import example_folder, extra_missing

    folder = example_folder("chain_sums")
    path = str(out)
    if extra_missing():
        path = str(folder / "chain_sums.zarr")
        print("The extra [compute] is not installed, so this is the store that comes with opd-tui.", file=sys.stderr)
    else:
        _compute(folder / "study.toml", out, "", 0)
    if sys.stdout.isatty() and sys.stdin.isatty():
        raise typer.Exit(explore(Browsing(path)))
    from opd_tui.summary_table import print_summary

    print_summary(path)


@app.command()
def init(
    example: Annotated[
        str, typer.Option("--from", help="Start from a built-in example: chain_sums, smollm2_boolq, smollm2_gsm8k, ...")
    ] = "",
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")] = Path("study.toml"),
) -> None:
    """Write a commented study file."""
    from compute.errors import StudyError
    from opd_tui.examples import example_study

    if example:
        try:
            text = example_study(example)
        except StudyError as error:
            raise typer.BadParameter(str(error)) from None
    else:
        from compute.study.template import study_template

        text = study_template()
    if out.exists():
        raise typer.BadParameter(f"{out} exists already; give another name with -o.")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{out} cannot be written: {error.strerror}.") from None
    print(f"{out} is written. Fill it in, look at the prompts with `opd-tui compute {out} --preview`, then compute.")


@app.command()
def compute(
    study: StudyPath,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="S.zarr", help="The store, a folder or s3://...; computing goes on where it stopped."
        ),
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show the exact prompts of student and teachers, and end.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Try a few questions in small, say what the study will take, and end.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --plan: one JSON object.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Compute at most so many further questions; 0 for all.")] = 0,
    device: Device = "",
    engine: Engine = "",
    workers: Annotated[
        int, typer.Option(min=0, help="So many processes, each with models of its own; CUDA devices in turn.")
    ] = 0,
    shard: Annotated[
        str,
        typer.Option(metavar="I/N", help="Only every N-th question, from the I-th on; other shards can run at the same time."),
    ] = "",
    ray: Annotated[str, typer.Option(metavar="ADDRESS", help="Workers on a Ray cluster: local, auto, or host:port.")] = "",
    extend: Annotated[
        bool, typer.Option("--extend", help="Launch the completions that teachers added later lack (opd-tui add-teacher).")
    ] = False,
    log_file: LogFile = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append rates and memory of every worker, one JSON object a line.")
    ] = None,
) -> None:
    """Compute a study into a store. Resumes by itself."""
    if extend and (preview or plan or workers or ray):
        raise typer.BadParameter("--extend runs in this process, alone or beside other shards: without --plan, --workers, --ray.")
    if preview and plan:
        raise typer.BadParameter("Ask for --preview or --plan, not both.")
    if json and not plan:
        raise typer.BadParameter("--json goes with --plan.")
    if (preview or plan) and (workers or shard or ray):
        raise typer.BadParameter("--workers, --shard and --ray go with computing, not with --plan or --preview.")
    from compute.user_code import is_named

    if engine not in ("", "transformers", "vllm") and not is_named(engine):
        raise typer.BadParameter(f"{engine!r} is no engine; there are transformers, vllm, and FILE.py:FUNCTION.")
    if preview:
        _preview(study, device)
        return
    if plan:
        _plan(study, out, device, limit, json, engine)
        return
    if out is None:
        raise typer.BadParameter("Say where the store goes: -o S.zarr.")
    _compute(
        study,
        out,
        device,
        limit,
        workers=workers,
        shard=shard,
        ray=ray,
        log_file=log_file,
        metrics=metrics,
        engine=engine,
        extend=extend,
    )


@app.command("add-teacher")
def add_teacher(
    path: StorePath,
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER.toml", help="One [[teacher]] table, as in a study file.")],
    study: Annotated[
        Path | None,
        typer.Option(metavar="STUDY.toml", help="The store's study file, where it lies in another folder than TEACHER.toml."),
    ] = None,
    device: Device = "",
    log_file: LogFile = None,
) -> None:
    """Score a teacher that the study did not have over a whole store; nothing stored is rewritten. Resumes by itself."""
    from compute.errors import Interrupted
    from compute.progress import Reporter
    from compute.stopping import signals_at_once

    _require_compute()
    reporter = Reporter(0, log=log_file)
    try:
        with signals_at_once():
            from compute.added import add, prepare_teacher

            addition = prepare_teacher(Path(path), teacher, reporter, study_file=study, device=device)
            done = add(addition, Path(path), reporter)
    except Interrupted as error:
        raise Interrupted(f"Interrupted ({error}). What is finished is kept beside {path}; the same command goes on.") from None
    without = f"; of {done.n_without} its context could not be had" if done.n_without else ""
    name, questions = addition.teacher.id, counted(done.n_questions, "question")
    print(f"Teacher {name}: {done.n_done:,} of {questions}{without} ({done.seconds:.0f} s).", file=sys.stderr)


@app.command()
def browse(
    path: StorePath,
    at: Annotated[str | None, typer.Option(metavar="QUESTION/ROLLOUT/TOKEN", help="Open there.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher to look through.")] = None,
    metric: Annotated[str | None, typer.Option(help="What colours the tokens.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, not where this store was left; its bookmarks stay.")
    ] = False,
    web: Annotated[bool, typer.Option("--web", help="In a browser of this machine: prints the address to open.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --web: serve here; 0 for any port that is free.")] = 0,
) -> None:
    """Open the explorer on a store."""
    if metric is not None:
        from opd_tui.metrics import metric as known

        try:
            known(metric)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.") from None
    if web:
        from opd_tui.web.serving import serve

        serve(path, port=port, at=at, teacher=teacher, metric=metric, fresh=fresh)
        return
    if port:
        raise typer.BadParameter("--port goes with --web.")
    raise typer.Exit(explore(Browsing(path, at, teacher, metric, fresh)))


@app.command()
def info(path: StorePath, json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Say what is in a store, and how far it is."""
    from opd_tui.info import describe, print_info

    description = describe(path)
    if json:
        import json as library

        print(library.dumps(description, indent=2))
    else:
        print_info(description)


import_command.register(app)
result_commands.register(app)
store_commands.register(app)


def _require_compute() -> None:
    from opd_tui.examples import extra_missing

    if extra_missing():
        raise Failure("Computing needs the extra [compute]; install it: pip install 'opd-tui[compute]'.")


def _prepare(study: Path, device: str, reporter: Reporter, engine: str = "") -> Setup:
    """Load a study with its models; everything that needs the extra [compute] begins here."""
    _require_compute()
    from compute.study import load

    load(study)  # one that is not there, or wrong, is told of before anything large is imported
    reporter.say("Loading models ...")
    from compute.setup import prepare

    return prepare(study, reporter, device=device, engine=engine)


def _compute(
    study: Path,
    out: PathLike,
    device: str,
    limit: int,
    *,
    workers: int = 0,
    shard: str = "",
    ray: str = "",
    log_file: Path | None = None,
    metrics: Path | None = None,
    engine: str = "",
    extend: bool = False,
) -> None:
    from compute.errors import Interrupted
    from compute.locks import WHOLE, parse_shard
    from compute.progress import Reporter
    from compute.stopping import signals_at_once

    try:
        share = parse_shard(shard) if shard else WHOLE
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    reporter = Reporter(0, log=log_file, metrics=metrics)
    try:
        with signals_at_once():
            if workers > 1 or ray:
                _require_compute()
                from compute.setup import prepare
                from compute.team import run_team

                make = partial(prepare, study.resolve(), device=device, engine=engine)
                outcome = run_team(make, study, out, reporter, workers=workers, ray=ray, device=device, limit=limit, shard=share)
            elif extend:
                _require_compute()
                from compute.extension import extend as run_extension

                make = partial(_prepare, study, device, reporter, engine)
                print(run_extension(make, study, out, reporter, limit=limit, shard=share), file=sys.stderr)
                return
            else:
                setup = _prepare(study, device, reporter, engine)
                from compute.runner import run

                outcome = run(setup, out, reporter, limit=limit, shard=share)
    except Interrupted as error:
        raise Interrupted(f"Interrupted ({error}). What is finished is kept in {out}; the same command goes on.") from None
    n, questions = outcome.n_done, counted(outcome.n_planned, "question")
    print(f"{n:,} of {questions} {are(n)} in {out} ({outcome.seconds:.0f} s).", file=sys.stderr)


def _plan(study: Path, out: PathLike | None, device: str, limit: int, json: bool, engine: str) -> None:
    from compute.progress import Reporter
    from opd_tui.plan_table import print_plan

    reporter = Reporter(0)
    setup = _prepare(study, device, reporter, engine)
    from compute.plan import plan

    print_plan(setup.study.study.name, plan(setup, out, reporter, limit=limit), json_=json)


def _preview(study: Path, device: str) -> None:
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    from compute.progress import Reporter
    from opd_tui.text import safe

    setup = _prepare(study, device, Reporter(0))
    from compute.preview import preview

    console = Console()
    for who, prompt in preview(setup, setup.questions[0]):
        console.print(Rule(Text(safe(who)), align="left"))
        for line in prompt.split("\n"):
            console.print(safe(line), markup=False, highlight=False, soft_wrap=True)
