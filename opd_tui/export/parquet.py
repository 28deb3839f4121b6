"""Exported rows as a Parquet file: the columns of jsonl, with types. Takes pyarrow, the extra [parquet]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd_tui.extras import require
from store.schema import DIVERGENCES

if TYPE_CHECKING:
    import pyarrow

#: Rows in a row group, and how many of them are Python's objects at once: those take ten times what columns take.
GROUP, AT_ONCE = 8192, 256


def write_parquet(
    found: Iterator[Mapping[str, Any]], objectives: Sequence[str], path: Path, metadata: Mapping[str, str], group: int = GROUP
) -> int:
    """Write the rows of `opd_tui.export.rows` to a new file at `path`, `group` at a time, and return how many there are.

    `objectives` name the fields of the columns per objective; `metadata` goes into the file. Raises StoreError where
    pyarrow is missing, and OSError.
    """
    require_pyarrow()
    import pyarrow
    import pyarrow.parquet

    schema = row_schema(objectives).with_metadata(dict(metadata))
    n = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in iter(lambda: _table(found, schema, group), None):
            writer.write_table(table)
            n += table.num_rows
    return n


def _table(found: Iterator[Mapping[str, Any]], schema: pyarrow.Schema, n: int) -> pyarrow.Table | None:
    """The next `n` rows, or those that are left; None where there are none."""
    import pyarrow

    group = islice(found, n)
    batches = []
    while rows := list(islice(group, AT_ONCE)):
        batches.append(pyarrow.RecordBatch.from_pylist(rows, schema=schema))
    return pyarrow.Table.from_batches(batches, schema) if batches else None


def require_pyarrow() -> None:
    """Raise StoreError, naming the extra, where pyarrow is not installed."""
    require("pyarrow", "parquet", "Parquet needs")


def row_schema(objectives: Sequence[str]) -> pyarrow.Schema:
    """Names and types of the columns. What a store keeps in four bytes has four; scores have eight.

    Log-probabilities, entropies and divergences are in nat. Columns of decision points are null elsewhere.
    """
    import pyarrow as pa

    from opd_tui.export.rows import PER_OBJECTIVE

    def per_objective(name: str) -> pa.DataType:
        kind = pa.bool_() if name == "p_positive_calibrated" else pa.float64()
        return pa.struct([(objective, kind) for objective in objectives])

    child = pa.struct(
        [
            ("token_id", pa.int32()),
            ("token", pa.string()),
            ("kind", pa.string()),
            ("kept", pa.bool_()),
            ("student_logprob", pa.float32()),
            ("teacher_logprob", pa.float32()),
            ("n_completions", pa.int64()),
            ("n_success", pa.int64()),
            ("n_effective", pa.float64()),
            ("p_succ", pa.float64()),
            ("p_succ_low", pa.float64()),
            ("p_succ_high", pa.float64()),
        ]
    )
    return pa.schema(
        [
            ("question_id", pa.string()),
            ("rollout_index", pa.int32()),
            ("correct", pa.bool_()),
            ("position", pa.int32()),
            ("token_id", pa.int32()),
            ("token", pa.string()),
            ("student_logprob", pa.float32()),
            ("student_entropy", pa.float32()),
            ("teacher", pa.string()),
            ("teacher_logprob", pa.float32()),
            ("teacher_entropy", pa.float32()),
            *((name, pa.float32()) for name in DIVERGENCES),
            *((name, per_objective(name)) for name in PER_OBJECTIVE),
            ("reliability", pa.float64()),
            ("teacher_advantage", pa.float64()),
            ("success_rate_range", pa.float64()),
            ("n_kept", pa.int32()),
            ("judged_only", pa.bool_()),
            ("children", pa.list_(child)),
        ]
    )
