"""Exported rows as arrays by name, in one file that ``numpy.load(FILE, allow_pickle=False)`` opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from opd_tui.export import PER_OBJECTIVE
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


def write_npz(found: Iterator[Mapping[str, Any]], objectives: Sequence[str], path: Path) -> int:
    """Write the rows of `opd_tui.export.rows` to a new file at `path` and return how many there are. Raises OSError.

    One array a column. What a decision point has under every objective is [row, objective], in the order of the array
    `objectives`. Children of row i are the entries ``child_start[i]`` to ``child_start[i + 1]`` of the arrays `child_...`.
    The text of token ``text_token_id[j]`` is the bytes ``text_start[j]`` to ``text_start[j + 1]`` of `text_utf8`: in a numpy
    array of texts every one would take as much as the longest. All rows are in memory at once.
    """
    texts: dict[int, bytes] = {}
    rows: dict[str, list[Any]] = {name: [] for name in ROW}
    scores: dict[str, list[list[Any]]] = {name: [] for name in PER_OBJECTIVE}
    children: dict[str, list[Any]] = {name: [] for name in CHILD}
    start = [0]
    for row in found:
        texts[row["token_id"]] = row["token"].encode()
        for name in ROW:
            rows[name].append(row.get(name))
        for name in PER_OBJECTIVE:
            scores[name].append([row.get(name, {}).get(objective) for objective in objectives])
        for child in row.get("children", ()):
            if child["token"] is not None:
                texts[child["token_id"]] = child["token"].encode()
            for name in CHILD:
                children[name].append(child[name])
        start.append(len(children["token_id"]))
    arrays = {name: _array(values, ROW[name]) for name, values in rows.items()}
    arrays |= {f"child_{name}": _array(values, CHILD[name]) for name, values in children.items()}
    shape = (len(start) - 1, len(objectives))
    for name, table in scores.items():
        kind: DTypeLike = np.bool_ if name == "p_positive_calibrated" else np.float64
        arrays[name] = _array([one for line in table for one in line], kind).reshape(shape)
    ids = sorted(texts)
    arrays["text_token_id"] = np.array(ids, np.int32)
    arrays["text_start"] = np.cumsum([0, *(len(texts[one]) for one in ids)], dtype=np.int64)
    arrays["text_utf8"] = np.frombuffer(b"".join(texts[one] for one in ids), np.uint8)
    arrays |= {"child_start": np.array(start, np.int64), "objectives": np.array(objectives, np.str_)}
    with path.open("wb") as file:  # a name without .npz stays as it is
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return len(start) - 1


def _array(values: list[Any], kind: DTypeLike) -> np.ndarray[Any, np.dtype[Any]]:
    """`values` as an array that holds no objects; None becomes NaN, -1, False or ""."""
    of = np.dtype(kind)
    nothing: Any = {"f": np.nan, "i": -1, "b": False, "U": ""}[of.kind]
    return np.array([nothing if value is None else value for value in values], of)
