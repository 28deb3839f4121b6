"""Writes a store of an old schema anew, as one of this schema, at another path.

From schema 1 to 2: a teacher's top-K was kept in full and is kept as what it adds to the student's (`store.teacher_topk`),
the log-probabilities of every top-K and `divergence` are rounded. Everything else is copied as it is: the study, its hash,
the names of parts, what ran them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from store import layout
from store.arrays import ArrayReader, Slice, shape_of
from store.destination import LocalDestination
from store.errors import StoreError
from store.index import FOLDER
from store.layout import CommitRecord
from store.parts import SHARED_AXES, Array, Arrays, check_group
from store.place import METADATA, Place, no_store, parse
from store.rounding import rounded
from store.schema import ABSENT_TOKEN, DIVERGENCE_BITS, SCHEMA_MAJOR, STUDENT, TEACHER, VOCAB, ArraySpec
from store.staging import stage_beside, sync_folder, write_arrays, write_group, write_part
from store.teacher_topk import Extras, TopK, check_topk, coarse, join_topk, split_topk
from store.upkeep import update_index

OLD = 1
#: What a teacher had in schema 1 and has no more.
_GONE = {
    "topk_token_id": ArraySpec("i4", ("token", "candidate"), 2048, "the teacher's most likely tokens", absent=ABSENT_TOKEN),
    "topk_logprob": ArraySpec("f2", ("token", "candidate"), 2048, "their log-probabilities under the teacher, nat"),
    "student_logprob_at_topk": ArraySpec("f2", ("token", "candidate"), 2048, "their log-probabilities under the student, nat"),
}
_NEW = ("topk_n", "extra_start", "extra_token_id", "extra_logprob", "extra_student_logprob")
#: The teacher's arrays of schema 1; the student's and the vocabulary's are the same as today.
TEACHER_1 = {name: spec for name, spec in {**TEACHER, **_GONE}.items() if name not in _NEW}

#: All arrays of one part of a student or a teacher are in memory at once.
_PART_BYTES = 8 << 30
#: Tokens whose top-K are taken apart at once.
_TOKENS = 1 << 16


def migrate(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Write the store at `source` anew at `target`, where nothing is yet, and return its number of parts.

    `source` is only read. `target` appears whole or not at all; a migration that was stopped begins anew. Raises StoreError
    where `source` is no store of schema 1 or damaged, naming the file, and where `target` is there or cannot be written.
    """
    old, new = Path(os.path.abspath(source)), Path(os.path.abspath(target))
    attributes = _read_root(old)
    if new.exists() or new.is_symlink():
        raise StoreError(f"{new} is there already; give the new store a path where nothing is")
    if new.is_relative_to(old):
        raise StoreError(f"{new} lies inside of the store that is read; give the new store a path beside it")
    LocalDestination(new).remove_leftovers()
    with stage_beside(new, "migrate") as stage:
        root = stage / new.name
        n_parts = _Migration(old, root, attributes).run()
        os.rename(root, new)
        sync_folder(new.parent)
    return n_parts


def _read_root(path: Path) -> dict[str, Any]:
    """Attributes of the root of a store of the old schema. Raises StoreError, where it is of today's too."""
    try:
        attributes = layout.read_group_attributes(path)
    except FileNotFoundError as error:
        raise StoreError(no_store(parse(path))) from error
    major = layout.schema_major(path, attributes)
    if major == SCHEMA_MAJOR:
        raise StoreError(f"{path} has schema {attributes['schema_version']} already; there is nothing to do")
    _check_old(path, attributes)
    return attributes


def _check_old(path: Place | Path, attributes: Mapping[str, Any]) -> None:
    """Raise StoreError unless `attributes` are of the old schema."""
    if layout.schema_major(path, attributes) > SCHEMA_MAJOR:
        layout.check_schema(path, attributes)  # which says what to install
    if layout.schema_major(path, attributes) != OLD:
        raise StoreError(f"{path} has schema {attributes['schema_version']}; what can be migrated is schema {OLD}")


def _today(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a group, said to be of today's schema where they say a schema."""
    version = {"schema_version": layout.SCHEMA_VERSION} if "schema_version" in attributes else {}
    return {**attributes, **version}


class _Migration:
    """One store on its way from `old` to `root`, part by part."""

    def __init__(self, old: Path, root: Path, attributes: Mapping[str, Any]) -> None:
        self._old, self._root, self._attributes = old, root, attributes
        self._study = layout.decode_root(old, attributes)
        self._arrays = ArrayReader(old, 0)

    def run(self) -> int:
        """Write everything, index and manifest last; return the number of parts."""
        self._root.mkdir()
        vocab = self._arrays.read([Slice("vocab", name, spec) for name, spec in VOCAB.items()])
        write_arrays(self._root / "vocab", dict(zip(VOCAB, vocab, strict=True)), VOCAB)
        self._copy_group("vocab")
        for group in ("student", "teacher"):
            self._copy_group(group)
        added = layout.read_added_teachers(self._old, self._study.teachers)
        teachers = [teacher.id for teacher in (*self._study.teachers, *added)]
        for teacher in teachers:
            self._copy_group(f"teacher/{teacher}")
        parts = 0
        for name in layout.list_parts(self._old / "student"):
            commit = self._commit(f"student/{name}")
            if commit is not None:
                self._part(commit, teachers)
                parts += 1
        write_group(self._root / FOLDER, {})
        write_group(self._root, _today(self._attributes))
        update_index(LocalDestination(self._root), self._study.study_hash)
        return parts

    def _copy_group(self, folder: str) -> None:
        try:
            attributes = layout.read_group_attributes(self._old / folder)
        except FileNotFoundError as error:
            raise StoreError(f"{self._old / folder / METADATA} is missing; copy the store again") from error
        write_group(self._root / folder, _today(attributes))

    def _commit(self, folder: str) -> CommitRecord | None:
        """Commit record of a part of the old store; None where it is not committed."""
        try:
            return layout.read_commit(self._old / folder, self._study.study_hash, _check_old)
        except FileNotFoundError:
            return None

    def _part(self, commit: CommitRecord, teachers: list[str]) -> None:
        read = self._read(f"student/{commit.part}", commit, STUDENT)
        student = {**read, "topk_logprob": coarse(read["topk_logprob"])}
        for teacher in teachers:
            folder = f"teacher/{teacher}/{commit.part}"
            said = self._commit(folder)
            if said is None:
                continue
            for axis in SHARED_AXES:
                if said.counts.get(axis) != commit.counts.get(axis):
                    raise StoreError(f"{self._old / folder} and the student's part differ in their {axis} rows; one is damaged")
            converted = convert_teacher(self._read(folder, said, TEACHER_1), student, str(self._old / folder))
            self._write(folder, said, converted, TEACHER)
        self._write(f"student/{commit.part}", commit, student, STUDENT)

    def _read(self, folder: str, commit: CommitRecord, specs: Mapping[str, ArraySpec]) -> dict[str, Array]:
        """All arrays of a part, checked. Raises StoreError, naming the file or the array, where one is damaged or missing."""
        where = str(self._old / folder)
        for name in specs:
            if f"{name}/{METADATA}" not in commit.files:
                raise StoreError(f"{where} was written before stores had the array {name!r}; compute the study anew")
        shapes = {name: shape_of(spec, commit.counts, where) for name, spec in specs.items()}
        slices = [Slice(folder, name, spec, shapes[name], 0, shapes[name][0]) for name, spec in specs.items()]
        arrays = dict(zip(specs, self._arrays.read(slices, _PART_BYTES), strict=True))
        check_group(where, arrays, specs)
        return arrays

    def _write(self, folder: str, commit: CommitRecord, arrays: Arrays, specs: Mapping[str, ArraySpec]) -> None:
        write_part(
            self._root / folder, commit.part, commit.study_hash, commit.question_ids, arrays, specs, made_with=commit.made_with
        )


def convert_teacher(old: Arrays, student: Arrays, where: str) -> dict[str, Array]:
    """A teacher's arrays of schema 2 from those of schema 1 and the student's of schema 2.

    Raises StoreError, naming `where`, unless the teacher's top-K of every token comes out as it was, rounded.
    """
    length = len(old["topk_token_id"])
    pieces: list[dict[str, Array]] = []
    for start in range(0, max(length, 1), _TOKENS):
        rows = slice(start, start + _TOKENS)
        top = TopK(old["topk_token_id"][rows], old["topk_logprob"][rows], old["student_logprob_at_topk"][rows])
        ids, logprob = student["topk_token_id"][rows], student["topk_logprob"][rows]
        piece = split_topk(ids, old["logprob_at_student_topk"][rows], top)
        _check_same(top, ids, logprob, piece, where)
        pieces.append(piece)
    kept = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0] if name != "extra_start"}
    counts = [np.diff(piece["extra_start"]) for piece in pieces]
    kept["extra_start"] = np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)])
    columns = {**old, **kept, "divergence": rounded(old["divergence"], DIVERGENCE_BITS)}
    return {name: np.ascontiguousarray(columns[name], dtype=spec.dtype) for name, spec in TEACHER.items()}


def _check_same(top: TopK, ids: Array, logprob: Array, piece: Arrays, where: str) -> None:
    extras = Extras(piece["extra_start"], piece["extra_token_id"], piece["extra_logprob"], piece["extra_student_logprob"])
    check_topk(where, piece["topk_n"], piece["extra_start"], ids.shape[1])
    found = join_topk(ids, logprob, piece["logprob_at_student_topk"], piece["topk_n"], extras)
    for one, other in zip(_by_token(top), _by_token(found), strict=True):
        if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            raise StoreError(
                f"{where} says two things of one token in topk_logprob and logprob_at_student_topk, or student_logprob_at_topk "
                "differs from the student's topk_logprob; it is damaged"
            )


def _by_token(top: TopK) -> tuple[Array, Array, Array]:
    """Ids and log-probabilities in the order of ids: equal log-probabilities may change places."""
    order = np.argsort(top.token_id_TC, axis=1, kind="stable")
    columns = top.token_id_TC, coarse(top.logprob_TC), coarse(top.student_logprob_TC)
    ids, logprob, student_logprob = (np.take_along_axis(column, order, 1) for column in columns)
    return ids, logprob, student_logprob
