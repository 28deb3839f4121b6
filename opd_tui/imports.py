"""What a start costs no more than it must: a person waits for the first paint, and for every one after it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection inside, and none of what was made inside later on: for a program that keeps all its modules.

    Making modules makes no garbage, and looking for it takes a twentieth of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_what_is_there() -> None:
    """No collection looks again at what is there by now: at twenty thousand rollouts a full one would hold up a key by 30 ms.

    What nobody refers to goes as always. What is garbage at this moment, and in a cycle, stays: to be called a few times only.
    """
    gc.freeze()


def asyncio_without_tls() -> None:
    """Import asyncio as a Python that was built without ssl does: it saves 4 MB and, on two cores, 8 ms.

    For a program that opens no connection through asyncio. Whoever imports ssl later on gets it.
    """
    if "ssl" in sys.modules or "asyncio" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # as the reference of `import` has it: no such module
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
