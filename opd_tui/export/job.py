"""An export that was asked for in the explorer: what is to be written, how much that is about, and the writing itself.

The file is made by the functions that the command `opd-tui export` calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from opd_tui.text import safe
from opd_tui.usage import WrongUsage
from store.words import are, counted

if TYPE_CHECKING:
    from opd_tui.loader import Exporting

What = Literal["this token", "this rollout", "this question", "everything in the list"]
WHATS: tuple[What, ...] = ("this token", "this rollout", "this question", "everything in the list")
Teachers = Literal["current teacher", "all teachers"]
TEACHERS: tuple[Teachers, ...] = ("all teachers", "current teacher")
Format = Literal["jsonl", "csv", "parquet", "npz", "zarr", "html", "svg", "png"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet", "npz", "html", "svg", "png", "zarr")
#: How a file's name ends: a slice in zarr is one file in a .zip.
ENDINGS: dict[Format, str] = {one: "zip" if one == "zarr" else one for one in FORMATS}
#: What a file is by its ending.
_BY_ENDING: dict[str, Format] = {one: one for one in FORMATS} | {"zip": "zarr"}
PICTURES = ("svg", "png")
#: Rows, scored under any objectives; pages and pictures have those of the study.
ROWS = ("jsonl", "csv", "parquet", "npz")

#: Bytes of a row, measured on examples/chain_sums, where one token in six is a node: an estimate, and called one.
BYTES_OF_ROW = {"jsonl": 762, "csv": 465, "parquet": 54, "npz": 37}


def in_words(n_rows: int, format: str) -> str:
    """How much so many rows are."""
    size = float(n_rows * BYTES_OF_ROW[format])
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{counted(n_rows, 'row')}, about {size:.0f} {unit}"


def _ending(out: str) -> str:
    return os.path.splitext(out.rstrip("/"))[1][1:].lower()


def contradiction(out: str, format: Format) -> str:
    """Why `format` does not go into a file of this name, in a sentence; "" where it does. Unknown endings say nothing."""
    ending = _ending(out)
    other = _BY_ENDING.get(ending, format)
    return f".{ending} is the ending of {other}, not of {format}" if other != format else ""


def chosen_format(out: str, format: Format | None) -> Format:
    """The format that was named, or else the one that the file's ending says: jsonl without one. Raises WrongUsage."""
    if format is not None:
        if why := contradiction(out, format):
            raise WrongUsage(f"{out} cannot be the file: {why}; name another with -o, or leave --format out.")
        return format
    ending = _ending(out)
    if ending and ending not in _BY_ENDING:
        known = ", ".join(FORMATS)
        raise WrongUsage(f"No format ends in .{ending}; name one with --format ({known}), or a file that ends like one.")
    return _BY_ENDING[ending] if ending else "jsonl"


class Order(Struct, frozen=True):
    """What to write, and where. Empty tuples and None mean all, as in `opd_tui.export.rows.Selection`."""

    what: What
    questions: tuple[str, ...]
    rollouts: tuple[int, ...]
    teachers: tuple[str, ...]
    positions: tuple[int, int] | None
    objectives: tuple[str, ...]
    format: Format
    out: str
    n_rows: int
    n_rollouts: int
    n_questions: int

    @property
    def estimate(self) -> str:
        """How much it will be, in words."""
        if self.format in PICTURES:
            return "a picture of this screen at this token" if self.positions else "a picture of this screen at the first node"
        if self.format == "html":
            return "a page of " + counted(self.n_rollouts, "rollout")
        if self.format == "zarr":
            return "a store of " + counted(self.n_questions, "question")
        return in_words(self.n_rows, self.format)

    @property
    def refusal(self) -> str:
        """Why it cannot be written, in one sentence; "" where it can."""
        if not self.n_rows:
            return "there is nothing to write: the list is empty"
        if self.format == "html" and self.what == "this token":
            return "a page holds whole rollouts: choose this rollout, or more"
        if self.format in PICTURES and self.what not in ("this token", "this rollout"):
            return "a picture shows one place: choose this token or this rollout"
        if self.format == "zarr" and self.what in ("this token", "this rollout"):
            return "a store holds whole questions: choose this question, or more"
        return contradiction(self.out, self.format)

    @property
    def noun(self) -> str:
        """What is counted while it is written."""
        return "questions" if self.format == "zarr" else "rows"


def carry_out(path: str, order: Order, tell: Callable[[int, int], None]) -> Exporting:
    """Write the file whole, or not at all. Raises StoreError with a sentence."""
    from opd_tui.loader import Exporting

    n, said = _written(path, order, tell)
    return Exporting(n, n, f"{said} in {safe(os.path.abspath(order.out))}")


def _written(path: str, order: Order, tell: Callable[[int, int], None]) -> tuple[int, str]:
    """How many of what was written, and what is now in the file."""
    from opd_tui.export.rows import Selection

    selection = Selection(order.questions, order.rollouts, order.teachers, order.positions, order.objectives)
    match order.format:
        case "html":
            from opd_tui.export.html import write_html

            n, noun = write_html(path, selection, order.out), "rollout"
        case "svg" | "png":
            from opd_tui.export.picture import write_picture

            write_picture(path, selection, order.format, order.out)
            return 1, "the picture is"
        case "zarr":
            from opd_tui.copied import copy

            chosen, teachers = order.questions or None, order.teachers or None
            n, noun = copy([path], order.out, chosen, teachers, tell), "question"
        case _:
            from opd_tui.export.rows import write

            n, noun = write(path, selection, order.format, order.out, lambda done: tell(done, order.n_rows)), "row"
    return n, f"{counted(n, noun)} {are(n)}"
