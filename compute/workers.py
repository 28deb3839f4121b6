"""Workers on this machine: processes with models of their own, that the parent hands questions to."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from rich.console import Console

from compute.batch import work_folder
from compute.crew import Died, Done, Event, Failed, Ready, Said
from compute.errors import Interrupted
from compute.progress import Reporter, Usage, measured
from compute.runner import create, do_question
from compute.setup import Setup
from compute.spooled import Spool
from compute.stopping import SIGNALS
from compute.watch import end_with_parent
from store.place import PathLike

_TELL_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a run is told."""

    prepare: Callable[[Reporter], Setup]  #: loads study and models; made of functions and values that can be sent
    out: PathLike
    n_workers: int


class Quiet(Reporter):
    """A worker's reporter: it passes on what it is told and counts; `interrupt` may raise between two steps."""

    def __init__(self, tell: Callable[[Usage | Said], None], interrupt: Callable[[], None]) -> None:
        super().__init__(0, console=Console(stderr=True, force_terminal=False))
        self._tell, self._interrupt = tell, interrupt
        self._count, self._told = 0, 0.0

    def say(self, text: str) -> None:
        """One line of its own."""
        self._tell(Said(text))

    def tokens(self, n: int) -> None:
        """`n` more tokens were sampled."""
        self._interrupt()
        self._count += n
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self.tell()

    def tell(self) -> None:
        """Pass on what was counted."""
        self._told = time.monotonic()
        self._tell(measured(self._count))


class Worker:
    """Models, and a place in the spool."""

    def __init__(self, job: Job, reporter: Quiet) -> None:
        self._reporter = reporter
        self._setup = job.prepare(reporter)
        create(self._setup, job.out)
        self._spool = Spool(work_folder(job.out), self._setup.attributes.study_hash)

    @property
    def ready(self) -> Ready:
        """What the parent needs to know of it."""
        return Ready(self._setup.attributes.study_hash, f"process {os.getpid()} on {platform.node()}")

    def do(self, number: int) -> Done:
        """Do a question: its record is in the spool then."""
        do_question(self._setup, self._setup.questions[number], self._spool, self._reporter)
        self._reporter.tell()
        return Done(number)


def share_machine(number: int, n_workers: int) -> None:
    """Take this worker's share of a machine: cores where the study says nothing of threads, and one CUDA device, in turn.

    A model that the study puts on `cuda` goes there; one on `cuda:1` or `cpu` goes where the study says.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // n_workers))  # `prepare` sets what the study says after this
    if torch.cuda.is_available():
        torch.cuda.set_device((number - 1) % torch.cuda.device_count())


def failure(error: Exception) -> Failed:
    """An error as it is told to the parent."""
    return Failed(type(error).__name__, str(error), "".join(traceback.format_exception(error)))


class LocalCrew:
    """Processes on this machine, each at one end of a pipe."""

    def __init__(self, job: Job) -> None:
        self._job = job
        # A worker that is killed while it loads leaves semaphores (of progress bars) behind, of which Python's resource
        # tracker, a process of its own, would warn after our last line.
        quiet = "ignore:resource_tracker:UserWarning"
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), quiet)))
        # Spawned, never forked: threads of torch and tensorstore do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._crew: dict[int, tuple[SpawnProcess, Connection]] = {}
        self._ready: set[int] = set()

    def start(self, worker: int) -> None:
        """Start a worker's process."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, self._job, worker, os.getpid()), name=f"worker {worker}")
        process.start()
        theirs.close()  # so that the pipe ends when the worker does
        self._crew[worker] = (process, ours)

    def give(self, worker: int, number: int) -> None:
        """Give a question to a worker that is free."""
        with suppress(OSError):  # where it is gone, `events` tells so next
            self._crew[worker][1].send(number)

    def events(self, seconds: float) -> Sequence[tuple[int, Event]]:
        """What workers said; waits for something at most so long."""
        ends = {pipe: worker for worker, (_, pipe) in self._crew.items()}
        found: list[tuple[int, Event]] = []
        for pipe in wait(list(ends), seconds):
            worker = ends[pipe]  # type: ignore[index]
            try:
                while self._crew[worker][1].poll():
                    found.append((worker, self._crew[worker][1].recv()))
                    if isinstance(found[-1][1], Ready):
                        self._ready.add(worker)
            except (EOFError, OSError):
                found.append((worker, self._bury(worker)))
        return found

    def stop(self, seconds: float) -> None:
        """Close all pipes, which workers notice between two steps; kill who does not end in time, or still loads."""
        for worker, (process, pipe) in self._crew.items():
            pipe.close()
            if worker not in self._ready:
                process.kill()
        end = time.monotonic() + seconds
        for process, _ in self._crew.values():
            process.join(max(0.0, end - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        self._crew.clear()

    def _bury(self, worker: int) -> Died:
        process, pipe = self._crew.pop(worker)
        self._ready.discard(worker)
        pipe.close()
        process.join(5.0)
        if process.exitcode is None:
            process.kill()
            process.join()
        code = process.exitcode or 0
        return Died(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


def _main(pipe: Connection, job: Job, number: int, parent: int) -> None:
    """A worker's life: it does what comes through the pipe, and ends when the pipe does."""
    end_with_parent(parent)
    for one in SIGNALS:  # the parent gets them too, and says when to stop
        signal.signal(one, signal.SIG_IGN)

    def tell(event: Event) -> None:
        try:
            pipe.send(event)
        except OSError:
            raise Interrupted("the parent is gone or stops") from None

    def interrupt() -> None:
        if pipe.poll():  # while a question is in hand, only the end of the pipe can be there
            raise Interrupted("the parent is gone or stops")

    try:
        share_machine(number, job.n_workers)
        worker = Worker(job, Quiet(tell, interrupt))
        tell(worker.ready)
        while True:
            tell(worker.do(pipe.recv()))
    except (Interrupted, EOFError):
        pass
    except Exception as error:
        with suppress(Interrupted):
            tell(failure(error))
