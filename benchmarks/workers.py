"""Two workers against one process: `python -m benchmarks.workers [--json] [--repeats 3] [--limit 24]`.

The built-in study, its models on one thread each. Questions per second are taken from the metrics file: from the moment
when every worker has finished its first question until nothing is left to hand out, so that loading models and the last
questions, when a worker has none left, do not count. On a machine that others use as well, wall time says how busy they
are: hence also what the CPUs did. `cpu_seconds` is per question; its ratio, doubled, is what two free cores would give.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import close

STUDY = Path(__file__).resolve().parent.parent / "examples" / "chain_sums" / "study.toml"
OPD_TUI = Path(sys.executable).with_name("opd-tui")


def rates(workers: int, limit: int) -> tuple[float, float]:
    """Questions per second, and CPU seconds per question, of all workers together."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.jsonl"
        words = ["-o", f"{folder}/s.zarr", "--workers", str(workers), "--limit", str(limit), "--metrics", metrics]
        subprocess.run(
            [OPD_TUI, "compute", STUDY, *map(str, words)],
            check=True,
            capture_output=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    # One moment has a row of every worker that said something so far.
    moments: list[dict[int, dict[str, float]]] = []
    for row in rows:
        if not moments or row["worker"] in moments[-1]:
            moments.append({})
        moments[-1][row["worker"]] = row
    warm = [
        moment
        for moment in moments
        if len(moment) == workers
        and all(row["worker_questions"] for row in moment.values())
        and all(row["questions_done"] <= limit - workers + 1 for row in moment.values())
    ]
    first, last = (
        [
            sum(row[name] for row in moment.values()) / per
            for name, per in (("time", workers), ("worker_questions", 1), ("cpu_seconds", 1))
        ]
        for moment in (warm[0], warm[-1])
    )
    seconds, questions, cpu_seconds = (b - a for a, b in zip(first, last, strict=True))
    return questions / seconds, cpu_seconds / questions


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=24, help="questions of a run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for workers, results in taken.items():
            results.append(rates(workers, options.limit))
    rate = {workers: statistics.median(one for one, _ in results) for workers, results in taken.items()}
    cpu = {workers: statistics.median(one for _, one in results) for workers, results in taken.items()}
    if not options.json:
        for workers in taken:
            print(f"{workers} worker(s): {rate[workers]:6.2f} questions/s, {cpu[workers]:6.2f} CPU seconds a question")
    close("workers", {"questions_per_second": rate[2] / rate[1], "on_free_cores": 2 * cpu[1] / cpu[2]})


if __name__ == "__main__":
    main()
