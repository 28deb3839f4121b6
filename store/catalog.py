"""Which parts a store has at this moment, and where each question is. From commit records alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from store import layout
from store.tables import TeacherInfo


@dataclass(frozen=True, slots=True)
class Catalog:
    """One look at the folders of a store. A later look makes a new one."""

    parts: Mapping[str, layout.CommitRecord]  #: committed parts by name, sorted
    teachers: tuple[TeacherInfo, ...]  #: those of the study, then those added later
    teacher_parts: Mapping[str, frozenset[str]]  #: teacher id -> parts of the student that it has too
    n_study_teachers: int
    place: Mapping[
        str, tuple[str, int]
    ]  #: question id -> part and row; of duplicates the highest generation, then the first part

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


def scan(root: Path, study_hash: str, study_teachers: tuple[TeacherInfo, ...], before: Catalog | None = None) -> Catalog:
    """Look at the folders of the store. Commit records that `before` has are not read again: parts never change.

    Raises StoreError where a commit record is damaged or of another study.
    """
    parts: dict[str, layout.CommitRecord] = {}
    for name in layout.list_parts(root / "student"):
        try:
            known = before.parts.get(name) if before else None
            parts[name] = known or layout.read_commit(root / "student" / name, study_hash)
        except FileNotFoundError:
            continue  # not committed
    place: dict[str, tuple[str, int]] = {}
    for name, commit in sorted(parts.items(), key=lambda entry: (-entry[1].generation, entry[0])):
        for row, question_id in enumerate(commit.question_ids):
            place.setdefault(question_id, (name, row))
    teachers = (*study_teachers, *layout.read_added_teachers(root, study_teachers))
    teacher_parts: dict[str, frozenset[str]] = {}
    for teacher in teachers:
        folder = root / "teacher" / teacher.id
        known_parts = before.teacher_parts.get(teacher.id, frozenset()) if before else frozenset()
        teacher_parts[teacher.id] = frozenset(
            name
            for name in layout.list_parts(folder)
            if name in parts and (name in known_parts or (folder / name / layout.METADATA).is_file())
        )
    return Catalog(parts, teachers, teacher_parts, len(study_teachers), place)
