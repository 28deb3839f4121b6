"""Stores written anew: merged, compacted, cut, zipped. They hold what their sources held."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import store
from store.copying import copy
from store.cut import take_questions
from store.doctor import examine
from store.errors import StoreError
from store.parts import Arrays
from store.reader import Store
from store.teacher_topk import coarse
from store.writer import PartArrays, add_teacher, concatenate, create, publish, publish_teacher
from tests.stored import same_values
from tests.synthetic import TeacherInfo, root_attributes, vocabulary


def same_content(one: Store, other: Store, question_ids: list[str] | None = None) -> None:
    """Every question reads the same through every method; absent children at the end of a row are nothing."""
    ids = question_ids or [row.id for row in one.questions()]
    assert [row for row in one.questions() if row.id in ids] == list(other.questions())
    assert one.vocab.bytes_of(3) == other.vocab.bytes_of(3)
    for name in ids:
        assert same_values(one.question(name), other.question(name))
        for teacher in one.teachers:
            assert one.teacher_prompt(name, teacher.id) == other.teacher_prompt(name, teacher.id)
        for row in next(row for row in one.questions() if row.id == name).rollouts:
            assert same_values(one.rollout(name, row.index), other.rollout(name, row.index))
        assert same_values(one.nodes(name, whole=True), other.nodes(name, whole=True))
        mine, theirs = one.completions(name), other.completions(name)
        assert len(mine) == len(theirs)
        assert all(same_values(a, b) for a, b in zip(mine, theirs, strict=True))


def _write(path: Path, records: list[PartArrays], parts: list[list[int]]) -> Path:
    create(path, root_attributes(6), vocabulary(), [0, 1])
    for n, numbers in enumerate(parts):
        publish(path, f"p-{n}", concatenate([records[number] for number in numbers]))
    return path


def test_a_question_that_is_taken_out_of_a_part_is_what_was_put_in(records: list[PartArrays]) -> None:
    whole = concatenate(records)
    for number, record in enumerate(records):
        cut = take_questions(whole, [number])
        for name, array in record.student.items():
            assert np.array_equal(cut.student[name], array, equal_nan=array.dtype.kind == "f"), name
        for teacher, arrays in record.teachers.items():
            for name, array in arrays.items():
                assert np.array_equal(cut.teachers[teacher][name], array, equal_nan=array.dtype.kind == "f"), name
    shuffled = take_questions(whole, [4, 0, 2])
    assert shuffled.question_ids == ("q004", "q000", "q002")


def test_shards_of_two_machines_merged_are_the_store_of_one(tmp_path: Path, records: list[PartArrays]) -> None:
    one = _write(tmp_path / "one.zarr", records, [[0, 1, 2, 3, 4, 5]])
    even = _write(tmp_path / "even.zarr", records, [[0, 2], [4]])
    odd = _write(tmp_path / "odd.zarr", records, [[1], [5, 3]])
    assert copy([even, odd], tmp_path / "merged.zarr") == 6
    merged = store.open(tmp_path / "merged.zarr")
    same_content(store.open(one), merged)
    assert len(merged.part_ids) == 1
    (part,) = merged.part_ids
    original = store.open(one)
    mine, theirs = original.part(original.part_ids[0]), merged.part(part)
    for name, array in mine.student.items():
        assert np.array_equal(array, theirs.student[name], equal_nan=array.dtype.kind == "f"), name


def test_compacting_keeps_one_of_duplicates_and_the_highest_generation(tmp_path: Path, records: list[PartArrays]) -> None:
    path = _write(tmp_path / "S.zarr", records, [[0, 1], [1, 2], [3], [4, 5]])
    publish(path, "p-9", records[2], generation=1, nominators=("ext-7b",))
    assert copy([path], tmp_path / "C.zarr", per_part=4) == 6
    made = store.open(tmp_path / "C.zarr")
    same_content(store.open(path), made)
    assert made.counts() == store.open(path).counts()
    assert {place.question_id for place in made.places() if place.generation} == {"q002"}
    assert len(made.part_ids) == 3, "five questions in parts of four, and the extended one"


def test_parts_from_before_top_ks_were_rounded_stay_what_they_are(tmp_path: Path, records: list[PartArrays]) -> None:
    """They hold float16 in full: beside parts of today they are read, found sound and put together, bit for bit."""
    old = _in_full(records[0])
    path = _write(tmp_path / "S.zarr", [old, *records[1:]], [[0], [1, 2], [3, 4, 5]])
    assert not examine(path, deep=True).findings
    assert (coarse(old.student["topk_logprob"]) != old.student["topk_logprob"]).any()
    assert copy([path], tmp_path / "C.zarr") == 6
    made = store.open(tmp_path / "C.zarr")
    assert len(made.part_ids) == 1
    same_content(store.open(path), made)
    assert not examine(tmp_path / "C.zarr", deep=True).findings


def _in_full(record: PartArrays) -> PartArrays:
    """The record with the last bits of its top-K's log-probabilities at work, as they were before these were rounded."""

    def full(arrays: Arrays, names: tuple[str, ...]) -> Arrays:
        return {**arrays, **{name: np.nextafter(arrays[name], np.float16(-np.inf)) for name in names}}

    names = ("logprob_at_student_topk", "extra_logprob", "extra_student_logprob")
    return PartArrays(
        full(record.student, ("topk_logprob",)), {teacher: full(arrays, names) for teacher, arrays in record.teachers.items()}
    )


def test_a_slice_is_one_zip_that_opens(tmp_path: Path, own_store: Path) -> None:
    out = tmp_path / "slice with a space.zip"
    assert copy([own_store], out, questions=["q001", "q004"]) == 2
    sliced = store.open(out)
    same_content(store.open(own_store), sliced, ["q001", "q004"])
    assert all(item.compress_type == zipfile.ZIP_STORED for item in zipfile.ZipFile(out).infolist())
    assert [path.name for path in tmp_path.iterdir()] in ([out.name, "S.zarr"], ["S.zarr", out.name])


def test_a_slice_says_what_was_chosen_and_slices_that_are_merged_say_it_together(tmp_path: Path, own_store: Path) -> None:
    def sliced(name: str, *sources: str, questions: list[str] | None = None) -> Store:
        copy([tmp_path / source for source in sources], tmp_path / name, questions=questions)
        return store.open(tmp_path / name)

    first = sliced("first.zarr", "S.zarr", questions=["q004", "q001"])
    assert first.attributes.chosen == ("q001", "q004")
    assert first.counts().complete
    assert (first.counts().n_questions_chosen, first.counts().n_questions_planned) == (2, 6)
    with pytest.raises(StoreError, match=r"has no question 'q002'"):
        first.question("q002")
    assert sliced("again.zip", "first.zarr", questions=["q004"]).attributes.chosen == ("q004",)
    assert sliced("compact.zarr", "first.zarr").attributes.chosen == ("q001", "q004")
    others = ["q000", "q002", "q003", "q005"]
    assert sliced("others.zarr", "S.zarr", questions=others[1:]).attributes.chosen == tuple(others[1:])
    assert len(sliced("merged.zarr", "first.zarr", "others.zarr").attributes.chosen) == 5
    assert sliced("whole.zarr", "merged.zarr", "S.zarr").attributes.chosen == ()
    assert sliced("every.zarr", "S.zarr", questions=["q001", "q004", *others]).attributes.chosen == ()
    assert b"chosen" not in (tmp_path / "every.zarr" / "zarr.json").read_bytes()


def test_nothing_is_computed_into_a_slice(tmp_path: Path, own_store: Path) -> None:
    copy([own_store], tmp_path / "slice.zarr", questions=["q001"])
    with pytest.raises(StoreError, match="is a slice of its study"):
        create(tmp_path / "slice.zarr", root_attributes(6), vocabulary(), [0, 1])


def test_a_damaged_slice_is_exported_again(tmp_path: Path, own_store: Path) -> None:
    copy([own_store], tmp_path / "slice.zarr", questions=["q001"])
    (part,) = (tmp_path / "slice.zarr" / "student").glob("*/zarr.json")
    assert not examine(tmp_path / "slice.zarr").findings
    (part.parent / "logprob" / "zarr.json").unlink()
    (damage,) = (one for one in examine(tmp_path / "slice.zarr").findings if one.severity == "damage")
    assert damage.remedy.endswith("then export makes q001 again")
    shutil.rmtree(part.parent)
    assert any("question 'q001', which is not there any more" in one.what for one in examine(tmp_path / "slice.zarr").findings)


def test_added_teachers_come_along_as_far_as_they_have_read(tmp_path: Path, records: list[PartArrays]) -> None:
    path = _write(tmp_path / "S.zarr", records, [[0, 1, 2], [3, 4, 5]])
    add_teacher(path, TeacherInfo("late", "external", "", "late-1b", False, "added later"), {"model": "late-1b"})
    publish_teacher(path, "p-0", "late", concatenate(records[:3]).teachers["ext-7b"])
    copy([path], tmp_path / "all.zarr")
    made = store.open(tmp_path / "all.zarr")
    same_content(store.open(path), made)
    assert made.added_settings("late") == {"model": "late-1b"}
    copy([path], tmp_path / "without.zarr", teachers=[])
    assert [teacher.id for teacher in store.open(tmp_path / "without.zarr").teachers] == ["ext-7b", "self-1c", "hot"]


def test_what_does_not_belong_together_is_refused(tmp_path: Path, records: list[PartArrays], own_store: Path) -> None:
    from msgspec.structs import replace

    other = tmp_path / "other.zarr"
    create(other, replace(root_attributes(6), study_hash="another"), vocabulary(), [])
    with pytest.raises(StoreError, match="only stores of one study"):
        copy([own_store, other], tmp_path / "C.zarr")
    with pytest.raises(StoreError, match="there already"):
        copy([own_store], other)
    with pytest.raises(StoreError, match="no question 'q9'"):
        copy([own_store], tmp_path / "C.zarr", questions=["q9"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S.zarr", "other.zarr"]
