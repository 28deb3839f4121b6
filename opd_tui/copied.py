"""Stores written anew while a person waits: a bar on a terminal, plain lines without one, one sentence at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import store
from opd_tui.text import safe
from opd_tui.thrift import share_arenas, trim
from store import copying
from store.words import counted

#: Without a terminal a line is written so often at most.
_LINE_EVERY_S = 10.0


def copy_with_progress(
    sources: Sequence[str],
    out: str,
    *,
    questions: Collection[str] | None = None,
    teachers: Collection[str] | None = None,
    console: Console | None = None,
) -> str:
    """Write the questions of `sources` into a new store at `out` and return the sentence that says what is in it.

    Arguments are those of `store.copying.copy`; the progress goes to `console`, or to stderr. Raises StoreError.
    """
    with shown(console or Console(stderr=True), f"Writing {safe(os.path.basename(out.rstrip('/')))}") as progress:
        n = copy(sources, out, questions, teachers, progress)
    made = store.open(out)
    n_parts, n_planned = len(made.part_ids), len(made.attributes.question_ids)
    of = f"{n:,} of " if n != n_planned else ""
    return f"{safe(out)} holds {of}{counted(n_planned, 'question')} in {counted(n_parts, 'part')}."


def copy(
    sources: Sequence[str],
    out: str,
    questions: Collection[str] | None,
    teachers: Collection[str] | None,
    progress: copying.Progress,
) -> int:
    """As `store.copying.copy`, in less memory: it gives back what is free after every part. Raises StoreError."""
    share_arenas()

    def part_is_written(done: int, total: int) -> None:
        trim()  # or a store of many parts takes more and more
        progress(done, total)

    return copying.copy(sources, out, questions=questions, teachers=teachers, progress=part_is_written)


@contextmanager
def shown(console: Console, doing: str) -> Iterator[copying.Progress]:
    """What tells of questions written, and to write."""
    if not console.is_terminal:
        yield _Lines(doing)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} questions/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        speed_estimate_period=3600.0,  # parts differ a lot in size
    )
    with bar:
        task = bar.add_task(doing, total=None, rate="")
        started = time.monotonic()

        def show(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:,.1f}" if done else "")

        yield show


class _Lines:
    """Plain lines on stderr: the first, the last, and one in between every few seconds."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._started = time.monotonic()
        self._said = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self._said < _LINE_EVERY_S:
            return
        self._said = now
        line = f"{self._doing}: {done:,} of {counted(total, 'question')}"
        if done:
            rate = done / max(now - self._started, 1e-9)
            line += f", {rate:,.1f} questions/s, {(total - done) / rate:,.0f} s left"
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
