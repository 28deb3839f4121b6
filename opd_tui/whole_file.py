"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.errors import StoreError


@contextmanager
def whole_file(out: str) -> Iterator[Path]:
    """A file to write in the place of `out`, which becomes `out` at the end unless something went wrong meanwhile.

    Raises StoreError where it cannot be written.
    """
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
