"""Where somebody left off, for each store: kept in the user's folder of states, never in the store.

A file that is damaged, of another study or of a version that this one does not know is as good as none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from zlib import crc32

import msgspec
from msgspec import Struct

from opd_tui.bookmarks import Bookmark
from opd_tui.copying import write_whole
from opd_tui.folders import state_folder
from opd_tui.place import Place
from opd_tui.view import Support, View

SCHEMA = "opd-tui/state/1"


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is restored. Everything is a name: what a store does not have any more is left out."""

    schema: str
    study_hash: str
    store: str  #: so that a person can tell the files apart
    question: str | None = None
    rollout: int | None = None
    token: int | None = None
    metric: str | None = None
    teacher: str | None = None
    second_teacher: str | None = None
    objective: str | None = None
    objectives: tuple[str, ...] = ()  #: beside the study's
    support: Support = "sliced"
    order: str | None = None
    marks: bool | None = None
    whitespace: bool | None = None
    bookmarks: tuple[Bookmark, ...] = ()

    @property
    def bookmarks_alone(self) -> Kept:
        """What stays where somebody begins anew."""
        return Kept(schema=self.schema, study_hash=self.study_hash, store=self.store, bookmarks=self.bookmarks)

    def at(self, questions: Collection[str]) -> str | None:
        """The place, as `--at` takes it, if its question is there."""
        return str(Place(self.question, self.rollout, self.token)) if self.question in questions and self.question else None

    @property
    def view(self) -> View:
        """What the store was scored under."""
        return View(self.objectives, self.support)


def remember(kept: Kept) -> None:
    """Write `kept` for the next run. Raises OSError."""
    target = _file(kept.store, kept.study_hash)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(target, msgspec.json.format(msgspec.json.encode(kept), indent=1))


def recall(path: str, study_hash: str) -> Kept | None:
    """What was remembered of the store at `path`; None where there is nothing, or nothing that can be used."""
    try:
        kept = msgspec.json.decode(_file(path, study_hash).read_bytes(), type=Kept)
    except (OSError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    return kept if (kept.schema, kept.study_hash, kept.store) == (SCHEMA, study_hash, absolute(path)) else None


def absolute(path: str) -> str:
    """The name of a store that does not depend on the folder one stands in, as text; an address is one already."""
    whole = path if "://" in path else os.path.realpath(path)
    return whole.encode(errors="backslashreplace").decode()  # a folder may have a name that is none in UTF-8


def _file(path: str, study_hash: str) -> Path:
    """A name that a person knows again, and a checksum. What is in the file says whose it is, so nobody is taken for another."""
    where = absolute(path)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(where.rstrip("/")))[:64]
    checksum = crc32(f"{study_hash}\0{where}".encode())
    return state_folder() / "stores" / f"{name}-{checksum:08x}.json"
