"""Whether index and manifest say what the parts do: the part of `store.doctor` that looks at the caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from store import index, layout
from store.arrays import ArrayReader, Slice
from store.catalog import Seen
from store.errors import StoreError, Unreachable
from store.index import FOLDER, INDEX, MANIFEST, Index, Manifest
from store.part_view import PartView
from store.place import METADATA

if TYPE_CHECKING:
    from store.doctor import Examination

_ANEW = "`opd-tui doctor --repair` writes it anew"


def parts_in_indexes(look: Examination) -> set[str]:
    """Names of the parts that whole indexes cover: each of them was committed once."""
    found: set[str] = set()
    for name in _names(look):
        try:
            attributes = layout.read_group_attributes(look.root / FOLDER / name)
            layout.check_signature(attributes)
            found.update(str(entry["part"]) for entry in attributes["parts"])
        except Unreachable:
            raise
        except (FileNotFoundError, StoreError, ValueError, KeyError, TypeError):
            continue  # said by `check_caches`
    return found


def _names(look: Examination) -> list[str]:
    return (look.root / FOLDER).folders() if look.can_list else []


def check_caches(look: Examination, study_hash: str, seen: Seen, manifest: Manifest | None) -> None:
    """Note which index is damaged, and whether the manifest or the index is behind the parts."""
    in_manifest = [manifest.index] if manifest and manifest.index else []
    names = _names(look) if look.can_list else in_manifest
    for name in names:
        _check_one(look, study_hash, seen, name)
    if manifest is None:
        if look.files is None or MANIFEST not in look.files:
            look.note("cache", MANIFEST, "is missing; a store on a web server needs it", _ANEW)
        return
    wanted = index.digest(seen.parts, seen.teachers)
    teachers = {one: tuple(sorted(parts)) for one, parts in seen.teachers.items()}
    if (manifest.parts, dict(manifest.teachers), manifest.index) != (tuple(seen.parts), teachers, wanted):
        look.note("cache", MANIFEST, "is behind the parts", _ANEW)
    if seen.parts and wanted not in names:
        look.note("cache", FOLDER, "has no index of the parts that there are", _ANEW)


def _check_one(look: Examination, study_hash: str, seen: Seen, name: str) -> None:
    key = f"{FOLDER}/{name}"
    try:
        layout.check_signature(layout.read_group_attributes(look.root / key))
    except FileNotFoundError:
        look.note("cache", key, f"has no {METADATA}, so it is no index", _ANEW)
        return
    except Unreachable:
        raise
    except (StoreError, ValueError) as error:
        look.damage("cache", f"{key}/{METADATA}", f"is damaged ({error})", _ANEW, key)
        return
    found = index.find(look.root, study_hash, seen.parts, name)
    if found is None:
        look.note("cache", key, "is an index of parts that are not there", _ANEW)
    else:
        _check_index(look, found)


def _check_index(look: Examination, found: Index) -> None:
    """Hold the index against the commit records and, where all of them were read, the heads of the parts."""
    for name, record in found.parts.items():
        if name in look.commits and record != replace(look.commits[name], files={}):
            look.damage(
                "cache", f"{found.folder}/{METADATA}", f"says of part {name} what its commit record does not", _ANEW, found.folder
            )
    if not look.deep:
        return
    reader = ArrayReader(look.root, 0)
    whole = found.parts.keys() <= look.heads.keys()
    try:
        expected = index.pack([PartView(look.commits[name], look.heads[name]) for name in found.parts]) if whole else {}
    except StoreError:
        expected = {}  # the parts' own damage is said elsewhere
    for name, spec in INDEX.items():
        try:
            (values,) = reader.read([Slice(found.folder, name, spec)])
        except Unreachable:
            raise
        except StoreError as error:
            if not (look.root / found.folder / METADATA).exists():
                return  # a writer has put a newer one in its place
            reason = str(error).split("; ", 1)[0].removeprefix(f"{look.root}/")
            look.damage("cache", f"{found.folder}/{name}", f"cannot be read ({reason})", _ANEW, found.folder)
            continue
        if name in expected and not np.array_equal(values, expected[name], equal_nan=values.dtype.kind == "f"):
            look.damage("cache", f"{found.folder}/{name}", "is not what the parts say", _ANEW, found.folder)
