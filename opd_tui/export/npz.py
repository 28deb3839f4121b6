"""Exported rows as arrays by name, in one file that ``numpy.load(FILE, allow_pickle=False)`` opens."""

from __future__ import annotations

import gzip
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from opd_tui.export.rows import PER_OBJECTIVE
from store.schema import DIVERGENCES

#: Columns of a row, with what is stored where a row has none: NaN for numbers, -1 or False for others.
ROW: dict[str, DTypeLike] = {
    "question_id": np.str_, "rollout_index": np.int32, "correct": np.bool_, "position": np.int32, "token_id": np.int32,
    "student_logprob": np.float32, "student_entropy": np.float32, "teacher": np.str_,
    "teacher_logprob": np.float32, "teacher_entropy": np.float32, **dict.fromkeys(DIVERGENCES, np.float32),
    "reliability": np.float64, "teacher_advantage": np.float64, "success_rate_range": np.float64, "n_kept": np.int32,
    "judged_only": np.bool_,
}  # fmt: skip
CHILD: dict[str, DTypeLike] = {
    "token_id": np.int32, "kind": np.str_, "kept": np.bool_, "student_logprob": np.float32,
    "teacher_logprob": np.float32, "n_completions": np.int64, "n_success": np.int64, "n_effective": np.float64,
    "p_succ": np.float64, "p_succ_low": np.float64, "p_succ_high": np.float64,
}  # fmt: skip

#: Rows whose columns are in memory at once, and bytes of a column that are copied at once.
_BLOCK, _COPIED = 2048, 1 << 20


def write_npz(found: Iterator[Mapping[str, Any]], objectives: Sequence[str], path: Path, block: int = _BLOCK) -> int:
    """Write the rows of `opd_tui.export.rows` to a new file at `path` and return how many there are. Raises OSError.

    One array a column. What a decision point has under every objective is [row, objective], in the order of the array
    `objectives`. Children of row i are the entries ``child_start[i]`` to ``child_start[i + 1]`` of the arrays `child_...`.
    The text of token ``text_token_id[j]`` is the bytes ``text_start[j]`` to ``text_start[j + 1]`` of `text_utf8`: in a numpy
    array of texts every one would take as much as the longest. An array's length is known with the last row, and arrays lie
    one after the other: until then each grows in a packed file of its own in a folder beside `path`, `block` rows at a time.
    """
    texts: dict[int, bytes] = {}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as folder:
        columns = {name: _Column(Path(folder, name), kind) for name, kind in ROW.items()}
        columns |= {f"child_{name}": _Column(Path(folder, f"child_{name}"), kind) for name, kind in CHILD.items()}
        for name in PER_OBJECTIVE:
            kind: DTypeLike = np.bool_ if name == "p_positive_calibrated" else np.float64
            columns[name] = _Column(Path(folder, name), kind)
        columns["child_start"] = _Column(Path(folder, "child_start"), np.int64)
        columns["child_start"].add([0])
        n = n_children = 0
        while rows := list(islice(found, block)):
            children = [row.get("children", ()) for row in rows]
            every_child = [child for of in children for child in of]
            for one in (*rows, *every_child):
                if one["token"] is not None:
                    texts[one["token_id"]] = one["token"].encode()
            for name in ROW:
                columns[name].add([row.get(name) for row in rows])
            for name in PER_OBJECTIVE:
                columns[name].add([row.get(name, {}).get(objective) for row in rows for objective in objectives])
            for name in CHILD:
                columns[f"child_{name}"].add([child[name] for child in every_child])
            columns["child_start"].add((n_children + np.cumsum([len(of) for of in children])).tolist())
            n, n_children = n + len(rows), n_children + len(every_child)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, column in columns.items():
                column.write(archive, name, (n, len(objectives)) if name in PER_OBJECTIVE else (column.n,))
            ids = sorted(texts)
            _whole(archive, "text_token_id", np.array(ids, np.int32))
            _whole(archive, "text_start", np.cumsum([0, *(len(texts[one]) for one in ids)], dtype=np.int64))
            _whole(archive, "text_utf8", np.frombuffer(b"".join(texts[one] for one in ids), np.uint8))
            _whole(archive, "objectives", np.array(objectives, np.str_))
    return n


class _Column:
    """An array that grows in a file. Of texts their numbers are kept there, since all take as much as the longest."""

    def __init__(self, path: Path, kind: DTypeLike) -> None:
        self._kind = np.dtype(kind)
        self._stored = np.dtype(np.int32) if self._kind.kind == "U" else self._kind
        self._texts: dict[str, int] = {}
        self._path, self._file = path, gzip.open(path, "wb", compresslevel=1)  # noqa: SIM115  # closed when it is read
        self.n = 0

    def add(self, values: Sequence[Any]) -> None:
        """Entries more; None becomes NaN, -1, False or ""."""
        if self._kind.kind == "U":
            values = [self._texts.setdefault(value or "", len(self._texts)) for value in values]
        nothing: Any = {"f": np.nan, "i": -1, "b": False}[self._stored.kind]
        block = np.array([nothing if value is None else value for value in values], self._stored)
        self._file.write(block.tobytes())
        self.n += len(block)

    def write(self, archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> None:
        """Put the array into the archive and remove its file."""
        self._file.close()
        texts = np.array([*self._texts] or [""], np.str_)
        kind = texts.dtype if self._kind.kind == "U" else self._kind
        with gzip.open(self._path) as stored, _entry(archive, name, kind, shape) as entry:
            while block := stored.read(_COPIED // max(1, kind.itemsize // self._stored.itemsize)):
                entry.write(block if kind == self._stored else texts[np.frombuffer(block, self._stored)].tobytes())
        self._path.unlink()


def _entry(archive: zipfile.ZipFile, name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A file of the archive to write an array's bytes to, as `numpy.savez` makes it."""
    entry = archive.open(f"{name}.npy", "w", force_zip64=True)
    npy.write_array_header_1_0(entry, {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": shape})
    return entry


def _whole(archive: zipfile.ZipFile, name: str, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    with _entry(archive, name, array.dtype, array.shape) as entry:
        entry.write(array.tobytes())
