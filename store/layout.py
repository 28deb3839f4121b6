"""Where things lie in a store, and the JSON that says so: root attributes and commit records.

Needs neither zarr nor tensorstore: a Zarr v3 group is a folder with a ``zarr.json`` whose
``attributes`` are ours. A part is there if, and only if, its own ``zarr.json`` is.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from store.errors import StoreError
from store.place import METADATA, PathLike, Place, parse
from store.schema import SCHEMA_MAJOR, SCHEMA_MINOR
from store.tables import RootAttributes, TeacherInfo

SCHEMA_VERSION = f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}"
#: Study hashes are shown to people: no control characters.
SAFE_HASH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
#: Teacher and part ids are names of folders: nothing that climbs, hides or needs quoting.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@,()-]{0,127}")
#: A `zarr.json` above this is not read: the largest real one holds some 100,000 question ids.
MAX_METADATA_BYTES = 64 << 20
#: No axis of a real part is longer; a store that says so is damaged or lies.
MAX_AXIS = 1 << 40


class CommitRecord(Struct, frozen=True):
    """What a part says of itself, in the attributes of its ``zarr.json``."""

    part: str
    study_hash: str
    schema_version: str
    question_ids: tuple[str, ...]
    counts: Mapping[str, int]  #: length of every axis
    n_completions: int  #: completions launched and counted (a student's part)
    files: Mapping[str, tuple[int, str]]  #: path inside the part -> bytes, crc32 as 8 hexadecimal digits
    made_with: tuple[str, ...] = ()  #: the engines that ran its completions, and how
    generation: int = 0  #: of two parts with one question, the one with the higher generation counts
    #: ids of the teachers that the bits of `nominated_by` name, in their order; nothing for the study's
    nominators: tuple[str, ...] = ()


def is_safe_name(name: object) -> bool:
    """Whether `name` can be a folder of a store."""
    return isinstance(name, str) and SAFE_NAME.fullmatch(name) is not None


def group_metadata(attributes: Mapping[str, Any]) -> str:
    """Text of the ``zarr.json`` of a Zarr v3 group."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}, indent=1, ensure_ascii=False)


def read_group_attributes(folder: Place | PathLike) -> dict[str, Any]:
    """Attributes of the group in `folder`. FileNotFoundError where there is none, StoreError where it is damaged."""
    path = parse(folder) / METADATA
    text = path.read(MAX_METADATA_BYTES + 1)
    if len(text) > MAX_METADATA_BYTES:
        raise StoreError(f"{path} is larger than any real one ({MAX_METADATA_BYTES >> 20} MB); the store is damaged")
    try:
        metadata = json.loads(text)
        if metadata["zarr_format"] != 3 or metadata["node_type"] != "group":
            raise ValueError("it is not the metadata of a Zarr v3 group")
        attributes = metadata.get("attributes", {})
        if not isinstance(attributes, dict):
            raise TypeError("its attributes are not a table")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {_reason(error)}") from error
    return attributes


def schema_major(path: Place | PathLike, attributes: Mapping[str, Any]) -> int:
    """Major version of the schema that `attributes` name. Raises StoreError where they name none."""
    version = attributes.get("schema_version")
    found = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", version) if isinstance(version, str) else None
    if found is None:
        raise StoreError(f"{path} is a Zarr group, but no store of opd-tui (it has no schema_version)")
    return int(found[1])


def check_schema(path: Place | PathLike, attributes: Mapping[str, Any]) -> None:
    """Raise StoreError unless this version can read what `attributes` say they are."""
    if "checksum" in attributes and attributes["checksum"] != _checksum(attributes):
        raise StoreError(f"{parse(path) / METADATA} is damaged: its checksum is not that of its contents")
    major, version = schema_major(path, attributes), attributes.get("schema_version")
    if major > SCHEMA_MAJOR:
        raise StoreError(
            f"{path} has schema {version}, this opd-tui reads schema {SCHEMA_MAJOR}; install a newer one: pip install -U opd-tui"
        )
    if major < SCHEMA_MAJOR:
        raise StoreError(f"{path} has the old schema {version}; write it anew: opd-tui migrate {path} -o NEW.zarr")


def encode_root(attributes: RootAttributes, vocab_size: int) -> dict[str, Any]:
    """Root attributes as JSON, with a checksum over all of them."""
    values = asdict(attributes) | {"teachers": [asdict(teacher) for teacher in attributes.teachers]}
    if not attributes.chosen:  # a store that is no slice does not speak of it
        del values["chosen"]
    return signed({"schema_version": SCHEMA_VERSION, **values, "vocab_size": vocab_size})


def decode_root(path: Place | PathLike, attributes: Mapping[str, Any]) -> RootAttributes:
    """Root attributes from JSON. Unknown ones are ignored; StoreError names one that is missing or wrong."""
    try:
        root = RootAttributes(
            study=_text(attributes, "study"),
            study_hash=_hash(attributes),
            student=_text(attributes, "student"),
            teachers=tuple(decode_teacher(item) for item in _list(attributes, "teachers")),
            objectives=_texts(attributes, "objectives"),
            question_ids=_texts(attributes, "question_ids"),
            n_sig=_count(attributes, "n_sig"),
            top_k=_count(attributes, "top_k"),
            provenance=dict(attributes.get("provenance", {})),
            chosen=_texts(attributes, "chosen") if "chosen" in attributes else (),
        )
        check_root(root)
    except (ValueError, TypeError) as error:
        raise StoreError(f"{parse(path) / METADATA} is damaged: {_reason(error)}") from error
    return root


def vocab_size(attributes: Mapping[str, Any]) -> int:
    """Number of tokens in the vocabulary, from the root's attributes. Raises StoreError."""
    try:
        return _count(attributes, "vocab_size")
    except ValueError as error:
        raise StoreError(f"the root of the store is damaged: {error}") from error


def encode_added_teacher(teacher: TeacherInfo, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of the group of a teacher that the study did not have, with the settings that it was added with."""
    return signed({"schema_version": SCHEMA_VERSION, "added_teacher": asdict(teacher), "settings": dict(settings)})


def read_added_settings(root: Place | PathLike, teacher: str) -> dict[str, Any]:
    """The settings that a teacher was added with; empty where none were kept. Raises StoreError where they are damaged."""
    folder = parse(root) / "teacher" / teacher
    try:
        settings = read_group_attributes(folder).get("settings", {})
    except FileNotFoundError:
        return {}
    if not isinstance(settings, dict):
        raise StoreError(f"{folder / METADATA} is damaged: 'settings' is not a table")
    return settings


def read_added_teachers(
    root: Place | PathLike, known: tuple[TeacherInfo, ...], names: Iterable[str] | None = None
) -> tuple[TeacherInfo, ...]:
    """Teachers that were added to a store after it was made, by id. Raises StoreError where one is damaged.

    `names` are the teachers there are, where that is known already.
    """
    ids = {teacher.id for teacher in known}
    added: list[TeacherInfo] = []
    teachers = parse(root) / "teacher"
    for name in list_parts(teachers) if names is None else sorted(names):
        if name in ids:
            continue
        folder = teachers / name
        try:
            attributes = read_group_attributes(folder)
            if "checksum" in attributes:  # stores of before have none
                check_signature(attributes)
            if "added_teacher" not in attributes:
                raise ValueError("it is no teacher of the study, and does not say what was added")
            teacher = decode_teacher(attributes["added_teacher"])
            if teacher.id != name:
                raise ValueError(f"it is of teacher {teacher.id!r}")
        except FileNotFoundError:
            continue
        except (ValueError, TypeError) as error:
            raise StoreError(f"{folder / METADATA} is damaged: {error}") from error
        added.append(teacher)
    return tuple(added)


def decode_teacher(item: object) -> TeacherInfo:
    """A teacher from JSON. Raises ValueError or TypeError."""
    if not isinstance(item, dict):
        raise TypeError("a teacher is not a table")
    return TeacherInfo(
        id=_text(item, "id"),
        kind=_text(item, "kind"),
        context=_text(item, "context"),
        model=_text(item, "model"),
        null=bool(item.get("null", False)),
        description=_text(item, "description"),
    )


def check_root(attributes: RootAttributes) -> None:
    """Raise ValueError unless the hash and the teachers are such as can be read again."""
    if SAFE_HASH.fullmatch(attributes.study_hash) is None:
        raise ValueError(f"the study hash {attributes.study_hash!r} is not made of letters, digits and . _ : + -")
    check_teachers(attributes.teachers)


def check_teachers(teachers: tuple[TeacherInfo, ...]) -> None:
    """Raise ValueError unless every teacher can have a folder of its own, also where case is ignored."""
    seen: set[str] = set()
    for teacher in teachers:
        if not is_safe_name(teacher.id):
            raise ValueError(
                f"the teacher id {teacher.id!r} cannot name a folder (letters, digits, and . _ + = @ , ( ) - inside)"
            )
        if teacher.id.casefold() in seen:
            raise ValueError(f"the teacher id {teacher.id!r} is there twice")
        seen.add(teacher.id.casefold())


def encode_commit(record: CommitRecord) -> dict[str, Any]:
    """The commit record as JSON attributes, with a checksum over all of them."""
    attributes: dict[str, Any] = {
        "schema_version": record.schema_version,
        "study_hash": record.study_hash,
        "part": record.part,
        "question_ids": list(record.question_ids),
        "counts": dict(record.counts),
        "n_completions": record.n_completions,
        "files": {name: {"size": size, "crc32": crc} for name, (size, crc) in record.files.items()},
        "made_with": list(record.made_with),
        "generation": record.generation,
        "nominators": list(record.nominators),
    }
    return signed(attributes)


def signed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with a checksum over all of them."""
    return {**attributes, "checksum": _checksum(attributes)}


def check_signature(attributes: Mapping[str, Any]) -> None:
    """Raise ValueError unless the checksum is that of all other attributes."""
    if attributes.get("checksum") != _checksum(attributes):
        raise ValueError("its checksum is not that of its contents")


def _checksum(attributes: Mapping[str, Any]) -> str:
    others = {name: value for name, value in attributes.items() if name != "checksum"}
    return f"{zlib.crc32(json.dumps(others, sort_keys=True).encode()):08x}"


def read_commit(
    folder: Place | PathLike, study_hash: str, check: Callable[[Place, Mapping[str, Any]], None] = check_schema
) -> CommitRecord:
    """Commit record of the part in `folder`.

    Raises FileNotFoundError where no part is committed, StoreError where it is damaged, of another
    schema than `check` takes, or of another study than `study_hash`.
    """
    folder = parse(folder)
    attributes = read_group_attributes(folder)
    check(folder, attributes)
    try:
        check_signature(attributes)
        record = decode_commit(attributes)
        if record.part != folder.name:  # the name becomes part of paths: only what the folder is called is safe
            raise ValueError("it is the record of another part")
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{folder / METADATA} is damaged: {_reason(error)}") from error
    if record.study_hash != study_hash:
        raise StoreError(f"{folder} is a part of study {record.study_hash}, but the store is of study {study_hash}")
    return record


def decode_commit(attributes: Mapping[str, Any]) -> CommitRecord:
    """A commit record from JSON. Raises ValueError or TypeError."""
    record = CommitRecord(
        part=_text(attributes, "part"),
        study_hash=_hash(attributes),
        schema_version=_text(attributes, "schema_version"),
        question_ids=_texts(attributes, "question_ids"),
        counts=decode_counts(_table(attributes, "counts")),
        n_completions=_count(attributes, "n_completions"),
        files=_files(attributes),
        made_with=_texts(attributes, "made_with") if "made_with" in attributes else (),
        generation=_count(attributes, "generation") if "generation" in attributes else 0,
        nominators=_texts(attributes, "nominators") if "nominators" in attributes else (),
    )
    if record.counts.get("question") != len(record.question_ids):
        raise ValueError("its number of questions is not that of its question ids")
    return record


def decode_counts(counts: Mapping[str, Any]) -> dict[str, int]:
    """Lengths of axes from JSON. Raises ValueError."""
    if all(type(count) is int and 0 <= count <= MAX_AXIS for count in counts.values()):
        return dict(counts)
    return {name: _count(counts, name) for name in counts}


def encode_vocab(counts: Mapping[str, int], files: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """Attributes of the vocabulary's group: lengths of its axes, and its files as in a commit record."""
    entries = {name: {"size": size, "crc32": crc} for name, (size, crc) in files.items()}
    return signed({"counts": dict(counts), "files": entries})


def read_vocab(root: Place | PathLike) -> tuple[dict[str, int], dict[str, tuple[int, str]]] | None:
    """What `encode_vocab` wrote; None in a store of before, which says nothing. Raises StoreError where it is damaged."""
    folder = parse(root) / "vocab"
    try:
        attributes = read_group_attributes(folder)
        if not attributes:
            return None
        check_signature(attributes)
        return decode_counts(_table(attributes, "counts")), _files(attributes)
    except FileNotFoundError as error:
        raise StoreError(f"{folder / METADATA} is missing; copy the store again, or compute it anew") from error
    except (ValueError, TypeError) as error:
        raise StoreError(f"{folder / METADATA} is damaged: {_reason(error)}") from error


def list_parts(group: Place | PathLike) -> list[str]:
    """Names of the folders in `group` that can be parts, sorted; whether they are committed is another question."""
    return [name for name in parse(group).folders() if is_safe_name(name)]


def _files(attributes: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    return {name: (_count(entry, "size"), _text(entry, "crc32")) for name, entry in _table(attributes, "files").items()}


def _reason(error: BaseException) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _get(table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise ValueError(f"{name!r} is missing")
    return table[name]


def _text(table: Mapping[str, Any], name: str) -> str:
    value = _get(table, name)
    if not _is_text(value):
        raise ValueError(f"{name!r} is not a text")
    return str(value)


def _hash(table: Mapping[str, Any]) -> str:
    value = _text(table, "study_hash")
    if SAFE_HASH.fullmatch(value) is None:
        raise ValueError("'study_hash' is no hash")
    return value


def _is_text(value: object) -> bool:
    """Whether `value` is a string that can be written: JSON can hold halves of surrogate pairs, UTF-8 cannot."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def _count(table: Mapping[str, Any], name: str) -> int:
    value = _get(table, name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_AXIS:
        raise ValueError(f"{name!r} is not a count")
    return value


def _list(table: Mapping[str, Any], name: str) -> list[Any]:
    value = _get(table, name)
    if not isinstance(value, list):
        raise TypeError(f"{name!r} is not a list")
    return value


def _texts(table: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = _list(table, name)
    try:
        fine = _is_text("".join(value))  # at once: a large study has tens of thousands
    except TypeError:
        fine = False
    if not fine:
        raise ValueError(f"{name!r} is not a list of texts")
    return tuple(value)


def _table(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = _get(table, name)
    if not isinstance(value, dict):
        raise TypeError(f"{name!r} is not a table")
    return value
