"""What people's own tools read is what was exported: every value, and texts that look like numbers, too."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
import tests.synthetic
from opd_tui.export.parquet import row_schema
from opd_tui.export.rows import Format, Row, Selection, _columns, rows, write
from store.copying import copy

OBJECTIVES = ("reverse_kl", "jsd(0.3)")
SELECTION = Selection(objectives=OBJECTIVES)
#: Questions whose names csv readers take for numbers, or for nothing.
IDS = ("007", "010", "1e5", "NA")
#: As docs/export.md says: columns that hold text whatever it looks like, and what pandas and `datasets` are told of a csv.
TEXT = ("question_id", "teacher", "token")
PANDAS: dict[str, Any] = {"converters": dict.fromkeys(TEXT, str), "keep_default_na": False, "na_values": [""]}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A folder with S.jsonl, S.csv and S.parquet, and the rows that were written."""
    folder = tmp_path_factory.mktemp("readers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.synthetic, "_question_id", lambda number, hostile: IDS[number])
        made = tests.synthetic.write_store(
            folder / "S.zarr", n_questions=4, n_rollouts=2, questions_per_part=4, hostile=True, response_tokens=(10, 20)
        )
    names: tuple[Format, ...] = ("jsonl", "csv", "parquet")
    for name in names:
        write(str(made), SELECTION, name, str(folder / f"S.{name}"))
    found = list(rows(store.open(made), SELECTION))
    assert {row["question_id"] for row in found} == set(IDS)
    return folder, found


def _with_json(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.open(encoding="utf-8", newline="\n")]


def _with_csv(path: Path) -> list[Row]:
    csv.field_size_limit(1 << 20)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _with_pyarrow(path: Path) -> list[Row]:
    import pyarrow.parquet

    found: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    return found


def _with_pandas(path: Path) -> list[Row]:
    import pandas

    if path.suffix == ".jsonl":
        found = pandas.read_json(path, lines=True, dtype=False, precise_float=True)
        return [
            {name: None if isinstance(one, float) and math.isnan(one) else one for name, one in row.items()}
            for row in found.to_dict("records")
        ]
    of_csv: list[Row] = pandas.read_csv(path, **PANDAS).to_dict("records")
    return of_csv


def _with_polars(path: Path) -> list[Row]:
    import polars

    if path.suffix == ".jsonl":
        return polars.read_ndjson(path, infer_schema_length=None).to_dicts()
    return polars.read_csv(path, schema_overrides=dict.fromkeys(TEXT, polars.String), infer_schema_length=None).to_dicts()


def _with_duckdb(path: Path) -> list[Row]:
    import duckdb

    with duckdb.connect() as connection:
        if path.suffix == ".jsonl":
            found = connection.execute("SELECT * FROM read_json(?, sample_size = -1)", [str(path)])
        else:
            types = ", ".join(f"'{name}': 'VARCHAR'" for name in TEXT)
            found = connection.execute(f"SELECT * FROM read_csv(?, types = {{{types}}}, sample_size = -1)", [str(path)])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _with_datasets(path: Path) -> list[Row]:
    import datasets

    kind = path.suffix[1:].replace("jsonl", "json")
    more = PANDAS if kind == "csv" else {}
    found = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache"), **more)
    return list(found)


def _with_features(path: Path) -> list[Row]:
    """Lines of JSON whose first ones have not every column yet: `datasets` looks at those alone, where it is told nothing."""
    import datasets

    lines, more = str(path.with_name("S.jsonl")), {"cache_dir": str(path.parent / "cache"), "chunksize": 2000}
    features = datasets.Features.from_arrow_schema(row_schema(OBJECTIVES))
    return list(datasets.load_dataset("json", data_files=lines, split="train", features=features, **more))


@pytest.mark.parametrize("read", [_with_json, _with_pandas, _with_polars, _with_duckdb, _with_datasets])
def test_lines_of_json(exported: tuple[Path, list[Row]], read: Callable[[Path], list[Row]]) -> None:
    folder, expected = exported
    found = read(folder / "S.jsonl")
    assert len(found) == len(expected)
    for mine, theirs in zip(expected, found, strict=True):
        assert mine == theirs if read is _with_json else {name: mine.get(name) for name in theirs} == theirs
    assert set().union(*found) == set().union(*expected)


@pytest.mark.parametrize("read", [_with_csv, _with_pandas, _with_polars, _with_duckdb, _with_datasets])
def test_comma_separated(exported: tuple[Path, list[Row]], read: Callable[[Path], list[Row]]) -> None:
    folder, expected = exported
    found = read(folder / "S.csv")
    assert len(found) == len(expected)
    for row, theirs in zip(expected, found, strict=True):
        assert list(theirs) == _columns(OBJECTIVES)
        flat = {f"{a}.{b}": one for a, of in row.items() if isinstance(of, dict) for b, one in of.items()} | row
        for name, cell in theirs.items():
            mine = flat.get(name)
            if name in TEXT:
                assert cell == (f"'{mine}" if mine[:1] in ("=", "+", "-", "@", "\t", "\r") else mine), name
            elif mine is None:
                assert cell is None or cell == "" or math.isnan(cell), name
            elif isinstance(mine, bool):
                assert str(cell).lower() == str(mine).lower(), name
            else:
                assert (json.loads(cell) if isinstance(cell, str) else cell) == mine, name


@pytest.mark.parametrize("read", [_with_pyarrow, _with_datasets, _with_features])
def test_with_types(exported: tuple[Path, list[Row]], read: Callable[[Path], list[Row]]) -> None:
    folder, expected = exported
    found = read(folder / "S.parquet")
    schema = row_schema(OBJECTIVES)
    narrow = {field.name for field in (*schema, *schema.field("children").type.value_type) if str(field.type) == "float"}
    assert len(found) == len(expected)
    for mine, theirs in zip(expected, found, strict=True):
        assert list(theirs) == schema.names
        for one in (mine, *mine.get("children", ())):
            one |= {name: None if one[name] is None else float(np.float32(one[name])) for name in narrow & set(one)}
        assert {name: mine.get(name) for name in theirs} == theirs


def test_a_slice_read_by_zarr_holds_the_arrays_of_the_store(exported: tuple[Path, list[Row]], tmp_path: Path) -> None:
    import zarr

    opened = store.open(exported[0] / "S.zarr")
    (part,) = opened.part_ids
    whole = opened.part(part)
    assert copy([exported[0] / "S.zarr"], tmp_path / "slice.zip") == 4
    with zarr.storage.ZipStore(tmp_path / "slice.zip", mode="r") as archive:
        root = zarr.open_group(archive, mode="r")
        places = {"student": whole.student} | {f"teacher/{name}": arrays for name, arrays in whole.teachers.items()}
        for place, arrays in places.items():
            ((_, found),) = root[place].groups()
            assert set(found.array_keys()) == set(arrays), place
            for name, array in arrays.items():
                kind = array.dtype.kind
                assert np.array_equal(found[name][...], array, equal_nan=kind == "f"), f"{place} {name}"
