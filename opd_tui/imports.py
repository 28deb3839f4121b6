"""Imports without garbage collections: making modules makes no garbage, and looking for it takes a twentieth of the time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection inside, and none of what was made inside later on: for a program that keeps all its modules."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
