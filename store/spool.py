"""One finished record on disk, so that a crash costs only the piece in hand.

A file is whole or it is refused: it is written beside its place, made durable and renamed, and every
array in it carries a checksum. The caller redoes the work of a file that is refused.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from store.errors import StoreError
from store.parts import Array, PartArrays
from store.staging import failed_write, sync_folder

Meta = Mapping[str, str | int | float]
#: Entry with the facts about the arrays, and with their names, so that one that is lost is missed.
_META = "meta.json"
_SUFFIX = ".npy"


def save(path: str | os.PathLike[str], part: PartArrays, meta: Meta) -> None:
    """Write arrays and a few facts about them to `path`, an .npz file. Raises StoreError where there is no room."""
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                named = _named(part)
                archive.writestr(_META, json.dumps({"meta": dict(meta), "arrays": list(named)}))
                for name, array in named.items():
                    with archive.open(f"{name}{_SUFFIX}", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, target)
        sync_folder(target.parent)
    except OSError as error:
        raise failed_write(target, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def load(path: str | os.PathLike[str]) -> tuple[PartArrays, dict[str, str | int | float]]:
    """What `save` wrote. Raises StoreError where the file is missing, damaged or not whole."""
    target = Path(path)
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(target) as archive:
            # Every entry is read to its end, which is where its checksum is compared.
            facts = json.loads(archive.read(_META))
            for name in facts["arrays"]:
                content = io.BytesIO(archive.read(f"{name}{_SUFFIX}"))
                arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
        return _part(arrays), dict(facts["meta"])
    except FileNotFoundError as error:
        raise StoreError(f"there is no spool file {target}") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise StoreError(f"{target} is damaged ({error})") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise StoreError(f"{target} is damaged or not whole ({error})") from error


def _named(part: PartArrays) -> dict[str, Array]:
    named = {f"student/{name}": array for name, array in part.student.items()}
    for teacher, arrays in part.teachers.items():
        named |= {f"teacher/{teacher}/{name}": array for name, array in arrays.items()}
    return named


def _part(named: Mapping[str, Array]) -> PartArrays:
    student: dict[str, Array] = {}
    teachers: dict[str, dict[str, Array]] = {}
    for key, array in named.items():
        group, _, name = key.rpartition("/")
        if group == "student":
            student[name] = array
        else:
            teachers.setdefault(group.removeprefix("teacher/"), {})[name] = array
    return PartArrays(student, teachers)
