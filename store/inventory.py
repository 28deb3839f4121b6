"""What a store has: its questions, teachers and parts, and where everything lies. From commit records and the index alone.

Importing this module is cheap: TensorStore comes with the first array that is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from threading import Lock

from store import layout
from store.arrays import ArrayReader, Slice
from store.catalog import Catalog, scan
from store.errors import StoreError
from store.index import INDEX, check_head, head_of, pack
from store.layout import CommitRecord
from store.page import Read, Rows
from store.part_view import HEAD, PartView, head_rows, student_slices
from store.parts import SHARED_AXES, count_completions
from store.place import METADATA, PathLike, no_store, parse
from store.study_order import listing
from store.tables import (
    Listing,
    PartRow,
    PartRows,
    QuestionPlace,
    QuestionRow,
    RootAttributes,
    StoreCounts,
    TeacherInfo,
)
from store.vocab import Vocab, read_vocab

#: Views cut out of the index that are kept at hand: it takes little to cut them again, and all of a large study take megabytes.
RECENT_VIEWS = 16


class Inventory:
    """A store, as far as it can be known without a page of it. `store.reader.Store` reads the pages."""

    def __init__(self, path: PathLike, cache_bytes: int = 64 << 20) -> None:
        """Open the store at `path`; decoded chunks take at most `cache_bytes`. Raises StoreError."""
        self.path = path
        self._root = parse(path)
        try:
            attributes = layout.read_group_attributes(self._root)
        except FileNotFoundError as error:
            raise StoreError(no_store(self._root)) from error
        layout.check_schema(self._root, attributes)
        self.attributes: RootAttributes = layout.decode_root(self._root, attributes)
        self._vocab_size = layout.vocab_size(attributes)
        self._arrays = ArrayReader(self._root, cache_bytes)
        # For what is read as a whole: the index, the vocabulary, the nodes of a part.
        self._once = ArrayReader(self._root, 0, once=True)
        self._views: dict[str, PartView] = {}  # of parts that no index covers
        self._recent_views: dict[str, PartView] = {}  # cut out of the index
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
            self._vocab = read_vocab(self._root, self._once, self._vocab_size)
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
            n_questions_chosen=len(self.attributes.chosen),
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

    # How ------------------------------------------------------------------------------------------

    def _scan(self, before: Catalog | None) -> Catalog:
        return scan(self._root, self.attributes.study_hash, self.attributes.teachers, before)

    def _load_views(self, catalog: Catalog, names: Iterable[str]) -> dict[str, PartView]:
        """Views of these parts, out of the index where it has them; the heads of all others are read together."""
        names = tuple(names)
        found = self._views_in_index(catalog, [name for name in names if name not in self._views])
        missing = [catalog.parts[name] for name in names if name not in self._views and name not in found]
        slices = [piece for commit in missing for piece in student_slices(commit, head_rows(commit))]
        arrays = iter(self._arrays.read(slices))
        for commit in missing:
            self._views[commit.part] = PartView(commit, {name: next(arrays) for name in HEAD})
        return {name: found[name] if name in found else self._views[name] for name in names}

    def _views_in_index(self, catalog: Catalog, names: Sequence[str]) -> dict[str, PartView]:
        """Views of those parts that the index covers. An index that is damaged is passed over: it is only a cache."""
        index = catalog.index
        wanted = [name for name in names if index is not None and name in index.parts]
        recent = self._recent_views
        found = {name: recent[name] for name in wanted if name in recent}
        if len(found) == len(wanted):
            return found
        head = self._index_head(catalog)
        if head is None or index is None:
            return found
        try:
            cut = {name: PartView(catalog.parts[name], head_of(index, head, name)) for name in wanted if name not in found}
        except StoreError:
            self._damaged_indexes.add(index.folder)
            return found
        self._recent_views = dict([*recent.items(), *cut.items()][-RECENT_VIEWS:])
        return found | cut

    def _index_head(self, catalog: Catalog) -> Read | None:
        """The arrays of the index; None where there is none that can be used."""
        index = catalog.index
        if index is None or index.folder in self._damaged_indexes:
            return None
        try:
            if self._index_arrays is None or self._index_arrays[0] != index.folder:
                arrays = self._once.read([Slice(index.folder, name, spec) for name, spec in INDEX.items()])
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
            if question_id in self.attributes.question_ids and not self.attributes.chosen:
                raise StoreError(f"question {question_id!r} is planned, but not computed yet")
            raise StoreError(f"{self.path} has no question {question_id!r}{nearest(question_id, catalog.place)}")
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
                raise StoreError(f"{self.path} has no teacher {name!r}{nearest(name, known)}")
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


def nearest(name: str, known: Iterable[str]) -> str:
    """End of a sentence about a name that is not there: the one that was meant, or what there is."""
    import difflib

    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {some_of(known)}"


def some_of(names: Sequence[object], at_most: int = 8) -> str:
    """The first of these names, in a sentence."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(repr(name) for name in names[:at_most]) + more if names else "none"
