"""The store at 1 and 10 million tokens, beside zarr-python and other formats: `python -m benchmarks.store [--json] [--small]`.

`--small` takes a tenth of everything. `--keep FOLDER` leaves the stores there and uses those that are there. Both sides of
a ratio run in turn in one go; what is said of a fresh process is measured in processes of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import store
from benchmarks.big_store import TEACHERS, Bank, part, root, write
from benchmarks.measure import as_installed, close, medians
from opd_tui.reading import Library
from store.schema import STUDENT, TEACHER
from store.staging import write_arrays
from store.writer import create, publish

ONE = TEACHERS[0]
TOKENS_A_ROLLOUT = 600
LIST_ROLLOUTS = 320_000
_STUDENT_TOKEN = [name for name, spec in STUDENT.items() if spec.dims[0] == "token"]
_TEACHER_TOKEN = [name for name, spec in TEACHER.items() if spec.dims[0] == "token"]
_EXTRA = [name for name, spec in TEACHER.items() if spec.dims[0] == "extra"]

#: Fresh processes, each as a researcher's first line of a notebook would be. They print seconds.
FIRST_PAGE_OURS = """
import time; started = time.perf_counter()
import sys, store
opened = store.open(sys.argv[1])
opened.rollout("q000011", 1, [sys.argv[2]])
print(time.perf_counter() - started)
"""
FIRST_PAGE_ZARR = """
import time; started = time.perf_counter()
import os, sys, asyncio, zarr, zarr.core.sync
root, teacher, names = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
for part in sorted(os.listdir(f"{root}/student")):  # which part has the question, and where in it
    if part.startswith("p-"):
        ids = zarr.open_group(f"{root}/student/{part}", mode="r").attrs["question_ids"]
        if "q000011" in ids:
            break
async def page():
    async def opened(name):
        return await zarr.api.asynchronous.open_array(store=f"{root}/{name.replace('PART', part)}", mode="r")
    head = ["student/PART/rollout_start", "student/PART/token_start"]
    rollouts, tokens, *arrays = await asyncio.gather(*map(opened, [*head, *names]))
    first = int(await rollouts.getitem(ids.index("q000011"))) + 1
    start, stop = (int(bound) for bound in await tokens.getitem(slice(first, first + 2)))
    *by_token, offsets = arrays[:-3]
    read = await asyncio.gather(offsets.getitem(slice(start, stop + 1)), *(one.getitem(slice(start, stop)) for one in by_token))
    of_extras = slice(int(read[0][0]), int(read[0][-1]))
    return [*read, *await asyncio.gather(*(array.getitem(of_extras) for array in arrays[-3:]))]
zarr.core.sync.sync(page())
print(time.perf_counter() - started)
"""
MEMORY = """
import random, sys, store
opened = store.open(sys.argv[1], cache_bytes=int(sys.argv[2]))
ids = opened.listing().question_id_Q
for question in random.Random(0).choices(ids, k=400):
    opened.page(question, 0)
for line in open("/proc/self/status"):  # not getrusage, which remembers the process that this one was forked from
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    scale = 10 if given.small else 1
    with _folder(given.keep) as folder:
        small, big = (_made(folder, n // scale) for n in (1_000_000, 10_000_000))
        figures = {
            **_fresh_processes(small, big),
            **_pages(big, folder),
            **_neighbours_in_memory(big),
            **_lists(folder, LIST_ROLLOUTS // scale),
            **_memory(big),
            **_size_and_writing(small, folder),
        }
    if not given.json:
        for name, value in figures.items():
            print(f"{name:90} {value:10.3f}")
    close("store", figures)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _made(folder: Path, n_tokens: int) -> Path:
    path = folder / f"tokens-{n_tokens}.zarr"
    if not path.exists():
        write(path, n_questions=n_tokens // TOKENS_A_ROLLOUT // 2, n_tokens=TOKENS_A_ROLLOUT)
    return path


def _page_arrays(name: str) -> list[str]:
    """What a page of one rollout reads, as paths inside the store; the last four are the offsets of extras and the extras."""
    student = [f"student/{name}/{array}" for array in (*_STUDENT_TOKEN, "path_node")]
    return [*student, *(f"teacher/{ONE}/{name}/{array}" for array in (*_TEACHER_TOKEN, "extra_start", *_EXTRA))]


def _run(program: str, *arguments: object) -> float:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=as_installed() | {"PYTHONPATH": str(_ROOT)})
    return float(done.stdout)


_ROOT = Path(__file__).resolve().parents[1]


def _fresh_processes(small: Path, big: Path) -> dict[str, float]:
    names = ",".join(_page_arrays("PART"))
    seconds: dict[str, list[float]] = {"small": [], "big": [], "zarr": []}
    for _ in range(9):
        seconds["small"].append(_run(FIRST_PAGE_OURS, small, ONE))
        seconds["big"].append(_run(FIRST_PAGE_OURS, big, ONE))
        seconds["zarr"].append(_run(FIRST_PAGE_ZARR, big, ONE, names))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "import, open and first page: 10 times the tokens / as they are": median["big"] / median["small"],
        "import, open and first page / the same with zarr-python gathered": median["big"] / median["zarr"],
    }


def _pages(path: Path, folder: Path) -> dict[str, float]:
    """Pages of one teacher at random places of some parts whose arrays are open on both sides; no chunk is cached."""
    opened = store.open(path, cache_bytes=0)
    listing = opened.listing()
    rng = np.random.default_rng(0)
    places = [(listing.question_id_Q[q], int(rng.integers(2))) for q in rng.integers(0, min(512, len(listing)), 400)]
    ours = iter(places * 9)
    where = {place.question_id: place for place in opened.places()}
    rows = {name: _rows(path, where, name) for name, _ in places}
    theirs = iter(places * 9)
    open_arrays: dict[str, list[Any]] = {}

    def by_zarr() -> None:
        name, index = next(theirs)
        part_name, start = rows[name][0], rows[name][1][index]
        *arrays, offsets = open_arrays[part_name][:-3]

        async def gathered() -> Any:
            read = await asyncio.gather(
                offsets.getitem(slice(start[0], start[1] + 1)), *(one.getitem(slice(*start)) for one in arrays)
            )
            of_extras = slice(int(read[0][0]), int(read[0][-1]))
            return [*read, *await asyncio.gather(*(array.getitem(of_extras) for array in open_arrays[part_name][-3:]))]

        zarr.core.sync.sync(gathered())

    for name, _ in places:  # opening is not what is measured here: on neither side
        opened.rollout(name, 0, [ONE])
        if rows[name][0] not in open_arrays:
            opened_now = (zarr.open_array(path / key, mode="r") for key in _page_arrays(rows[name][0]))
            open_arrays[rows[name][0]] = [array._async_array for array in opened_now]
    sides: dict[str, Callable[[], object]] = {"ours": lambda: opened.rollout(*next(ours), [ONE]), "zarr": by_zarr}
    sides |= _other_formats(path, folder, places)
    seconds = medians(sides, 60)
    ours_s = seconds["ours"]
    figures = {"page of one teacher / zarr-python gathered": ours_s / seconds["zarr"]}
    figures |= {
        f"page of one teacher / {name}": ours_s / value for name, value in seconds.items() if name not in ("ours", "zarr")
    }
    return figures


def _rows(path: Path, where: Any, question: str) -> tuple[str, list[tuple[int, int]]]:
    place = where[question]
    array = zarr.open_array(path / "student" / place.part / "token_start", mode="r")
    start = np.asarray(array[2 * place.row : 2 * place.row + 3])
    return place.part, [(int(start[0]), int(start[1])), (int(start[1]), int(start[2]))]


def _other_formats(path: Path, folder: Path, places: list[tuple[str, int]]) -> dict[str, Callable[[], object]]:
    """The columns of the first part's rollouts in other formats; each side reads one rollout of one teacher."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numcodecs import Blosc

    opened = store.open(path)
    whole = opened.part(opened.part_ids[0])
    start = whole.student["token_start"]
    columns = {name: whole.student[name] for name in _STUDENT_TOKEN}
    columns |= {f"{ONE} {name}": whole.teachers[ONE][name] for name in _TEACHER_TOKEN}
    offsets, extras = whole.teachers[ONE]["extra_start"], {name: whole.teachers[ONE][name] for name in _EXTRA}
    made = folder / "others"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    table = {name: pa.array(list(array)) if array.ndim == 2 else pa.array(array) for name, array in columns.items()}
    table |= {name: pa.LargeListArray.from_arrays(offsets, array) for name, array in extras.items()}
    pq.write_table(pa.table(table), made / "part.parquet", row_group_size=4096, compression="zstd")
    for name, array in {**columns, "extra_start": offsets, **extras}.items():
        np.save(made / f"{name}.npy", array)
    codec = Blosc("zstd", clevel=3)
    base = sqlite3.connect(made / "part.sqlite")
    base.execute("create table rollout (number integer primary key, columns blob)")
    for row in range(len(start) - 1):
        tokens, of_extras = _cut(start, row), _cut(offsets[start], row)
        pieces = [np.ascontiguousarray(array[tokens]) for array in columns.values()]
        pieces += [offsets[tokens], *(array[of_extras] for array in extras.values())]
        base.execute("insert into rollout values (?, ?)", (row, b"".join(codec.encode(piece) for piece in pieces)))
    base.commit()
    maps = {name: np.load(made / f"{name}.npy", mmap_mode="r") for name in (*columns, "extra_start", *extras)}
    parquet = pq.ParquetFile(made / "part.parquet")
    rollouts = iter(np.random.default_rng(1).integers(0, len(start) - 1, 10_000).tolist())

    def by_parquet() -> object:
        row = next(rollouts)
        groups = range(int(start[row]) // 4096, (int(start[row + 1]) - 1) // 4096 + 1)
        found = parquet.read_row_groups(list(groups), use_threads=False)
        return found.slice(int(start[row]) - groups[0] * 4096, int(start[row + 1] - start[row]))

    def by_sqlite() -> object:
        (blob,) = base.execute("select columns from rollout where number = ?", (next(rollouts),)).fetchone()
        view, at, found = memoryview(blob), 0, []
        while at < len(view):
            size = int.from_bytes(view[at + 12 : at + 16], "little")
            found.append(codec.decode(view[at : at + size]))
            at += size
        return found

    def by_memmap() -> object:
        tokens = _cut(start, next(rollouts))
        read = {name: np.array(maps[name][tokens]) for name in (*columns, "extra_start")}
        of_extras = slice(read["extra_start"][0], maps["extra_start"][tokens.stop])
        return read | {name: np.array(maps[name][of_extras]) for name in extras}

    return {"Parquet": by_parquet, "SQLite": by_sqlite, "memmap": by_memmap}


def _cut(bounds: Any, row: int) -> slice:
    return slice(int(bounds[row]), int(bounds[row + 1]))


def _neighbours_in_memory(path: Path) -> dict[str, float]:
    """Milliseconds for the next and the previous page, once they were read ahead."""
    library = Library(str(path))
    first = store.open(path).listing().question_id_Q[5]
    library.rollout(first, 0)
    library.prefetch(first, 0, width=80)
    started = time.perf_counter()
    library.rollout(first, 1)
    after = time.perf_counter()
    return {"next page, read ahead, ms": 1000 * (after - started)}


def _lists(folder: Path, n_rollouts: int) -> dict[str, float]:
    """Milliseconds from opening to all rollouts' columns. The rollouts are one token long: no list looks at tokens."""
    path = folder / f"rollouts-{n_rollouts}.zarr"
    if not path.exists():
        write(path, n_questions=n_rollouts // 8, n_rollouts=8, n_tokens=1, per_part=n_rollouts // 8 // 32)
    store.open(path).listing()
    taken = []
    for _ in range(5):
        opened = store.open(path)
        started = time.perf_counter()
        columns = opened.listing()
        taken.append(time.perf_counter() - started)
    return {f"first list of {len(columns.index_R)} rollouts from the index, ms": 1000 * statistics.median(taken)}


def _memory(path: Path) -> dict[str, float]:
    cache = 64 << 20
    return {"peak memory of a reader of 400 pages of all teachers, its cache of 64 MB apart, MB": _run(MEMORY, path, cache) - 64}


def _size_and_writing(path: Path, folder: Path) -> dict[str, float]:
    opened = store.open(path)
    n_tokens = opened.counts().n_tokens
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    bank = Bank(1)
    made = part(bank, range(64), 2, TOKENS_A_ROLLOUT, 1)
    target = folder / "written.zarr"
    numbers = iter(range(1000))

    def published() -> None:
        shutil.rmtree(target, ignore_errors=True)
        create(target, root(64), [b"x"] * 50_000, [])
        started = time.perf_counter()
        publish(target, "p-0", made)
        ours.append(time.perf_counter() - started)

    def flat() -> None:
        place = folder / f"flat-{next(numbers)}"
        started = time.perf_counter()
        write_arrays(place / "student", made.student, STUDENT)
        for name, arrays in made.teachers.items():
            write_arrays(place / name, arrays, TEACHER)
        theirs.append(time.perf_counter() - started)
        shutil.rmtree(place)

    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(5):
        published()
        flat()
    return {
        "bytes a token, everything": size / n_tokens,
        "writing a part / the same arrays written flat": statistics.median(ours) / statistics.median(theirs),
    }


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    main()
