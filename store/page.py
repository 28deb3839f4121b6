"""What a page is made of: which rows it needs, and tables built from what was read. numpy alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from store.errors import StoreError
from store.node_tables import (
    GROUP_FIELDS,
    NODE_FIELDS,
    TEACHER_FIELDS,
    WHOLE_NODE_FIELDS,
    WHOLE_TEACHER_FIELDS,
    stack_teachers,
)
from store.part_view import PartView
from store.parts import Array, check_rows
from store.schema import DIVERGENCES, STUDENT, TEACHER, FinishReason, PathKind
from store.tables import Question, Rollout
from store.teacher_topk import Extras

Rows = Mapping[str, range]
Read = dict[str, Array]

_STUDENT_TOKEN = tuple(name for name, spec in STUDENT.items() if spec.dims[0] == "token")
_TEACHER_TOKEN = tuple(name for name, spec in TEACHER.items() if spec.dims[0] == "token")


def question_rows(view: PartView, row: int) -> Rows:
    """The texts of the question in `row`."""
    texts = {name: view.text(name, row) for name in ("prompt", "reference_answer")}
    return {**texts, "prompt_token_id": view.of_question("prompt_token", row)}


def rollout_rows(view: PartView, at: int) -> tuple[Rows, Rows]:
    """Arrays of the student's part and of each teacher's along the rollout in row `at`."""
    tokens = view.of_rollout("token", at)
    student = {**dict.fromkeys(_STUDENT_TOKEN, tokens), "path_node": view.of_rollout("path_node", at)}
    return student, {**dict.fromkeys(_TEACHER_TOKEN, tokens), "extra_start": range(tokens.start, tokens.stop + 1)}


def column_rows(view: PartView, row: int, places: range, student: Iterable[str], teacher: Iterable[str]) -> tuple[Rows, Rows]:
    """Some arrays by token or path node along rollouts in a row, `places` among those of the question in `row`."""
    rollouts = view.of_question("rollout", row)[places.start : places.stop]
    rows = dict.fromkeys(("token", "path_node"), range(0))
    if rollouts:
        rows = {axis: range(view.of_rollout(axis, rollouts[0]).start, view.of_rollout(axis, rollouts[-1]).stop) for axis in rows}
    return {name: rows[STUDENT[name].dims[0]] for name in student}, {name: rows[TEACHER[name].dims[0]] for name in teacher}


def node_rows(nodes: range, groups: range, *, whole: bool) -> tuple[Rows, Rows]:
    """The same at nodes; `whole` adds what only objectives take that are none of the study's."""
    student = {**dict.fromkeys(NODE_FIELDS.values(), nodes), **dict.fromkeys(GROUP_FIELDS.values(), groups)}
    teacher = dict.fromkeys(TEACHER_FIELDS.values(), nodes)
    if whole:
        student |= dict.fromkeys(WHOLE_NODE_FIELDS.values(), nodes)
        teacher |= dict.fromkeys(WHOLE_TEACHER_FIELDS.values(), nodes)
    return student, teacher


def build_question(view: PartView, row: int, read: Read) -> Question:
    """The question in `row`. Raises StoreError where a text is not UTF-8."""
    line = view.question_row(row)
    return Question(
        id=line.id,
        number=line.number,
        status=line.status,
        prompt=decode_text(read["prompt"], f"{view.where}/prompt"),
        prompt_token_ids=read["prompt_token_id"],
        reference_answer=decode_text(read["reference_answer"], f"{view.where}/reference_answer"),
        n_rollouts=line.n_rollouts,
        n_correct=line.n_correct,
        n_truncated=line.n_truncated,
    )


def build_rollout(
    view: PartView, row: int, at: int, student: Read, by_teacher: Mapping[str, Read | None], extras: tuple[Extras, ...]
) -> Rollout:
    """The rollout in row `at` of the question in `row`. A teacher that is None has nothing of it: NaN.

    Raises StoreError where a row points out of the question.
    """
    nodes, n_tokens = view.of_question("node", row), len(view.of_rollout("token", at))
    node_P = student["path_node"] - np.int32(nodes.start)
    check_rows(f"{view.where}/path_node", node_P, len(nodes), "node")
    width = student["topk_token_id"].shape[1]

    def stacked(name: str) -> Array:
        """One array of all teachers, the teacher axis after the token axis."""
        shape = (n_tokens, *{"candidate": (width,), "divergence": (len(DIVERGENCES),)}.get(TEACHER[name].dims[-1], ()))
        pieces = [None if arrays is None else arrays[name] for arrays in by_teacher.values()]
        return stack_teachers(pieces, shape, TEACHER[name], axis=1)

    return Rollout(
        question_id=view.commit.question_ids[row],
        index=int(view.head["rollout_index"][at]),
        correct=bool(view.head["correct"][at]),
        reward=float(view.head["reward"][at]),
        finish_reason=view.code(FinishReason, "finish_reason", view.head["finish_reason"][at]),
        path_kind=view.code(PathKind, "path_kind", view.head["path_kind"][at]),
        token_id_T=student["token_id"],
        token_source_T=student["token_source"],
        logprob_T=student["logprob"],
        entropy_T=student["entropy"],
        topk_token_id_TC=student["topk_token_id"],
        topk_logprob_TC=student["topk_logprob"],
        tail_mass_T=student["tail_mass"],
        node_P=node_P,
        teachers=tuple(by_teacher),
        teacher_logprob_TM=stacked("logprob"),
        teacher_entropy_TM=stacked("entropy"),
        divergence_TMD=stacked("divergence"),
        teacher_logprob_at_student_topk_TMC=stacked("logprob_at_student_topk"),
        teacher_topk_n_TM=stacked("topk_n"),
        extras_M=extras,
        teacher_tail_mass_TM=stacked("tail_mass"),
    )


def decode_text(text: Array, where: str) -> str:
    """Bytes as text. Raises StoreError, naming `where`, where they are not UTF-8."""
    try:
        return text.tobytes().decode()
    except UnicodeDecodeError as error:
        raise StoreError(f"{where} is not UTF-8; the store is damaged") from error
