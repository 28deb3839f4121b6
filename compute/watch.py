"""A process of ours ends with the one that started it, whatever ends that one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

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
