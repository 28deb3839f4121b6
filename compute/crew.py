"""Several workers, one study: the parent hands out questions one by one, and is the one writer of the store.

A worker has models and an engine of its own. It keeps finished phases and records in the spool beside the store; the
parent publishes the records. The parent loads no model. Since every draw is keyed by what is drawn, it does not matter
who does a question, or how often it is begun.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from compute.batch import Batch, work_folder
from compute.errors import ComputeError, StudyError
from compute.locks import Shard, lock
from compute.progress import Reporter, Usage
from compute.runner import Outcome, finish, missing
from compute.spooled import Spool
from compute.stopping import check, signals
from compute.study import load
from compute.tasks import Question, load_questions
from store import writer
from store.errors import StoreError
from store.place import PathLike

#: As often may a question, or a worker that loads its models, meet the death of a worker.
MAX_DEATHS = 3
_LOOK_EVERY_S = 0.2
#: How long workers have to come to the end of a step once they are asked to stop.
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its models and sees the store."""

    study_hash: str
    place: str  #: process and machine, for people


@dataclass(frozen=True, slots=True)
class Done:
    """A question's record is in the spool."""

    number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker met an error, as it would have ended a run of one process."""

    kind: str  #: name of the error's class
    sentence: str
    trace: str


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is gone."""

    how: str


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence for the user."""

    text: str


Event = Ready | Done | Failed | Died | Said | Usage


class Crew(Protocol):
    """Workers, wherever they are; each has a number, from 1."""

    def start(self, worker: int) -> None:
        """Start a worker; a `Ready` follows."""

    def give(self, worker: int, number: int) -> None:
        """Give a question to a worker that is free; a `Done` follows."""

    def events(self, seconds: float) -> Sequence[tuple[int, Event]]:
        """What workers said; waits for something at most so long."""

    def stop(self, seconds: float) -> None:
        """All workers end: between two steps where they come to one in time."""


def oversee(crew: Crew, n_workers: int, study: Path, out: PathLike, reporter: Reporter, *, limit: int, shard: Shard) -> Outcome:
    """Compute what `out` lacks of a study, or of a shard of it, with a crew; see `runner.run`."""
    started = time.monotonic()
    settings = load(study)
    questions = load_questions(settings.task, study.resolve().parent, settings.study.seed)
    with lock(work_folder(out), out, shard), signals():
        desk = _Desk(crew, n_workers, reporter)
        try:
            study_hash = desk.first_ready()
            writer.remove_leftovers(out)
            spool = Spool(work_folder(out), study_hash, shard)
            batch = Batch(settings, out, spool)
            todo = missing(questions, out, shard, limit, reporter)
            with reporter:
                try:
                    desk.work_off(todo, batch, spool)
                finally:
                    crew.stop(_PATIENCE_S)  # first of all: a part takes a moment
                    batch.publish()
        finally:
            crew.stop(0.0)
        n_done = finish(out, questions, spool)
    return Outcome(n_done, len(questions), time.monotonic() - started)


def apart(todo: Sequence[Question], n_workers: int) -> list[Question]:
    """The order of handing out in which workers are far from each other in the study.

    A question may read a demonstration of the next one: so it is mostly the same worker that does the next one.
    """
    stretch = -(-len(todo) // n_workers)
    return [todo[at] for step in range(stretch) for at in range(step, len(todo), stretch)]


class _Desk:
    """Where questions are handed out, and where what became of them is heard."""

    def __init__(self, crew: Crew, n_workers: int, reporter: Reporter) -> None:
        self._crew, self._reporter = crew, reporter
        self._n_workers = n_workers
        self._study_hash = ""
        self._free: list[int] = []
        self._in_hand: dict[int, Question] = {}
        self._deaths: Counter[str] = Counter()  #: by question id
        self._early: Counter[int] = Counter()  #: by worker: deaths before it was ready
        self._loading: set[int] = set()

    def first_ready(self) -> str:
        """Start all workers; the study's hash as soon as one of them knows it."""
        for worker in range(1, self._n_workers + 1):
            self._start(worker)
        while not self._study_hash:
            self._hear(deque(), [])
        return self._study_hash

    def work_off(self, todo: Sequence[Question], batch: Batch, spool: Spool) -> None:
        """See that every question gets done and added to `batch`."""
        left = deque(apart(todo, self._n_workers))
        while left or self._in_hand:
            self._hand_out(left)
            finished: list[tuple[int, Question]] = []
            self._hear(left, finished)
            self._hand_out(left)  # before a part is written, so that nobody waits for that
            for worker, question in finished:
                record = spool.record(question)
                if record is None:  # the file did not survive
                    left.appendleft(question)
                    continue
                self._reporter.question_done(worker)
                batch.add(question, record)

    def _start(self, worker: int) -> None:
        self._loading.add(worker)
        self._crew.start(worker)

    def _hand_out(self, left: deque[Question]) -> None:
        """Give the next questions to those who are free, and say who does what."""
        while left and self._free:
            worker = self._free.pop(0)
            self._in_hand[worker] = left.popleft()
            self._crew.give(worker, self._in_hand[worker].number)
        numbers = ", ".join(str(number + 1) for number in sorted(question.number for question in self._in_hand.values()))
        self._reporter.phase(f"{self._n_workers} workers on {numbers}" if numbers else f"{self._n_workers} workers")

    def _hear(self, left: deque[Question], finished: list[tuple[int, Question]]) -> None:
        check()
        for worker, event in self._crew.events(_LOOK_EVERY_S):
            match event:
                case Usage():
                    self._reporter.usage(worker, event)
                case Said():
                    self._reporter.say(f"Worker {worker}: {event.text}")
                case Ready():
                    self._welcome(worker, event)
                case Done():
                    finished.append((worker, self._in_hand.pop(worker)))
                    self._free.append(worker)
                case Failed():
                    raise _error(worker, self._in_hand.get(worker), event)
                case Died():
                    self._bury(worker, event, left)

    def _welcome(self, worker: int, ready: Ready) -> None:
        if self._study_hash and ready.study_hash != self._study_hash:
            raise ComputeError(
                f"Worker {worker} ({ready.place}) sees another study or other weights than the first worker; "
                "give all of them the same files."
            )
        self._study_hash = ready.study_hash
        self._loading.discard(worker)
        self._free.append(worker)
        self._reporter.say(f"Worker {worker} is ready ({ready.place}).")

    def _bury(self, worker: int, died: Died, left: deque[Question]) -> None:
        question = self._in_hand.pop(worker, None)
        if worker in self._free:
            self._free.remove(worker)
        if question is not None:
            self._deaths[question.id] += 1
            if self._deaths[question.id] == MAX_DEATHS:
                raise ComputeError(
                    f"Question {question.number + 1} (`{question.id}`) ended {MAX_DEATHS} workers, the last one {died.how}: "
                    "see whether memory runs out there, and try fewer slots or fewer workers."
                )
            left.appendleft(question)
            self._reporter.say(f"Worker {worker} ended ({died.how}); question {question.number + 1} is done again.")
        elif worker in self._loading:
            self._early[worker] += 1
            if self._early[worker] == MAX_DEATHS:
                raise ComputeError(
                    f"Worker {worker} ended {MAX_DEATHS} times while it loaded its models, the last time {died.how}: "
                    "see whether memory runs out, and try fewer workers."
                )
            self._reporter.say(f"Worker {worker} ended ({died.how}) while it loaded its models; it is started again.")
        self._start(worker)


def _error(worker: int, question: Question | None, failed: Failed) -> Exception:
    """A worker's error as the parent's own."""
    errors: dict[str, type[Exception]] = {"StoreError": StoreError, "StudyError": StudyError, "ComputeError": ComputeError}
    where = f"at question {question.number + 1}" if question is not None else "while it loaded its models"
    if failed.kind in errors:
        error = errors[failed.kind](failed.sentence)
    else:
        error = ComputeError(f"Worker {worker} failed {where}: {failed.kind}: {failed.sentence}")
    error.add_note(failed.trace)
    return error
