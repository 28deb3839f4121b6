"""A process of ours ends with the one that started it, whatever ends that one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from compute.stopping import SIGNALS

#: `PR_SET_PDEATHSIG` of Linux's prctl(2).
_SET_PARENT_DEATH_SIGNAL = 1
_LOOK_EVERY_S = 1.0


def end_with_parent(parent: int) -> None:
    """From now on this process lives no longer than its parent, the process `parent`: at most about a second.

    Linux is asked to see to it at once; a thread looks as well, for other systems.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_look_after, args=(parent,), name="watch-parent", daemon=True).start()


def _look_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)


def guard(pipe: Connection, root: int) -> None:
    """Wait in a process of its own until the pipe ends; then kill what `root` started after this process and still lives.

    For children that are not ours to change: some of Ray's take a minute to notice that theirs is a lost cause. What
    `root` started before, such as other children of a notebook, is left alone. Does nothing where there is no /proc.
    """
    for number in SIGNALS:  # whoever stops the run stops `root`, and that ends the pipe
        signal.signal(number, signal.SIG_IGN)
    known: dict[int, int] = {}
    with suppress(OSError, EOFError):
        _, begun = _stat(os.getpid())
        while not pipe.poll(_LOOK_EVERY_S):
            known |= {process: born for process, born in descendants(root).items() if born >= begun}
    known.pop(os.getpid(), None)
    for process, born in known.items():
        with suppress(OSError):
            if _stat(process)[1] == born:  # and not another one of the same number
                os.kill(process, signal.SIGKILL)


def descendants(root: int) -> dict[int, int]:
    """The processes that descend from `root`, by number, and when each was born (clock ticks since the machine was)."""
    stats: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stats[int(folder.name)] = _stat(int(folder.name))
    found: dict[int, int] = {}
    parents = {root}
    while parents:
        children = {process: born for process, (parent, born) in stats.items() if parent in parents}
        found |= children
        parents = set(children)
    return found


def _stat(process: int) -> tuple[int, int]:
    """Parent and birth of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()  # a name may hold spaces
    return int(fields[1]), int(fields[19])
