"""What is written is there whole, durably and once, or not at all."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

import store
from store import spool
from store.errors import StoreError
from store.schema import TEACHER
from store.staging import failed_write, stage_beside, staging_folder
from store.tables import TeacherInfo
from store.writer import (
    PartArrays,
    add_teacher,
    committed_question_ids,
    concatenate,
    create,
    next_part_id,
    publish,
    publish_teacher,
    remove_leftovers,
)
from tests.synthetic import SPECIALS, root_attributes, vocabulary

PUBLISH_AND_DIE = """
import os, signal, sys
from store import spool
from store.writer import publish
path, part, record, event, moment = *sys.argv[1:5], int(sys.argv[5])
record, _ = spool.load(record)
import zarr, zarr.codecs, zarr.storage  # so that files opened by imports do not count
seen = 0
def hook(name, arguments):
    global seen
    if name == event and ".staging" in str(arguments[0]):
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
publish(path, part, record)
print("done")
"""

PUBLISH_WITHOUT_ROOM = """
import resource, sys
from store import spool
from store.errors import StoreError
from store.writer import publish
path, part, record = sys.argv[1:4]
record, _ = spool.load(record)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    publish(path, part, record)
except StoreError as error:
    print(error)
"""


def _make(path: Path, n_questions: int = 6) -> None:
    create(path, root_attributes(n_questions), vocabulary(), range(len(SPECIALS)))


def _tree(path: Path) -> list[str]:
    return sorted(found.relative_to(path).as_posix() for found in path.rglob("*"))


def test_a_store_is_made_once_and_then_left_alone(tmp_path: Path) -> None:
    _make(tmp_path / "S.zarr")
    before = (tmp_path / "S.zarr" / "zarr.json").stat()
    _make(tmp_path / "S.zarr")
    assert (tmp_path / "S.zarr" / "zarr.json").stat() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["S.zarr"], "staging is taken away"


def test_a_store_can_be_made_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "S.zarr").mkdir()
    _make(tmp_path / "S.zarr")
    assert store.open(tmp_path / "S.zarr").attributes == root_attributes(6)


def test_another_study_is_refused_and_both_hashes_are_named(shared_store: Path) -> None:
    other = replace(root_attributes(6), study_hash="feedfacefeedface")
    with pytest.raises(StoreError, match=f"{root_attributes(6).study_hash}.*feedfacefeedface"):
        create(shared_store, other, vocabulary(), [])


def test_a_path_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is a file"):
        _make(tmp_path / "file")
    with pytest.raises(StoreError, match="other things"):
        _make(tmp_path / "folder")
    assert _tree(tmp_path) == ["file", "folder", "folder/thesis.tex"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "ext-7b"])
def test_a_teacher_whose_name_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    attributes = root_attributes(6)
    teachers = (*attributes.teachers, replace(attributes.teachers[0], id=name))
    with pytest.raises(StoreError, match="teacher id"):
        create(tmp_path / "S.zarr", replace(attributes, teachers=teachers), vocabulary(), [])
    assert not list(tmp_path.iterdir())


def test_a_part_is_refused_where_one_of_that_name_is(own_store: Path, records: list[PartArrays]) -> None:
    before = _tree(own_store)
    with pytest.raises(StoreError, match="there already"):
        publish(own_store, store.open(own_store).part_ids[0], records[0])
    assert _tree(own_store) == before


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "", "x" * 200])
def test_a_part_name_stays_inside_of_the_store(own_store: Path, records: list[PartArrays], name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a part"):
        publish(own_store, name, records[0])


def test_part_ids_are_never_used_again(tmp_path: Path, records: list[PartArrays]) -> None:
    path = tmp_path / "S.zarr"
    _make(path)
    assert next_part_id(path, "0badcafe") == "p-0badcafe-0000"
    publish(path, "p-0badcafe-0007", records[0])
    assert next_part_id(path, "0badcafe") == "p-0badcafe-0008"
    (path / "student" / "p-0badcafe-0007").rename(tmp_path / "moved away")
    assert next_part_id(path, "0badcafe") == "p-0badcafe-0008", "its teachers still have it"
    assert next_part_id(path, "deadbeef") == "p-deadbeef-0000"


def test_committed_questions_come_from_commit_records_alone(own_store: Path) -> None:
    for shard in own_store.rglob("c/*"):
        if shard.is_file():
            shard.unlink()
    assert committed_question_ids(own_store) == {f"q{number:03d}" for number in range(6)}


def test_a_part_that_does_not_fit_the_study_is_refused(tmp_path: Path, records: list[PartArrays]) -> None:
    path = tmp_path / "S.zarr"
    _make(path, n_questions=1)
    whole = records[0]
    fewer = PartArrays(whole.student, {name: arrays for name, arrays in whole.teachers.items() if name != "hot"})
    more = PartArrays(whole.student, {**whole.teachers, "stranger": whole.teachers["hot"]})
    student = {**whole.student, "token_id": np.full_like(whole.student["token_id"], 100_000)}
    for part, reason in (
        (records[1], "'q001' is not in the study"),
        (fewer, "nothing of teacher 'hot'"),
        (more, "'stranger' is not in the study"),
        (PartArrays(student, whole.teachers), "student/token_id holds token 100000"),
    ):
        with pytest.raises(StoreError, match=reason):
            publish(path, "p-1", part)
    assert store.open(path).part_ids == ()


@pytest.mark.parametrize(("event", "moment"), [("open", 3), ("open", 90), ("os.rename", 40)])
def test_a_process_killed_while_it_writes_leaves_the_store_as_it_was(own_store, records, python, tmp_path, event, moment) -> None:
    spool.save(tmp_path / "record.npz", records[0], {})
    before = _tree(own_store)
    died = python(PUBLISH_AND_DIE, own_store, "p-new-0000", tmp_path / "record.npz", event, moment)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert _tree(own_store) == before
    with stage_beside(own_store, "p-in-hand") as in_hand:
        assert remove_leftovers(own_store) == 1
        assert in_hand.is_dir()
    assert not staging_folder(own_store).exists()
    assert remove_leftovers(own_store) == 0
    publish(own_store, next_part_id(own_store, "new"), records[0])
    assert len(store.open(own_store).part_ids) == 3


def test_a_process_killed_between_the_renames_leaves_a_whole_part_or_none(own_store, records, python, tmp_path) -> None:
    spool.save(tmp_path / "record.npz", records[0], {})
    into_place = PUBLISH_AND_DIE.replace('".staging" in str(arguments[0])', 'str(arguments[1]).endswith("/" + part)')
    for n_placed in (1, 3):  # three teachers, and the student last
        moment = n_placed + 1
        name = f"p-1-{n_placed:04d}"
        died = python(into_place, own_store, name, tmp_path / "record.npz", "os.rename", moment)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert sum((folder / name).exists() for folder in (own_store / "teacher").iterdir()) == n_placed
        reader = store.open(own_store)
        assert name not in reader.part_ids
        assert np.isfinite(reader.rollout("q000", 0).teacher_logprob_TM).all()
    publish(own_store, next_part_id(own_store, "1"), records[0])
    assert {"p-1-0004"} < set(store.open(own_store).part_ids)


@pytest.mark.parametrize("limit", [700, 3000])
def test_a_full_disk_is_one_sentence_and_the_store_is_as_it_was(own_store, records, python, tmp_path, limit) -> None:
    spool.save(tmp_path / "record.npz", concatenate(records), {})
    before = _tree(own_store)
    said = python(PUBLISH_WITHOUT_ROOM, own_store, "p-new", tmp_path / "record.npz", limit)
    assert said.returncode == 0, said.stderr
    assert "no room" in said.stdout
    assert said.stdout.count("\n") == 1
    assert _tree(own_store) == before
    assert not own_store.with_name("S.zarr.staging").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EXDEV, errno.EIO])
def test_what_went_wrong_is_said_in_one_sentence_with_the_path(number: int) -> None:
    sentence = str(failed_write(Path("/data/S.zarr"), OSError(number, os.strerror(number), "/data/S.zarr/x")))
    assert "/data/S.zarr" in sentence
    assert "\n" not in sentence


def _is_cache(store_path: Path, path: Path) -> bool:
    return path.relative_to(store_path).parts[0] in ("index", "manifest.json")


@contextmanager
def _as_anybody() -> Iterator[None]:
    """Root may write everywhere, so it steps down for a moment; others stay who they are."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_without_permission_is_said_so(tmp_path: Path) -> None:
    _make(tmp_path / "first.zarr")  # what writing imports is imported before root steps down
    tmp_path.chmod(0o500)
    with _as_anybody(), pytest.raises(StoreError, match="cannot be written"):
        _make(tmp_path / "S.zarr")


def test_a_teacher_added_later_changes_nothing_that_is_there(own_store: Path, records: list[PartArrays]) -> None:
    files = {path: path.read_bytes() for path in own_store.rglob("*") if path.is_file() and not _is_cache(own_store, path)}
    info = TeacherInfo("late", "external", "", "late-1b", False, "added later")
    reader = store.open(own_store)
    add_teacher(own_store, info)
    add_teacher(own_store, info)
    part = reader.part_ids[0]
    arrays = concatenate(records[:3]).teachers["ext-7b"]
    publish_teacher(own_store, part, "late", arrays)
    assert all(path.read_bytes() == content for path, content in files.items())
    assert reader.refresh()
    assert reader.teachers[-1] == info
    has, has_not = (reader.rollout(name, 0, ["late", "ext-7b"]) for name in ("q000", "q003"))
    assert np.array_equal(has.teacher_logprob_TM[:, 0], has.teacher_logprob_TM[:, 1])
    assert np.isnan(has_not.teacher_logprob_TM[:, 0]).all()
    assert np.isfinite(has_not.teacher_logprob_TM[:, 1]).all()
    assert (has_not.teacher_topk(0).token_id_TC == -1).all()
    assert np.isnan(reader.nodes("q003", ["late"]).fbar_MNO).all()
    assert reader.teacher_prompt("q003", "late") == ""
    with pytest.raises(StoreError, match="there already"):
        publish_teacher(own_store, part, "late", arrays)
    with pytest.raises(StoreError, match="rows"):
        publish_teacher(own_store, reader.part_ids[1], "late", arrays)
    assert set(arrays) == set(TEACHER)
