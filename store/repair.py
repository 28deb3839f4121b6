"""Puts right what `store.doctor` found, as far as that can be done without a number being lost.

Removed is only what is nobody's. A committed part that is damaged is moved out of the store, into ``S.zarr.damaged/``
beside it, so that its questions are computed again; nothing of it is deleted. Index and manifest are written anew.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from store import layout
from store.destination import UPLOAD_SECONDS, UPLOADS, Destination, LocalDestination, RemoteDestination, destination
from store.doctor import Finding, Report
from store.errors import StoreError
from store.place import METADATA, Keys, PathLike, parse
from store.staging import failed_write, stages, write_group
from store.upkeep import update_index
from store.words import counted

Say = Callable[[str], Any]


def repair(path: PathLike, report: Report, say: Say) -> None:
    """Put right what `report` names; `say` takes one sentence for each thing that was done or left.

    Raises StoreError where the store cannot be written to, and where its root is damaged.
    """
    target = destination(path)
    if any(finding.kind == "root" and finding.severity == "damage" for finding in report.findings):
        raise StoreError(f"the root of {target} is damaged, so nothing in it can be repaired; copy the store again")
    try:
        study_hash = layout.decode_root(target.place, layout.read_group_attributes(target.place)).study_hash
        in_hand = _in_hand(target, say)
        for finding in report.findings:
            _repair_one(path, target, finding, in_hand, say)
        _move_damaged(path, target, report, say)
        removed = target.remove_leftovers()
        if removed:
            say(f"removed {counted(removed, 'stage')} that killed processes left beside the store")
        if any(finding.kind in ("cache", "part", "orphan") for finding in report.findings):
            update_index(target, study_hash, anew=True)
            say("wrote index and manifest anew")
        else:
            update_index(target, study_hash)
    except OSError as error:
        raise failed_write(Path(str(target)), error) from error


def _in_hand(target: Destination, say: Say) -> Callable[[str], str]:
    """Says of a key why it may be work in hand, "" where it cannot be."""
    if isinstance(target, LocalDestination):
        owners = {owner for owner in stages(target.path).values() if owner != "gone"}
        why = "a writer is at work" if "alive" in owners else "another machine may be at work" if owners else ""
        return lambda _: why
    assert isinstance(target, RemoteDestination)
    young: set[str] = set()
    for name in (target.place / UPLOADS).every_key():
        mark = target.place / UPLOADS / name
        try:
            content = json.loads(mark.read(1 << 20))
            keys, age = [str(key) for key in content["keys"]], time.time() - float(content["begun"])
        except FileNotFoundError:
            continue  # in by now
        except (ValueError, KeyError, TypeError):
            keys, age = [], UPLOAD_SECONDS
        if age >= UPLOAD_SECONDS:
            mark.remove()
            say(f"removed {mark}, the mark of an upload that was killed")
        else:
            young.update(keys)
    return lambda key: "its upload began less than a day ago" if key in young else ""


def _repair_one(path: PathLike, target: Destination, finding: Finding, in_hand: Callable[[str], str], say: Say) -> None:
    if finding.kind in ("begun", "orphan"):
        _take_out(path, target, finding, in_hand(finding.key), say)
    elif finding.kind == "group":
        content = {"id": finding.key.split("/")[1]} if "/" in finding.key else {}
        if isinstance(target.place, Keys):
            (target.place / finding.key / METADATA).write(layout.group_metadata(content).encode())
        else:
            write_group(Path(os.path.abspath(path), finding.key), content)
        say(f"wrote {finding.place} anew")
    elif finding.kind == "stray":
        if isinstance(target.place, Keys):
            _move_keys(target.place / finding.key, _damaged_keys(path, finding.key))
        elif finding.key.rsplit("/", 1)[-1].startswith(f".{METADATA}."):
            Path(path, finding.key).unlink(missing_ok=True)
        else:
            _move(Path(path, finding.key), _damaged_folder(path) / finding.key)
        say(f"moved {finding.place} out of the store")


def _take_out(path: PathLike, target: Destination, finding: Finding, why_not: str, say: Say) -> None:
    """What was begun and never committed. Whether a writer is at work was asked before: what is committed by now stays."""
    name = finding.key.rsplit("/", 1)[-1]
    done = f"student/{name}" if finding.kind == "orphan" else finding.key
    if why_not:
        say(f"left {finding.place}: {why_not}")
    elif (target.place / done / METADATA).exists():
        say(f"left {finding.place}: its writer was done meanwhile")
    elif finding.kind == "begun" and isinstance(target, LocalDestination):
        to = _damaged_folder(path) / finding.key  # folders appear whole: it may be one that lost its metadata
        _move(target.path / finding.key, to)
        say(f"moved {finding.place} to {to}")
    else:
        target.remove(finding.key)
        say(f"removed {finding.place}")


def _move_damaged(path: PathLike, target: Destination, report: Report, say: Say) -> None:
    """Move damaged parts out: the student's first, so that readers see nothing half. What goes with it goes too."""
    known = {teacher.id for teacher in layout.decode_root(target.place, layout.read_group_attributes(target.place)).teachers}
    moves: dict[str, None] = {}
    for finding in report.findings:
        if finding.kind != "part" or finding.severity != "damage":
            continue
        name = finding.key.rsplit("/", 1)[-1]
        if finding.key.startswith("student/") or finding.key.split("/")[1] in known:
            moves[f"student/{name}"] = None
            moves.update((f"teacher/{one}/{name}", None) for one in target.begun("teacher"))
        else:
            moves[finding.key] = None  # of a teacher that was added later: the rest goes on without it
    for key in sorted(moves, key=lambda key: not key.startswith("student/")):
        if key.rsplit("/", 1)[-1] not in target.begun(key.rsplit("/", 1)[0]):
            continue
        if isinstance(target.place, Keys):
            to = _damaged_keys(path, key)
            for inside in sorted((target.place / key).every_key(), key=lambda one: one != METADATA):
                _move_keys(target.place / key / inside, to / inside)
            say(f"moved {target.place / key} to {to}")
        else:
            to_folder = _damaged_folder(path) / key
            _move(Path(path, key), to_folder)
            say(f"moved {target.place / key} to {to_folder}")


def _damaged_folder(path: PathLike) -> Path:
    return Path(f"{os.fspath(path).rstrip('/')}.damaged")


def _damaged_keys(path: PathLike, key: str) -> Keys:
    text = os.fspath(path).rstrip("/")
    if text.count("/") < 3:
        raise StoreError(f"{text} is a whole bucket, and what is damaged is moved beside the store; move it by hand")
    place = parse(f"{text}.damaged")
    assert isinstance(place, Keys)
    return place / key


def _move(source: Path, to: Path) -> None:
    """Rename, to a name that is free."""
    to.parent.mkdir(parents=True, exist_ok=True)
    n = 0
    free = to
    while free.exists():
        n += 1
        free = to.with_name(f"{to.name}.{n}")
    with suppress(FileNotFoundError):
        shutil.move(source, free)


def _move_keys(source: Keys, to: Keys) -> None:
    to.write(source.read(1 << 40))
    source.remove()
