"""Takes questions out of a part: the reverse of `store.parts.concatenate`. numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from store.parts import Array, Arrays, PartArrays, validate
from store.schema import NOWHERE, STUDENT, TEACHER, ArraySpec, ChildKind

Rows = dict[str, NDArray[np.int64]]


def take_questions(part: PartArrays, rows: Sequence[int]) -> PartArrays:
    """The part that holds the questions in `rows` alone, in that order; children take no more columns than they need.

    `part` is whole (see `store.parts.validate`). Raises StoreError where a row would refer to another question.
    """
    owned = _owned("question", np.asarray(rows, np.int64), part.student, STUDENT)
    columns = width(part.student["child_kind"][owned["node"]])
    student = _take(part.student, STUDENT, owned, columns)
    teachers = {}
    for teacher, arrays in part.teachers.items():
        theirs = {**owned, **_owned("question", owned["question"], arrays, TEACHER)}
        if "token" in owned:
            theirs |= _owned("token", owned["token"], arrays, TEACHER)
        teachers[teacher] = _take(arrays, TEACHER, theirs, columns)
    cut = PartArrays(student, teachers, part.made_with)
    validate(cut)
    return cut


def _owned(axis: str, rows: NDArray[np.int64], arrays: Arrays, specs: Mapping[str, ArraySpec]) -> Rows:
    """Rows of `axis`, and of every axis that offsets cut into pieces for them, theirs in turn."""
    owned: Rows = {axis: rows}
    for name, spec in specs.items():
        if spec.bounds and spec.dims[0] == f"{axis}_bound":
            owned |= _owned(spec.bounds, _ranges(arrays[name], rows), arrays, specs)
    return owned


def _ranges(bounds: Array, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ranges of `rows` end to end."""
    starts, lengths = bounds[rows], bounds[rows + 1] - bounds[rows]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    moved: NDArray[np.int64] = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)
    return moved


def width(kind_NK: Array) -> int:
    """Columns that children take."""
    used = np.flatnonzero((kind_NK != ChildKind.ABSENT).any(axis=0))
    return int(used[-1]) + 1 if len(used) else 1


def _take(arrays: Arrays, specs: Mapping[str, ArraySpec], owned: Rows, columns: int) -> dict[str, Array]:
    taken: dict[str, Array] = {}
    for name, spec in specs.items():
        values = arrays[name]
        if spec.bounds:
            rows = owned[spec.dims[0].removesuffix("_bound")]
            lengths = values[rows + 1] - values[rows]
            taken[name] = np.concatenate([np.zeros(1, values.dtype), np.cumsum(lengths, dtype=values.dtype)])
            continue
        values = values[owned[spec.dims[0]]]
        if spec.refers:
            values = _moved(values, owned[spec.refers])
        taken[name] = values[:, :columns] if "child" in spec.dims else values
    return taken


def _moved(values: Array, kept: NDArray[np.int64]) -> Array:
    """References to rows as references to their places in `kept`; -1 stays -1. A row that was not kept is out of range."""
    order = np.argsort(kept)
    places = np.searchsorted(kept, values, sorter=order).clip(max=max(len(kept) - 1, 0))
    found = order[places] if len(kept) else np.zeros(values.shape, np.int64)
    known = kept[found] == values if len(kept) else np.zeros(values.shape, bool)
    moved = np.where(known, found, np.iinfo(values.dtype).max)  # out of range: `validate` names the array
    result: Array = np.where(values < 0, NOWHERE, moved).astype(values.dtype)
    return result
