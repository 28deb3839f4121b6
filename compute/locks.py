"""Who may compute into a store at one time: one run of all questions, or any number of different shards of one count."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from compute.errors import ComputeError
from store.place import PathLike


@dataclass(frozen=True, slots=True)
class Shard:
    """The share of a study that one of several independent runs does: the questions whose number leaves `index` by `count`."""

    index: int  #: from 0
    count: int

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def has(self, number: int) -> bool:
        """Whether the question with this number (from 0) belongs to the shard."""
        return number % self.count == self.index

    @property
    def part_name(self) -> str:
        """What keeps the names of its parts apart from those of other shards."""
        return f"{self.index + 1}of{self.count}"


#: All questions.
WHOLE = Shard(0, 1)


def parse_shard(text: str) -> Shard:
    """The shard that `I/N` names, I from 1 to N. Raises ValueError."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"A shard is I/N with I from 1 to N, as in 3/8, not {text!r}.")
    return Shard(int(index) - 1, int(count))


@contextmanager
def lock(folder: Path, out: PathLike, shard: Shard) -> Iterator[None]:
    """Hold a store for a run; `folder` is where its unfinished work lies. It goes with the last one, if it is empty.

    A run of all questions is alone. Shards share the store with shards of the same count, and with none of their own
    number. The system lets go of locks when a process dies. Raises ComputeError where somebody else is at work.
    """
    with ExitStack() as held:
        try:
            whole = _hold_all(folder, out, shard, held)
        except OSError as error:
            raise ComputeError(f"The folder {folder} for unfinished work cannot be written: {error.strerror}.") from None
        yield
        if _is_last(whole) and not any(folder.glob("*/*")):
            shutil.rmtree(folder, ignore_errors=True)


def _hold_all(folder: Path, out: PathLike, shard: Shard, held: ExitStack) -> int:
    """All locks of a run; the number of the one that everybody takes part in."""
    if shard == WHOLE:
        return _hold(folder / "lock", fcntl.LOCK_EX, out, held)
    whole = _hold(folder / "lock", fcntl.LOCK_SH, out, held)
    _hold(folder / f"lock-of-{shard.count}", fcntl.LOCK_SH, out, held)
    for other in folder.glob("lock-of-*"):
        if other.name != f"lock-of-{shard.count}":
            with ExitStack() as briefly:
                _hold(other, fcntl.LOCK_EX, out, briefly)
    _hold(folder / f"lock-{shard.part_name}", fcntl.LOCK_EX, out, held)
    return whole


@contextmanager
def lock_teacher(folder: Path, out: PathLike, teacher: str) -> Iterator[None]:
    """Hold one added teacher of a store; `folder` is where its unfinished work lies, and goes when that is empty.

    Nobody else is kept away: other teachers can be added, and the study computed, at the same time. Raises ComputeError
    where another process adds the same one.
    """
    refusal = f"Another process is adding teacher {teacher} to {out} at this moment; wait for it."
    with ExitStack() as held:
        try:
            _hold(folder / "lock", fcntl.LOCK_EX, out, held, refusal)
        except OSError as error:
            raise ComputeError(f"The folder {folder} for unfinished work cannot be written: {error.strerror}.") from None
        yield
        if not any(folder.glob("*/*")):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others are at work in it
                folder.parent.rmdir()


def _hold(path: Path, kind: int, out: PathLike, held: ExitStack, refusal: str = "") -> int:
    """Lock a file until `held` closes; return its number."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the folder was removed at this moment
            continue
        held.callback(os.close, number)
        try:
            fcntl.flock(number, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ComputeError(
                refusal
                or f"Another run is computing {out} at this moment; wait for it, or give this one another store, "
                "or divide the questions with --shard, with the same number of shards everywhere."
            ) from None
        except OSError as error:
            raise ComputeError(
                f"Files in {path.parent} cannot be locked ({error.strerror}); put the store where `flock` works."
            ) from None
        try:
            if os.path.samestat(os.fstat(number), path.stat()):
                return number
        except FileNotFoundError:
            pass  # the last of the runs before removed the folder after we opened the file: once more


def _is_last(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
