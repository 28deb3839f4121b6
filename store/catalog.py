"""Which parts a store has at this moment, and where each question is. From commit records alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from store import layout
from store.errors import StoreError
from store.index import MANIFEST, Index, find, read_manifest
from store.place import Place
from store.tables import TeacherInfo


class Seen(Struct, frozen=True):
    """What a look at the store found, before any commit record is read."""

    parts: list[str]  #: of the student, sorted
    teachers: Mapping[str, Collection[str]]  #: teacher id -> its parts
    index: str | None  #: the index that goes with it; None: look for one


class Catalog(Struct, frozen=True):
    """One look at the folders of a store. A later look makes a new one."""

    parts: Mapping[str, layout.CommitRecord]  #: committed parts by name, sorted
    teachers: tuple[TeacherInfo, ...]  #: those of the study, then those added later
    teacher_parts: Mapping[str, frozenset[str]]  #: teacher id -> parts of the student that it has too
    n_study_teachers: int
    place: Mapping[
        str, tuple[str, int]
    ]  #: question id -> part and row; of duplicates the highest generation, then the first part
    index: Index | None = None  #: the index that covers the most of the parts

    def passed_over(self) -> list[tuple[str, int]]:
        """Part and row of every question that another part has already."""
        here = set(self.place.values())
        every = ((name, row) for name, commit in self.parts.items() for row in range(len(commit.question_ids)))
        return [place for place in every if place not in here]

    def without_say(self, question_id: str) -> frozenset[str]:
        """Teachers that had no say in which nodes the question has: they were added later, and it was not extended since.

        A null is none of them: it has no say in any case.
        """
        nominators = self.parts[self.place[question_id][0]].nominators
        added = self.teachers[self.n_study_teachers :]
        return frozenset(teacher.id for teacher in added if not teacher.null and teacher.id not in nominators)


def scan(root: Place, study_hash: str, study_teachers: tuple[TeacherInfo, ...], before: Catalog | None = None) -> Catalog:
    """Look at the folders of the store, or at its manifest where it lies far away.

    Commit records that `before` or the index has are not read again: parts never change.
    Raises StoreError where a commit record is damaged or of another study, and where a far place has no manifest.
    """
    seen = listed(root, before) if root.lists else _in_manifest(root, study_hash)
    index = before.index if before else None
    if before is None or before.parts.keys() != set(seen.parts):
        index = find(root, study_hash, seen.parts, seen.index)
    parts: dict[str, layout.CommitRecord] = {}
    for name in seen.parts:
        try:
            known = (before.parts.get(name) if before else None) or (index.parts.get(name) if index else None)
            parts[name] = known or layout.read_commit(root / "student" / name, study_hash)
        except FileNotFoundError:
            continue  # not committed
    place: dict[str, tuple[str, int]] = {}
    for name, commit in sorted(parts.items(), key=lambda entry: (-entry[1].generation, entry[0])):
        for row, question_id in enumerate(commit.question_ids):
            place.setdefault(question_id, (name, row))
    added = layout.read_added_teachers(root, study_teachers, seen.teachers)
    teachers = (*study_teachers, *added)
    teacher_parts = {teacher.id: frozenset(parts.keys() & seen.teachers.get(teacher.id, ())) for teacher in teachers}
    return Catalog(parts, teachers, teacher_parts, len(study_teachers), place, index)


def listed(root: Place, before: Catalog | None = None) -> Seen:
    """By listing folders. Of a part or teacher that is not committed the folder may be there, its metadata is not.

    A teacher's part without the student's is none: its writer is not done, or was killed.
    """
    known: Mapping[str, Collection[str]] = before.teacher_parts if before else {}
    parts = [name for name in (root / "student").groups(before.parts if before else ()) if layout.is_safe_name(name)]
    ids = layout.list_parts(root / "teacher")
    there = set(parts)
    return Seen(parts, {one: there.intersection((root / "teacher" / one).groups(known.get(one, ()))) for one in ids}, None)


def _in_manifest(root: Place, study_hash: str) -> Seen:
    manifest = read_manifest(root, study_hash)
    if manifest is None:
        raise StoreError(
            f"{root} has no {MANIFEST}, without which its parts cannot be found; "
            "`opd-tui doctor --repair` writes one where the store can be written"
        )
    return Seen(list(manifest.parts), {one: set(names) for one, names in manifest.teachers.items()}, manifest.index)
