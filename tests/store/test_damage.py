"""Damage and lies are said, with the name of the file; they never become a number, a crash or a flood."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from store import layout
from store.errors import StoreError
from store.reader import Store
from store.writer import committed_question_ids, create, publish
from tests.synthetic import SPECIALS, question_record, root_attributes, vocabulary


def _without_index(path: Path) -> Path:
    """The index would hide damage to what it repeats."""
    shutil.rmtree(path / "index")
    (path / "manifest.json").unlink()
    return path


@pytest.fixture
def own_store(own_store: Path) -> Path:
    return _without_index(own_store)


def _read_all(path: Path) -> None:
    reader = store.open(path)
    for row in reader.questions():
        _read_question(reader, row.id)
    reader.study_nodes()


def _read_question(reader: Store, question_id: str) -> None:
    reader.question(question_id)
    for teacher in reader.teachers:
        reader.teacher_prompt(question_id, teacher.id)
    for index in range(4):
        reader.rollout(question_id, index)
    reader.nodes(question_id)
    reader.completions(question_id)
    _ = reader.vocab


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 0x10
    path.write_bytes(content)


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change attributes in a ``zarr.json`` as a liar would, checksum included."""
    metadata = json.loads(path.read_text())
    change(metadata["attributes"])
    if "checksum" in metadata["attributes"]:
        metadata["attributes"]["checksum"] = layout._checksum(metadata["attributes"])
    path.write_text(json.dumps(metadata))


def _part(path: Path) -> Path:
    return path / "student" / "p-00000000-0000"


SHARDS = (
    "student/p-00000000-0000/logprob/c/0",
    "student/p-00000000-0000/token_start/c/0",
    "student/p-00000000-0000/child_logprob/c/0/0",
    "student/p-00000000-0000/completion_token_id/c/0",
    "teacher/self-1c/p-00000000-0000/divergence/c/0/0",
    "teacher/hot/p-00000000-0000/teacher_prompt/c/0",
    "vocab/token_bytes/c/0",
)


@pytest.mark.parametrize("shard", SHARDS)
def test_a_damaged_shard_is_named(own_store: Path, shard: str) -> None:
    file = own_store / shard
    whole = file.read_bytes()
    for harm in (
        lambda: _flip(file, 0.0),
        lambda: _flip(file, 0.5),
        lambda: _flip(file, 1.0),
        lambda: file.write_bytes(whole[: len(whole) // 2]),
        lambda: file.write_bytes(b""),
        file.unlink,
    ):
        file.write_bytes(whole)
        harm()
        reader = store.open(own_store)
        with pytest.raises(StoreError, match=f"{shard} is {'damaged' if file.exists() else 'missing'}"):
            _read_question(reader, "q000")


def test_no_flipped_bit_of_a_shard_goes_unnoticed(own_store: Path) -> None:
    file = _part(own_store) / "logprob" / "c" / "0"
    whole = file.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(StoreError, match="damaged"):
            _read_question(store.open(own_store), "q000")


def test_what_is_not_damaged_still_reads(own_store: Path) -> None:
    (own_store / "teacher/self-1c/p-00000000-0000/divergence/c/0/0").unlink()
    reader = store.open(own_store)
    assert np.isfinite(reader.rollout("q000", 0, ["ext-7b"]).divergence_TMD).all()
    assert np.isfinite(reader.rollout("q003", 0).divergence_TMD).all()


def test_damaged_metadata_is_named(own_store: Path) -> None:
    metadata = _part(own_store) / "zarr.json"
    whole = metadata.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"[]", b"{}", b"[" * 200_000, b"\xff\xfe", whole.replace(b"q001", b"q009")):
        metadata.write_bytes(content)
        for use in (store.open, committed_question_ids):
            with pytest.raises(StoreError, match=r"p-00000000-0000/zarr\.json is damaged"):
                use(own_store)


def test_a_missing_array_is_named(own_store: Path) -> None:
    shutil.rmtree(_part(own_store) / "entropy")
    with pytest.raises(StoreError, match=r"entropy/zarr\.json is missing"):
        store.open(own_store).rollout("q000", 0)


def test_a_part_without_its_metadata_is_not_there(own_store: Path) -> None:
    (_part(own_store) / "zarr.json").unlink()
    reader = store.open(own_store)
    assert reader.part_ids == ("p-00000000-0001",)
    assert [row.id for row in reader.questions()] == ["q003", "q004", "q005"]
    assert committed_question_ids(own_store) == {"q003", "q004", "q005"}


def test_a_teacher_part_without_its_metadata_reads_as_absent(own_store: Path) -> None:
    metadata = own_store / "teacher/hot/p-00000000-0000/zarr.json"
    content = metadata.read_bytes()
    metadata.unlink()
    reader = store.open(own_store)
    assert np.isnan(reader.rollout("q000", 0, ["hot"]).teacher_logprob_TM).all()
    metadata.write_bytes(content)
    assert reader.refresh()
    assert np.isfinite(reader.rollout("q000", 0, ["hot"]).teacher_logprob_TM).all()


def test_a_newer_schema_is_refused_with_the_remedy(own_store: Path) -> None:
    _edit(own_store / "zarr.json", lambda attributes: attributes.update(schema_version="3.0"))
    with pytest.raises(StoreError, match=r"schema 3\.0.*pip install -U opd-tui"):
        store.open(own_store)


def test_a_newer_minor_schema_and_unknown_names_are_read(own_store: Path) -> None:
    _edit(own_store / "zarr.json", lambda attributes: attributes.update(schema_version="2.7", moon="full"))
    _edit(_part(own_store) / "zarr.json", lambda attributes: attributes.update(schema_version="2.7", moon="full"))
    shutil.copytree(_part(own_store) / "entropy", _part(own_store) / "surprise")
    (own_store / "student" / ".nfs0001").mkdir()
    (own_store / "notes.txt").write_text("mine")
    _read_all(own_store)


def test_things_that_are_no_store_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "zarr.json").write_text(layout.group_metadata({"somebody": "else's"}))
    for name, reason in (("nothing", "no store at"), ("file", "a file"), ("", "no store"), ("group", "no store of opd-tui")):
        with pytest.raises(StoreError, match=reason):
            store.open(tmp_path / name)
    with pytest.raises(StoreError, match="no address of a store"):
        store.open("ftp://bucket/S.zarr")


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/../../b", "..", "\x1b[2J"])
def test_names_in_a_store_never_lead_out_of_it(own_store: Path, name: str) -> None:
    def rename_teacher(attributes: dict[str, Any]) -> None:
        attributes["teachers"][0]["id"] = name

    _edit(_part(own_store) / "zarr.json", lambda attributes: attributes.update(part=name))
    with pytest.raises(StoreError, match="damaged"):
        store.open(own_store)
    _edit(own_store / "zarr.json", rename_teacher)
    with pytest.raises(StoreError, match="damaged") as caught:
        store.open(own_store)
    assert "\x1b" not in str(caught.value)


def test_links_are_not_followed_to_parts_elsewhere(own_store: Path, tmp_path: Path) -> None:
    shutil.move(_part(own_store), tmp_path / "elsewhere")
    _part(own_store).symlink_to(tmp_path / "elsewhere")
    assert store.open(own_store).part_ids == ("p-00000000-0001",)


def test_sizes_that_cannot_be_are_refused_before_memory_is_asked_for(own_store: Path) -> None:
    huge = 1 << 39
    _edit(_part(own_store) / "zarr.json", lambda attributes: attributes["counts"].update(token=huge, rollout=huge))
    with pytest.raises(StoreError, match="damaged"):
        store.open(own_store).questions()
    _edit(_part(own_store) / "zarr.json", lambda attributes: attributes["counts"].update(token=-1))
    with pytest.raises(StoreError, match="damaged"):
        store.open(own_store)


def test_a_huge_chunk_is_refused_before_memory_is_asked_for(own_store: Path) -> None:
    metadata = _part(own_store) / "logprob" / "zarr.json"
    content = json.loads(metadata.read_text())
    content["chunk_grid"]["configuration"]["chunk_shape"] = [1 << 40]
    content["codecs"][0]["configuration"]["chunk_shape"] = [1 << 40]
    metadata.write_text(json.dumps(content))
    _flip(_part(own_store) / "logprob" / "c" / "0", 0.5)  # so that it is read once more, by what it says of itself
    with pytest.raises(StoreError, match=r"logprob/zarr\.json is damaged"):
        store.open(own_store).rollout("q000", 0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("path_node", 10_000),
        ("node_parent", 10_000),
        ("child_next", 10_000),
        ("completion_exit_node", 10_000),
        ("finish_reason", 99),
        ("completion_finish_reason", 99),
        ("token_start", 1 << 50),
        ("node_start", -5),
        ("completion_token_start", -5),
        ("group_exit_node", -1_000_000_000),
    ],
)
def test_a_store_whose_rows_lead_nowhere_is_refused(tmp_path: Path, name: str, values: int) -> None:
    """Such a store cannot be written by `publish`: the array is put in by hand, as a liar would, checksums and all."""
    import zarr

    path = tmp_path / "S.zarr"
    create(path, root_attributes(1), vocabulary(), range(len(SPECIALS)))
    publish(path, "p-0", question_record(0))
    array = zarr.open_array(path / "student" / "p-0" / name)
    array[...] = np.full(array.shape, values, array.dtype)
    _without_index(path)
    with pytest.raises(StoreError, match=name):
        _read_all(path)


@pytest.mark.parametrize(("name", "values"), [("extra_start", 1 << 50), ("extra_start", -1), ("topk_n", 99), ("topk_n", 0)])
def test_a_teacher_whose_top_leads_nowhere_is_refused(tmp_path: Path, name: str, values: int) -> None:
    import zarr

    path = tmp_path / "S.zarr"
    create(path, root_attributes(1), vocabulary(), range(len(SPECIALS)))
    publish(path, "p-0", question_record(0))
    array = zarr.open_array(path / "teacher" / "hot" / "p-0" / name)
    array[...] = np.full(array.shape, values, array.dtype)
    with pytest.raises(StoreError, match=r"teacher/hot/p-0/(extra_start|topk_n)"):
        _read_all(path)
