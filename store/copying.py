"""Writes stores anew from stores: merged, compacted, or a slice of one. Sources are only read, the target is a new path.

What is written appears under its name when it is whole; a process that is killed leaves nothing but a staging folder.
"""

from __future__ import annotations

import os
import secrets
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from store import layout, writer
from store.destination import destination
from store.errors import StoreError
from store.parts import PartArrays, concatenate
from store.place import METADATA, PathLike, is_remote
from store.reader import Store

#: Questions in a part that is written anew; fewer where they take more than so many bytes, since a part is made in memory.
PER_PART, PART_BYTES = 64, 32 << 20

Progress = Callable[[int, int], None]  #: questions written, and to write; called once before the first


class _Origin(Struct, frozen=True):
    """Where a question comes from, and with whom it can share a part."""

    question_id: str
    number: int
    source: int
    part: str
    row: int
    generation: int
    nominators: tuple[str, ...]
    teachers: tuple[str, ...]

    @property
    def kind(self) -> tuple[Any, ...]:
        return (self.generation, self.nominators, self.teachers)


def copy(
    sources: Sequence[PathLike],
    out: PathLike,
    *,
    questions: Collection[str] | None = None,
    teachers: Collection[str] | None = None,
    per_part: int = PER_PART,
    progress: Progress = lambda done, total: None,
) -> int:
    """Write the questions of `sources`, by number, into a new store at `out`; return how many there are.

    `out` is a folder, an s3:// address, or a file ending in .zip that `browse` opens as it is. Of a question that several
    sources have, the one of the highest generation is taken, then the first. `teachers` leaves out added teachers that are
    not named; those of the study stay. Raises StoreError where sources are not of one study, where something is at `out`
    already or `out` lies inside of a source, for unknown names, and where a source is damaged.
    """
    stores = [Store(source) for source in sources]
    _check_same_study(stores)
    _check_free(out, sources)
    _check_teachers(stores, teachers)
    origins = _origins(stores, questions, teachers)
    text = os.fspath(out)
    with destination(text).stage("copy") as stage:
        made = stage / "store"
        chosen = _chosen(stores, None if questions is None else {row.question_id for row in origins})
        _create(made, stores, {teacher for origin in origins for teacher in origin.teachers}, chosen)
        done = 0
        progress(done, len(origins))
        run = secrets.token_hex(4)
        for group in _groups(origins, per_part):
            for records in _held(_taken(stores[one.source], one) for one in group):
                part_id = writer.next_part_id(made, run)
                writer.publish(
                    made, part_id, concatenate(records), generation=group[0].generation, nominators=group[0].nominators
                )
                done += len(records)
                progress(done, len(origins))
        _put(made, text)
    return len(origins)


def _check_same_study(stores: Sequence[Store]) -> None:
    first = stores[0]
    for other in stores[1:]:
        if other.attributes.study_hash != first.attributes.study_hash:
            raise StoreError(
                f"{other.path} is of study {other.attributes.study_hash}, {first.path} of {first.attributes.study_hash}; "
                "only stores of one study can be put together"
            )
        added = {teacher.id: teacher for teacher in first.teachers}
        for teacher in other.teachers:
            if added.get(teacher.id, teacher) != teacher:
                raise StoreError(f"teacher {teacher.id!r} is not the same in {first.path} and {other.path}")


def _check_teachers(stores: Sequence[Store], teachers: Collection[str] | None) -> None:
    known = list(dict.fromkeys(teacher.id for store in stores for teacher in store.teachers))
    for name in teachers or ():
        if name not in known:
            raise StoreError(f"{stores[0].path} has no teacher {name!r}; it has {', '.join(map(repr, known))}")


def _check_free(out: PathLike, sources: Sequence[PathLike]) -> None:
    text = os.fspath(out)
    for source in (os.fspath(one) for one in sources):
        inside = not is_remote(text) and not is_remote(source) and Path(text).resolve().is_relative_to(Path(source).resolve())
        if inside and Path(text).resolve() != Path(source).resolve():
            raise StoreError(f"{text} lies inside of {source}, which is only read; give the new store a path beside it")
    taken = (destination(text).place / METADATA).exists() if is_remote(text) else os.path.lexists(text)
    if taken:
        raise StoreError(f"{text} is there already; stores are written anew to a new path only")


def _origins(stores: Sequence[Store], questions: Collection[str] | None, teachers: Collection[str] | None) -> list[_Origin]:
    study = {teacher.id for teacher in stores[0].attributes.teachers}
    found: dict[str, _Origin] = {}
    for source, store in enumerate(stores):
        for place in store.places():
            if questions is not None and place.question_id not in questions:
                continue
            kept = tuple(one for one in place.teachers if one in study or teachers is None or one in teachers)
            origin = _Origin(
                place.question_id, place.number, source, place.part, place.row, place.generation, place.nominators, kept
            )
            there = found.get(place.question_id)
            if there is None or origin.generation > there.generation:
                found[place.question_id] = origin
    missing = set(questions or ()) - found.keys()
    if missing:
        raise StoreError(f"{stores[0].path} has no question {min(missing)!r}")
    return sorted(found.values(), key=lambda origin: origin.number)


def _chosen(stores: Sequence[Store], questions: Collection[str] | None) -> tuple[str, ...]:
    """What the new store says it was to have, if it is a slice: some questions of a study, or all that its slices have."""
    planned = stores[0].attributes.question_ids
    if questions is None:
        sliced = all(store.attributes.chosen for store in stores)
        questions = {name for store in stores for name in store.attributes.chosen} if sliced else set(planned)
    return tuple(name for name in planned if name in questions) if len(questions) < len(planned) else ()


def _groups(origins: Sequence[_Origin], per_part: int) -> list[list[_Origin]]:
    """Questions that go into one part: neighbours by number, with the same teachers, generation and nominators."""
    kinds: dict[tuple[Any, ...], list[_Origin]] = {}
    for origin in origins:
        kinds.setdefault(origin.kind, []).append(origin)
    return [same[start : start + per_part] for same in kinds.values() for start in range(0, len(same), per_part)]


def _taken(store: Store, origin: _Origin) -> PartArrays:
    """One question, read alone: its part may be of any size."""
    part = store.question_part(origin.part, origin.row)
    return PartArrays(part.student, {one: part.teachers[one] for one in origin.teachers}, part.made_with)


def _held(records: Iterator[PartArrays]) -> Iterator[list[PartArrays]]:
    """Records in groups that memory holds, one at least."""
    held: list[PartArrays] = []
    size = 0
    for record in records:
        held.append(record)
        size += sum(array.nbytes for arrays in (record.student, *record.teachers.values()) for array in arrays.values())
        if size >= PART_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _create(made: Path, stores: Sequence[Store], teachers: Collection[str], chosen: tuple[str, ...]) -> None:
    first = stores[0]
    vocab = first.vocab
    special = [token for token in range(len(vocab)) if vocab.is_special(token)]
    writer.create(made, replace(first.attributes, chosen=chosen), [vocab.bytes_of(token) for token in range(len(vocab))], special)
    study = {teacher.id for teacher in first.attributes.teachers}
    for store in stores:
        for teacher in store.teachers:
            if teacher.id not in study and teacher.id in teachers:
                writer.add_teacher(made, teacher, store.added_settings(teacher.id))


def _put(made: Path, out: str) -> None:
    if is_remote(out):
        destination(out).put_root(made, layout.read_group_attributes(made)["study_hash"])
    elif out.endswith(".zip"):
        zipped = made.with_name("store.zip")
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # chunks are packed already
            for path in sorted(made.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(made).as_posix())
        os.link(zipped, out)  # fails where another process was as quick
    else:
        os.rename(made, out)
