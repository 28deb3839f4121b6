"""Which crew a run has: processes of this machine, or actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from compute.crew import Crew, oversee
from compute.locks import Shard
from compute.progress import Reporter
from compute.runner import Outcome
from compute.setup import Setup
from compute.workers import Job, LocalCrew
from store.place import PathLike, is_remote


def run_team(
    prepare: Callable[[Reporter], Setup],
    study: Path,
    out: PathLike,
    reporter: Reporter,
    *,
    workers: int,
    ray: str,
    device: str,
    limit: int,
    shard: Shard,
) -> Outcome:
    """Compute a study with several workers, each of which calls `prepare`; with `ray`, on the cluster at this address."""
    out = out if is_remote(out) else Path(out).resolve()
    crew: Crew
    if ray:
        from compute.ray_workers import RayCrew

        crew = RayCrew(Job(prepare, out, workers), ray, study, device, workers)
        workers = crew.n_workers
    else:
        crew = LocalCrew(Job(prepare, out, workers))
    try:
        return oversee(crew, workers, study, out, reporter, limit=limit, shard=shard)
    finally:
        crew.stop(0.0)  # also where it was refused before it began
