"""Where results go: finished questions to the store, many at a time; unfinished work to a folder beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from compute.spooled import Spool
from compute.study import Study
from compute.tasks import Question
from store import writer
from store.parts import PartArrays
from store.place import PathLike, is_remote


class Batch:
    """Finished records that are published together: a part once there are enough of them, or after some minutes."""

    def __init__(
        self, study: Study, out: PathLike, spool: Spool, *, generation: int = 0, nominators: tuple[str, ...] = ()
    ) -> None:
        self._parts, self._out, self._spool = study.parts, out, spool
        self._generation, self._nominators = generation, nominators
        self._finished: list[tuple[Question, PartArrays]] = []
        self._opened = time.monotonic()

    def add(self, question: Question, record: PartArrays) -> None:
        """One more finished record."""
        self._finished.append((question, record))
        if len(self._finished) >= self._parts.questions or time.monotonic() - self._opened > 60 * self._parts.minutes:
            self.publish()

    def publish(self) -> None:
        """Publish what there is as one part, in the study's order, then let go of it."""
        self._opened = time.monotonic()
        if not self._finished:
            return
        finished = sorted(self._finished, key=lambda entry: entry[0].number)
        records = writer.concatenate([record for _, record in finished])
        writer.publish(
            self._out,
            writer.next_part_id(self._out, self._spool.run_id),
            records,
            generation=self._generation,
            nominators=self._nominators,
        )
        for question, _ in finished:
            self._spool.drop_record(question)
        self._finished.clear()


def work_folder(out: PathLike) -> Path:
    """Where unfinished work lies: beside the store, or, for one that is far away, in the folder that one works in."""
    if is_remote(out):
        return Path(f"{os.fspath(out).rstrip('/').rsplit('/', 1)[-1]}.work")
    path = Path(out)
    return path.with_name(path.name + ".work")
