"""What an export holds in memory does not grow with the store."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opd_tui.export.rows
import store
from opd_tui.export.npz import write_npz
from opd_tui.export.parquet import write_parquet
from opd_tui.export.rows import Row, Selection, rows
from store import copying
from store.reader import Store
from tests.synthetic import write_store

OBJECTIVES = ("reverse_kl", "forward_kl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("memory") / "S.zarr", n_questions=4, n_rollouts=2, response_tokens=(10, 12))


@pytest.fixture(scope="module")
def some(made: Path) -> list[Row]:
    return list(rows(store.open(made), Selection(objectives=OBJECTIVES)))


def as_text(format: str) -> Callable[[Iterator[Row], Path], int]:
    def written(found: Iterator[Row], path: Path) -> int:
        with path.open("w", encoding="utf-8") as file:
            return opd_tui.export.rows._write(found, format, OBJECTIVES, file, str)  # type: ignore[arg-type]

    return written


WRITERS: dict[str, Callable[[Iterator[Row], Path], int]] = {
    "jsonl": as_text("jsonl"),
    "csv": as_text("csv"),
    "parquet": lambda found, path: write_parquet(found, OBJECTIVES, path, {}, 100),
    "npz": lambda found, path: write_npz(found, OBJECTIVES, path, 100),
}


@pytest.mark.parametrize("format", WRITERS)
def test_six_times_the_rows_take_no_more_memory(some: list[Row], tmp_path: Path, format: str) -> None:
    import pyarrow

    def held(n: int) -> int:
        """Bytes that Python, numpy and Arrow hold at most while `n` rows are written."""
        pool = pyarrow.default_memory_pool()
        arrow = pyarrow.proxy_memory_pool(pool)
        pyarrow.set_memory_pool(arrow)
        tracemalloc.start()
        try:
            assert WRITERS[format](islice(cycle(some), n), tmp_path / "out") == n
            return tracemalloc.get_traced_memory()[1] + (arrow.max_memory() or 0)
        finally:
            tracemalloc.stop()
            pyarrow.set_memory_pool(pool)

    held(100)  # for what is imported once
    few, many = held(400), held(2400)
    assert many < 1.3 * few + 100_000, f"{few:,} and {many:,} bytes"


def test_what_a_study_teaches_is_learnt_from_a_few_nodes_at_a_time(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = []
    plain = opd_tui.export.rows.score

    def score(nodes: Any, **settings: Any) -> Any:
        together.append(len(nodes))
        return plain(nodes, **settings)

    def whole(*arguments: object, **settings: object) -> None:
        raise AssertionError("all nodes of a study at once")

    monkeypatch.setattr(opd_tui.export.rows, "score", score)
    monkeypatch.setattr(Store, "study_nodes", whole)
    opened = store.open(made)
    question = max(len(opened.nodes(one.id)) for one in opened.questions())
    expected = list(rows(opened, Selection()))
    monkeypatch.setattr(opd_tui.export.rows, "_SCORED_TOGETHER", 1)
    together.clear()
    found = list(rows(opened, Selection()))
    assert max(together) == question and sum(together) == 2 * opened.counts().n_nodes
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        if "p_positive" in mine:
            for name in ("alignment", "p_positive"):
                a, b = ([np.nan if one is None else one for one in row[name].values()] for row in (mine, theirs))
                np.testing.assert_allclose(a, b, rtol=1e-6)
    monkeypatch.setattr(opd_tui.export.rows, "FIT_NODES", max(1, opened.counts().n_nodes // 2))
    together.clear()
    list(rows(opened, Selection()))
    assert sum(together) < 2 * opened.counts().n_nodes, "of a large study, some questions"


def test_a_slice_is_made_of_questions_read_alone(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = []
    plain = copying.concatenate

    def concatenate(records: Any) -> Any:
        together.append(len(records))
        return plain(records)

    def whole(*arguments: object) -> None:
        raise AssertionError("a whole part at once")

    monkeypatch.setattr(copying, "concatenate", concatenate)
    monkeypatch.setattr(Store, "part", whole)
    monkeypatch.setattr(copying, "PART_BYTES", 1)
    assert copying.copy([made], tmp_path / "slice.zip", questions=["q000", "q002"]) == 2
    assert together == [1, 1]
