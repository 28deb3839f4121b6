"""Parts in memory: what a part is made of, whether it is whole, and how parts are put together. numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from store.errors import StoreError
from store.schema import DIVERGENCES, REST_MOMENTS, STUDENT, TEACHER, ArraySpec, ForcedKind

Array = NDArray[Any]
Arrays = Mapping[str, Array]

#: Second axes that may differ between parts: a part is padded to its own widest.
PADDED_AXES = ("child", "candidate")
#: Axes that mean the same in a part of the student and in a part of a teacher.
SHARED_AXES = ("question", "token", "candidate", "node", "child")


class PartArrays(Struct, frozen=True):
    """The arrays of one part, as named in `store.schema`: the student's, and each teacher's by its id."""

    student: Arrays
    teachers: Mapping[str, Arrays] = field(default_factory=dict)
    made_with: frozenset[str] = frozenset()  #: in words, for people: the engines that ran its completions, and how

    @property
    def question_ids(self) -> tuple[str, ...]:
        """Names of the questions, in the part's order."""
        return tuple(unpack_texts(self.student["question_id"], self.student["question_id_start"]))


def pack_texts(texts: Iterable[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Texts as UTF-8 bytes end to end, and their offsets (one more than texts)."""
    encoded = [text.encode() for text in texts]
    start = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(piece) for piece in encoded], out=start[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), start


def unpack_texts(data: Array, start: Array) -> list[str]:
    """The reverse of `pack_texts`. Raises StoreError where the bytes are not UTF-8."""
    whole = data.tobytes()
    try:
        return [whole[a:b].decode() for a, b in zip(start[:-1].tolist(), start[1:].tolist(), strict=True)]
    except UnicodeDecodeError as error:
        raise StoreError(f"a stored text is not UTF-8 ({error.reason} at byte {error.start})") from error


def validate(part: PartArrays) -> None:
    """Raise StoreError, naming the array, unless every array is there with its type, and all lengths, offsets and rows agree."""
    student = check_group("student", part.student, STUDENT)
    for teacher, arrays in part.teachers.items():
        group = f"teacher/{teacher}"
        lengths = check_group(group, arrays, TEACHER)
        for axis in SHARED_AXES:
            if lengths[axis] != student[axis]:
                raise StoreError(f"{group} has {lengths[axis]} {axis} rows, the student's part has {student[axis]}")
        if lengths["divergence"] != len(DIVERGENCES):
            raise StoreError(f"{group}/divergence has {lengths['divergence']} columns instead of {len(DIVERGENCES)}")
        if lengths["moment"] != len(REST_MOMENTS):
            raise StoreError(f"{group}/rest_moment has {lengths['moment']} columns instead of {len(REST_MOMENTS)}")
    names = part.question_ids
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise StoreError(f"student/question_id names question {twice!r} twice in one part")


def axis_lengths(group: str, arrays: Arrays, specs: Mapping[str, ArraySpec]) -> dict[str, int]:
    """Length of every axis, a bound axis counted as the axis it cuts. Raises StoreError where two arrays differ."""
    lengths: dict[str, int] = {}
    given_by: dict[str, str] = {}
    for name, spec in specs.items():
        for dim, size in zip(spec.dims, arrays[name].shape, strict=True):
            axis, length = (dim.removesuffix("_bound"), size - 1) if dim.endswith("_bound") else (dim, size)
            if length < 0:
                raise StoreError(f"{group}/{name} is empty; offsets hold at least a 0")
            if lengths.setdefault(axis, length) != length:
                raise StoreError(f"{group}/{name} has {length} {axis} rows, {given_by[axis]} has {lengths[axis]}")
            given_by.setdefault(axis, name)
    return lengths


def check_group(group: str, arrays: Arrays, specs: Mapping[str, ArraySpec]) -> dict[str, int]:
    """Check the arrays of one group against the schema and return the lengths of its axes. Raises StoreError."""
    for name in arrays.keys() - specs.keys():
        raise StoreError(f"{group}/{name} is no array of the schema")
    for name, spec in specs.items():
        array = arrays.get(name)
        if array is None:
            raise StoreError(f"{group}/{name} is missing")
        if array.dtype != np.dtype(spec.dtype):
            raise StoreError(f"{group}/{name} is {array.dtype} instead of {np.dtype(spec.dtype)}")
        if array.ndim != len(spec.dims):
            raise StoreError(f"{group}/{name} has {array.ndim} axes instead of {len(spec.dims)} ({', '.join(spec.dims)})")
    lengths = axis_lengths(group, arrays, specs)
    for name, spec in specs.items():
        if spec.bounds:
            check_bounds(f"{group}/{name}", arrays[name], lengths[spec.bounds])
        if spec.refers:
            check_rows(f"{group}/{name}", arrays[name], lengths[spec.refers], spec.refers)
    return lengths


def check_bounds(name: str, bounds: Array, length: int) -> None:
    """Raise StoreError unless the offsets `bounds` rise from 0 to `length`."""
    if not len(bounds) or bounds[0] != 0 or bounds[-1] != length or (bounds[1:] < bounds[:-1]).any():
        raise StoreError(f"{name} does not rise from 0 to {length}")


def check_rows(name: str, rows: Array, length: int, axis: str) -> None:
    """Raise StoreError unless all `rows` are -1 or rows of an axis of `length`."""
    if rows.size and (rows.min() < -1 or rows.max() >= length):
        raise StoreError(f"{name} names a {axis} row outside of -1..{length - 1}")


def concatenate(records: Sequence[PartArrays]) -> PartArrays:
    """Put parts together in the order given: offsets and row references are shifted, children padded to the widest.

    Raises StoreError where a record is not whole, or where records differ in their teachers or objectives.
    """
    if not records:
        raise StoreError("there is no record to put together")
    for record in records:
        validate(record)
    teachers = list(records[0].teachers)
    for record in records:
        if set(record.teachers) != set(teachers):
            raise StoreError(f"records differ in their teachers: {sorted(teachers)} and {sorted(record.teachers)}")
    part = PartArrays(
        student=_concatenate_group("student", [record.student for record in records], STUDENT),
        teachers={
            teacher: _concatenate_group(f"teacher/{teacher}", [record.teachers[teacher] for record in records], TEACHER)
            for teacher in teachers
        },
        made_with=frozenset().union(*(record.made_with for record in records)),
    )
    validate(part)
    return part


def concatenate_teacher(records: Sequence[Arrays], n_children: int, n_candidates: int) -> dict[str, Array]:
    """What one teacher says of the questions of a part, put together, as wide as the student's arrays of that part."""
    widths = {"child": n_children, "candidate": n_candidates}
    joined = _concatenate_group("teacher", records, TEACHER)
    for name, spec in TEACHER.items():
        if spec.dims[-1] in widths:
            joined[name] = pad_columns(joined[name], widths[spec.dims[-1]], spec.fill)
    return joined


def _concatenate_group(group: str, records: Sequence[Arrays], specs: Mapping[str, ArraySpec]) -> dict[str, Array]:
    lengths = [axis_lengths(group, arrays, specs) for arrays in records]

    def offsets(axis: str) -> list[int]:
        return [0, *accumulate(of[axis] for of in lengths[:-1])]

    return {
        name: _concatenate_array(f"{group}/{name}", [arrays[name] for arrays in records], spec, offsets)
        for name, spec in specs.items()
    }


def _concatenate_array(name: str, pieces: list[Array], spec: ArraySpec, offsets: Callable[[str], list[int]]) -> Array:
    if spec.bounds:
        shifted = [piece[1:] + piece.dtype.type(by) for piece, by in zip(pieces, offsets(spec.bounds), strict=True)]
        return np.concatenate([np.zeros(1, spec.dtype), *shifted])
    if spec.refers:
        by_record = zip(pieces, offsets(spec.refers), strict=True)
        pieces = [np.where(piece >= 0, piece + piece.dtype.type(by), piece) for piece, by in by_record]
    if len(spec.dims) == 2:
        pieces = _same_width(name, pieces, spec)
    return np.concatenate(pieces)


def _same_width(name: str, pieces: list[Array], spec: ArraySpec) -> list[Array]:
    widths = {piece.shape[1] for piece in pieces}
    if len(widths) > 1 and spec.dims[1] not in PADDED_AXES:
        raise StoreError(f"{name} has {min(widths)} {spec.dims[1]} columns in one record and {max(widths)} in another")
    return [pad_columns(piece, max(widths), spec.fill) for piece in pieces]


def pad_columns(array: Array, width: int, fill: float) -> Array:
    """`array` with its last axis widened to `width` by `fill`."""
    missing = width - array.shape[-1]
    if not missing:
        return array
    return np.concatenate([array, np.full((*array.shape[:-1], missing), fill, array.dtype)], axis=-1)


def count_completions(student: Arrays) -> int:
    """Completions launched at nodes and counted in a part; initial rollouts are not among them."""
    launched = student["group_forced_kind"] != ForcedKind.NONE
    return int(student["group_n"][launched].sum())
