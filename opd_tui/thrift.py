"""Asks libraries to be thrifty: glibc with memory, OpenBLAS with processors. Where there are others, nothing happens."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache

_ARENA_MAX = -8  # a constant of malloc.h


def share_arenas() -> None:
    """Have all threads allocate from the same heap: one for each of TensorStore's threads keeps megabytes that nobody uses.

    To be called before there are threads: a heap that is there already goes on being used.
    """
    with suppress(OSError, AttributeError):
        _libc().mallopt(_ARENA_MAX, 1)


def one_blas_thread() -> None:
    """Have OpenBLAS start no threads of its own: they spin for a tenth of a second while the first page is being made.

    To be called before numpy is imported. Nothing that is multiplied here is large enough for two of them.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def trim() -> None:
    """Give back what is free."""
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
