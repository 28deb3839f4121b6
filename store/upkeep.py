"""Keeps index and manifest in step with the parts, as parts arrive.

Any number of writers may do so at once. Each looks at the parts again after it has written: whoever comes last has seen
everybody's parts, so what is left at the end names them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from msgspec import Struct

from store import index, layout
from store.catalog import Seen, listed
from store.destination import Destination
from store.errors import IsThere, StoreError
from store.index import INDEX, MANIFEST, Index, Manifest
from store.layout import CommitRecord
from store.part_view import HEAD, PartView
from store.parts import Array
from store.place import Place
from store.schema import STUDENT
from store.staging import read_arrays, write_arrays, write_group

#: So often another writer may come between before the next one is left to tidy up.
_TRIES = 5


def follow(target: Destination, study_hash: str, published: Sequence[str] = ()) -> None:
    """Bring index and manifest up to date after `published` keys went in: `update_index`, for those who write something else.

    These are in whatever becomes of the caches. Where folders can be listed readers do without, and the next publication
    writes them; a far store is found by its manifest alone, so there a failure is raised as a StoreError.
    """
    try:
        update_index(target, study_hash, published)
    except StoreError:
        if not target.place.lists:
            raise


def update_index(target: Destination, study_hash: str, published: Sequence[str] = (), *, anew: bool = False) -> None:
    """Bring index and manifest up to date. `published` are the keys that the caller has just put in.

    `anew` takes out what is there before: for a store that lost parts, and for caches that are damaged.

    Where folders are cheap to list they say which parts there are; elsewhere the manifest and `published` do, or, where
    nothing was published, a listing of all keys. Raises StoreError where a part is damaged and where it cannot be written.
    """
    for name in target.begun(index.FOLDER) if anew else ():
        target.remove(f"{index.FOLDER}/{name}")
    for _ in range(_TRIES):
        seen = _seen(target.place, study_hash, published)
        names = index.digest(seen.parts, seen.teachers)
        if _is_current(target.place, study_hash, seen, names):
            break
        _write_index(target, study_hash, seen, names)
        manifest = Manifest(tuple(seen.parts), {one: tuple(sorted(parts)) for one, parts in seen.teachers.items()}, names)
        target.rewrite(MANIFEST, partial(_joined, target, study_hash, manifest, anew))
        _remove_older(target, study_hash, seen, names)


def _seen(place: Place, study_hash: str, published: Sequence[str]) -> Seen:
    if place.lists or not published:
        return listed(place)
    manifest = index.read_manifest(place, study_hash)
    if manifest is None:
        return listed(place)
    parts, teachers = set(manifest.parts), {one: set(names) for one, names in manifest.teachers.items()}
    for key in published:
        group, name = key.rsplit("/", 1)
        if group == "student":
            parts.add(name)
        else:
            teachers.setdefault(group.removeprefix("teacher/"), set()).add(name)
    return Seen(sorted(parts), teachers, manifest.index)


def _joined(target: Destination, study_hash: str, mine: Manifest, anew: bool, there: bytes | None) -> bytes:
    """The manifest to write: where another writer of a far store has put parts into it meanwhile, these stay in."""
    if there is not None and not anew and not target.place.lists:
        theirs = index.decode_manifest(there, study_hash, str(target.place / MANIFEST))
        everyone = {*mine.teachers, *theirs.teachers}
        parts = tuple(sorted({*mine.parts, *theirs.parts}))
        teachers = {one: tuple(sorted({*mine.teachers.get(one, ()), *theirs.teachers.get(one, ())})) for one in sorted(everyone)}
        mine = Manifest(parts, teachers, mine.index)
    return index.encode_manifest(study_hash, mine)


def _is_current(place: Place, study_hash: str, seen: Seen, names: str) -> bool:
    try:
        manifest = index.read_manifest(place, study_hash)
    except StoreError:
        return False
    wanted = {one: tuple(sorted(parts)) for one, parts in seen.teachers.items()}
    return (
        manifest is not None
        and (manifest.parts, dict(manifest.teachers), manifest.index) == (tuple(seen.parts), wanted, names)
        and (not seen.parts or index.find(place, study_hash, seen.parts, names) is not None)
    )


def _write_index(target: Destination, study_hash: str, seen: Seen, names: str) -> None:
    if not seen.parts:
        return
    place = target.place
    known = index.find(place, study_hash, seen.parts, seen.index)
    heads = _Heads(place, known)
    views: list[PartView] = []
    teachers: dict[str, dict[str, CommitRecord]] = {one: {} for one in seen.teachers}
    for part in seen.parts:
        record = known.parts.get(part) if known else None
        commit = record or layout.read_commit(place / "student" / part, study_hash)
        views.append(PartView(commit, heads.of(commit)))
        for one, parts in seen.teachers.items():
            if part in parts:
                had = known.teachers.get(one, {}).get(part) if known else None
                teachers[one][part] = had or layout.read_commit(place / "teacher" / one / part, study_hash)
    with target.stage("index") as stage:
        # Not made durable: what a power cut leaves of it does not pass its checksums, and is written anew.
        write_arrays(stage / "index", index.pack(views), INDEX)
        write_group(stage / "index", index.encode(study_hash, [view.commit for view in views], teachers))
        try:
            target.put([(stage / "index", f"{index.FOLDER}/{names}")])
        except IsThere:  # another writer was first, or it is damaged
            if index.find(place, study_hash, seen.parts, names) is None:
                target.remove(f"{index.FOLDER}/{names}")
                target.put([(stage / "index", f"{index.FOLDER}/{names}")])


class _Heads(Struct):
    """Heads of parts, out of the index that is there as far as it goes."""

    place: Place
    known: Index | None
    arrays: Mapping[str, Array] | None = None

    def of(self, commit: CommitRecord) -> Mapping[str, Array]:
        if self.known is not None and commit.part in self.known.parts:
            try:
                if self.arrays is None:
                    self.arrays = read_arrays(self.place / self.known.folder, INDEX)
                head = index.head_of(self.known, self.arrays, commit.part)
                return PartView(commit, head).head
            except StoreError:
                self.known = None  # a damaged cache
        return read_arrays(self.place / "student" / commit.part, {name: STUDENT[name] for name in HEAD})


def _remove_older(target: Destination, study_hash: str, seen: Seen, names: str) -> None:
    """Take out every index that covers nothing more than the new one."""
    for other in target.begun(index.FOLDER) if target.place.lists or seen.index else []:
        if other == names:
            continue
        found = index.find(target.place, study_hash, seen.parts, other)
        teachers = {one: set(parts) for one, parts in found.teachers.items()} if found else {}
        if found is None or all(parts <= set(seen.teachers.get(one, ())) for one, parts in teachers.items()):
            target.remove(f"{index.FOLDER}/{other}")
