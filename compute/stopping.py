"""A run that is asked to stop does so between two steps: everything finished is kept.

Before its first step, while models load, it stops at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from compute.errors import Interrupted
from compute.progress import Reporter

#: Ctrl-C; what `kill` and job schedulers send; what Slurm can send some time before the end of a job.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

#: The name of the signal that asked us to stop, once one did. Signals belong to the process, so this does too.
_STOP: list[str] = []


class _Stopped(BaseException):
    """A stop on its way out: no library takes it for a failure of its own."""


@contextmanager
def signals() -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into a stop between two steps."""
    with _handled_by(_note):
        yield


@contextmanager
def signals_at_once() -> Iterator[None]:
    """Let the same signals raise `Interrupted` wherever they come, where no step is in hand. `signals` may be inside."""
    try:
        with _handled_by(_leave):
            yield
    except _Stopped:
        raise Interrupted(f"stopped by {_STOP[0]}") from None


def _note(number: int, frame: FrameType | None) -> None:
    _STOP.append(signal.Signals(number).name)


def _leave(number: int, frame: FrameType | None) -> None:
    _note(number, frame)
    raise _Stopped


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if signal.getsignal(signal.SIGINT) not in (_note, _leave):  # what came to the one around this counts here too
        _STOP.clear()
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def check() -> None:
    """Raise `Interrupted` once a signal came."""
    if _STOP:
        raise Interrupted(f"stopped by {_STOP[0]}")


class Ticker:
    """Counts tokens, and stops the run between two steps once a signal came."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def __call__(self, n: int) -> None:
        """`n` more tokens."""
        check()
        self._reporter.tokens(n)
