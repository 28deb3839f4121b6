"""Workers on a Ray cluster: actors with models and an engine of their own, each on the GPUs that its models are on.

All machines see the study, its models and the store under the same paths, as on a cluster with a shared file system.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute.crew import Died, Done, Event, Failed, Ready, Said
from compute.errors import ComputeError, Interrupted, StudyError
from compute.progress import Usage
from compute.stopping import signals_at_once
from compute.study import Study, Teacher, load
from compute.watch import guard
from compute.workers import Job, Quiet, Worker, failure

_ASK_EVERY_S = 2.0
#: After so long it is said that actors do not answer: they have no place in the cluster, or their machine is very slow.
_PLACED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What an actor asks for, or a machine or a cluster has."""

    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"{_counted(self.cpus, 'CPU')} and {_counted(self.gpus, 'GPU')}"


def needs(study: Study, device: str) -> Resources:
    """What one actor asks for; `device` is the one of the command, in place of all of the study's.

    GPUs are as many as there are CUDA devices under the study's models. Raises StudyError where these are not numbered
    from 0: Ray gives an actor some GPUs of a machine, and there they are `cuda:0`, `cuda:1` and so on.
    """
    devices = {device} if device else {study.student.device, *(one.device for one in study.teacher if _loads_a_model(one))}
    cuda = {"cuda:0" if one == "cuda" else one for one in devices if one.startswith("cuda")}
    if cuda != {f"cuda:{number}" for number in range(len(cuda))}:
        raise StudyError(
            f"The models are on {', '.join(sorted(cuda))}, and the GPUs that Ray gives a worker are numbered from 0; "
            f"name {', '.join(f'cuda:{number}' for number in range(len(cuda)))} in their place."
        )
    return Resources(max(1, study.engine.threads), len(cuda))


def _loads_a_model(teacher: Teacher) -> bool:
    """Whether a teacher, or who writes its demonstrations or summaries, is a model that it names."""
    return teacher.kind == "external" or bool(teacher.context_model or teacher.summary_model)


def places(machines: Sequence[Resources], each: Resources) -> int:
    """How many actors a cluster takes: as many as its GPUs and CPUs have room for, and without GPUs one per machine."""
    if not each.gpus:
        return max(1, len(machines))
    return sum(min(machine.gpus // each.gpus, machine.cpus // each.cpus) for machine in machines)


def unanswered(n_silent: int, n_workers: int, each: Resources, machines: Sequence[Resources], free: Resources) -> str:
    """What is said of actors that have not answered for a while."""
    there = Resources(sum(machine.cpus for machine in machines), sum(machine.gpus for machine in machines))
    return (
        f"no answer from Ray for {_PLACED_WITHIN_S:.0f} s ({n_silent} of {n_workers} workers); each asks for {each} on one "
        f"machine, and the cluster has {there} on {_counted(len(machines), 'machine')}, free {free}."
    )


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _resources(found: Mapping[str, float]) -> Resources:
    """What Ray's own table says."""
    return Resources(int(found.get("CPU", 0)), int(found.get("GPU", 0)))


class Actor:
    """A worker inside Ray. Its methods run in threads: its news can be asked for and a stop be said while it works."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stopped = threading.Event()
        self._news: list[Usage | Said] = []
        self._worker: Worker | None = None

    def ready(self) -> Ready | Failed:
        """Load the models."""
        try:
            self._worker = Worker(self._job, Quiet(self._keep, self._check))
        except Exception as error:
            return failure(error)
        return self._worker.ready

    def do(self, number: int) -> Done | Failed | None:
        """Do a question; None where it was interrupted."""
        assert self._worker is not None
        try:
            return self._worker.do(number)
        except Interrupted:
            return None
        except Exception as error:
            return failure(error)

    def news(self) -> list[Usage | Said]:
        """What it said since the last time."""
        told, self._news = self._news, []
        return told

    def stop(self) -> None:
        """End the question in hand between two steps."""
        self._stopped.set()

    def _keep(self, event: Usage | Said) -> None:
        self._news.append(event)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Interrupted("the parent stops")


class RayCrew:
    """Actors of a Ray cluster. `workers` of them, or with 0 as many as have `places`."""

    def __init__(self, job: Job, address: str, study: Path, device: str, workers: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody about itself
        try:
            import ray
        except ImportError:
            raise ComputeError("--ray needs the extra [ray]; install it: pip install 'opd-tui[ray]'.") from None
        self._ray: Any = ray
        _require_cluster(address)
        if ray.is_initialized():
            raise ComputeError("This process is connected to Ray already; call ray.shutdown() first.")
        self._each = needs(load(study), device)
        self._job = job
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}  #: what is under way, by whom
        self._asked: dict[Any, int] = {}
        self._last_asked = 0.0
        self._silent: dict[int, float] = {}  #: who has not answered yet, since when
        self._told = False
        # Actors get an empty folder: nothing that lies about where the command is run can pass for one of our packages.
        self._empty = tempfile.TemporaryDirectory(prefix="opd-tui-ray-")
        context = multiprocessing.get_context("spawn")
        watched, self._watching = context.Pipe(duplex=False)
        self._guard = context.Process(target=guard, args=(watched, os.getpid()), name="guard", daemon=True)
        try:
            with signals_at_once():  # puts our handlers back: `ray.init` sets one for SIGTERM
                if address == "local":
                    self._guard.start()
                watched.close()
                self._connect(address, workers)
                self.n_workers = workers or self._places()
        except BaseException:
            self.stop(0.0)
            raise
        # A death is ours to handle: the parent knows which question it costs.
        options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 3}
        self._class = ray.remote(**options, num_cpus=self._each.cpus, num_gpus=self._each.gpus)(Actor)

    def _connect(self, address: str, workers: int) -> None:
        local: dict[str, Any] = {}
        if address == "local":
            cpus = self._each.cpus * workers or max(self._each.cpus, (os.cpu_count() or 1) if self._each.gpus else 1)
            local = {"include_dashboard": False, "num_cpus": cpus}
        try:
            self._ray.init(
                address=address,
                runtime_env={"working_dir": self._empty.name},
                log_to_driver=False,
                logging_level="ERROR",
                **local,
            )
        except SystemExit:  # what that handler does while it is there
            raise Interrupted("stopped by SIGTERM") from None
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, str(error).splitlines()[0]) from None

    def start(self, worker: int) -> None:
        """Start an actor."""
        self._silent[worker] = time.monotonic()
        self._actors[worker] = self._class.remote(self._job)
        self._calls[self._actors[worker].ready.remote()] = worker

    def give(self, worker: int, number: int) -> None:
        """Give a question to an actor that is free."""
        self._calls[self._actors[worker].do.remote(number)] = worker

    def events(self, seconds: float) -> Sequence[tuple[int, Event]]:
        """What actors returned; waits for something at most so long."""
        if time.monotonic() - self._last_asked >= _ASK_EVERY_S:
            self._last_asked = time.monotonic()
            asked = set(self._asked.values())
            self._asked |= {actor.news.remote(): worker for worker, actor in self._actors.items() if worker not in asked}
        pending = [*self._calls, *self._asked]
        if not pending:
            time.sleep(seconds)
            return []
        found: list[tuple[int, Event]] = self._unanswered()
        ready, _ = self._ray.wait(pending, num_returns=1, timeout=seconds)
        for call in ready:
            is_news = call in self._asked
            worker = self._asked.pop(call) if is_news else self._calls.pop(call)
            self._silent.pop(worker, None)
            try:
                event = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                busy = worker in self._calls.values()  # then that call says so as well
                if worker in self._actors and not (is_news and busy):
                    found.append((worker, self._bury(worker, error)))
                continue
            if event is not None:
                found.extend((worker, one) for one in (event if is_news else [event]))
        return found

    def stop(self, seconds: float) -> None:
        """Ask all actors to stop between two steps, then end them."""
        if self._ray.is_initialized():
            for actor in self._actors.values():
                actor.stop.remote()
            busy = [call for call, worker in self._calls.items() if worker not in self._silent]
            if busy and seconds:
                self._ray.wait(busy, num_returns=len(busy), timeout=seconds)
        self._ray.shutdown()
        self._watching.close()
        if self._guard.pid is not None:
            self._guard.join()
        self._actors.clear()
        self._empty.cleanup()

    def _bury(self, worker: int, error: Exception) -> Died:
        del self._actors[worker]
        self._asked = {call: other for call, other in self._asked.items() if other != worker}
        self._calls = {call: other for call, other in self._calls.items() if other != worker}
        return Died(str(error).splitlines()[0].rstrip("."))

    def _places(self) -> int:
        count = places(self._machines(), self._each)
        if not count:
            raise ComputeError(
                f"A worker of this study takes {self._each}, and no machine of the Ray cluster has them; give --device cpu, or "
                "another cluster."
            )
        return count

    def _machines(self) -> list[Resources]:
        return [_resources(node["Resources"]) for node in self._ray.nodes() if node["Alive"]]

    def _unanswered(self) -> list[tuple[int, Event]]:
        """One line, once, where actors have not answered for long."""
        before = time.monotonic() - _PLACED_WITHIN_S
        late = sorted(worker for worker, since in self._silent.items() if since < before)
        if not late or self._told:
            return []
        self._told = True
        free = _resources(self._ray.available_resources())
        return [(late[0], Said(unanswered(len(late), self.n_workers, self._each, self._machines(), free)))]


def _require_cluster(address: str) -> None:
    """See whether something answers at a host and port: Ray itself tries for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return  # `local`, `auto`
    if not host or not port.isdecimal():
        raise ComputeError(f"--ray takes local, auto, or host:port, not {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> ComputeError:
    return ComputeError(f"There is no Ray cluster at {address!r} ({why}); `ray status` says where one is, `local` starts one.")
