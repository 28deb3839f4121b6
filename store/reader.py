"""Reads a store. Importing this module is cheap: TensorStore comes with the first array that is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from store import layout
from store.arrays import Slice
from store.catalog import Catalog
from store.cut import width
from store.errors import StoreError
from store.inventory import Inventory, nearest, some_of
from store.node_tables import (
    build_nodes,
    empty_nodes,
    merge_nodes,
    move_bits,
    take_nodes,
)
from store.page import Read, Rows, build_question, build_rollout, column_rows, decode_text, node_rows, question_rows, rollout_rows
from store.part_view import EXTRA, PartView, extra_slices, student_slices, teacher_slices, whole_rows
from store.parts import SHARED_AXES, Array, PartArrays, check_bounds, check_rows
from store.question_part import read_group
from store.schema import STUDENT, TEACHER, FinishReason, ForcedKind
from store.study_order import build_paths, rows_in_order, study_order
from store.tables import (
    Completion,
    Nodes,
    Page,
    Paths,
    Question,
    QuestionRow,
    Rollout,
)
from store.teacher_topk import Extras, check_topk, no_extras
from store.vocab import Vocab

if TYPE_CHECKING:
    import xarray

__all__ = ["Store", "StoreError", "Vocab"]

#: Bytes that all nodes of one part may take.
STUDY_BYTES = 4 << 30

_COMPLETION = tuple(name for name, spec in STUDENT.items() if spec.dims[0] == "completion")


class Store(Inventory):
    """A store, open for reading: pages for the screen, tables for the mathematics.

    Any number of threads may read while one refreshes. Every method that reads raises StoreError
    where a file is missing or damaged, naming it; none returns a number that was not written.
    `teachers` as an argument are teacher ids in the order wanted; None: all of them.
    """

    def part(self, name: str) -> PartArrays:
        """All arrays of one part, and of every teacher that has it: memory for all of it. Raises StoreError."""
        catalog = self._catalog
        if name not in catalog.parts:
            raise StoreError(f"{self.path} has no part {name!r}{nearest(name, catalog.parts)}")
        view = self._load_views(catalog, [name])[name]
        pieces = [*student_slices(view.commit, whole_rows(STUDENT, view.commit))]
        teachers = [one.id for one in catalog.teachers if name in catalog.teacher_parts[one.id]]
        for teacher in teachers:
            commit = self._teacher_commit(catalog, teacher, view)
            assert commit is not None
            pieces += teacher_slices(teacher, commit, whole_rows(TEACHER, commit))
        arrays = iter(self._once.read(pieces, STUDY_BYTES))
        student = {key: next(arrays) for key in STUDENT}
        by_teacher = {teacher: {key: next(arrays) for key in TEACHER} for teacher in teachers}
        return PartArrays(student, by_teacher, frozenset(view.commit.made_with))

    def question_part(self, name: str, row: int) -> PartArrays:
        """The question in `row` of a part, as a part of its own; `store.parts.validate` says whether it is whole.

        Nothing else of the part is read. Raises StoreError.
        """
        catalog = self._catalog
        view = self._load_views(catalog, [name])[name]

        def of_student(rows: Mapping[str, range]) -> Mapping[str, Array]:
            return dict(zip(rows, self._arrays.read(student_slices(view.commit, rows)), strict=True))

        student, owned = read_group(view.where, STUDENT, view.commit.counts, {"question": range(row, row + 1)}, of_student)
        columns = width(student["child_kind"])
        groups = {"": (student, STUDENT)}
        shared = {axis: owned[axis] for axis in SHARED_AXES if axis in owned}
        for teacher in (one.id for one in catalog.teachers if name in catalog.teacher_parts[one.id]):
            commit = self._teacher_commit(catalog, teacher, view)
            assert commit is not None

            def of_teacher(rows: Mapping[str, range], teacher: str = teacher, commit: Any = commit) -> Mapping[str, Array]:
                return dict(zip(rows, self._arrays.read(teacher_slices(teacher, commit, rows)), strict=True))

            groups[teacher] = read_group(f"teacher/{teacher}/{name}", TEACHER, commit.counts, shared, of_teacher)[0], TEACHER
        narrow = {
            of: {key: values[:, :columns] if "child" in specs[key].dims else values for key, values in arrays.items()}
            for of, (arrays, specs) in groups.items()
        }
        return PartArrays(narrow.pop(""), narrow, frozenset(view.commit.made_with))

    def added_settings(self, teacher: str) -> dict[str, Any]:
        """The settings that a teacher was added with after the study; empty where there are none. Raises StoreError."""
        return layout.read_added_settings(self._root, teacher)

    # Pages ----------------------------------------------------------------------------------------

    def line(self, question_id: str) -> QuestionRow:
        """The question's line of the list."""
        return self._question_row(*self._find(question_id))

    def question(self, question_id: str) -> Question:
        """A question with its texts."""
        view, row = self._find(question_id)
        return build_question(view, row, self._read_student(view, question_rows(view, row)))

    def teacher_prompt(self, question_id: str, teacher: str) -> str:
        """The teacher's prompt, its context included; "" where the teacher has not been asked about this question."""
        catalog = self._catalog
        (wanted,) = self._teacher_ids(catalog, [teacher])
        view, row = self._find(question_id, catalog)
        commit = self._teacher_commit(catalog, wanted, view)
        if commit is None:
            return ""
        (bounds,) = self._arrays.read(teacher_slices(wanted, commit, {"teacher_prompt_start": range(row, row + 2)}))
        start, stop = (int(bound) for bound in bounds)
        where = f"teacher/{wanted}/{view.name}/teacher_prompt"
        if not 0 <= start <= stop <= commit.counts.get("teacher_prompt_byte", 0):
            raise StoreError(f"{where}_start points out of the text; the store is damaged")
        (text,) = self._arrays.read(teacher_slices(wanted, commit, {"teacher_prompt": range(start, stop)}))
        return decode_text(text, where)

    def rollout(self, question_id: str, index: int, teachers: Iterable[str] | None = None) -> Rollout:
        """The rollout with this `rollout_index`, token by token. A teacher that was not asked is NaN (-1 for ids)."""
        catalog = self._catalog
        names = self._teacher_ids(catalog, teachers)
        view, row = self._find(question_id, catalog)
        at = _rollout_row(view, row, question_id, index)
        student, by_teacher = self._read_page(catalog, view, names, *rollout_rows(view, at))
        return build_rollout(view, row, at, student, by_teacher, self._extras(catalog, view, at, student, by_teacher))

    def columns(
        self,
        question_id: str,
        places: range,
        student: Collection[str],
        teacher: Collection[str] = (),
        teachers: Iterable[str] | None = None,
    ) -> tuple[Read, dict[str, Read | None]]:
        """Some arrays of the schema along some rollouts of a question, end to end: what a scan of a study needs, and no more.

        `places` are rollouts in the order of the listing; `student` names arrays by token, and ``path_node`` (as rows of
        `nodes`); `teacher` arrays by token of each of `teachers`, None for one that was not asked.
        """
        catalog = self._catalog
        names = self._teacher_ids(catalog, teachers) if teacher else ()
        view, row = self._find(question_id, catalog)
        read, by_teacher = self._read_page(catalog, view, names, *column_rows(view, row, places, student, teacher))
        if "path_node" in read:
            nodes = view.of_question("node", row)
            read["path_node"] = read["path_node"] - np.int32(nodes.start)
            check_rows(f"{view.where}/path_node", read["path_node"], len(nodes), "node")
        return read, by_teacher

    def nodes(self, question_id: str, teachers: Iterable[str] | None = None, *, whole: bool = False) -> Nodes:
        """Targeted nodes of a question with children and counts; rows count from 0 here. A teacher that was not asked is NaN.

        `whole` reads also what objectives take that are none of the study's.
        """
        catalog = self._catalog
        names = self._teacher_ids(catalog, teachers)
        view, row = self._find(question_id, catalog)
        nodes, groups = view.of_question("node", row), view.of_question("group", row)
        read = self._read_page(catalog, view, names, *node_rows(nodes, groups, whole=whole))
        return self._nodes_from(catalog, view, nodes, *read)

    def page(self, question_id: str, index: int, teachers: Iterable[str] | None = None, *, whole: bool = False) -> Page:
        """A question, one of its rollouts and its nodes, as `question`, `rollout` and `nodes` give them, all read at once."""
        catalog = self._catalog
        names = self._teacher_ids(catalog, teachers)
        view, row = self._find(question_id, catalog)
        at = _rollout_row(view, row, question_id, index)
        nodes, groups = view.of_question("node", row), view.of_question("group", row)
        of_rollout, of_nodes = rollout_rows(view, at), node_rows(nodes, groups, whole=whole)
        wanted = {**of_rollout[0], **of_nodes[0], **question_rows(view, row)}
        student, by_teacher = self._read_page(catalog, view, names, wanted, {**of_rollout[1], **of_nodes[1]})
        extras = self._extras(catalog, view, at, student, by_teacher)
        return Page(
            question=build_question(view, row, student),
            rollout=build_rollout(view, row, at, student, by_teacher, extras),
            nodes=self._nodes_from(catalog, view, nodes, student, by_teacher),
        )

    def completions(self, question_id: str) -> tuple[Completion, ...]:
        """Completions of a question that were kept to be read; their nodes are rows of `nodes(question_id)`."""
        view, row = self._find(question_id)
        kept, nodes = view.of_question("completion", row), view.of_question("node", row)
        bounds_rows = range(kept.start, kept.stop + 1)
        read = self._read_student(view, {**dict.fromkeys(_COMPLETION, kept), "completion_token_start": bounds_rows})
        bounds = read["completion_token_start"]
        length = view.commit.counts.get("completion_token", 0)
        if bounds[0] < 0 or bounds[-1] > length:
            raise StoreError(f"{view.where}/completion_token_start points out of its {length} tokens; the store is damaged")
        check_bounds(f"{view.where}/completion_token_start", bounds - bounds[0], int(bounds[-1] - bounds[0]))
        tokens = self._read_student(view, {"completion_token_id": range(int(bounds[0]), int(bounds[-1]))})["completion_token_id"]
        launch_node, exit_node = (
            np.where(read[name] < 0, -1, read[name] - nodes.start) for name in ("completion_launch_node", "completion_exit_node")
        )
        check_rows(f"{view.where}/completion_launch_node", launch_node, len(nodes), "node")
        check_rows(f"{view.where}/completion_exit_node", exit_node, len(nodes), "node")
        starts = (bounds - bounds[0]).tolist()
        return tuple(
            Completion(
                launch_node=int(launch_node[i]),
                forced_kind=view.code(ForcedKind, "completion_forced_kind", read["completion_forced_kind"][i]),
                exit_node=int(exit_node[i]),
                exit_token=int(read["completion_exit_token"][i]),
                sample=int(read["completion_sample"][i]),
                position=int(read["completion_position"][i]),
                correct=bool(read["completion_correct"][i]),
                finish_reason=view.code(FinishReason, "completion_finish_reason", read["completion_finish_reason"][i]),
                token_ids=tokens[starts[i] : starts[i + 1]],
            )
            for i in range(len(kept))
        )

    # The whole study ------------------------------------------------------------------------------

    def study_nodes(
        self, teachers: Iterable[str] | None = None, *, whole: bool = False, parts: Iterable[str] | None = None
    ) -> tuple[Nodes, Paths]:
        """Targeted nodes of all questions in order of their numbers, and which of them lie on which rollout.

        `whole` as for `nodes`. `parts`: of these parts alone, for studies that are too large to be read at once.
        """
        catalog = self._catalog
        names = self._teacher_ids(catalog, teachers)
        views = list(self._load_views(catalog, catalog.parts if parts is None else parts).values())
        if not views:
            return empty_nodes(names, self.attributes.objectives), build_paths([], [], [], np.empty(0, np.intp))
        tables: list[Nodes] = []
        path_nodes: list[Array] = []
        for view in views:
            nodes, groups, path_node = (range(view.commit.counts.get(axis, 0)) for axis in ("node", "group", "path_node"))
            read = self._read_page(catalog, view, names, *node_rows(nodes, groups, whole=whole), whole_part=True)
            tables.append(self._nodes_from(catalog, view, nodes, *read))
            path_nodes += self._once.read(student_slices(view.commit, {"path_node": path_node}))
        order = study_order(views, catalog.place)
        taken_N, taken_G = (rows_in_order(views, order, axis) for axis in ("node", "group"))
        table = take_nodes(merge_nodes(tables), taken_N, taken_G)
        return table, build_paths(views, order, path_nodes, taken_N)

    # For notebooks --------------------------------------------------------------------------------

    def to_xarray(
        self,
        questions: Iterable[str] | None = None,
        rollouts: Collection[int] | None = None,
        teachers: Iterable[str] | None = None,
        *,
        topk: bool = True,
        max_bytes: int = 2 << 30,
    ) -> xarray.Dataset:
        """Rollouts token by token, as one `xarray.Dataset` in memory; None means all.

        Axes: `rollout` (labelled by question_id, rollout_index, correct, reward, finish_reason, path_kind, n_tokens), `token`
        (its position), `teacher` (its id), `divergence` (its name), and `candidate` (rank in a top-K, left
        out by ``topk=False``). Rollouts are padded to the longest, with NaN, or -1 for ids; so is a teacher that was not
        asked. Log-probabilities and entropies are float32, in nat. Raises StoreError where xarray is missing, for unknown
        names, and where the dataset would take more than `max_bytes`.
        """
        from store import to_xarray

        names = self._teacher_ids(self._catalog, teachers)
        return to_xarray.rollouts(self, questions, rollouts, names, topk=topk, max_bytes=max_bytes)

    def nodes_to_xarray(
        self, questions: Iterable[str] | None = None, teachers: Iterable[str] | None = None, *, max_bytes: int = 2 << 30
    ) -> xarray.Dataset:
        """Targeted nodes with their children and counts, as one `xarray.Dataset` in memory; None means all.

        Axes: `node` (labelled by question_id, position, question_node: what `to_xarray` calls the same), `child`, `teacher`
        (its id) and `objective`. Beyond a node's last child ids are -1, kinds "absent", numbers NaN. Raises as `to_xarray`.
        """
        from store import to_xarray

        return to_xarray.nodes(self, questions, self._teacher_ids(self._catalog, teachers), max_bytes=max_bytes)

    # How ------------------------------------------------------------------------------------------

    def _read_page(
        self, catalog: Catalog, view: PartView, teachers: Sequence[str], student: Rows, teacher: Rows, *, whole_part: bool = False
    ) -> tuple[Read, dict[str, Read | None]]:
        """Rows of the student's part and of each teacher's, all under way at once. None: a teacher that has nothing of it."""
        slices = student_slices(view.commit, student)
        commits = {name: self._teacher_commit(catalog, name, view) for name in teachers}
        for name, commit in commits.items():
            slices += teacher_slices(name, commit, teacher) if commit else []
        arrays = iter(self._once.read(slices, STUDY_BYTES) if whole_part else self._arrays.read(slices))
        of_student = {name: next(arrays) for name in student}
        return of_student, {name: {key: next(arrays) for key in teacher} if commit else None for name, commit in commits.items()}

    def _extras(
        self, catalog: Catalog, view: PartView, at: int, student: Read, by_teacher: Mapping[str, Read | None]
    ) -> tuple[Extras, ...]:
        """Of every teacher those of its top-K that are not in the student's, along the rollout in row `at`; all read at once."""
        slices: list[Slice] = []
        for name, read in by_teacher.items():
            if (commit := self._teacher_commit(catalog, name, view)) is not None and read is not None:
                slices += extra_slices(name, commit, read["extra_start"])
                check_topk(f"teacher/{name}/{view.name}", read["topk_n"], read["extra_start"], student["topk_token_id"].shape[1])
        arrays = iter(self._arrays.read(slices))
        return tuple(
            no_extras(len(view.of_rollout("token", at)))
            if read is None
            else Extras(read["extra_start"] - read["extra_start"][0], *(next(arrays) for _ in EXTRA))
            for read in by_teacher.values()
        )

    def _nodes_from(
        self, catalog: Catalog, view: PartView, nodes: range, student: Read, by_teacher: Mapping[str, Read | None]
    ) -> Nodes:
        question_N = view.question_of_node()[nodes.start : nodes.stop]
        if view.commit.nominators:
            order = {teacher.id: bit for bit, teacher in enumerate(catalog.teachers)}
            bits = [order[name] for name in view.commit.nominators if name in order]
            student = student | {name: move_bits(student[name], bits) for name in ("node_nominated_by", "child_nominated_by")}
        return build_nodes(question_N, nodes.start, student, by_teacher, self.attributes.objectives, view.where)


def _rollout_row(view: PartView, row: int, question_id: str, index: int) -> int:
    """Row in its part of the rollout with this index. Raises StoreError where the question has none."""
    rollouts = view.of_question("rollout", row)
    indices = view.head["rollout_index"][rollouts.start : rollouts.stop].tolist()
    if index not in indices:
        raise StoreError(f"question {question_id!r} has no rollout {index}; it has {some_of(indices)}")
    return rollouts.start + int(indices.index(index))
