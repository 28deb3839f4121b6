"""Asks the C library to be thrifty with memory, where it is glibc; elsewhere nothing happens."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

_ARENA_MAX = -8  # a constant of malloc.h


def share_arenas() -> None:
    """Have all threads allocate from the same heap: one for each of TensorStore's threads keeps megabytes that nobody uses.

    To be called before there are threads: a heap that is there already goes on being used.
    """
    with suppress(OSError, AttributeError):
        _libc().mallopt(_ARENA_MAX, 1)


def trim() -> None:
    """Give back what is free."""
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
