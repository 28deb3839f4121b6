"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.errors import StoreError


@contextmanager
def whole_file(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `out` to write to, which takes its name at the end and is gone after an error. Raises StoreError."""
    target = Path(out)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(target)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()
