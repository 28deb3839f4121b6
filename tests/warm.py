"""A process with the heavy libraries in memory, which forks one for every command.

Loading torch and transformers takes seconds, a small command tenths of one, and the suite runs a hundred of them. Each still
is a process of its own, with its own streams, folder, signals and exit code; it only finds the libraries loaded. What hangs
on how a process begins (its environment, its limits, kills) is tried with processes begun the usual way.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_LOADED = ("torch", "transformers.models.auto", "transformers.models.qwen3.modeling_qwen3", "compute.runner", "opd_tui.cli")


class Warm:
    """The process with the libraries, from the side of a test."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).resolve().parent.parent,
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours

    def run(self, argv: list[str], cwd: Path, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run one command as `subprocess.run` would with captured text and no input."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            request = json.dumps([argv, str(cwd)]).encode()
            socket.send_fds(self._socket, [request], [out.fileno(), err.fileno()])
            self._socket.settimeout(seconds)
            try:
                code = int(self._socket.recv(64))
            except TimeoutError:
                self.close()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(argv, code, out.read().decode(), err.read().decode())

    def close(self) -> None:
        """End the process, and the command in it."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process.kill()
        self._process.wait()


def _serve(requests: socket.socket) -> None:
    """Fork a process for every request; tell how it ended. Returns only in such a process, ready to run its command."""
    while True:
        words, streams, _, _ = socket.recv_fds(requests, 1 << 20, 2)
        if not words:
            os._exit(0)
        child = os.fork()
        if child == 0:
            requests.close()
            sys.argv, folder = json.loads(words)
            os.chdir(folder)
            for stream, number in zip(streams, (1, 2), strict=True):
                os.dup2(stream, number)
                os.close(stream)
            return
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        requests.send(str(code).encode())


def _run(main: Callable[[], None]) -> NoReturn:
    """Run the command, and end as Python does, but for taking the libraries apart: that copies them, which takes a second."""
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # what Python itself would do at the end of a program
        traceback.print_exc()
        code = 1
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    import importlib

    for name in _LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all of it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from opd_tui.entry import main

    _run(main)
