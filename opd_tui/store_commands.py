"""Commands of `opd-tui` that work on whole stores. `register` puts them into the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(migrate)
    app.command()(merge)
    app.command()(compact)


def migrate(
    path: Annotated[Path, typer.Argument(metavar="S.zarr", help="A store that an earlier opd-tui wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NEW.zarr", help="Where the store of today's schema goes.")],
) -> None:
    """Write a store of an old schema anew, so that this version reads it; the old one stays as it is."""
    from store.migrate import migrate as write_anew

    n_parts = write_anew(path, out)
    print(f"{out} holds all of {path} ({n_parts} part{'s' if n_parts != 1 else ''}).")


NewStore = Annotated[
    str,
    typer.Option("-o", "--out", metavar="C.zarr", help="Where it goes: a new folder, a .zip file or an s3:// address."),
]


def merge(
    paths: Annotated[list[str], typer.Argument(metavar="A.zarr B.zarr ..", help="Stores of one study, such as its shards.")],
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
