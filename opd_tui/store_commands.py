"""Commands of `opd-tui` that work on whole stores. `register` puts them into the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(migrate)


def migrate(
    path: Annotated[Path, typer.Argument(metavar="S.zarr", help="A store that an earlier opd-tui wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NEW.zarr", help="Where the store of today's schema goes.")],
) -> None:
    """Write a store of an old schema anew, so that this version reads it; the old one stays as it is."""
    from store.migrate import migrate as write_anew

    n_parts = write_anew(path, out)
    print(f"{out} holds all of {path} ({n_parts} part{'s' if n_parts != 1 else ''}).")
