"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.errors import StoreError
from store.place import is_remote


@contextmanager
def whole_file(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `out` to write to, which takes its name at the end and is gone after an error. Raises StoreError."""
    target = Path(out)
    if not target.parent.is_dir():  # said before anything is computed for it
        raise StoreError(f"{target} cannot be written: there is no folder {target.parent}.")
    if target.is_dir():
        raise StoreError(f"{target} cannot be written: it is a folder.")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(target)
    except OSError as error:
        # What a library says may name the unfinished file.
        reason = os.strerror(error.errno) if error.errno else error
        raise StoreError(f"{target} cannot be written: {reason}.") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()


def check_apart(path: str, out: str) -> None:
    """Raise StoreError where the file `out` would take the place of the store at `path`, or lie inside of it."""
    if not is_remote(path) and Path(out).resolve().is_relative_to(Path(path).resolve()):
        raise StoreError(f"{out} cannot be written: the store is there, and is only read; name a file beside it.")
