"""Commands of `opd-tui` that work on whole stores. `register` puts them into the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from store.words import counted

if TYPE_CHECKING:
    from store.doctor import Progress, Report


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(doctor)
    app.command()(migrate)
    app.command()(merge)
    app.command()(compact)


def doctor(
    path: Annotated[str, typer.Argument(metavar="S.zarr", help="A store: a folder, a .zip file, s3://, gs://, http://.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte: checksums, arrays, and what the numbers can be.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove what is nobody's, write caches anew, move damaged parts to S.zarr.damaged."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say whether a store is whole, what is wrong with it, and what to do. Exit code 1 where there is damage."""
    from store.doctor import examine

    done: list[str] = []
    with _progress(deep) as progress:
        report = examine(path, deep=deep, progress=progress)
    if repair:
        from store.repair import repair as put_right

        put_right(path, report, done.append)
        report = examine(path)
    if json:
        import json as library

        print(library.dumps(_as_json(report, done), indent=2))
    else:
        _print(report, done)
    if not report.ok:
        raise typer.Exit(1)


def _as_json(report: Report, done: list[str]) -> dict[str, Any]:
    """The stable contract of `opd-tui doctor --json`."""
    return {
        "schema": "opd-tui/doctor/1",
        "ok": report.ok,
        "deep": report.deep,
        "n_parts": report.n_parts,
        "n_files": report.n_files,
        "n_bytes": report.n_bytes,
        "done": done,
        "findings": [to_builtins(finding) for finding in report.findings],
    }


def _print(report: Report, done: list[str]) -> None:
    from opd_tui.text import safe

    for line in done:
        print(safe(f"{line[:1].upper()}{line[1:]}."))
    for finding in report.findings:
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        print(safe(f"{finding.severity}: {finding.place} {finding.what}{remedy}."))
    files = counted(report.n_files, "file")
    looked = f"{counted(report.n_bytes, 'byte')} in {files}" if report.deep else files
    n_damaged = sum(finding.severity == "damage" for finding in report.findings)
    verdict = "is whole" if report.ok else f"is damaged ({counted(n_damaged, 'finding')})"
    print(safe(f"{report.path} {verdict}: {counted(report.n_parts, 'part')}, {looked}."))


@contextmanager
def _progress(deep: bool) -> Iterator[Progress | None]:
    """A bar with rate and time left for a deep look, where somebody looks at it."""
    if not deep or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def migrate(
    path: Annotated[Path, typer.Argument(metavar="S.zarr", help="A store that an earlier opd-tui wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NEW.zarr", help="Where the store of today's schema goes.")],
) -> None:
    """Write a store of an old schema anew, so that this version reads it; the old one stays as it is."""
    from store.migrate import migrate as write_anew

    n_parts = write_anew(path, out)
    print(f"{out} holds all of {path} ({counted(n_parts, 'part')}).")


NewStore = Annotated[
    str,
    typer.Option("-o", "--out", metavar="C.zarr", help="Where it goes: a new folder, a .zip file or an s3:// address."),
]


def merge(
    paths: Annotated[list[str], typer.Argument(metavar="S.zarr", help="Stores of one study, such as its shards.")],
    out: NewStore,
) -> None:
    """Put stores of one study together into a new one.

    Of a question that several have, the one that was extended most is taken, then the first.
    """
    if len(paths) < 2:
        raise typer.BadParameter("Name two stores or more to put together; `opd-tui compact` writes a single one anew.")
    from opd_tui.copied import copy_with_progress

    print(copy_with_progress(paths, out))


def compact(
    path: Annotated[str, typer.Argument(metavar="S.zarr", help="A store, perhaps of many small parts.")],
    out: NewStore,
) -> None:
    """Write a store anew with few large parts, without questions that were computed twice; the old one stays as it is."""
    from opd_tui.copied import copy_with_progress

    print(copy_with_progress([path], out))
