"""Parquet holds what jsonl holds, and pandas, polars and DuckDB read the same from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opd_tui.export.parquet
import store
from opd_tui.export.parquet import row_schema
from opd_tui.export.rows import PER_OBJECTIVE, Selection, rows, write
from store.errors import StoreError
from tests.synthetic import write_store

Rows = list[dict[str, Any]]
SELECTION = Selection(objectives=("reverse_kl", "jsd(0.3)"))
#: Columns that a row has only at a decision point.
AT_POINTS = (*PER_OBJECTIVE, "reliability", "teacher_advantage", "success_rate_range", "n_kept", "judged_only", "children")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("parquet") / "S.zarr", n_questions=3, response_tokens=(12, 25), hostile=True)


@pytest.fixture(scope="module")
def table(made: Path) -> Path:
    out = made.parent / "S.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opd_tui.export.parquet.write_parquet, "__defaults__", (50,))  # many row groups
        assert write(str(made), SELECTION, "parquet", str(out)) > 150
    return out


@pytest.fixture(scope="module")
def expected(made: Path) -> Rows:
    """The rows of jsonl; decision points' columns are null elsewhere, four-byte columns hold four bytes."""
    write(str(made), SELECTION, "jsonl", str(made.parent / "S.jsonl"))
    found = [json.loads(line) for line in (made.parent / "S.jsonl").read_text().split("\n") if line]
    narrow = {field.name for field in row_schema(("x",)) if str(field.type) == "float"}
    for row in found:
        row |= {name: row.get(name) for name in AT_POINTS}
        row |= {name: _four_bytes(row[name]) for name in narrow}
        for child in row["children"] or ():
            child |= {name: _four_bytes(child[name]) for name in ("student_logprob", "teacher_logprob")}
    return found


def _four_bytes(value: float | None) -> float | None:
    return None if value is None else float(np.float32(value))


def _with_pandas(path: Path) -> Rows:
    import pandas

    return pandas.read_parquet(path).to_dict("records")


def _with_polars(path: Path) -> Rows:
    import polars

    return polars.read_parquet(path).to_dicts()


def _with_duckdb(path: Path) -> Rows:
    import duckdb

    with duckdb.connect() as connection:
        found = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _plain(value: Any) -> Any:
    """As jsonl has it: numpy's and pandas' own values as Python's, NaN as null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("read", [_with_pandas, _with_polars, _with_duckdb])
def test_every_reader_sees_the_rows_of_jsonl(read: Callable[[Path], Rows], table: Path, expected: Rows) -> None:
    found = [_plain(row) for row in read(table)]
    assert len(found) == len(expected)
    for mine, theirs in zip(expected, found, strict=True):
        assert mine == theirs
    assert any(row["alignment"] is None for row in found)
    assert any((row["alignment"] or {}).get("jsd(0.3)") is not None for row in found)
    assert any(child["token_id"] is None for row in found for child in row["children"] or ())


def test_columns_have_types_and_rows_come_in_groups(table: Path) -> None:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(table)
    assert file.schema_arrow.equals(row_schema(("reverse_kl", "jsd(0.3)")))
    assert file.metadata.num_row_groups == math.ceil(file.metadata.num_rows / 50)
    assert file.schema_arrow.metadata[b"student"] == b"synthetic-135m"
    assert str(file.schema_arrow.field("student_logprob").type) == "float"
    assert str(file.schema_arrow.field("alignment").type) == "struct<reverse_kl: double, jsd(0.3): double>"


def test_the_schema_has_every_column_of_the_rows(made: Path) -> None:
    names = [field.name for field in row_schema(("x",))]
    found = list(rows(store.open(made), SELECTION))
    point = next(row for row in found if "alignment" in row)
    assert names == list(point)
    child = row_schema(("x",)).field("children").type.value_type
    assert [child.field(i).name for i in range(child.num_fields)] == list(point["children"][0])


def test_a_selection_of_no_rows_is_a_table_of_no_rows(made: Path, tmp_path: Path) -> None:
    assert write(str(made), Selection(positions=(9000, 9001)), "parquet", str(tmp_path / "none.parquet")) == 0
    assert _with_polars(tmp_path / "none.parquet") == []


def test_nothing_is_left_where_it_fails(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    import pyarrow.parquet

    (tmp_path / "x.parquet").write_text("what was there before")
    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", broken)
    with pytest.raises(StoreError, match=r"x\.parquet cannot be written: No space left on device"):
        write(str(made), SELECTION, "parquet", str(tmp_path / "x.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]
    assert (tmp_path / "x.parquet").read_text() == "what was there before"
