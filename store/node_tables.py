"""Puts `Nodes` tables together: rows of one part, many parts end to end, any order of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import StoreError
from store.parts import Array, check_rows, pad_columns
from store.schema import NOWHERE, REST_MOMENTS, STUDENT, TEACHER, ArraySpec
from store.tables import Nodes

#: Fields of `Nodes` by node, and the arrays of a student's part that they come from.
NODE_FIELDS = {
    "position_N": "node_position",
    "parent_N": "node_parent",
    "nominated_by_N": "node_nominated_by",
    "token_NK": "child_token_id",
    "kind_NK": "child_kind",
    "logprob_NK": "child_logprob",
    "child_nominated_by_NK": "child_nominated_by",
    "next_NK": "child_next",
    "continue_logprob_NK": "child_continue_logprob",
    "outcome_NK": "child_outcome",
}
#: The same by group of completions.
GROUP_FIELDS = {
    f"{name}_G": name
    for name in (
        "group_launch_node",
        "group_forced_kind",
        "group_forced_token",
        "group_exit_node",
        "group_exit_token",
        "group_half",
        "group_n",
        "group_n_success",
        "group_n_truncated",
    )
}
#: Fields by teacher and node, and the arrays of a teacher's part.
TEACHER_FIELDS = {"teacher_logprob_MNK": "child_logprob", "fbar_MNO": "fbar"}
#: What only objectives take that are none of the study's: by node, and by teacher and node.
WHOLE_NODE_FIELDS = {"topk_logprob_NC": "node_topk_logprob"}
WHOLE_TEACHER_FIELDS = {
    "teacher_topk_logprob_MNC": "node_topk_logprob",
    "rest_moment_MNB": "rest_moment",
    "gap_kl_MNK": "child_gap_kl",
    "later_n_MNK": "later_n",
    "later_sum_MNK": "later_sum",
    "later_sum_squares_MNK": "later_sum_squares",
}
_BY_TEACHER = {**TEACHER_FIELDS, **WHOLE_TEACHER_FIELDS}


def _spec(field: str) -> ArraySpec | None:
    """Schema of the array behind a field of `Nodes`; None for `question_N`, which is no array of its own."""
    if field in _BY_TEACHER:
        return TEACHER[_BY_TEACHER[field]]
    name = NODE_FIELDS.get(field) or GROUP_FIELDS.get(field) or WHOLE_NODE_FIELDS.get(field)
    return STUDENT[name] if name else None


def build_nodes(
    question_N: NDArray[np.int32],
    first_node: int,
    student: Mapping[str, Array],
    teachers: Mapping[str, Mapping[str, Array] | None],
    objectives: tuple[str, ...],
    where: str,
) -> Nodes:
    """The table of rows `first_node` and after of a part, from the slices of its arrays; rows count from 0 here.

    A teacher that is None has nothing of this part: NaN. Raises StoreError, naming `where`, for a row
    that points out of the table.
    """
    n_nodes, width = student["child_token_id"].shape
    of_student = {**NODE_FIELDS, **GROUP_FIELDS, **WHOLE_NODE_FIELDS}
    columns: dict[str, Any] = {"question_N": question_N}
    for field, name in of_student.items():
        if name not in student:
            continue
        values = student[name]
        if STUDENT[name].refers:
            values = np.where(values < 0, values, values - first_node)
            check_rows(f"{where}/{name}", values, n_nodes, "node")
        columns[field] = values
    whole = "topk_logprob_NC" in columns
    second = {"child": width, "objective": len(objectives), "moment": len(REST_MOMENTS)}
    if whole:
        second["candidate"] = columns["topk_logprob_NC"].shape[1]
    for field, name in (_BY_TEACHER if whole else TEACHER_FIELDS).items():
        pieces = [None if arrays is None else arrays[name] for arrays in teachers.values()]
        spec = TEACHER[name]
        columns[field] = stack_teachers(pieces, (n_nodes, second[spec.dims[1]]), spec, axis=0)
    return Nodes(teachers=tuple(teachers), objectives=objectives, **columns)


def move_bits(values: Array, to: Sequence[int]) -> Array:
    """Bit m of every value at bit `to[m]`; bit 31, the student's, stays."""
    moved = values & np.uint32(1 << 31)
    for bit, place in enumerate(to):
        moved |= (values >> np.uint32(bit) & np.uint32(1)) << np.uint32(place)
    return moved


def stack_teachers(pieces: Sequence[Array | None], shape: tuple[int, ...], spec: ArraySpec, axis: int) -> Array:
    """One array of all teachers, with the teachers along `axis`; None, a teacher that was not asked, is all absent.

    Raises StoreError where a teacher's array has not the `shape` of the others.
    """
    for piece in pieces:
        if piece is not None and piece.shape != shape:
            raise StoreError(
                f"an array of {spec.dims} of a teacher has shape {piece.shape} instead of {shape}; the store is damaged"
            )
    if not pieces:
        return np.empty((*shape[:axis], 0, *shape[axis:]), spec.dtype)
    return np.stack([np.full(shape, spec.fill, spec.dtype) if piece is None else piece for piece in pieces], axis=axis)


def merge_nodes(tables: Sequence[Nodes]) -> Nodes:
    """Tables end to end: row references shifted, children padded to the widest. There is at least one table."""
    width = max(table.token_NK.shape[1] for table in tables)
    starts = np.cumsum([0, *(len(table) for table in tables)]).tolist()
    columns: dict[str, Any] = {"teachers": tables[0].teachers, "objectives": tables[0].objectives}
    for field in (name for name in Nodes.__struct_fields__ if name not in columns):
        spec = _spec(field)
        pieces: list[Array] = [getattr(table, field) for table in tables]
        if any(piece is None for piece in pieces):
            continue
        if spec and spec.refers:
            pieces = [np.where(piece < 0, piece, piece + start) for piece, start in zip(pieces, starts, strict=False)]
        if spec and spec.dims[-1] == "child":
            pieces = [pad_columns(piece, width, spec.fill) for piece in pieces]
        columns[field] = np.concatenate(pieces, axis=1 if field in _BY_TEACHER else 0)
    return Nodes(**columns)


def take_nodes(table: Nodes, node_rows: NDArray[np.intp], group_rows: NDArray[np.intp]) -> Nodes:
    """The given rows of a table in the given order; a reference to a row that was not taken becomes -1."""
    new_row = new_rows(len(table), node_rows)
    columns: dict[str, Any] = {"teachers": table.teachers, "objectives": table.objectives}
    for field in (name for name in Nodes.__struct_fields__ if name not in columns):
        spec = _spec(field)
        values: Array | None = getattr(table, field)
        if values is None:
            continue
        rows = group_rows if field in GROUP_FIELDS else node_rows
        values = values[:, rows] if field in _BY_TEACHER else values[rows]
        if spec and spec.refers:
            values = np.where(values < 0, values, new_row[values])
        columns[field] = values
    return Nodes(**columns)


def new_rows(length: int, taken: NDArray[np.intp]) -> NDArray[np.int32]:
    """Old row -> new row, -1 where it was not taken; the entry of -1 itself is -1."""
    new_row = np.full(length + 1, NOWHERE, np.int32)
    new_row[taken] = np.arange(len(taken), dtype=np.int32)
    return new_row


def empty_nodes(teachers: tuple[str, ...], objectives: tuple[str, ...]) -> Nodes:
    """A table of no rows."""
    names = (*NODE_FIELDS.values(), *GROUP_FIELDS.values(), *WHOLE_NODE_FIELDS.values())
    student = {name: np.empty((0,) * len(STUDENT[name].dims), STUDENT[name].dtype) for name in names}
    return build_nodes(np.empty(0, np.int32), 0, student, dict.fromkeys(teachers), objectives, "")
