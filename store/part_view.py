"""One committed part as the reader sees it: its small arrays in memory, and which rows of the others belong to what."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar

import numpy as np
from msgspec import Struct

from store.arrays import Slice, shape_of
from store.errors import StoreError
from store.layout import CommitRecord
from store.parts import Array, check_bounds
from store.schema import STUDENT, TEACHER, ArraySpec, FinishReason, PathKind, QuestionStatus
from store.tables import QuestionRow, RolloutRow

Code = TypeVar("Code", bound=IntEnum)

#: Arrays by question and by rollout, offsets included: what lists are made of, and where everything else begins.
HEAD = tuple(name for name, spec in STUDENT.items() if spec.dims[0].removesuffix("_bound") in ("question", "rollout"))
#: Arrays by extra, in the order of `Extras`.
EXTRA = ("extra_token_id", "extra_logprob", "extra_student_logprob")


def student_slices(commit: CommitRecord, rows: Mapping[str, range]) -> list[Slice]:
    """Rows of arrays of the student's part; the axis lengths are what the commit record says. Raises StoreError."""
    return _slices(f"student/{commit.part}", STUDENT, commit, rows)


def teacher_slices(teacher: str, commit: CommitRecord, rows: Mapping[str, range]) -> list[Slice]:
    """Rows of arrays of what a teacher has of a part."""
    return _slices(f"teacher/{teacher}/{commit.part}", TEACHER, commit, rows)


def extra_slices(teacher: str, commit: CommitRecord, bounds: Array) -> list[Slice]:
    """The extras of tokens in a row, whose offsets are `bounds`. Raises StoreError where these lead nowhere."""
    first, last, length = int(bounds[0]), int(bounds[-1]), commit.counts.get("extra", 0)
    where = f"teacher/{teacher}/{commit.part}"
    if not 0 <= first <= last <= length:
        raise StoreError(f"{where}/extra_start points out of its {length} extras; the store is damaged")
    check_bounds(f"{where}/extra_start", bounds - first, last - first)
    return teacher_slices(teacher, commit, dict.fromkeys(EXTRA, range(first, last)))


def _slices(folder: str, specs: Mapping[str, ArraySpec], commit: CommitRecord, rows: Mapping[str, range]) -> list[Slice]:
    return [
        Slice(folder, name, specs[name], shape_of(specs[name], commit.counts, folder), wanted.start, wanted.stop)
        for name, wanted in rows.items()
    ]


def head_rows(commit: CommitRecord) -> dict[str, range]:
    """All rows of the arrays of the head."""
    return whole_rows({name: STUDENT[name] for name in HEAD}, commit)


def whole_rows(specs: Mapping[str, ArraySpec], commit: CommitRecord) -> dict[str, range]:
    """All rows of these arrays."""
    return {name: range(shape_of(spec, commit.counts, commit.part)[0]) for name, spec in specs.items()}


class PartView(Struct, frozen=True):
    """A committed part with its head. Raises StoreError at once where the offsets make no sense."""

    commit: CommitRecord
    head: Mapping[str, Array]

    def __post_init__(self) -> None:
        for name, values in self.head.items():
            if axis := STUDENT[name].bounds:
                check_bounds(f"{self.where}/{name}", values, self.commit.counts.get(axis, 0))

    @property
    def name(self) -> str:
        """The part's id."""
        return self.commit.part

    @property
    def where(self) -> str:
        """Path of the part inside the store."""
        return f"student/{self.name}"

    def of_question(self, axis: str, row: int) -> range:
        """Rows of `axis` that belong to the question in `row`."""
        if axis in ("token", "path_node"):
            rollouts = self.of_question("rollout", row)
            start = self.head[f"{axis}_start"]
            return range(int(start[rollouts.start]), int(start[rollouts.stop]))
        return self._cut(f"{axis}_start", row)

    def of_rollout(self, axis: str, row: int) -> range:
        """Rows of `axis` (token or path_node) that belong to the rollout in `row`."""
        return self._cut(f"{axis}_start", row)

    def text(self, name: str, row: int) -> range:
        """Bytes of a text of the question in `row`."""
        return self._cut(f"{name}_start", row)

    def _cut(self, start: str, row: int) -> range:
        bounds = self.head[start]
        return range(int(bounds[row]), int(bounds[row + 1]))

    def code(self, kind: type[Code], name: str, value: int) -> Code:
        """A number out of array `name` as its enumeration. Raises StoreError where it has no meaning."""
        try:
            return kind(int(value))
        except ValueError as error:
            raise StoreError(f"{self.where}/{name} holds {value}, which is no {kind.__name__}") from error

    def question_row(self, row: int) -> QuestionRow:
        """Line of the list of questions."""
        question_id = self.commit.question_ids[row]
        return QuestionRow(
            id=question_id,
            number=int(self.head["question_number"][row]),
            status=self.code(QuestionStatus, "question_status", self.head["question_status"][row]),
            n_rollouts=int(self.head["question_n_rollouts"][row]),
            n_correct=int(self.head["question_n_correct"][row]),
            n_truncated=int(self.head["question_n_truncated"][row]),
            rollouts=tuple(self.rollout_row(question_id, rollout) for rollout in self.of_question("rollout", row)),
        )

    def rollout_row(self, question_id: str, row: int) -> RolloutRow:
        """Line of the list of rollouts."""
        return RolloutRow(
            question_id=question_id,
            index=int(self.head["rollout_index"][row]),
            correct=bool(self.head["correct"][row]),
            reward=float(self.head["reward"][row]),
            finish_reason=self.code(FinishReason, "finish_reason", self.head["finish_reason"][row]),
            path_kind=self.code(PathKind, "path_kind", self.head["path_kind"][row]),
            n_tokens=len(self.of_rollout("token", row)),
            n_nodes=len(self.of_rollout("path_node", row)),
        )

    def question_of_node(self) -> Array:
        """Number of the question of every node of the part."""
        return np.repeat(self.head["question_number"], np.diff(self.head["node_start"]))
