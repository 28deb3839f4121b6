"""A store as `xarray.Dataset`s, for notebooks: named axes, labels, and NaN or -1 where there is nothing.

`rollouts` is what student and teachers say token by token, `nodes` what is known of targeted positions. Both are reached
as `Store.to_xarray` and `Store.nodes_to_xarray`. xarray is optional (the extra [xarray]).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from store.errors import StoreError
from store.node_tables import merge_nodes
from store.schema import (
    ABSENT_TOKEN,
    DIVERGENCES,
    NOWHERE,
    PATH_END_TOKEN,
    SCHEMA_MAJOR,
    SCHEMA_MINOR,
    STUDENT,
    TEACHER,
    UNKNOWN_OUTCOME,
    ChildKind,
)

if TYPE_CHECKING:
    import xarray

    from store.reader import Store
    from store.tables import Nodes, Rollout

#: What a dataset may take where nobody says otherwise.
MAX_BYTES = 2 << 30
#: Bytes of a child's row in `nodes` beside what teachers say.
_CHILD_BYTES = 80

Array = NDArray[Any]


class _Variable(Struct, frozen=True):
    """A variable of a dataset: its axes, type, what stands for nothing, and what it is."""

    axes: tuple[str, ...]
    dtype: str
    doc: str
    absent: float = float("nan")

    @property
    def attributes(self) -> dict[str, str]:
        in_nat = self.dtype == "f4" and " nat" in self.doc
        return {"long_name": self.doc, **({"units": "nat"} if in_nat else {})}


def _token(name: str, *axes: str, of: Mapping[str, Any] = STUDENT, dtype: str = "f4") -> _Variable:
    absent = float("nan") if dtype == "f4" else ABSENT_TOKEN
    return _Variable(("rollout", "token", *axes), dtype, of[name].doc, absent)


_TOKENS = {
    "token_id": _token("token_id", dtype="i4"),
    "token_source": _token("token_source", dtype="i1"),
    "student_logprob": _token("logprob"),
    "student_entropy": _token("entropy"),
    "student_tail_mass": _token("tail_mass"),
    "teacher_logprob": _token("logprob", "teacher", of=TEACHER),
    "teacher_entropy": _token("entropy", "teacher", of=TEACHER),
    "teacher_tail_mass": _token("tail_mass", "teacher", of=TEACHER),
    "distance": _token("divergence", "teacher", "divergence", of=TEACHER),
    "question_node": _Variable(
        ("rollout", "token"), "i4", "the targeted node before the token, a row of the question's nodes, or -1", NOWHERE
    ),
}
_TOPK = {
    "student_topk_token_id": _token("topk_token_id", "candidate", dtype="i4"),
    "student_topk_logprob": _token("topk_logprob", "candidate"),
    "teacher_logprob_at_student_topk": _token("logprob_at_student_topk", "teacher", "candidate", of=TEACHER),
    "teacher_topk_token_id": _Variable(
        ("rollout", "token", "teacher", "candidate"), "i4", "the teacher's most likely tokens, falling", ABSENT_TOKEN
    ),
    "teacher_topk_logprob": _Variable(
        ("rollout", "token", "teacher", "candidate"), "f4", "their log-probabilities under the teacher, nat"
    ),
}


def rollouts(
    opened: Store,
    questions: Iterable[str] | None,
    indices: Collection[int] | None,
    teachers: tuple[str, ...],
    *,
    topk: bool,
    max_bytes: int,
) -> xarray.Dataset:
    """Rollouts token by token: see `Store.to_xarray`. `indices` are those of rollouts; `teachers` are known ids."""
    xarray = _xarray()
    chosen = _chosen_rollouts(opened, questions, indices)
    variables = {**_TOKENS, **(_TOPK if topk else {})}
    sizes = {
        "rollout": len(chosen),
        "token": max((one.n_tokens for one in chosen), default=0),
        "teacher": len(teachers),
        "divergence": len(DIVERGENCES),
        "candidate": opened.attributes.top_k,
    }
    shapes = {name: tuple(sizes[axis] for axis in one.axes) for name, one in variables.items()}
    n_bytes = sum(np.dtype(one.dtype).itemsize * prod(shapes[name]) for name, one in variables.items())
    remedy = "choose fewer with questions=, rollouts= and teachers=" + (", or do without the top-K: topk=False" if topk else "")
    what = f"{sizes['rollout']:,} rollouts of up to {sizes['token']:,} tokens under {len(teachers)} teachers"
    _check_size(what, n_bytes, max_bytes, remedy)
    columns: dict[str, Array] = {name: np.full(shapes[name], one.absent, one.dtype) for name, one in variables.items()}
    facts: dict[str, list[Any]] = {"correct": [], "reward": [], "finish_reason": [], "path_kind": []}
    positions: tuple[str, Array] = ("", np.empty(0, np.int32))  # of the nodes of one question
    for row, one in enumerate(chosen):
        if positions[0] != one.question_id:
            positions = one.question_id, opened.nodes(one.question_id, ()).position_N
        rollout = opened.rollout(one.question_id, one.index, teachers)
        for name, values in _columns(rollout, topk=topk).items():
            corner: tuple[int | slice, ...] = (row, *(slice(length) for length in values.shape))
            columns[name][corner] = values
        columns["question_node"][row, positions[1][rollout.node_P]] = rollout.node_P
        for name, facts_R in facts.items():
            facts_R.append(_word(getattr(rollout, name)))
    data = {name: (one.axes, columns[name], one.attributes) for name, one in variables.items()}
    labels = {
        **_rollout_labels(chosen, facts),
        "token": np.arange(sizes["token"], dtype=np.int32),
        "teacher": np.array(teachers, str),
        "divergence": np.array(DIVERGENCES, str),
    }
    return xarray.Dataset(data, labels, _about(opened))


def _rollout_labels(chosen: Sequence[_Chosen], facts: Mapping[str, list[Any]]) -> dict[str, tuple[str, Array, dict[str, str]]]:
    values: dict[str, tuple[Array, str]] = {
        "question_id": (np.array([one.question_id for one in chosen], str), "name of the question"),
        "rollout_index": (np.array([one.index for one in chosen], np.int32), STUDENT["rollout_index"].doc),
        "n_tokens": (np.array([one.n_tokens for one in chosen], np.int32), "tokens of the response"),
        "correct": (np.array(facts["correct"], np.bool_), "whether it was graded as success"),
        "reward": (np.array(facts["reward"], np.float32), STUDENT["reward"].doc),
        "finish_reason": (np.array(facts["finish_reason"], str), "why it ended"),
        "path_kind": (np.array(facts["path_kind"], str), "why it is in the store"),
    }
    return {name: ("rollout", values_R, {"long_name": doc}) for name, (values_R, doc) in values.items()}


def _columns(rollout: Rollout, *, topk: bool) -> dict[str, Array]:
    """The arrays of one rollout, under the names of the dataset."""
    columns: dict[str, Array] = {
        "token_id": rollout.token_id_T,
        "token_source": rollout.token_source_T,
        "student_logprob": rollout.logprob_T,
        "student_entropy": rollout.entropy_T,
        "student_tail_mass": rollout.tail_mass_T,
        "teacher_logprob": rollout.teacher_logprob_TM,
        "teacher_entropy": rollout.teacher_entropy_TM,
        "teacher_tail_mass": rollout.teacher_tail_mass_TM,
        "distance": rollout.divergence_TMD,
    }
    if topk:
        columns["student_topk_token_id"] = rollout.topk_token_id_TC
        columns["student_topk_logprob"] = rollout.topk_logprob_TC
        columns["teacher_logprob_at_student_topk"] = rollout.teacher_logprob_at_student_topk_TMC
        tops = [rollout.teacher_topk(m) for m in range(len(rollout.teachers))]
        if tops:
            columns["teacher_topk_token_id"] = np.stack([top.token_id_TC for top in tops], axis=1)
            columns["teacher_topk_logprob"] = np.stack([top.logprob_TC for top in tops], axis=1)
    return columns


class _Chosen(Struct, frozen=True):
    question_id: str
    index: int
    n_tokens: int
    n_nodes: int


def _chosen_rollouts(opened: Store, questions: Iterable[str] | None, indices: Collection[int] | None) -> list[_Chosen]:
    """The rollouts of a selection, by question in the order asked for, else by number. Raises StoreError for unknown ones."""
    listing = opened.listing()
    row_of = {question: row for row, question in enumerate(listing.question_id_Q)}
    found = []
    for question in _question_ids(opened, questions):
        row = row_of[question]
        for at in range(int(listing.rollout_start_Q1[row]), int(listing.rollout_start_Q1[row + 1])):
            found.append(_Chosen(question, int(listing.index_R[at]), int(listing.n_tokens_R[at]), int(listing.n_nodes_R[at])))
    if indices is None:
        return found
    there = {one.index for one in found}
    unknown = sorted(set(indices) - there)
    if unknown:
        listed = ", ".join(map(str, sorted(there))) or "none"
        raise StoreError(f"no chosen question of {opened.path} has a rollout {unknown[0]}; there is {listed}")
    return [one for one in found if one.index in indices]


def _question_ids(opened: Store, questions: Iterable[str] | None) -> Sequence[str]:
    if questions is None:
        return opened.listing().question_id_Q
    ids = list(dict.fromkeys((questions,) if isinstance(questions, str) else questions))
    for question in ids:
        opened.line(question)  # an unknown name is an error
    return ids


def nodes(opened: Store, questions: Iterable[str] | None, teachers: tuple[str, ...], *, max_bytes: int) -> xarray.Dataset:
    """Targeted nodes with their children: see `Store.nodes_to_xarray`. `teachers` are known ids."""
    xarray = _xarray()
    chosen = _chosen_rollouts(opened, questions, None)
    ids = list(dict.fromkeys(one.question_id for one in chosen))
    objectives = opened.attributes.objectives
    n_nodes, width = sum(one.n_nodes for one in chosen), _widest(opened, ids)
    n_bytes = n_nodes * (width * (_CHILD_BYTES + 4 * len(teachers)) + 4 * len(teachers) * len(objectives))
    what = f"up to {n_nodes:,} nodes of {width} children under {len(teachers)} teachers"
    _check_size(what, n_bytes, max_bytes, "choose fewer with questions= and teachers=")
    tables = [opened.nodes(question, teachers) for question in ids]
    table = merge_nodes(tables) if tables else opened.study_nodes(teachers)[0]
    counts = _counts(table)
    of_child, node = ("node", "child"), ("node",)

    def described(axes: tuple[str, ...], values: Array, doc: str) -> tuple[tuple[str, ...], Array, dict[str, str]]:
        return axes, values, _Variable(axes, values.dtype.str[1:], doc).attributes

    data = {
        "token_id": described(of_child, table.token_NK, STUDENT["child_token_id"].doc),
        "kind": described(of_child, _KINDS[table.kind_NK], "what the child is: absent, candidate, on_path, rest or end"),
        "student_logprob": described(of_child, table.logprob_NK, STUDENT["child_logprob"].doc),
        "teacher_logprob": described(
            (*of_child, "teacher"), np.moveaxis(table.teacher_logprob_MNK, 0, -1), TEACHER["child_logprob"].doc
        ),
        "n_completions": described(of_child, counts[0], "completions that left the paths by this child, however launched"),
        "n_success": described(of_child, counts[1], "of them correct"),
        "next": described(of_child, table.next_NK, "on-path: row of the next targeted node, or -1"),
        "continue_logprob": described(of_child, table.continue_logprob_NK, STUDENT["child_continue_logprob"].doc),
        "outcome": described(
            of_child,
            np.where(table.outcome_NK == UNKNOWN_OUTCOME, -1, table.outcome_NK).astype(np.int8),
            "exact outcome of the path's end or of an end token: 0, 1, or -1 where it is not known",
        ),
        "child_nominated_by": described(of_child, table.child_nominated_by_NK, STUDENT["child_nominated_by"].doc),
        "parent": described(node, table.parent_N, "row of the targeted node above, or -1"),
        "nominated_by": described(node, table.nominated_by_N, STUDENT["node_nominated_by"].doc),
        "fbar": described(("node", "teacher", "objective"), np.moveaxis(table.fbar_MNO, 0, 1), TEACHER["fbar"].doc),
    }
    lengths = [len(one) for one in tables]
    labels = {
        "question_id": ("node", np.repeat(np.array(ids, str), lengths), {"long_name": "name of the question"}),
        "question_node": (
            "node",
            np.concatenate([np.empty(0, np.int32), *(np.arange(n, dtype=np.int32) for n in lengths)]),
            {"long_name": "row among the nodes of the question"},
        ),
        "position": described(node, table.position_N, STUDENT["node_position"].doc),
        "teacher": np.array(teachers, str),
        "objective": np.array(objectives, str),
    }
    return xarray.Dataset(data, labels, _about(opened))


#: The words for `ChildKind`, by its numbers.
_KINDS = np.array([kind.name.lower() for kind in ChildKind])


def _widest(opened: Store, questions: Sequence[str]) -> int:
    """The most children that a node of these questions can have: one question of each part says it for the part."""
    wanted = set(questions)
    one_of_part = {place.part: place.question_id for place in opened.places() if place.question_id in wanted}
    return max((opened.nodes(question, ()).token_NK.shape[1] for question in one_of_part.values()), default=0)


def _counts(table: Nodes) -> tuple[Array, Array]:
    """Completions, and those of them that succeeded, by the child by which they left the paths: [N, K] twice."""
    n_NK, n_success_NK = np.zeros(table.token_NK.shape, np.int64), np.zeros(table.token_NK.shape, np.int64)
    rows_G = np.flatnonzero((table.group_exit_node_G != NOWHERE) & (table.group_exit_token_G > PATH_END_TOKEN))
    node_G, token_G = table.group_exit_node_G[rows_G], table.group_exit_token_G[rows_G]
    is_it_GK = (table.token_NK[node_G] == token_G[:, None]) & (table.kind_NK[node_G] != ChildKind.ABSENT)
    group, child = np.nonzero(is_it_GK)
    np.add.at(n_NK, (node_G[group], child), table.group_n_G[rows_G[group]])
    np.add.at(n_success_NK, (node_G[group], child), table.group_n_success_G[rows_G[group]])
    return n_NK, n_success_NK


def _word(value: Any) -> Any:
    return value.name.lower() if isinstance(value, IntEnum) else value


def _about(opened: Store) -> dict[str, str]:
    return {
        "study_hash": opened.attributes.study_hash,
        "student": opened.attributes.student,
        "schema": f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}",
    }


def _check_size(what: str, n_bytes: int, max_bytes: int, remedy: str) -> None:
    if n_bytes > max_bytes:
        raise StoreError(
            f"{what} would take {_size(n_bytes)}, more than the {_size(max_bytes)} allowed; {remedy}, "
            f"or allow it: max_bytes={n_bytes}"
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def _xarray() -> Any:
    try:
        import xarray
    except ImportError:
        raise StoreError("xarray is not installed; install it: pip install 'opd-tui[xarray]'") from None
    return xarray
