"""Questions of many parts in the order of their numbers, and the rows that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from store.node_tables import new_rows
from store.part_view import PartView
from store.parts import Array, check_rows
from store.tables import Listing, Paths

#: (which view, which row of it) of each question.
Order = Sequence[tuple[int, int]]


def study_order(views: Sequence[PartView], place: Mapping[str, tuple[str, int]]) -> list[tuple[int, int]]:
    """Every question once, by number. `place` says which part has it."""
    number_of = {view.name: i for i, view in enumerate(views)}
    owned = [(number_of[name], row) for name, row in place.values() if name in number_of]
    return sorted(owned, key=lambda at: (int(views[at[0]].head["question_number"][at[1]]), *at))


def listing(head: Mapping[str, Array], first: Mapping[str, int], place: Mapping[str, tuple[str, int]]) -> Listing:
    """The columns of the lists, every question once, by number.

    `head` has the heads of parts end to end, as an index has them; `first` is the first question of each part in them.
    """

    def column(name: str) -> Array:
        return head[name]

    def lengths(name: str) -> Array:
        return np.diff(head[name])

    ids = np.empty(len(place), object)
    ids[:] = list(place)
    rows = np.fromiter((first[part] + row for part, row in place.values()), np.int64, len(place))
    number = column("question_number")[rows]
    order = np.argsort(number, kind="stable")
    if (np.diff(number[order]) == 0).any():
        order = np.lexsort((ids, number))
    rows = rows[order]
    n_of_question = lengths("rollout_start")
    starts = np.cumsum(n_of_question) - n_of_question
    taken = n_of_question[rows]
    ends = np.cumsum(taken)
    of_rollout = np.arange(int(taken.sum())) + np.repeat(starts[rows] - (ends - taken), taken)
    return Listing(
        question_id_Q=tuple(ids[order]),
        number_Q=number[order],
        status_Q=column("question_status")[rows],
        n_rollouts_Q=column("question_n_rollouts")[rows],
        n_correct_Q=column("question_n_correct")[rows],
        n_truncated_Q=column("question_n_truncated")[rows],
        rollout_start_Q1=np.concatenate([[0], ends]).astype(np.int64),
        index_R=column("rollout_index")[of_rollout],
        correct_R=column("correct")[of_rollout].astype(np.bool_),
        reward_R=column("reward")[of_rollout],
        finish_reason_R=column("finish_reason")[of_rollout],
        path_kind_R=column("path_kind")[of_rollout],
        n_tokens_R=lengths("token_start")[of_rollout],
        n_nodes_R=lengths("path_node_start")[of_rollout],
    )


def rows_in_order(views: Sequence[PartView], order: Order, axis: str) -> NDArray[np.intp]:
    """Rows of `axis` (node or group) of all parts put end to end, taken question by question."""
    start = _starts(views, axis)
    ranges = [(start[i], views[i].of_question(axis, row)) for i, row in order]
    pieces = [np.arange(first + rows.start, first + rows.stop, dtype=np.intp) for first, rows in ranges]
    return np.concatenate([np.empty(0, np.intp), *pieces])


def build_paths(views: Sequence[PartView], order: Order, path_nodes: Sequence[Array], node_rows: NDArray[np.intp]) -> Paths:
    """Rollouts that have nodes, and these nodes as rows of the table that `node_rows` took.

    `path_nodes` is the array of that name of every part. Raises StoreError where one points out of its part.
    """
    start = _starts(views, "node")
    n_nodes = sum(view.commit.counts.get("node", 0) for view in views)
    for view, rows in zip(views, path_nodes, strict=True):
        check_rows(f"{view.where}/path_node", rows, view.commit.counts.get("node", 0), "node")
    new_row = new_rows(n_nodes, node_rows)
    lines: list[tuple[int, int, bool]] = []
    pieces: list[NDArray[np.int32]] = []
    for i, row in order:
        head = views[i].head
        for rollout in views[i].of_question("rollout", row):
            on_path = views[i].of_rollout("path_node", rollout)
            if on_path:
                lines.append(
                    (int(head["question_number"][row]), int(head["rollout_index"][rollout]), bool(head["correct"][rollout]))
                )
                pieces.append(new_row[path_nodes[i][on_path.start : on_path.stop] + start[i]])
    questions, indices, correct = zip(*lines, strict=True) if lines else ((), (), ())
    return Paths(
        question_L=np.array(questions, np.int32),
        rollout_index_L=np.array(indices, np.int32),
        correct_L=np.array(correct, np.bool_),
        start_L1=np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64),
        node_P=np.concatenate([np.empty(0, np.int32), *pieces]),
    )


def _starts(views: Sequence[PartView], axis: str) -> list[int]:
    """First row of every part, were they put end to end."""
    return [0, *accumulate(view.commit.counts.get(axis, 0) for view in views)][: len(views)]
