"""How a run shows where it is: a live line on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LOG_EVERY_S = 10.0


@dataclass(slots=True)
class Reporter:
    """Counts questions and tokens. Writes to stderr, so that standard output stays a result's."""

    total: int
    done: int = 0
    console: Console = field(default_factory=lambda: Console(stderr=True))
    _tokens: int = 0
    _started: float | None = None  #: when the run began; loading models is no part of a rate
    _logged: float = 0.0
    _first: int = 0
    _doing: str = ""
    _progress: Progress | None = None

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
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line of its own."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def phase(self, text: str) -> None:
        """What is being done now."""
        self._doing = text

    def tokens(self, n: int) -> None:
        """`n` more tokens were sampled."""
        if self._started is None:
            return
        self._tokens += n
        now = time.monotonic()
        if now - self._logged >= (0.2 if self._progress is not None else _LOG_EVERY_S):
            self._logged = now
            self._show(now)

    def question_done(self) -> None:
        """One more question is finished."""
        self.done += 1
        self._show(time.monotonic())

    def _show(self, now: float) -> None:
        elapsed = max(now - (self._started or now), 1e-9)
        rate = f"{self._tokens / elapsed:,.0f}"
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], description=self._doing, completed=self.done, rate=rate)
            return
        fresh = self.done - self._first
        left = f", {(self.total - self.done) * elapsed / fresh:,.0f} s left" if fresh else ""
        self.say(f"{self.done} of {self.total} questions, {self._doing}, {rate} tokens/s{left}")
