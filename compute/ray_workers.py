"""Workers on a Ray cluster: one actor, with models and an engine of its own, per GPU.

All machines see the study, its models and the store under the same paths, as on a cluster with a shared file system.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compute.crew import Died, Done, Event, Failed, Ready, Said
from compute.errors import ComputeError, Interrupted
from compute.progress import Usage
from compute.study import load
from compute.watch import guard
from compute.workers import Job, Quiet, Worker, failure

_ASK_EVERY_S = 2.0


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
    """Actors of a Ray cluster. `workers` of them, or with 0 one per GPU (for a study on CPUs: one per machine)."""

    def __init__(self, job: Job, address: str, study: Path, device: str, workers: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody about itself
        try:
            import ray
        except ImportError:
            raise ComputeError("--ray needs the extra [ray]; install it: pip install 'opd-tui[ray]'.") from None
        self._ray: Any = ray
        _require_cluster(address)
        settings = load(study)
        threads = max(1, settings.engine.threads)
        # Actors get an empty folder: nothing that lies about where the command is run can pass for one of our packages.
        self._empty = tempfile.TemporaryDirectory(prefix="opd-tui-ray-")
        context = multiprocessing.get_context("spawn")
        watched, self._watching = context.Pipe(duplex=False)
        self._guard = context.Process(target=guard, args=(watched, os.getpid()), name="guard", daemon=True)
        if address == "local":
            self._guard.start()
        watched.close()
        try:
            ray.init(
                address=address,
                runtime_env={"working_dir": self._empty.name},
                log_to_driver=False,
                logging_level="ERROR",
                **({"include_dashboard": False, "num_cpus": threads * max(1, workers)} if address == "local" else {}),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, str(error).splitlines()[0]) from None
        on_gpu = (device or settings.student.device).startswith("cuda")
        self.n_workers = workers or self._places(on_gpu)
        needs: dict[str, Any] = {"num_gpus": 1 if on_gpu else 0, "num_cpus": threads}
        # A death is ours to handle: the parent knows which question it costs.
        self._class = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=3, **needs)(Actor)
        self._job = job
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}  #: what is under way, by whom
        self._asked: dict[Any, int] = {}
        self._last_asked = 0.0

    def start(self, worker: int) -> None:
        """Start an actor."""
        self._actors[worker] = self._class.remote(self._job)
        self._calls[self._actors[worker].ready.remote()] = worker

    def give(self, worker: int, number: int) -> None:
        """Give a question to an actor that is free."""
        self._calls[self._actors[worker].do.remote(number)] = worker

    def events(self, seconds: float) -> Sequence[tuple[int, Event]]:
        """What actors returned; waits for something at most so long."""
        if time.monotonic() - self._last_asked >= _ASK_EVERY_S and not self._asked:
            self._last_asked = time.monotonic()
            self._asked = {actor.news.remote(): worker for worker, actor in self._actors.items()}
        pending = [*self._calls, *self._asked]
        if not pending:
            time.sleep(seconds)
            return []
        found: list[tuple[int, Event]] = []
        ready, _ = self._ray.wait(pending, num_returns=1, timeout=seconds)
        for call in ready:
            asked = call in self._asked
            worker = self._asked.pop(call) if asked else self._calls.pop(call)
            try:
                event = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                busy = worker in self._calls.values()  # then that call says so as well
                if worker in self._actors and not (asked and busy):
                    found.append((worker, self._bury(worker, error)))
                continue
            if event is not None:
                found.extend((worker, one) for one in (event if asked else [event]))
        return found

    def stop(self, seconds: float) -> None:
        """Ask all actors to stop between two steps, then end them."""
        if not self._ray.is_initialized():
            return
        for actor in self._actors.values():
            actor.stop.remote()
        busy = list(self._calls)
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

    def _places(self, on_gpu: bool) -> int:
        """How many actors fit the cluster."""
        if not on_gpu:
            return max(1, sum(bool(node["Alive"]) for node in self._ray.nodes()))
        count: int = round(self._ray.cluster_resources().get("GPU", 0))
        if not count:
            self._ray.shutdown()
            raise ComputeError("The study runs on `cuda`, and the Ray cluster has no GPU; give --device cpu, or another cluster.")
        return count


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
