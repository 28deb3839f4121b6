"""Reads a store. Importing this module is cheap: TensorStore comes with the first array that is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from store import layout
from store.arrays import PAGE_BYTES, ArrayReader, Slice
from store.catalog import Catalog, scan
from store.errors import StoreError
from store.index import INDEX, check_head, head_of, pack
from store.layout import CommitRecord
from store.node_tables import (
    build_nodes,
    empty_nodes,
    merge_nodes,
    move_bits,
    take_nodes,
)
from store.page import Read, Rows, build_question, build_rollout, column_rows, decode_text, node_rows, question_rows, rollout_rows
from store.part_view import EXTRA, HEAD, PartView, extra_slices, head_rows, student_slices, teacher_slices, whole_rows
from store.parts import SHARED_AXES, Array, PartArrays, check_bounds, check_rows, count_completions
from store.place import METADATA, Folder, PathLike, Place, parse
from store.schema import STUDENT, TEACHER, FinishReason, ForcedKind
from store.study_order import build_paths, listing, rows_in_order, study_order
from store.tables import (
    Completion,
    Listing,
    Nodes,
    Page,
    PartRow,
    PartRows,
    Paths,
    Question,
    QuestionPlace,
    QuestionRow,
    Rollout,
    RootAttributes,
    StoreCounts,
    TeacherInfo,
)
from store.teacher_topk import Extras, check_topk, no_extras
from store.vocab import Vocab, read_vocab

if TYPE_CHECKING:
    import xarray

__all__ = ["Store", "StoreError", "Vocab"]

#: Bytes that all nodes of one part may take.
STUDY_BYTES = 4 << 30

_COMPLETION = tuple(name for name, spec in STUDENT.items() if spec.dims[0] == "completion")


class Store:
    """A store, open for reading: pages for the screen, tables for the mathematics.

    Any number of threads may read while one refreshes. Every method that reads raises StoreError
    where a file is missing or damaged, naming it; none returns a number that was not written.
    `teachers` as an argument are teacher ids in the order wanted; None: all of them.
    """

    def __init__(self, path: PathLike, cache_bytes: int = 64 << 20) -> None:
        """Open the store at `path`; decoded chunks take at most `cache_bytes`. Raises StoreError."""
        self.path = path
        self._root = parse(path)
        try:
            attributes = layout.read_group_attributes(self._root)
        except FileNotFoundError as error:
            raise StoreError(_no_store(self._root)) from error
        layout.check_schema(self._root, attributes)
        self.attributes: RootAttributes = layout.decode_root(self._root, attributes)
        self._vocab_size = layout.vocab_size(attributes)
        self._arrays = ArrayReader(self._root, cache_bytes)
        self._views: dict[str, PartView] = {}
        self._rows: dict[tuple[str, int], QuestionRow] = {}
        self._questions: tuple[Catalog, tuple[QuestionRow, ...]] | None = None  # of which look at the store
        self._index_arrays: tuple[str, Read] | None = None  # folder of the index, and its arrays
        self._damaged_indexes: set[str] = set()
        self._teacher_commits: dict[tuple[str, str], CommitRecord] = {}
        self._vocab: Vocab | None = None
        self._refreshing = Lock()
        self._catalog = self._scan(None)

    # What there is --------------------------------------------------------------------------------

    @property
    def teachers(self) -> tuple[TeacherInfo, ...]:
        """Teachers of the study in its order, then those added later."""
        return self._catalog.teachers

    @property
    def added_teachers(self) -> tuple[TeacherInfo, ...]:
        """Those of them that were added later, by id."""
        return self._catalog.teachers[self._catalog.n_study_teachers :]

    def judged_only(self, question_id: str) -> frozenset[str]:
        """Ids of the added teachers that are judged only at nodes of this question that others nominated."""
        self._find(question_id)
        return self._catalog.without_say(question_id)

    def judged(self, teacher: str) -> tuple[int, int]:
        """At how many nodes an added teacher is judged, of how many that others nominated without it; (0, 0) for any other."""
        catalog = self._catalog
        (wanted,) = self._teacher_ids(catalog, [teacher])
        if wanted not in {one.id for one in self.added_teachers}:
            return 0, 0
        places = [catalog.place[name] for name in catalog.place if wanted in catalog.without_say(name)]
        views = self._load_views(catalog, dict.fromkeys(name for name, _ in places))
        sizes = [(len(views[name].of_question("node", row)), name in catalog.teacher_parts[wanted]) for name, row in places]
        return sum(n for n, asked in sizes if asked), sum(n for n, _ in sizes)

    @property
    def generation(self) -> int:
        """The highest of its parts; 0 where no question was extended."""
        return max((commit.generation for commit in self._catalog.parts.values()), default=0)

    def lacking(self, teacher: str) -> tuple[PartRows, ...]:
        """The parts that questions are read from and that the teacher has nothing of."""
        catalog = self._catalog
        (wanted,) = self._teacher_ids(catalog, [teacher])
        used = sorted({name for name, _ in catalog.place.values()} - catalog.teacher_parts[wanted])
        found = []
        for view in self._load_views(catalog, used).values():
            rows = tuple(
                PartRow(
                    name,
                    len(view.of_question("token", row)),
                    len(view.of_question("node", row)),
                    catalog.place[name] == (view.name, row),
                )
                for row, name in enumerate(view.commit.question_ids)
            )
            found.append(PartRows(view.name, rows, view.commit.counts["candidate"], view.commit.counts["child"]))
        return tuple(found)

    @property
    def part_ids(self) -> tuple[str, ...]:
        """Names of the committed parts, sorted."""
        return tuple(self._catalog.parts)

    @property
    def made_with(self) -> tuple[str, ...]:
        """What ran the completions of its parts, in words, sorted: one line each."""
        return tuple(sorted({line for commit in self._catalog.parts.values() for line in commit.made_with}))

    @property
    def vocab(self) -> Vocab:
        """The tokens as bytes; read once."""
        if self._vocab is None:
            self._vocab = read_vocab(self._root, self._arrays, self._vocab_size)
        return self._vocab

    def refresh(self) -> bool:
        """Look for new parts, of the student or of a teacher; True where there are some. Raises StoreError."""
        with self._refreshing:
            before = self._catalog
            after = self._scan(before)
            if len(after.parts) < len(before.parts) and not (self._root / METADATA).exists():
                raise StoreError(f"{self._root} is not there any more; open it again where it is now")
            self._catalog = after
            return (self._catalog.parts, self._catalog.teacher_parts) != (before.parts, before.teacher_parts)

    def questions(self) -> tuple[QuestionRow, ...]:
        """The list of questions with their rollouts, by number; of duplicates the one of the highest generation."""
        catalog = self._catalog
        if self._questions is None or self._questions[0] is not catalog:
            views = self._load_views(catalog, catalog.parts)
            found = [self._question_row(views[name], row) for name, row in catalog.place.values()]
            self._questions = (catalog, tuple(sorted(found, key=lambda row: (row.number, row.id))))
        return self._questions[1]

    def listing(self) -> Listing:
        """The same as columns: however many rollouts there are, it takes the index and no part."""
        catalog = self._catalog
        head = self._index_head(catalog)
        if head is not None and catalog.index is not None and catalog.index.parts.keys() == catalog.parts.keys():
            first = {name: rows["question"] for name, rows in catalog.index.first_rows.items()}
        else:
            views = list(self._load_views(catalog, catalog.parts).values())
            head, starts = pack(views), accumulate((view.commit.counts["question"] for view in views), initial=0)
            first = dict(zip((view.name for view in views), starts, strict=False))
        return listing(head, first, catalog.place)

    def counts(self) -> StoreCounts:
        """How much is in the store, from the commit records; of duplicates one is counted."""
        catalog = self._catalog
        axes = ("rollout", "token", "node")
        totals = {axis: sum(commit.counts.get(axis, 0) for commit in catalog.parts.values()) for axis in axes}
        n_completions = sum(commit.n_completions for commit in catalog.parts.values())
        for name, row in catalog.passed_over():
            view = self._load_views(catalog, [name])[name]
            for axis in axes:
                totals[axis] -= len(view.of_question(axis, row))
            groups = view.of_question("group", row)
            n_completions -= count_completions(self._read_student(view, {"group_forced_kind": groups, "group_n": groups}))
        return StoreCounts(
            n_questions_planned=len(self.attributes.question_ids),
            n_questions_done=len(catalog.place),
            n_rollouts=totals["rollout"],
            n_tokens=totals["token"],
            n_nodes=totals["node"],
            n_completions=n_completions,
        )

    def part_states(self) -> dict[str, tuple[int, frozenset[str]]]:
        """Of every part how many of its questions are read from it, and which teachers have it.

        What `study_nodes` says of a part changes only with these.
        """
        catalog = self._catalog
        used = Counter(name for name, _ in catalog.place.values())
        return {
            name: (used[name], frozenset(one for one, parts in catalog.teacher_parts.items() if name in parts))
            for name in catalog.parts
        }

    def places(self) -> tuple[QuestionPlace, ...]:
        """Where each question lies, by number, with what distinguishes parts from each other."""
        catalog = self._catalog
        views = self._load_views(catalog, catalog.parts)
        found = []
        for question_id, (name, row) in catalog.place.items():
            commit = catalog.parts[name]
            found.append(
                QuestionPlace(
                    question_id=question_id,
                    number=int(views[name].head["question_number"][row]),
                    part=name,
                    row=row,
                    generation=commit.generation,
                    nominators=commit.nominators,
                    teachers=tuple(one.id for one in catalog.teachers if name in catalog.teacher_parts[one.id]),
                )
            )
        return tuple(sorted(found, key=lambda place: (place.number, place.question_id)))

    def part(self, name: str) -> PartArrays:
        """All arrays of one part, and of every teacher that has it: memory for all of it. Raises StoreError."""
        catalog = self._catalog
        if name not in catalog.parts:
            raise StoreError(f"{self.path} has no part {name!r}{_nearest(name, catalog.parts)}")
        view = self._load_views(catalog, [name])[name]
        pieces = [*student_slices(view.commit, whole_rows(STUDENT, view.commit))]
        teachers = [one.id for one in catalog.teachers if name in catalog.teacher_parts[one.id]]
        for teacher in teachers:
            commit = self._teacher_commit(catalog, teacher, view)
            assert commit is not None
            pieces += teacher_slices(teacher, commit, whole_rows(TEACHER, commit))
        arrays = iter(self._arrays.read(pieces, STUDY_BYTES))
        student = {key: next(arrays) for key in STUDENT}
        by_teacher = {teacher: {key: next(arrays) for key in TEACHER} for teacher in teachers}
        return PartArrays(student, by_teacher, frozenset(view.commit.made_with))

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
            read = self._read_page(catalog, view, names, *node_rows(nodes, groups, whole=whole), STUDY_BYTES)
            tables.append(self._nodes_from(catalog, view, nodes, *read))
            path_nodes += self._arrays.read(student_slices(view.commit, {"path_node": path_node}))
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

    def _scan(self, before: Catalog | None) -> Catalog:
        return scan(self._root, self.attributes.study_hash, self.attributes.teachers, before)

    def _load_views(self, catalog: Catalog, names: Iterable[str]) -> dict[str, PartView]:
        """Views of these parts; the heads of all that are not in memory are read together."""
        names = tuple(names)
        self._load_from_index(catalog, names)
        missing = [catalog.parts[name] for name in names if name not in self._views]
        slices = [piece for commit in missing for piece in student_slices(commit, head_rows(commit))]
        arrays = iter(self._arrays.read(slices))
        for commit in missing:
            self._views[commit.part] = PartView(commit, {name: next(arrays) for name in HEAD})
        return {name: self._views[name] for name in names}

    def _load_from_index(self, catalog: Catalog, names: Iterable[str]) -> None:
        """Views of those parts that the index covers. An index that is damaged is passed over: it is only a cache."""
        index = catalog.index
        wanted = [name for name in names if name not in self._views and index is not None and name in index.parts]
        head = self._index_head(catalog) if wanted else None
        if head is None or index is None:
            return
        try:
            views = {name: PartView(catalog.parts[name], head_of(index, head, name)) for name in wanted}
        except StoreError:
            self._damaged_indexes.add(index.folder)
        else:
            self._views.update(views)

    def _index_head(self, catalog: Catalog) -> Read | None:
        """The arrays of the index; None where there is none that can be used."""
        index = catalog.index
        if index is None or index.folder in self._damaged_indexes:
            return None
        try:
            if self._index_arrays is None or self._index_arrays[0] != index.folder:
                arrays = self._arrays.read([Slice(index.folder, name, spec) for name, spec in INDEX.items()])
                check_head(index, head := dict(zip(INDEX, arrays, strict=True)))
                self._index_arrays = (index.folder, head)
        except StoreError:
            self._damaged_indexes.add(index.folder)
            return None
        return self._index_arrays[1]

    def _find(self, question_id: str, catalog: Catalog | None = None) -> tuple[PartView, int]:
        """Part and row of a question. Raises StoreError where it is not there, naming what is."""
        catalog = catalog or self._catalog
        if question_id not in catalog.place:
            if question_id in self.attributes.question_ids:
                raise StoreError(f"question {question_id!r} is planned, but not computed yet")
            raise StoreError(f"{self.path} has no question {question_id!r}{_nearest(question_id, catalog.place)}")
        name, row = catalog.place[question_id]
        return self._load_views(catalog, [name])[name], row

    def _question_row(self, view: PartView, row: int) -> QuestionRow:
        key = (view.name, row)
        if key not in self._rows:
            self._rows[key] = view.question_row(row)
        return self._rows[key]

    def _teacher_ids(self, catalog: Catalog, wanted: Iterable[str] | None) -> tuple[str, ...]:
        known = [teacher.id for teacher in catalog.teachers]
        if wanted is None:
            return tuple(known)
        names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        for name in names:
            if name not in known:
                raise StoreError(f"{self.path} has no teacher {name!r}{_nearest(name, known)}")
        return names

    def _teacher_commit(self, catalog: Catalog, teacher: str, view: PartView) -> CommitRecord | None:
        """What a teacher has of a part; None where it has nothing. Raises StoreError where it is not of the same rows."""
        if view.name not in catalog.teacher_parts[teacher]:
            return None
        key = (teacher, view.name)
        in_index = catalog.index.teachers.get(teacher, {}).get(view.name) if catalog.index else None
        if in_index is not None:
            self._teacher_commits.setdefault(key, in_index)
        if key not in self._teacher_commits:
            folder = self._root / "teacher" / teacher / view.name
            try:
                commit = layout.read_commit(folder, self.attributes.study_hash)
            except FileNotFoundError as error:
                raise StoreError(f"{folder / METADATA} is missing; it was there before") from error
            for axis in SHARED_AXES:
                if commit.counts.get(axis) != view.commit.counts.get(axis):
                    raise StoreError(f"{folder} and {self._root / view.where} differ in their {axis} rows; one is damaged")
            self._teacher_commits[key] = commit
        return self._teacher_commits[key]

    def _read_student(self, view: PartView, rows: Rows) -> Read:
        return dict(zip(rows, self._arrays.read(student_slices(view.commit, rows)), strict=True))

    def _read_page(
        self, catalog: Catalog, view: PartView, teachers: Sequence[str], student: Rows, teacher: Rows, limit: int = PAGE_BYTES
    ) -> tuple[Read, dict[str, Read | None]]:
        """Rows of the student's part and of each teacher's, all under way at once. None: a teacher that has nothing of it."""
        slices = student_slices(view.commit, student)
        commits = {name: self._teacher_commit(catalog, name, view) for name in teachers}
        for name, commit in commits.items():
            slices += teacher_slices(name, commit, teacher) if commit else []
        arrays = iter(self._arrays.read(slices, limit))
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
        raise StoreError(f"question {question_id!r} has no rollout {index}; it has {_listing(indices)}")
    return rollouts.start + int(indices.index(index))


def _no_store(place: Place) -> str:
    if not isinstance(place, Folder):
        return f"there is no store at {place}; see whether the address is right, and the bucket or the server that it names"
    path = place.shown
    if path.is_dir():
        return f"{path} is a folder, but no store (it has no {METADATA})"
    return f"{path} is a file, not a store" if path.exists() else f"there is no store at {path}"


def _nearest(name: str, known: Iterable[str]) -> str:
    """End of a sentence about a name that is not there: the one that was meant, or what there is."""
    import difflib

    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {_listing(known)}"


def _listing(names: Sequence[object], at_most: int = 8) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(repr(name) for name in names[:at_most]) + more if names else "none"
