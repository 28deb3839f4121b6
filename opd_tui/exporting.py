"""An export that was asked for in the explorer: what is to be written, how much that is about, and the writing itself.

The file is made by `opd_tui.export.write`, as by the command `opd-tui export`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from opd_tui.text import safe

if TYPE_CHECKING:
    from opd_tui.loader import Exporting

What = Literal["this token", "this rollout", "this question", "everything in the list"]
WHATS: tuple[What, ...] = ("this token", "this rollout", "this question", "everything in the list")
Teachers = Literal["current teacher", "all teachers"]
TEACHERS: tuple[Teachers, ...] = ("all teachers", "current teacher")
Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")

#: Bytes of a row, measured on examples/chain_sums, where one token in six is a node: an estimate, and called one.
BYTES_OF_ROW = {"jsonl": 762, "csv": 465, "parquet": 54, "npz": 40}


def in_words(n_rows: int, format: str) -> str:
    """How much so many rows are."""
    size = float(n_rows * BYTES_OF_ROW[format])
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{n_rows:,} rows, about {size:.0f} {unit}" if n_rows != 1 else f"1 row, about {size:.0f} {unit}"


class Order(Struct, frozen=True):
    """What to write, and where. Empty tuples and None mean all, as in `opd_tui.export.Selection`."""

    questions: tuple[str, ...]
    rollouts: tuple[int, ...]
    teachers: tuple[str, ...]
    positions: tuple[int, int] | None
    objectives: tuple[str, ...]
    format: Format
    out: str
    n_rows: int

    @property
    def estimate(self) -> str:
        """How much it will be, in words."""
        return in_words(self.n_rows, self.format)


def carry_out(path: str, order: Order, tell: Callable[[int, int], None]) -> Exporting:
    """Write the file whole, or not at all. Raises StoreError with a sentence."""
    from opd_tui.export import Selection, write
    from opd_tui.loader import Exporting

    selection = Selection(order.questions, order.rollouts, order.teachers, order.positions, order.objectives)
    n = write(path, selection, order.format, order.out, lambda done: tell(done, order.n_rows))
    rows = "row is" if n == 1 else "rows are"
    return Exporting(n, n, f"{n:,} {rows} in {safe(os.path.abspath(order.out))}")
