"""The index and the manifest: caches that follow the parts, and without which everything reads the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import store
from store.index import MANIFEST
from store.writer import PartArrays, add_teacher, concatenate, create, publish, publish_teacher, remove_leftovers
from tests.synthetic import TEACHERS, TeacherInfo, root_attributes, vocabulary


def _indexes(path: Path) -> list[str]:
    return sorted(folder.name for folder in (path / "index").iterdir() if folder.is_dir())


def _lists(path: Path):
    reader = store.open(path)
    return reader.questions(), reader.counts(), reader.teachers


def test_lists_come_from_the_index_alone(own_store: Path) -> None:
    expected = _lists(own_store)
    for folder in ("student", "teacher/ext-7b"):
        for file in (own_store / folder).rglob("c/*"):
            if file.is_file():
                file.unlink()
    assert _lists(own_store) == expected


@pytest.mark.parametrize("harm", ["missing", "flipped shard", "flipped metadata", "truncated"])
def test_a_damaged_index_is_passed_over_and_written_anew(own_store: Path, harm: str) -> None:
    expected = _lists(own_store)
    (name,) = _indexes(own_store)
    folder = own_store / "index" / name
    file = folder / ("zarr.json" if harm == "flipped metadata" else "token_start/c/0")
    match harm:
        case "missing":
            shutil.rmtree(folder)
        case "truncated":
            file.write_bytes(file.read_bytes()[:-5])
        case _:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    assert _lists(own_store) == expected
    remove_leftovers(own_store)
    assert _lists(own_store) == expected


def test_the_index_follows_the_parts(tmp_path: Path, records: list[PartArrays]) -> None:
    path = tmp_path / "S.zarr"
    create(path, root_attributes(6), vocabulary(), [])
    reader = store.open(path)
    for n in range(3):
        publish(path, f"p-{n}", concatenate(records[2 * n : 2 * n + 2]))
        assert len(_indexes(path)) == 1, "the older one is taken out"
        manifest = json.loads((path / MANIFEST).read_text())
        assert manifest["parts"] == [f"p-{k}" for k in range(n + 1)]
        assert manifest["teachers"] == {one.id: manifest["parts"] for one in TEACHERS}
        assert manifest["index"] == _indexes(path)[0]
        assert reader.refresh()
        assert [row.id for row in reader.questions()] == [f"q{k:03d}" for k in range(2 * n + 2)]
        assert reader._catalog.index is not None
        assert len(reader._catalog.index.parts) == n + 1


def test_parts_that_the_index_lacks_are_read_themselves(tmp_path: Path, records: list[PartArrays]) -> None:
    path = tmp_path / "S.zarr"
    create(path, root_attributes(6), vocabulary(), [])
    publish(path, "p-0", records[0])
    behind = shutil.copytree(path / "index", tmp_path / "index")
    publish(path, "p-1", records[1])
    expected = _lists(path)
    shutil.rmtree(path / "index")
    shutil.copytree(behind, path / "index")
    reader = store.open(path)
    assert (reader.questions(), reader.counts(), reader.teachers) == expected
    assert np.array_equal(reader.rollout("q001", 0).token_id_T, store.open(path).rollout("q001", 0).token_id_T)


def test_a_later_teacher_is_in_the_manifest_and_the_index(own_store: Path, records: list[PartArrays]) -> None:
    add_teacher(own_store, TeacherInfo("late", "external", "", "late-1b", False, "added later"))
    part = store.open(own_store).part_ids[0]
    publish_teacher(own_store, part, "late", concatenate(records[:3]).teachers["ext-7b"])
    manifest = json.loads((own_store / MANIFEST).read_text())
    assert manifest["teachers"]["late"] == [part]
    (own_store / "teacher" / "late" / part / "zarr.json").rename(own_store.parent / "zarr.json")
    reader = store.open(own_store)
    assert np.isnan(reader.rollout("q000", 0, ["late"]).teacher_logprob_TM).all(), "listing says what is there, not the index"


def test_a_part_is_in_where_the_caches_cannot_be_written(own_store: Path, records: list[PartArrays]) -> None:
    shutil.rmtree(own_store / "index")
    (own_store / "index").write_text("in the way")
    publish(own_store, "p-new", records[0], generation=1)
    assert "p-new" in store.open(own_store).part_ids
    remove_leftovers(own_store)
    (own_store / "index").unlink()
    publish(own_store, "p-newer", records[1], generation=1)
    assert len(_indexes(own_store)) == 1
    manifest = json.loads((own_store / MANIFEST).read_text())
    assert {"p-new", "p-newer"} < set(manifest["parts"])


def test_the_listing_says_what_the_rows_say(tmp_path: Path, records: list[PartArrays]) -> None:
    path = tmp_path / "S.zarr"
    create(path, root_attributes(6), vocabulary(), [])
    assert len(store.open(path).listing()) == 0
    for name, numbers in {"p-a": (5, 1), "p-b": (4,), "p-c": (3, 0, 1), "p-d": (2,)}.items():  # 1 is there twice
        publish(path, name, concatenate([records[number] for number in numbers]))
    reader = store.open(path)
    columns = reader.listing()
    rows = reader.questions()
    assert columns.question_id_Q == tuple(row.id for row in rows)
    for name in ("number", "status", "n_rollouts", "n_correct", "n_truncated"):
        assert getattr(columns, f"{name}_Q").tolist() == [getattr(row, name) for row in rows]
    rollouts = [rollout for row in rows for rollout in row.rollouts]
    for name in ("index", "correct", "reward", "finish_reason", "path_kind", "n_tokens", "n_nodes"):
        assert getattr(columns, f"{name}_R").tolist() == [getattr(rollout, name) for rollout in rollouts]
    assert np.diff(columns.rollout_start_Q1).tolist() == [len(row.rollouts) for row in rows]
