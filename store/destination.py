"""Where parts are published: a folder of this machine, or an object store that can write if nothing is there.

Both take staged folders and put them in so that a reader sees a part whole or not at all: a folder by renaming, an
object store by sending the group's ``zarr.json`` last, on the condition that there is none.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from store import layout
from store.errors import IsThere, StoreError
from store.place import METADATA, Folder, Keys, PathLike, Place, parse
from store.staging import failed_write, leftovers, rename_all, stage_beside, staging_folder, sync_folder

#: Files that are on their way to an object store at the same time.
_UPLOADS = 16
#: Folder of an object store with a mark for every upload that is under way, so that it can be told from a killed one.
UPLOADS = "uploads"
#: Seconds after which an upload that is still marked was killed.
UPLOAD_SECONDS = 24 * 3600


class Destination(ABC):
    """A store that is written to."""

    place: Place  #: where it is read again

    def __str__(self) -> str:
        return str(self.place)

    @abstractmethod
    def is_store_of(self, study_hash: str) -> bool:
        """True for the store of this study, False for a free place. Raises StoreError for anything else."""

    @abstractmethod
    def put_root(self, staged: Path, study_hash: str) -> None:
        """Put a whole staged store in, unless another process made that of the same study meanwhile. Raises StoreError."""

    @abstractmethod
    def remove_leftovers(self) -> int:
        """Remove what killed processes of this machine left behind where it is not work in hand; how many pieces."""

    @abstractmethod
    def stage(self, purpose: str) -> AbstractContextManager[Path]:
        """A folder of this machine to prepare things in, gone at the end; an OSError inside becomes a StoreError."""

    @abstractmethod
    def put(self, moves: Sequence[tuple[Path, str]]) -> None:
        """Put staged groups in under their keys, in order. Raises IsThere, with none of them in, where one is there."""

    @abstractmethod
    def begun(self, group: str) -> list[str]:
        """Names of the folders in `group`, those that were begun and never committed too."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Take a folder out; it need not be there."""

    @abstractmethod
    def rewrite(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a small file by `change(what is there)`: it is seen whole, and no other writer's change is lost."""


class LocalDestination(Destination):
    """A folder of this machine, staged beside: the same file system, so that a rename is all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = Folder(Path(os.path.abspath(path)), path)

    def is_store_of(self, study_hash: str) -> bool:
        try:
            if not self.path.is_dir():
                if self.path.exists() or self.path.is_symlink():
                    raise StoreError(f"{self} is a file, not a store")
                return False
            if _is_store_of(self.place, study_hash):
                return True
            if any(self.path.iterdir()):
                raise StoreError(f"{self} is a folder with other things in it; give the store a path of its own")
        except OSError as error:
            raise failed_write(self.path, error) from error
        return False

    def put_root(self, staged: Path, study_hash: str) -> None:
        try:
            os.rename(staged, self.path)
        except OSError as error:
            # Another process was first: only fine if it made the store of the same study.
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and self.is_store_of(study_hash):
                return
            raise
        sync_folder(self.path.parent)

    def remove_leftovers(self) -> int:
        stale = leftovers(self.path)
        for stage in stale:
            shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # not empty, or not there
            staging_folder(self.path).rmdir()
        return len(stale)

    def stage(self, purpose: str) -> AbstractContextManager[Path]:
        return stage_beside(self.path, purpose)

    def put(self, moves: Sequence[tuple[Path, str]]) -> None:
        for _, key in moves:
            (self.path / key).parent.mkdir(exist_ok=True)
        rename_all([(source, self.path / key) for source, key in moves])

    def begun(self, group: str) -> list[str]:
        return layout.list_parts(self.place / group)

    def remove(self, key: str) -> None:
        folder = self.path / key
        if not folder.exists():
            return
        with self.stage("removed") as stage, suppress(FileNotFoundError):  # another writer may be as quick
            os.rename(folder, stage / "removed")  # gone at once for readers; what is left of it goes with the stage

    def rewrite(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Between two writers of one folder the later one wins; see `store.upkeep` for how both come to the same."""
        path = self.path / key
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            unfinished.write_bytes(change(path.read_bytes() if path.exists() else None))
            os.replace(unfinished, path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise failed_write(self.path, error) from error


class RemoteDestination(Destination):
    """An object store. What is half sent has no ``zarr.json``, so nobody sees it; `doctor --repair` takes it out."""

    def __init__(self, place: Keys) -> None:
        self.place: Keys = place

    def is_store_of(self, study_hash: str) -> bool:
        return _is_store_of(self.place, study_hash)

    def put_root(self, staged: Path, study_hash: str) -> None:
        try:
            with self._marked([""]):
                self._send(staged, "")
        except IsThere:
            self.is_store_of(study_hash)

    def remove_leftovers(self) -> int:
        return 0  # what was half sent lies in the store; `store.doctor` finds it

    @contextmanager
    def _marked(self, keys: Sequence[str]) -> Iterator[None]:
        """A file in the store that says since when what is on its way, gone when it is in."""
        mark = self.place / UPLOADS / f"{secrets.token_hex(8)}.json"
        mark.write(json.dumps({"keys": list(keys), "begun": time.time()}).encode())
        try:
            yield
        except IsThere:
            mark.remove()
            raise
        mark.remove()  # not where it failed: what was sent is left too

    @contextmanager
    def stage(self, purpose: str) -> Iterator[Path]:
        try:
            with tempfile.TemporaryDirectory(prefix=f"opd-tui-{purpose}-") as folder:
                yield Path(folder)
        except OSError as error:
            raise failed_write(Path(tempfile.gettempdir()), error) from error

    def put(self, moves: Sequence[tuple[Path, str]]) -> None:
        placed: list[str] = []
        try:
            with self._marked([key for _, key in moves]):
                for source, key in moves:
                    self._send(source, key)
                    placed.append(key)
        except BaseException:
            for key in placed:
                self.remove(key)
            raise

    def _send(self, source: Path, key: str) -> None:
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        last = source / METADATA
        target = self.place / key if key else self.place
        if (target / METADATA).exists():
            raise IsThere(f"{target} is there already; parts are never changed")
        with ThreadPoolExecutor(_UPLOADS) as pool:
            others = [path for path in files if path != last]
            list(pool.map(lambda path: (target / path.relative_to(source).as_posix()).write(path.read_bytes()), others))
        if not (target / METADATA).write(last.read_bytes(), if_absent=True):
            raise IsThere(f"{target} is there already; parts are never changed")

    def begun(self, group: str) -> list[str]:
        return layout.list_parts(self.place / group)

    def remove(self, key: str) -> None:
        (self.place / key).remove_all()

    def rewrite(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        (self.place / key).swap(change)


def _is_store_of(place: Place, study_hash: str) -> bool:
    try:
        attributes = layout.read_group_attributes(place)
    except FileNotFoundError:
        return False
    layout.check_schema(place, attributes)
    there = attributes.get("study_hash")
    if there != study_hash:
        raise StoreError(
            f"{place} is the store of study {there!r}, and this study is {study_hash!r}; "
            "choose another path, or go back to the study file it was made with"
        )
    return True


def destination(location: PathLike) -> Destination:
    """Where a user wants a store to be written. Raises StoreError for places that cannot be written to."""
    place = parse(location)
    if isinstance(place, Keys):
        if not place.root.writable:
            raise StoreError(f"{place} can only be read; stores are written to folders and to s3:// addresses")
        return RemoteDestination(place)
    return LocalDestination(Path(os.fspath(location)))
