"""A real server of the explorer for tests: the command, its address, and what a page would see."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from tests.conftest import OPD_TUI, ROOT

PATIENCE = 40.0


class Served(NamedTuple):
    process: subprocess.Popen[str]
    address: str
    token: str

    @property
    def url(self) -> str:
        return f"{self.address}/?token={self.token}"

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")


@contextmanager
def served(store: str | Path, *words: str, cwd: Path | None = None) -> Iterator[Served]:
    """`opd-tui browse --web` on a free port, ended by Ctrl-C."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [OPD_TUI, "browse", store, "--web", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=cwd,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if ready else ""
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=([\w-]+)", line)
        assert found is not None, line + ("" if process.poll() is None else process.stdout.read())
        yield Served(process, found[1], found[2])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def explorers(server: int) -> list[int]:
    """The processes that a server started, and their own."""
    from compute.watch import descendants

    return sorted(descendants(server))


def wait_until(condition, seconds: float = PATIENCE) -> None:  # type: ignore[no-untyped-def]
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "never"
        select.select([], [], [], 0.02)
