"""A run that is asked to stop does so between two steps: everything finished is kept."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from compute.errors import Interrupted
from compute.progress import Reporter

#: Ctrl-C; what `kill` and job schedulers send; what Slurm can send some time before the end of a job.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

#: The name of the signal that asked us to stop, once one did. Signals belong to the process, so this does too.
_STOP: list[str] = []


@contextmanager
def signals() -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into a stop between two steps."""

    def stop(number: int, frame: FrameType | None) -> None:
        _STOP.append(signal.Signals(number).name)

    _STOP.clear()
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
