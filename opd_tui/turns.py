"""Whose turn it is: the thread that draws goes first, and those that score or search give way between two steps.

Two threads of Python share one interpreter: what takes the first 20 ms takes 40 while the second is at work as well.
"""

from __future__ import annotations

import selectors
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

#: Seconds after which a step is taken all the same, so that a key that is held down stops nothing.
MOST_PATIENCE = 0.05


def go_on() -> None:
    """Wait for nobody."""


class Turns:
    """Tells threads when the event loop that draws has nothing to do. Without a loop of its own, that is always."""

    def __init__(self) -> None:
        self._idle = threading.Event()
        self._idle.set()

    def loop(self) -> AbstractEventLoop:
        """An event loop that others give way to. It is the caller's to close."""
        from asyncio import SelectorEventLoop

        return SelectorEventLoop(_Telling(self._idle))

    def give_way(self) -> None:
        """Wait until the loop waits itself, but not for long."""
        self._idle.wait(MOST_PATIENCE)


class _Telling(selectors.DefaultSelector):
    """Says while it waits for something to happen."""

    def __init__(self, idle: threading.Event) -> None:
        super().__init__()
        self._idle = idle

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What has happened. Without time to wait there is more to be done at once."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self._idle.set()
        try:
            return super().select(timeout)
        finally:
            self._idle.clear()
