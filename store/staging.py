"""How files get into a store: written beside it by zarr-python, made durable, described, renamed in."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from store import layout
from store.encoding import LEVEL, grid
from store.errors import IsThere, StoreError
from store.parts import Array, Arrays, axis_lengths, count_completions
from store.place import METADATA, Folder, Place
from store.schema import STUDENT, ArraySpec

#: EFBIG is what a limit on the size of files gives.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IS_THERE = {errno.EEXIST, errno.ENOTEMPTY}
_AT_ONCE = 16
#: The process that made a stage: of this machine and alive or gone, or of another machine, so that nobody here knows.
Owner = Literal["alive", "gone", "elsewhere"]


def staging_folder(target: Path) -> Path:
    """Folder beside the store for what is not in it yet: the same file system, but outside of the hierarchy."""
    return target.with_name(f"{target.name}.staging")


def leftovers(target: Path) -> list[Path]:
    """Stages beside the store that a process of this machine made and did not live to remove."""
    return [stage for stage, owner in stages(target).items() if owner == "gone"]


def stages(target: Path) -> dict[Path, Owner]:
    """Every stage beside the store, and what is known of the process that made it."""
    found: dict[Path, Owner] = {}
    folder = staging_folder(target)
    for stage in sorted(folder.iterdir()) if folder.is_dir() else []:
        owner = re.search(r"\.(\d+)\.[0-9a-f]{8}$", stage.name)
        if owner is None or not stage.name[: owner.start()].endswith(f".{socket.gethostname()}"):
            found[stage] = "elsewhere"
        else:
            found[stage] = "alive" if _is_alive(int(owner[1])) else "gone"
    return found


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


@contextmanager
def stage_beside(target: Path, purpose: str) -> Iterator[Path]:
    """A folder beside the store, removed at the end whatever happens; an OSError inside becomes a StoreError.

    Its name ends in host and process, so that what a killed process left can be told from work in hand.
    """
    staging = staging_folder(target)
    stage = staging / f"{purpose}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        try:
            stage.mkdir(parents=True)
        except FileNotFoundError:  # another process was done at this moment, and removed the empty folder
            stage.mkdir(parents=True)
        yield stage
    except OSError as error:
        raise failed_write(target, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # not empty: others are at work in it
            staging.rmdir()


def failed_write(target: Path, error: OSError) -> StoreError:
    """What to say of a write that failed, so that a person knows what to do."""
    return StoreError(_sentence(target, error))


def _sentence(target: Path, error: OSError) -> str:
    if error.errno in _NO_ROOM:
        return f"there is no room to write {target} ({error.strerror}); it is as it was: free some space and run again"
    if error.errno in _NOT_ALLOWED:
        return f"{target} cannot be written ({error.strerror}: {error.filename}); see who owns it and how its disk is mounted"
    if error.errno == errno.ENOENT and not target.exists():
        return f"{target} is not there any more; put it back where it was, or name the place where it is now"
    if error.errno == errno.EXDEV:
        return f"{target} is a file system of its own, and parts are staged beside it; put the store one folder deeper"
    return f"{target} cannot be written: {error}"


def write_part(
    folder: Path,
    part_id: str,
    study_hash: str,
    question_ids: tuple[str, ...],
    arrays: Arrays,
    specs: Mapping[str, ArraySpec],
    made_with: Iterable[str] = (),
    generation: int = 0,
    nominators: tuple[str, ...] = (),
) -> None:
    """Write the arrays of one group, make them durable, and only then its ``zarr.json`` with the commit record."""
    write_arrays(folder, arrays, specs)
    record = layout.CommitRecord(
        part=part_id,
        study_hash=study_hash,
        schema_version=layout.SCHEMA_VERSION,
        question_ids=question_ids,
        counts=axis_lengths(folder.name, arrays, specs),
        n_completions=count_completions(arrays) if specs is STUDENT else 0,
        files=sync_files(folder),
        made_with=tuple(sorted(made_with)),
        generation=generation,
        nominators=nominators,
    )
    write_group(folder, layout.encode_commit(record))


def write_arrays(folder: Path, arrays: Arrays, specs: Mapping[str, ArraySpec]) -> None:
    """Write arrays as Zarr v3 under `folder`: one shard each, chunks of `ArraySpec.chunk` rows with a checksum."""
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import LocalStore

    folder.mkdir(parents=True)
    for name, spec in specs.items():
        array = arrays[name]
        chunks, shards = grid(array.shape, spec.chunk)
        made = zarr.create_array(
            LocalStore(folder / name),
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunks,
            shards=shards,
            filters=None,
            compressors=[BloscCodec(typesize=array.itemsize, cname="zstd", clevel=LEVEL, shuffle=spec.packing), Crc32cCodec()],
            fill_value=spec.fill,
            dimension_names=spec.dims,
            # A chunk of nothing but fill values is written all the same: then a missing shard means damage.
            config={"write_empty_chunks": True},
        )
        if array.size:
            made[...] = array


def read_arrays(folder: Place, specs: Mapping[str, ArraySpec]) -> dict[str, Array]:
    """Read whole arrays as `write_arrays` wrote them, with zarr-python, which a process that writes has at hand.

    Raises StoreError, naming the file, where one is missing or damaged.
    """
    import zarr

    def read(entry: tuple[str, ArraySpec]) -> Array:
        name, spec = entry
        shard = "/".join(["c", *"0" * len(spec.dims)])
        try:
            found = zarr.open_array(_zarr_store(folder / name, shard), mode="r")
            if found.dtype != np.dtype(spec.dtype) or found.ndim != len(spec.dims):
                raise ValueError(f"it is {found.dtype} with {found.ndim} axes")
            if found.size and not (folder / name / shard).exists():
                raise FileNotFoundError("its shard is missing")  # zarr-python would read fill values
            return np.asarray(found[...])
        except StoreError:
            raise
        except Exception as error:  # zarr, its codecs and its storage each have exceptions of their own
            raise StoreError(f"{folder / name} is damaged; copy the store again, or compute it anew ({error})") from error

    if isinstance(folder, Folder):
        return {name: read((name, spec)) for name, spec in specs.items()}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(specs, pool.map(read, specs.items()), strict=True))


def _zarr_store(place: Place, shard: str) -> Any:
    """The array as zarr-python sees it; what it cannot reach by itself is fetched."""
    from zarr.storage import LocalStore, MemoryStore

    if isinstance(place, Folder):
        return LocalStore(place.path, read_only=True)
    from zarr.core.buffer import default_buffer_prototype

    make = default_buffer_prototype().buffer.from_bytes
    found = {}
    for key in (METADATA, shard):
        with suppress(FileNotFoundError):
            found[key] = make((place / key).read(1 << 40))
    return MemoryStore(found)


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make `folder` a Zarr group, durably: its ``zarr.json`` appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{METADATA}.{secrets.token_hex(4)}"
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(layout.group_metadata(attributes))
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, folder / METADATA)
    sync_folder(folder)


def sync_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Make every file under `folder` durable; return their sizes and checksums by path.

    A disk makes many files durable at once in about the time of one: hence the threads.
    """
    folders = [Path(parent) for parent, _, _ in os.walk(folder)]
    paths = sorted(path for parent in folders for path in parent.iterdir() if path.is_file())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        entries = list(pool.map(_sync_file, paths))
        list(pool.map(sync_folder, folders))
    return {path.relative_to(folder).as_posix(): entry for path, entry in zip(paths, entries, strict=True)}


def _sync_file(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        content = file.read()
        os.fsync(file.fileno())
    # Not crc32c: a shard already holds its own, and the crc32c of data with its crc32c is always the same number.
    return len(content), f"{zlib.crc32(content):08x}"


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot do this for folders
            raise
    finally:
        os.close(number)


def rename_all(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename folders to where nothing is, in order; where one fails, the ones before are taken out again."""
    try:
        for source, destination in moves:
            if destination.exists():
                raise IsThere(f"{destination} is there already; parts are never changed")
            os.rename(source, destination)
            sync_folder(destination.parent)
    except BaseException as error:
        committed = not moves[-1][0].exists()  # the student's part went in: then all of it counts
        for source, placed in moves:
            if not committed and not source.exists():
                shutil.rmtree(placed, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _IS_THERE:
            raise IsThere(f"{destination} is there already; parts are never changed") from error
        raise
