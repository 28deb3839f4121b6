"""Reads one question of a part as a part of its own, and nothing else of the part: memory for that question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from store.errors import StoreError
from store.parts import Array, check_bounds
from store.schema import ArraySpec

#: Reads rows of arrays of one group.
ReadRows = Callable[[Mapping[str, range]], Mapping[str, Array]]


def read_group(
    where: str, specs: Mapping[str, ArraySpec], counts: Mapping[str, int], owned: Mapping[str, range], read: ReadRows
) -> tuple[dict[str, Array], dict[str, range]]:
    """The arrays of one group for the rows that a question owns, counted from 0, and these rows by axis.

    `owned` are the rows that are known; those of other axes are cut by offsets, which are read on the way. `counts`: lengths
    of all axes. Raises StoreError where offsets or references lead out of the question.
    """
    rows = dict(owned)
    found: dict[str, Array] = {}
    while wanted := {
        name: range(rows[axis].start, rows[axis].stop + 1)
        for name, spec in specs.items()
        if spec.bounds and name not in found and (axis := spec.dims[0].removesuffix("_bound")) in rows
    }:
        for name, bounds in read(wanted).items():
            axis = specs[name].bounds
            first, last = int(bounds[0]), int(bounds[-1])
            if not 0 <= first <= last <= counts.get(axis, 0):
                raise StoreError(f"{where}/{name} points out of its {counts.get(axis, 0)} {axis} rows; the store is damaged")
            found[name] = bounds - bounds[0]
            check_bounds(f"{where}/{name}", found[name], last - first)
            rows[axis] = range(first, last)
    for name, values in read({name: rows[spec.dims[0]] for name, spec in specs.items() if not spec.bounds}).items():
        refers = specs[name].refers
        found[name] = _from_zero(values, rows[refers]) if refers else values
    return {name: found[name] for name in specs}, rows


def _from_zero(values: Array, rows: range) -> Array:
    """References to rows as references to their places in `rows`. One that leads out of them stays out of range."""
    known = (values >= rows.start) & (values < rows.stop)
    out_of_range: Any = np.iinfo(values.dtype).max  # `store.parts.validate` names the array
    moved = np.where(known, values - values.dtype.type(rows.start), out_of_range)
    result: Array = np.where(values < 0, values, moved).astype(values.dtype)
    return result
