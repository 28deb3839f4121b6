"""The index: the heads of all parts end to end, and the manifest that names the parts where folders cannot be listed.

Both are caches: whatever they say follows from the parts, and a reader does without them where they are missing, behind
or damaged. ``index/<digest>/`` is a Zarr group of its own, named by the parts that it covers and never changed; a newer
one takes its place. ``manifest.json`` is for places that cannot list folders (a web server) or not cheaply (S3).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict, replace

from store import layout
from store.errors import StoreError
from store.layout import CommitRecord
from store.part_view import HEAD, PartView
from store.parts import Array, check_bounds
from store.place import Place
from store.schema import STUDENT, ArraySpec

FOLDER = "index"
MANIFEST = "manifest.json"
#: The index is read as a whole, so its chunks are long.
INDEX: dict[str, ArraySpec] = {name: replace(STUDENT[name], chunk=1 << 16) for name in HEAD}


class Index(Struct, frozen=True):
    """What one index says of the parts that it covers, without its arrays."""

    folder: str  #: inside the store
    parts: Mapping[str, CommitRecord]  #: in the order of its arrays; without the names of their files
    teachers: Mapping[str, Mapping[str, CommitRecord]]  #: what each teacher has of them: teacher id -> part -> record
    first_rows: Mapping[str, Mapping[str, int]]  #: part -> axis (question, rollout) -> its first row


class Manifest(Struct, frozen=True):
    """Which parts a store has, for places that cannot say it themselves."""

    parts: tuple[str, ...]
    teachers: Mapping[str, tuple[str, ...]]  #: teacher id -> its parts; teachers added later are among them
    index: str  #: digest of the index that goes with it, or ""


def digest(parts: Iterable[str], teacher_parts: Mapping[str, Collection[str]]) -> str:
    """Name of the index of these parts."""
    state = hashlib.blake2b(digest_size=16)
    lines = [f"student/{name}" for name in parts]
    lines += [f"teacher/{teacher}/{name}" for teacher, names in teacher_parts.items() for name in names]
    for line in sorted(lines):
        state.update(f"{line}\n".encode())
    return state.hexdigest()


def encode(study_hash: str, parts: Sequence[CommitRecord], teachers: Mapping[str, Mapping[str, CommitRecord]]) -> dict[str, Any]:
    """Attributes of an index group."""
    attributes = {
        "schema_version": layout.SCHEMA_VERSION,
        "study_hash": study_hash,
        "parts": [_entry(record) for record in parts],
        "teachers": {
            teacher: {name: dict(record.counts) for name, record in records.items()} for teacher, records in teachers.items()
        },
    }
    return layout.signed(attributes)


def _entry(record: CommitRecord) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name not in ("files", "study_hash", "schema_version")}


def find(root: Place, study_hash: str, committed: Collection[str], only: str | None = None) -> Index | None:
    """The index that covers the most of the `committed` parts and no other; None where there is none that can be used.

    `only` names the one to look at, where the place cannot list.
    """
    names = (root / FOLDER).folders() if only is None else [only] if layout.is_safe_name(only) else []
    found = [index for name in names if (index := _read(root, name, study_hash)) and index.parts.keys() <= set(committed)]
    return max(found, key=lambda index: (len(index.parts), sum(map(len, index.teachers.values())), index.folder), default=None)


def _read(root: Place, name: str, study_hash: str) -> Index | None:
    """The index of that name; None where it is missing, damaged, or of another study or version: it is only a cache."""
    try:
        attributes = layout.read_group_attributes(root / FOLDER / name)
        if attributes.get("schema_version") != layout.SCHEMA_VERSION or attributes.get("study_hash") != study_hash:
            return None
        layout.check_signature(attributes)
        shared = {"study_hash": study_hash, "schema_version": layout.SCHEMA_VERSION, "files": {}}
        parts = {entry["part"]: layout.decode_commit({**shared, **entry}) for entry in attributes["parts"]}
        teachers = {
            teacher: {part: _teacher_record(parts[part], counts) for part, counts in records.items()}
            for teacher, records in attributes["teachers"].items()
        }
        first_rows: dict[str, dict[str, int]] = {}
        row = {"question": 0, "rollout": 0}
        for part, record in parts.items():
            first_rows[part] = dict(row)
            row = {axis: start + record.counts[axis] for axis, start in row.items()}
    except (FileNotFoundError, StoreError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Index(f"{FOLDER}/{name}", parts, teachers, first_rows)


def _teacher_record(student: CommitRecord, counts: Mapping[str, int]) -> CommitRecord:
    return replace(student, counts=layout.decode_counts(counts), n_completions=0, made_with=(), generation=0, nominators=())


def pack(views: Sequence[PartView]) -> dict[str, Array]:
    """Arrays of the index of these parts, in their order. Offsets go on from part to part."""
    arrays: dict[str, Array] = {}
    for name in HEAD:
        pieces = [view.head[name] for view in views]
        if axis := STUDENT[name].bounds:
            lengths = np.cumsum([0, *(view.commit.counts[axis] for view in views)])
            shifted = [piece[1:] + start for piece, start in zip(pieces, lengths.tolist(), strict=False)]
            arrays[name] = np.concatenate([np.zeros(1, STUDENT[name].dtype), *shifted])
        else:
            arrays[name] = np.concatenate([np.empty(0, STUDENT[name].dtype), *pieces])
    return arrays


def check_head(index: Index, arrays: Mapping[str, Array]) -> None:
    """Raise StoreError where the index is not as long as its parts, or its offsets make no sense."""
    for name, values in arrays.items():
        spec = STUDENT[name]
        axis = spec.dims[0].removesuffix("_bound")
        length = sum(record.counts[axis] for record in index.parts.values())
        if len(values) != length + bool(spec.bounds):
            raise StoreError(f"{index.folder}/{name} is not as long as the parts that it covers")
        if spec.bounds:
            check_bounds(f"{index.folder}/{name}", values, sum(record.counts[spec.bounds] for record in index.parts.values()))


def head_of(index: Index, arrays: Mapping[str, Array], part: str) -> dict[str, Array]:
    """The head of one part, cut out of the index. Raises StoreError where the index is shorter than it says."""
    first = index.first_rows[part]
    counts = index.parts[part].counts
    head: dict[str, Array] = {}
    for name in HEAD:
        axis = STUDENT[name].dims[0].removesuffix("_bound")
        length = counts[axis] + bool(STUDENT[name].bounds)
        piece = arrays[name][first[axis] : first[axis] + length]
        if len(piece) != length:
            raise StoreError(f"{index.folder}/{name} is shorter than the parts that it covers")
        head[name] = piece - piece[0] if STUDENT[name].bounds else piece
    return head


def encode_manifest(study_hash: str, manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    attributes = {
        "schema_version": layout.SCHEMA_VERSION,
        "study_hash": study_hash,
        "parts": list(manifest.parts),
        "teachers": {teacher: list(names) for teacher, names in manifest.teachers.items()},
        "index": manifest.index,
    }
    return json.dumps(layout.signed(attributes), indent=1).encode()


def read_manifest(root: Place, study_hash: str) -> Manifest | None:
    """The manifest of the store; None where there is none. Raises StoreError where it is damaged or of another study."""
    try:
        text = (root / MANIFEST).read(layout.MAX_METADATA_BYTES)
    except FileNotFoundError:
        return None
    return decode_manifest(text, study_hash, str(root / MANIFEST))


def decode_manifest(text: bytes, study_hash: str, where: str) -> Manifest:
    """The manifest from JSON. Raises StoreError, naming `where`."""
    try:
        attributes = json.loads(text)
        layout.check_signature(attributes)
        manifest = Manifest(
            parts=tuple(attributes["parts"]),
            teachers={teacher: tuple(names) for teacher, names in attributes["teachers"].items()},
            index=str(attributes["index"]),
        )
        names = [*manifest.parts, *manifest.teachers, *(name for parts in manifest.teachers.values() for name in parts)]
        if not all(layout.is_safe_name(name) for name in names):
            raise ValueError("it names a part that cannot be one")
        if attributes["study_hash"] != study_hash:
            raise ValueError(f"it is of study {attributes['study_hash']!r}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(f"{where} is damaged ({error}); `opd-tui doctor --repair` writes it anew") from error
    return manifest
