"""How a run shows where it is: a live line on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from compute.errors import ComputeError
from store.words import counted

_LOG_EVERY_S = 10.0
_SHOW_EVERY_S = 0.2
#: Of `ru_maxrss`: macOS counts bytes, others kilobytes.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took so far."""

    tokens: int  #: sampled
    cpu_seconds: float  #: of all its threads
    memory_bytes: int  #: the most that it held
    device_memory_bytes: int  #: the most that its tensors held on a CUDA device; 0 without one


def measured(tokens: int) -> Usage:
    """The usage of this process, after so many tokens."""
    torch = sys.modules.get("torch")
    on_device = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_initialized() else 0
    return Usage(tokens, round(time.process_time(), 3), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT, on_device)


@dataclass(slots=True)
class Reporter:
    """Counts questions and tokens. Writes to stderr, so that standard output stays a result's.

    `log` gets every line with its time; `metrics` an object of JSON a line, per worker (1 is this process where there are
    no others): time in seconds since 1970, questions done and planned, its own finished questions, tokens and memory.
    Both are appended to.
    """

    total: int
    done: int = 0
    console: Console = field(default_factory=lambda: Console(stderr=True))
    log: Path | None = None
    metrics: Path | None = None
    _tokens: int = 0  #: of workers that are no more, and of this process
    _workers: dict[int, Usage] = field(default_factory=dict)
    _finished: dict[int, int] = field(default_factory=dict)  #: questions of each worker
    _started: float | None = None  #: when the run began; loading models is no part of a rate
    _logged: float = 0.0
    _noted: float = 0.0
    _measured: float = 0.0
    _first: int = 0
    _doing: str = ""
    _progress: Progress | None = None
    _log_file: TextIO | None = None
    _metrics_file: TextIO | None = None

    def __post_init__(self) -> None:
        self._log_file, self._metrics_file = _opened(self.log), _opened(self.metrics)

    def __enter__(self) -> Reporter:
        self._first, self._started = self.done, time.monotonic()
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=12),  # everything fits 80 columns
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]} tokens/s"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
                transient=False,
                # Estimates look back over the whole run: questions differ a lot in length.
                speed_estimate_period=3600.0,
            )
            self._progress.start()
            self._progress.add_task(self._doing, total=self.total, completed=self.done, rate="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._measure()
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line of its own."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
        self._note(text)

    def phase(self, text: str) -> None:
        """What is being done now."""
        self._doing = text

    def tokens(self, n: int) -> None:
        """`n` more tokens were sampled."""
        if self._started is None:
            return
        self._tokens += n
        self._show_at_times()

    def usage(self, worker: int, usage: Usage) -> None:
        """What a worker took so far. One that was started again begins at nothing."""
        before = self._workers.get(worker)
        if before is not None and usage.tokens < before.tokens:
            self._tokens += before.tokens
        self._workers[worker] = usage
        if self._started is not None:
            self._show_at_times()

    def question_done(self, worker: int = 1) -> None:
        """One more question is finished."""
        self.done += 1
        self._finished[worker] = self._finished.get(worker, 0) + 1
        self._show(time.monotonic())
        self._measure()

    @property
    def tokens_per_second(self) -> float:
        """Of all workers together, since the run began."""
        now = time.monotonic()
        return self._all_tokens() / max(now - (self._started or now), 1e-9)

    def _all_tokens(self) -> int:
        return self._tokens + sum(usage.tokens for usage in self._workers.values())

    def _show_at_times(self) -> None:
        now = time.monotonic()
        if now - self._logged >= (_SHOW_EVERY_S if self._progress is not None else _LOG_EVERY_S):
            self._show(now)
        if now - self._measured >= _LOG_EVERY_S:
            self._measure()

    def _show(self, now: float) -> None:
        elapsed = max(now - (self._started or now), 1e-9)
        self._logged = now
        rate = f"{self.tokens_per_second:,.0f}"
        fresh = self.done - self._first
        left = f", {(self.total - self.done) * elapsed / fresh:,.0f} s left" if fresh else ""
        line = f"{self.done} of {counted(self.total, 'question')}, {self._doing}, {rate} tokens/s{left}"
        if self._progress is None:
            self.say(line)
            return
        self._progress.update(self._progress.task_ids[0], description=self._doing, completed=self.done, rate=rate)
        if now - self._noted >= _LOG_EVERY_S:
            self._note(line)

    def _note(self, text: str) -> None:
        self._noted = time.monotonic()
        if self._log_file is not None:
            self._log_file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._log_file.flush()

    def _measure(self) -> None:
        """Write the metrics of all workers."""
        self._measured = time.monotonic()
        if self._metrics_file is None:
            return
        elapsed = max(self._measured - (self._started or self._measured), 1e-9)
        for worker, usage in sorted((self._workers or {1: measured(self._tokens)}).items()):
            row = {
                "time": round(time.time(), 3),
                "questions_done": self.done,
                "questions_planned": self.total,
                "worker": worker,
                "worker_questions": self._finished.get(worker, 0),
                "tokens_per_second": round(usage.tokens / elapsed, 1),
                **asdict(usage),
            }
            self._metrics_file.write(json.dumps(row) + "\n")
        self._metrics_file.flush()


def _opened(path: Path | None) -> TextIO | None:
    """A file to append to, flushed after every write. Raises ComputeError where it cannot be."""
    if path is None:
        return None
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise ComputeError(f"{path} cannot be written: {error.strerror}.") from None
