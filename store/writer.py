"""Makes a store and publishes parts: staged beside it, made durable, then renamed in, the student's part last.

A reader sees a whole part or none. zarr is imported when something is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from store import index, layout
from store.destination import Destination, destination
from store.errors import IsThere, StoreError
from store.parts import SHARED_AXES, Array, Arrays, PartArrays, axis_lengths, check_bounds, check_group, concatenate, validate
from store.place import METADATA, PathLike, no_store
from store.schema import STUDENT, TEACHER, VOCAB
from store.staging import sync_files, write_arrays, write_group, write_part
from store.tables import RootAttributes, TeacherInfo
from store.teacher_topk import check_topk
from store.upkeep import follow

__all__ = [
    "PartArrays",
    "add_teacher",
    "committed_question_ids",
    "concatenate",
    "create",
    "is_store_of",
    "next_part_id",
    "publish",
    "publish_teacher",
    "remove_leftovers",
    "validate",
]


def create(path: PathLike, attributes: RootAttributes, token_bytes: Sequence[bytes], special_ids: Sequence[int]) -> None:
    """Make the store of a study at `path`, or leave the one that is there if it is of the same study.

    `token_bytes[i]` are the raw bytes of token i. A half-made store is never seen. Raises StoreError
    where another study, a slice of this one or anything else is at `path`, and where it cannot be written.
    """
    target = destination(path)
    if target.is_store_of(attributes.study_hash):
        if _read_root(target).chosen and not attributes.chosen:
            raise StoreError(
                f"{path} is a slice of its study, and stays one: name the store that it was taken from, or a new path"
            )
        return
    arrays = _vocab_arrays(token_bytes, special_ids)
    try:
        layout.check_root(attributes)
    except ValueError as error:
        raise StoreError(str(error)) from error
    with target.stage("create") as stage:
        root = stage / "store"
        root.mkdir()
        write_arrays(root / "vocab", arrays, VOCAB)
        counts = axis_lengths("vocab", arrays, VOCAB)
        write_group(root / "vocab", layout.encode_vocab(counts, sync_files(root / "vocab")))
        write_group(root / "student", {})
        write_group(root / "teacher", {})
        write_group(root / index.FOLDER, {})
        for teacher in attributes.teachers:
            write_group(root / "teacher" / teacher.id, {"id": teacher.id})
        write_group(root, layout.encode_root(attributes, len(token_bytes)))
        target.put_root(root, attributes.study_hash)
    follow(target, attributes.study_hash)


def add_teacher(path: PathLike, teacher: TeacherInfo, settings: Mapping[str, Any] | None = None) -> None:
    """Make room for a teacher that the study did not have. Nothing stored is rewritten; one that is there is left as it is.

    `settings` (JSON) are kept in its group: what it was made with, for people and for a later run.
    """
    target = destination(path)
    root = _read_root(target)
    try:
        others = [other for other in _known_teachers(target, root) if other.id != teacher.id]
        layout.check_teachers((*others, teacher))
    except ValueError as error:
        raise StoreError(str(error)) from error
    if (target.place / "teacher" / teacher.id / METADATA).exists():
        return
    with target.stage("teacher") as stage:
        write_group(stage / teacher.id, layout.encode_added_teacher(teacher, settings or {}))
        with suppress(IsThere):  # another process was first
            target.put([(stage / teacher.id, f"teacher/{teacher.id}")])
    follow(target, root.study_hash)


def publish(path: PathLike, part_id: str, part: PartArrays, *, generation: int = 0, nominators: tuple[str, ...] = ()) -> None:
    """Add a part to the store: all of it, durably, or nothing.

    Of parts that hold the same question readers take the one with the highest `generation`. `nominators` are the ids of
    the teachers that the bits of `nominated_by` name, in their order; nothing where these are the study's.
    Raises StoreError where the part is not whole or does not fit the study, where `part_id` was used
    before, and where there is no room or no permission; the store is then as it was.
    """
    target = destination(path)
    root = _read_root(target)
    validate(part)
    _check_fits(target, root, part)
    _check_unused(target, part_id)
    with target.stage(part_id) as stage:
        moves: list[tuple[Path, str]] = []
        for teacher, arrays in part.teachers.items():
            write_part(stage / "teacher" / teacher, part_id, root.study_hash, part.question_ids, arrays, TEACHER)
            moves.append((stage / "teacher" / teacher, f"teacher/{teacher}/{part_id}"))
        write_part(
            stage / "student",
            part_id,
            root.study_hash,
            part.question_ids,
            part.student,
            STUDENT,
            part.made_with,
            generation,
            nominators,
        )
        moves.append((stage / "student", f"student/{part_id}"))
        target.put(moves)
    follow(target, root.study_hash, [key for _, key in moves])


def publish_teacher(path: PathLike, part_id: str, teacher: str, arrays: Arrays) -> None:
    """Add what one teacher says of a part that is already there. Raises StoreError as `publish` does."""
    target = destination(path)
    root = _read_root(target)
    if teacher not in {known.id for known in _known_teachers(target, root)}:
        raise StoreError(f"{target} has no teacher {teacher!r}; add it first")
    key = f"teacher/{teacher}/{part_id}"
    if not layout.is_safe_name(part_id):
        raise StoreError(f"{part_id!r} cannot be the name of a part")
    try:
        student = layout.read_commit(target.place / "student" / part_id, root.study_hash)
    except FileNotFoundError as error:
        raise StoreError(f"{target} has no part {part_id}") from error
    if (target.place / key / METADATA).exists():
        raise IsThere(f"{target.place / key} is there already; parts are never changed")
    lengths = check_group(f"teacher/{teacher}", arrays, TEACHER)
    for axis in SHARED_AXES:
        if lengths[axis] != student.counts.get(axis):
            raise StoreError(f"teacher/{teacher} has {lengths[axis]} {axis} rows, part {part_id} has {student.counts.get(axis)}")
    _check_teacher_fits(root, teacher, arrays, layout.vocab_size(layout.read_group_attributes(target.place)))
    with target.stage(part_id) as stage:
        write_part(stage / "teacher", part_id, root.study_hash, student.question_ids, arrays, TEACHER)
        target.put([(stage / "teacher", key)])
    follow(target, root.study_hash, [key])


def committed_question_ids(path: PathLike) -> frozenset[str]:
    """Ids of the questions in committed parts, from the commit records alone."""
    target = destination(path)
    root = _read_root(target)
    found: set[str] = set()
    for name in (target.place / "student").groups():
        if layout.is_safe_name(name):
            found.update(layout.read_commit(target.place / "student" / name, root.study_hash).question_ids)
    return frozenset(found)


def next_part_id(path: PathLike, run: str) -> str:
    """An id that no part of the store had: ``p-<run>-0003``. `run` is unique to a process: 8 random hexadecimal digits."""
    target = destination(path)
    prefix = f"p-{run}-"
    if not layout.is_safe_name(f"{prefix}0000"):
        raise StoreError(f"{run!r} cannot be part of a part's name")
    used = [
        int(name[len(prefix) :]) for group in _part_folders(target) for name in target.begun(group) if _is_numbered(name, prefix)
    ]
    return f"{prefix}{max(used, default=-1) + 1:04d}"


def _part_folders(target: Destination) -> list[str]:
    return ["student", *(f"teacher/{name}" for name in target.begun("teacher"))]


def remove_leftovers(path: PathLike) -> int:
    """Remove what killed processes of this machine left beside the store; return how many pieces. Work in hand stays.

    Index and manifest are brought up to date: one of them may have been killed before it could.
    """
    target = destination(path)
    removed = target.remove_leftovers()
    follow(target, _read_root(target).study_hash)
    return removed


def is_store_of(path: PathLike, study_hash: str) -> bool:
    """True for the store of this study, False for a free place. Raises StoreError for anything else."""
    return destination(path).is_store_of(study_hash)


def _is_numbered(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name[len(prefix) :].isdecimal()


def _read_root(target: Destination) -> RootAttributes:
    try:
        attributes = layout.read_group_attributes(target.place)
    except FileNotFoundError as error:
        raise StoreError(no_store(target.place)) from error
    layout.check_schema(target.place, attributes)
    return layout.decode_root(target.place, attributes)


def _known_teachers(target: Destination, root: RootAttributes) -> tuple[TeacherInfo, ...]:
    return (*root.teachers, *layout.read_added_teachers(target.place, root.teachers, target.begun("teacher")))


def _check_fits(target: Destination, root: RootAttributes, part: PartArrays) -> None:
    """Whether the part belongs to the study: its questions, teachers, objectives and tokens."""
    for name in part.question_ids:
        if name not in root.question_ids:
            raise StoreError(f"question {name!r} is not in the study of {target}")
    known = {teacher.id for teacher in _known_teachers(target, root)}
    for teacher in part.teachers.keys() - known:
        raise StoreError(f"teacher {teacher!r} is not in the study of {target} (it has {', '.join(sorted(known))})")
    for info in root.teachers:
        if info.id not in part.teachers:
            raise StoreError(f"the part has nothing of teacher {info.id!r}")
    vocab_size = layout.vocab_size(layout.read_group_attributes(target.place))
    for teacher, arrays in part.teachers.items():
        _check_teacher_fits(root, teacher, arrays, vocab_size)
    for name in ("prompt_token_id", "token_id", "topk_token_id", "child_token_id", "completion_token_id"):
        _check_tokens(f"student/{name}", part.student[name], vocab_size)


def _check_teacher_fits(root: RootAttributes, teacher: str, arrays: Arrays, vocab_size: int) -> None:
    width = arrays["fbar"].shape[1]
    if width != len(root.objectives):
        raise StoreError(f"teacher/{teacher}/fbar has {width} columns, the study has {len(root.objectives)} objectives")
    _check_tokens(f"teacher/{teacher}/extra_token_id", arrays["extra_token_id"], vocab_size)
    check_topk(f"teacher/{teacher}", arrays["topk_n"], arrays["extra_start"], arrays["logprob_at_student_topk"].shape[1])


def _check_tokens(name: str, ids: Array, vocab_size: int) -> None:
    if ids.size and ids.max() >= vocab_size:
        raise StoreError(f"{name} holds token {ids.max()}, outside of the vocabulary of {vocab_size}")


def _check_unused(target: Destination, part_id: str) -> None:
    if not layout.is_safe_name(part_id):
        raise StoreError(f"{part_id!r} cannot name a part (letters, digits, and . _ + = @ , ( ) - inside)")
    for group in _part_folders(target):
        if part_id in target.begun(group):
            raise IsThere(
                f"{target.place / group / part_id} is there already; parts are never changed and their ids never reused"
            )


def _vocab_arrays(token_bytes: Sequence[bytes], special_ids: Sequence[int]) -> dict[str, Array]:
    start = np.zeros(len(token_bytes) + 1, np.uint32)
    np.cumsum([len(piece) for piece in token_bytes], out=start[1:])
    special = np.asarray(special_ids, np.int32).reshape(-1)
    if special.size and not 0 <= special.min() <= special.max() < len(token_bytes):
        raise StoreError(f"a special token is outside of the vocabulary of {len(token_bytes)}")
    arrays: dict[str, Array] = {
        "token_bytes": np.frombuffer(b"".join(token_bytes), np.uint8),
        "token_start": start,
        "special_ids": special,
    }
    check_bounds("vocab/token_start", start, len(arrays["token_bytes"]))
    return arrays
