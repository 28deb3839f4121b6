"""Exports of a million tokens under four teachers: `python -m benchmarks.export [--json] [--small] [--keep FOLDER]`.

Every export is a process of its own. Its peak memory is beside that of an export of a tenth of the store: what holds all rows
would take ten times as much. Its speed is beside that of Python's csv module writing the same rows, made already, to a file.
`--small` takes a tenth of everything; `--keep` leaves the stores in FOLDER and uses those that are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import store
from benchmarks.big_store import write
from benchmarks.measure import close
from opd_tui.export.rows import Selection, rows

TOKENS_A_ROLLOUT = 600
FORMATS = ("jsonl", "csv", "parquet", "npz", "zarr")
#: Rows by what tokens and nodes have.
WHERE = "js > 0.02 | align < 0"
#: Rows that the csv module is timed with.
_BASELINE_ROWS = 20_000

#: One export as the command line has it. Prints peak megabytes (not getrusage, which remembers the process that this one was
#: forked from) and seconds of processor time, which a shared machine disturbs less.
EXPORT = """
import atexit, sys, time
def said():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            print("PEAK", int(line.split()[1]) / 1024, time.process_time())
atexit.register(said)
from opd_tui.entry import main
main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--format", choices=FORMATS, action="append", help="only this one (repeatable)")
    given = parser.parse_args()
    n_tokens = 100_000 if given.small else 1_000_000
    figures: dict[str, float] = {}
    with nullcontext(given.keep) if given.keep else tempfile.TemporaryDirectory() as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        small, big = (_made(Path(folder), n) for n in (n_tokens // 10, n_tokens))
        baseline = _csv_rows_a_second(small, Path(folder))
        for name in given.format or FORMATS:
            for words in ((), ("--where", WHERE)):
                tenth = _export(small, name, words, Path(folder))
                whole = _export(big, name, words, Path(folder))
                said = f"{name}{' --where' if words else ''}"
                figures[f"{said}: peak memory / that of a tenth of the tokens"] = whole["MB"] / tenth["MB"]
                if name != "zarr" and not words:
                    figures[f"{name}: rows a second / csv module alone"] = whole["rows"] / whole["seconds"] / baseline
                if not given.json:
                    beside = f"{whole['MB']:5.0f} MB peak, of a tenth {tenth['MB']:5.0f} MB"
                    print(f"{said:16} {beside}  {whole['bytes'] / 1e6:8,.0f} MB written  {whole['seconds']:6.1f} s")
    close("export", figures)


def _made(folder: Path, n_tokens: int) -> Path:
    path = folder / f"tokens-{n_tokens}.zarr"
    if not path.exists():
        write(path, n_questions=max(1, n_tokens // TOKENS_A_ROLLOUT // 2), n_tokens=TOKENS_A_ROLLOUT)
    return path


def _export(path: Path, format: str, words: tuple[str, ...], folder: Path) -> dict[str, float]:
    out = folder / f"out.{'zip' if format == 'zarr' else format}"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-c", EXPORT, "export", str(path), "--format", format, "-o", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1])
    said, peak = done.stdout.splitlines()
    n_rows = 0.0 if format == "zarr" else float(said.split()[0].replace(",", ""))
    size = out.stat().st_size
    out.unlink()
    return {"rows": n_rows, "bytes": float(size), "MB": float(peak.split()[1]), "seconds": float(peak.split()[2])}


def _csv_rows_a_second(path: Path, folder: Path) -> float:
    """Python's csv module with the same rows: no store is read, nothing is scored."""
    made: list[dict[str, Any]] = [
        {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in row.items()}
        for row in islice(rows(store.open(path), Selection()), _BASELINE_ROWS)
    ]
    columns = list(dict.fromkeys(name for row in made for name in row))
    started = time.process_time()
    with (folder / "baseline.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(made)
    seconds = time.process_time() - started
    (folder / "baseline.csv").unlink()
    return len(made) / seconds


if __name__ == "__main__":
    main()
