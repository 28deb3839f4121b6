"""Says what is wrong with a store, where, and what to do. `store.repair` does it.

The shallow look reads metadata and sizes. The deep one reads every byte: it holds every file against the checksums that
were written with it, decodes every array, and sees whether the numbers can be what they say they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from store import layout
from store.arrays import ArrayReader, Slice, shape_of
from store.catalog import Seen, listed
from store.contents import check_array, check_metadata, check_together
from store.destination import UPLOADS
from store.errors import StoreError, Unreachable
from store.findings import REPAIR, Finding, Kind, Report
from store.index import FOLDER as INDEX_FOLDER
from store.index import MANIFEST, Manifest, read_manifest
from store.index_check import check_caches, parts_in_indexes
from store.layout import CommitRecord
from store.part_view import HEAD
from store.parts import SHARED_AXES, Array
from store.place import METADATA, Folder, Keys, PathLike, Place, no_store, parse
from store.schema import STUDENT, TEACHER, VOCAB, ArraySpec
from store.staging import stages
from store.tables import RootAttributes

__all__ = ["Examination", "Finding", "Report", "examine"]

#: Of a file of any real store; also a bound on what a liar makes us read.
MAX_FILE_BYTES = 8 << 30
#: Files that are fetched from a far place at the same time.
_AT_ONCE = 32
_COPY_AGAIN = "copy the store again from where it is whole, or compute it anew"


#: Called with the bytes that were compared so far, and those that there are.
Progress = Callable[[int, int], None]


def examine(path: PathLike, *, deep: bool = False, progress: Progress | None = None) -> Report:
    """Look at the store at `path`. Raises StoreError where there is none, or where it cannot be reached."""
    root = parse(path)
    look = Examination(root, deep, progress)
    try:
        attributes = layout.read_group_attributes(root)
    except FileNotFoundError as error:
        if not look.can_list or not {"student", "teacher", "vocab"} <= set(root.folders()):
            raise StoreError(no_store(root)) from error
        look.damage("root", METADATA, "is missing, and everything else of a store is there", _COPY_AGAIN)
        return look.report(())
    except Unreachable:
        raise
    except StoreError as error:
        look.damage("root", METADATA, _what(error, root / METADATA), _COPY_AGAIN)
        return look.report(())
    look.everything(attributes)
    return look.report(look.commits)


class Examination:
    """One look, as it goes on."""

    def __init__(self, root: Place, deep: bool, progress: Progress | None = None) -> None:
        self.root, self.deep, self.progress = root, deep, progress
        self.can_list = not (isinstance(root, Keys) and root.root.spec["driver"] == "http")
        self.files: dict[str, int | None] | None = None  #: with their sizes; None where they cannot be listed
        self.findings: list[Finding] = []
        self.commits: dict[str, CommitRecord] = {}  #: parts of the student that are committed and whole as far as seen
        self.heads: dict[str, dict[str, Array]] = {}
        self.is_slice = False
        self.broken: set[str] = set()  #: names of parts that were committed and are damaged
        self.n_read = self.n_bytes = self._done = self._all = 0
        self._arrays = ArrayReader(root, 0)
        self._said: set[str] = set()  #: arrays of the group in hand with a file of which something was said
        self._texts: dict[str, bytes] = {}  #: metadata of arrays of the group in hand

    def report(self, parts: Collection[str]) -> Report:
        """What was found."""
        n_files = len(self.files) if self.files is not None else self.n_read
        return Report(str(self.root), self.deep, len(parts), n_files, self.n_bytes, tuple(self.findings))

    def damage(self, kind: Kind, file: str, what: str, remedy: str, key: str = "") -> None:
        """Note damage of a file inside the store; `key` is what a repair acts on, where it is not the file."""
        self.findings.append(Finding(str(self.root / file), what, "damage", remedy, kind, key or file))

    def note(self, kind: Kind, file: str, what: str, remedy: str = "", key: str = "") -> None:
        """Note what is no damage."""
        self.findings.append(Finding(str(self.root / file), what, "note", remedy, kind, key or file))

    # In the order in which a reader would come to it ------------------------------------------------

    def everything(self, attributes: Mapping[str, Any]) -> None:
        """Look at all of the store whose root has these attributes."""
        try:
            layout.check_schema(self.root, attributes)
            study = layout.decode_root(self.root, attributes)
            vocab_size = layout.vocab_size(attributes)
        except StoreError as error:
            if "is damaged" not in str(error):
                raise  # of another version, or no store at all
            self.damage("root", METADATA, _what(error, self.root / METADATA), _COPY_AGAIN)
            return
        self.is_slice = bool(study.chosen)
        if "checksum" not in attributes:
            self.note("limit", METADATA, "has no checksum, as stores of before: not every damage of it can be found")
        # In this order, so that what writers put in meanwhile is not missed where something older names it.
        manifest = self._read_manifest(study)
        once = parts_in_indexes(self) | set(manifest.parts if manifest else ())
        seen = self._seen(manifest)
        self.files = self.root.files()
        self._check_vocab()
        self._check_groups(study, seen)
        records = self._read_records(study, seen, once)
        self._all = sum(size for record in records.values() for size, _ in record.files.values())
        for key, record in records.items():
            self._check_group(key, record, TEACHER if key.startswith("teacher/") else STUDENT, vocab_size, records)
        self._check_questions(study)
        self._check_unowned(seen, once)
        check_caches(self, study.study_hash, seen, manifest)
        self._check_leftovers()

    def _check_vocab(self) -> None:
        try:
            known = layout.read_vocab(self.root)
        except Unreachable:
            raise
        except StoreError as error:
            self.damage("vocab", f"vocab/{METADATA}", _what(error, self.root / "vocab" / METADATA), _COPY_AGAIN)
            return
        if known is None:
            self.note("limit", f"vocab/{METADATA}", "has no checksums, as stores of before: not every damage of it can be found")
        counts, files = known or ({}, {})
        arrays: dict[str, Array] = {}
        bad = self._check_files("vocab", files, "vocab", "vocab", _COPY_AGAIN)
        if known is None:
            contents = self._contents("vocab", [f"{name}/{METADATA}" for name in VOCAB])
            self._texts = {f"vocab/{name}": content for name, content in contents if content is not None}
        for name, spec in VOCAB.items():
            if known and f"{name}/{METADATA}" not in files:
                continue
            shape = shape_of(spec, counts, "vocab") if known else None
            self._check_metadata("vocab", name, spec, shape, "vocab", "vocab", _COPY_AGAIN)
            if self.deep and name not in bad:
                self._decode(arrays, Slice("vocab", name, spec, shape, 0, (shape or (0,))[0]), "vocab", "vocab", _COPY_AGAIN)
        if "token_start" in arrays and "token_bytes" in arrays:
            for what in check_array(
                "token_start", arrays["token_start"], VOCAB["token_start"], {"token_byte": len(arrays["token_bytes"])}, 0
            ):
                self.damage("vocab", "vocab/token_start", what, _COPY_AGAIN, "vocab")

    def _read_manifest(self, study: RootAttributes) -> Manifest | None:
        try:
            return read_manifest(self.root, study.study_hash)
        except Unreachable:
            raise
        except StoreError as error:
            self.damage("cache", MANIFEST, _what(error, self.root / MANIFEST), f"{REPAIR} writes it anew")
            return None

    def _seen(self, manifest: Manifest | None) -> Seen:
        if self.can_list:
            return listed(self.root)
        if manifest is None:
            raise Unreachable(f"{self.root} has no {MANIFEST} that can be read, without which its parts cannot be found")
        return Seen(list(manifest.parts), {one: set(parts) for one, parts in manifest.teachers.items()}, manifest.index)

    def _check_groups(self, study: RootAttributes, seen: Seen) -> None:
        """Groups between the root and the parts."""
        of_study = [teacher.id for teacher in study.teachers]
        for key in ("student", "teacher", INDEX_FOLDER, *(f"teacher/{one}" for one in of_study)):
            try:
                layout.read_group_attributes(self.root / key)
            except FileNotFoundError:
                self.damage("group", f"{key}/{METADATA}", "is missing", f"{REPAIR} writes it anew", key)
            except Unreachable:
                raise
            except StoreError as error:
                what = _what(error, self.root / key / METADATA)
                self.damage("group", f"{key}/{METADATA}", what, f"{REPAIR} writes it anew", key)
        for one in sorted(seen.teachers.keys() - set(of_study)):
            key = f"teacher/{one}"
            if not seen.teachers[one] and not self._is_there(f"{key}/{METADATA}"):
                continue  # nobody's folder
            try:
                if not layout.read_added_teachers(self.root, study.teachers, [one]):
                    self.damage("limit", f"{key}/{METADATA}", "is missing", "add the teacher again with the settings it had")
            except Unreachable:
                raise
            except StoreError as error:
                self.damage("limit", f"{key}/{METADATA}", _what(error, self.root / key / METADATA), _COPY_AGAIN)

    def _read_records(self, study: RootAttributes, seen: Seen, once: Collection[str]) -> dict[str, CommitRecord]:
        """Commit records by key, of the student's parts and of the teachers' parts that go with them.

        `once` are the parts that index or manifest know: where one is not there any more, it was lost.
        """
        records: dict[str, CommitRecord] = {}
        keys = [f"student/{name}" for name in sorted({*seen.parts, *once})]
        keys += [f"teacher/{one}/{name}" for one, names in seen.teachers.items() for name in sorted(set(names) & set(seen.parts))]
        for key in keys:
            try:
                record = layout.read_commit(self.root / key, study.study_hash)
            except FileNotFoundError:
                self._broken(key, f"{key}/{METADATA}", "is missing", ())
            except Unreachable:
                raise
            except StoreError as error:
                self._broken(key, f"{key}/{METADATA}", _what(error, self.root / key / METADATA), ())
            else:
                records[key] = record
                if key.startswith("student/"):
                    self.commits[record.part] = record
        for teacher in study.teachers:
            for name in set(self.commits) - set(seen.teachers.get(teacher.id, ())):
                key = f"teacher/{teacher.id}/{name}"
                self._broken(key, f"{key}/{METADATA}", "is missing", self.commits[name].question_ids)
        return records

    def _broken(self, key: str, file: str, what: str, questions: Collection[str] = ()) -> None:
        """Damage of a committed part."""
        name = key.rsplit("/", 1)[-1]
        questions = questions or (self.commits[name].question_ids if name in self.commits else ())
        listing = ", ".join(list(questions)[:8]) + (f" and {len(questions) - 8} more" if len(questions) > 8 else "")
        again = f"{'export' if self.is_slice else 'compute'} makes {listing or 'its questions'} again"
        self.broken.add(key)
        self.damage("part", file, what, f"copy the part again, or let {REPAIR} move it out of the store; then {again}", key)

    def _check_group(
        self, key: str, record: CommitRecord, specs: Mapping[str, ArraySpec], vocab_size: int, records: Mapping[str, CommitRecord]
    ) -> None:
        bad = self._check_files(key, record.files, "part", key, "")
        student = records.get(f"student/{record.part}")
        for axis in SHARED_AXES if student else ():
            if student and record.counts.get(axis) != student.counts.get(axis):
                of = f"{record.counts.get(axis)} {axis} rows, the student's part {student.counts.get(axis)}"
                self._broken(key, f"{key}/{METADATA}", f"has {of}")
        slices: list[Slice] = []
        for name, spec in specs.items():
            if f"{name}/{METADATA}" not in record.files:
                self._broken(key, f"{key}/{METADATA}", f"has no array {name}")
                continue
            try:
                shape = shape_of(spec, record.counts, key)
            except StoreError as error:
                self._broken(key, f"{key}/{METADATA}", _what(error, self.root / key / METADATA))
                continue
            self._check_metadata(key, name, spec, shape, "part", key, "")
            if self.deep and name not in bad:
                slices.append(Slice(key, name, spec, shape, 0, shape[0]))
        if self.deep:
            self._check_arrays(key, record, specs, vocab_size, slices)

    def _check_arrays(
        self, key: str, record: CommitRecord, specs: Mapping[str, ArraySpec], vocab_size: int, slices: Sequence[Slice]
    ) -> None:
        arrays: dict[str, Array] = {}
        try:
            arrays = dict(zip([piece.name for piece in slices], self._arrays.read(slices, MAX_FILE_BYTES), strict=True))
        except StoreError:
            for piece in slices:  # one by one, so that each that is damaged is named
                self._decode(arrays, piece, "part", key, "")
        for name, values in arrays.items():
            for what in check_array(name, values, specs[name], record.counts, vocab_size):
                self._broken(key, f"{key}/{name}", what)
        for name, what in check_together(arrays, record):
            self._broken(key, f"{key}/{name}", what)
        if specs is STUDENT and set(HEAD) <= arrays.keys():
            self.heads[record.part] = {name: arrays[name] for name in HEAD}

    def _check_files(self, folder: str, files: Mapping[str, tuple[int, str]], kind: Kind, key: str, remedy: str) -> set[str]:
        """Hold the files of a group against their record; the names of arrays that cannot be decoded."""
        bad: set[str] = set()
        wrong: dict[str, str] = {}
        for name, (size, _) in files.items():
            there = self.files.get(f"{folder}/{name}", -1) if self.files is not None else None
            if there == -1:
                wrong[name] = "is missing"
            elif there is not None and there != size:
                wrong[name] = f"has {there:,} bytes instead of {size:,}"
        self._texts = {}
        wanted = [name for name in files if name not in wrong and (self.deep or name.endswith(f"/{METADATA}"))]
        for name, content in self._contents(folder, wanted):
            if content is not None and name.endswith(f"/{METADATA}"):
                self._texts[f"{folder}/{name}"] = content
            if self.deep and (what := self._compare(content, *files[name])):
                wrong[name] = what
        for name, what in wrong.items():
            bad.add(name.split("/", 1)[0])
            self._damaged(kind, key, f"{folder}/{name}", what, remedy)
        self._said = {f"{folder}/{name}" for name in bad}
        prefix = f"{folder}/"
        strays = [] if self.files is None or not files else [path for path in self.files if path.startswith(prefix)]
        for path in strays:
            name = path.removeprefix(prefix)
            if name not in files and name != METADATA:
                self.note("stray", path, "is in nobody's record", f"{REPAIR} moves it out of the store")
        return bad

    def _damaged(self, kind: Kind, key: str, path: str, what: str, remedy: str) -> None:
        if kind == "part":
            self._broken(key, path, what)
        else:
            self.damage(kind, path, what, remedy, key)

    def _contents(self, folder: str, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Files of a group, None where one is missing: one by one out of a folder, many at once from far away."""

        def read(name: str) -> bytes | None:
            try:
                return (self.root / folder / name).read(MAX_FILE_BYTES)
            except FileNotFoundError:
                return None

        if isinstance(self.root, Folder):
            yield from ((name, read(name)) for name in names)
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for first in range(0, len(names), _AT_ONCE):
                some = names[first : first + _AT_ONCE]
                yield from zip(some, pool.map(read, some), strict=True)

    def _compare(self, content: bytes | None, size: int, crc: str) -> str:
        """What is wrong with a file that should have this size and checksum, "" where nothing is."""
        if content is None:
            return "is missing"
        self.n_read += 1
        self.n_bytes += len(content)
        if self.progress and self._all:
            self._done += len(content)
            self.progress(self._done, self._all)
        if len(content) != size:
            return f"has {len(content):,} bytes instead of {size:,}"
        return "" if f"{zlib.crc32(content):08x}" == crc else "is not what was written: its checksum differs"

    def _check_metadata(
        self, folder: str, name: str, spec: ArraySpec, shape: tuple[int, ...] | None, kind: Kind, key: str, remedy: str
    ) -> None:
        path = f"{folder}/{name}/{METADATA}"
        if self._texts.get(path) is None and f"{folder}/{name}" in self._said:
            return
        for what, is_damage in check_metadata(self._texts.get(path), spec, shape):
            if is_damage:
                self._damaged(kind, key, path, what, remedy)
            else:
                self.note("limit", path, what)

    def _decode(self, arrays: dict[str, Array], piece: Slice, kind: Kind, key: str, remedy: str) -> None:
        try:
            (arrays[piece.name],) = self._arrays.read([piece], MAX_FILE_BYTES)
        except Unreachable:
            raise
        except StoreError as error:
            self._damaged(kind, key, piece.key, _what(error, self.root / piece.key), remedy)

    # What nobody has --------------------------------------------------------------------------------

    def _check_questions(self, study: RootAttributes) -> None:
        planned = set(study.question_ids)
        for name, record in self.commits.items():
            for question in record.question_ids:
                if question not in planned:
                    self._broken(f"student/{name}", f"student/{name}", f"has question {question!r}, which is not in the study")
        first: dict[str, CommitRecord] = {}
        there = {question for record in self.commits.values() for question in record.question_ids}
        for question in study.chosen:
            if question not in there:
                self.note("limit", METADATA, f"is of a slice with question {question!r}, which is not there any more")
        for record in sorted(self.commits.values(), key=lambda one: (-one.generation, one.part)):
            twice = [question for question in record.question_ids if question in first]
            for question in twice:
                other = first[question]
                why = f"generation {other.generation}" if other.generation > record.generation else "it comes first"
                what = f"has question {question!r}, which {other.part} has too; that one counts ({why})"
                self.note("duplicate", f"student/{record.part}", what)
            for question in record.question_ids:
                first.setdefault(question, record)

    def _check_unowned(self, seen: Seen, once: Collection[str]) -> None:
        """Folders without metadata, parts of teachers without the student's, and files that were about to be put in place."""
        for path in self.files or ():
            if path.rsplit("/", 1)[-1].startswith((f".{METADATA}.", f".{MANIFEST}.")) and path.count("/") < 2:
                self.note("stray", path, "was left by a writer that was killed", f"{REPAIR} moves it out of the store")
        remedy = f"{REPAIR} removes it where no writer is at work"
        for group in ("student", *(f"teacher/{name}" for name in seen.teachers)):
            n = group.count("/") + 1
            inside = {path.split("/")[n] for path in self.files or () if path.startswith(f"{group}/") and path.count("/") > n}
            for name in sorted(filter(layout.is_safe_name, inside)):
                key = f"{group}/{name}"
                if key in self.broken or (name in once and name not in seen.parts):
                    continue  # said already: it was committed, and goes with a part that is damaged
                if not self._is_there(f"{key}/{METADATA}"):
                    self.note("begun", key, "was begun and never committed", remedy)
                elif group != "student" and name not in seen.parts:
                    self.note("orphan", key, "is of a part that the student has not", remedy)

    def _check_leftovers(self) -> None:
        if isinstance(self.root, Folder):
            for stage, owner in stages(self.root.path).items():
                if owner != "alive":
                    shown = str(self.root.shown.parent / stage.parent.name / stage.name)
                    what = "was left by a process that is gone" if owner == "gone" else "is of a process on another machine"
                    remedy = f"{REPAIR} removes it" if owner == "gone" else "remove it once that machine computes no more"
                    self.findings.append(Finding(shown, what, "note", remedy, "leftover", "" if owner == "gone" else "elsewhere"))
        for path in self.files or ():
            if path.startswith(f"{UPLOADS}/"):
                self.note("leftover", path, "says that an upload was begun", f"{REPAIR} removes it when it is a day old")

    def _is_there(self, path: str) -> bool:
        return path in self.files if self.files is not None else (self.root / path).exists()


def _what(error: StoreError, place: Place) -> str:
    """The sentence of `error` without the place at its beginning and without a remedy of its own."""
    return str(error).removeprefix(str(place)).lstrip(": ").split("; ", 1)[0]
