"""How benchmarks measure and report: both sides in one run, medians, ratios, one JSON object at the end."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """Medians over repeats of one way to do the work."""

    wall_seconds: float
    cpu_seconds: float  #: of this process, all its threads
    work: float  #: what it got done in one go, in the benchmark's own unit
    work_per_cpu_second: float


def compare(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Side]:
    """Run each side `repeats` times, in turn; a side returns how much work it did.

    CPU seconds are what to compare on a machine that is shared: time spent waiting for a core is not in them.
    """
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # once for caches and kernels
    for _ in range(repeats):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work = side()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu, work))
    return {
        name: Side(
            wall_seconds=statistics.median(wall for wall, _, _ in rows),
            cpu_seconds=statistics.median(cpu for _, cpu, _ in rows),
            work=statistics.median(work for _, _, work in rows),
            work_per_cpu_second=statistics.median(work / cpu for _, cpu, work in rows),
        )
        for name, rows in taken.items()
    }


def medians(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side; the sides take turns, so that a busy moment meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # once for caches and kernels
    for _ in range(repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def as_installed() -> dict[str, str]:
    """The environment for a fresh process whose start is measured: modules are compiled once, as an installed package's are."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def report(name: str, seconds: dict[str, float], figures: dict[str, float]) -> None:
    """Print a table for people unless --json was given, and the figures, which are ratios, as the last line."""
    if "--json" not in sys.argv:
        for side, value in seconds.items():
            print(f"{side:40} {1000 * value:10.2f} ms")
        for figure, value in figures.items():
            print(f"{figure:40} {value:10.2f} x")
    close(name, figures)


def close(name: str, figures: dict[str, float]) -> None:
    """Print the figures as the last line."""
    print(json.dumps({"name": name, "figures": {figure: round(value, 3) for figure, value in figures.items()}}))
