"""Putting parts together loses nothing and mixes nothing up, for any shape of parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import StoreError
from store.parts import Arrays, PartArrays, axis_lengths, concatenate, pack_texts, pad_columns, unpack_texts, validate
from store.schema import DIVERGENCES, REST_MOMENTS, STUDENT, TEACHER, ArraySpec

WIDTHS = {"divergence": len(DIVERGENCES), "objective": 2, "moment": len(REST_MOMENTS)}
#: Axes that every teacher has for itself.
OWN_AXES = ("teacher_prompt_byte", "extra")


def _random_group(specs: Mapping[str, ArraySpec], axes: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays of the schema with any contents that are valid; `axes` takes the lengths as they are drawn."""

    def length(dim: str) -> int:
        axis = dim.removesuffix("_bound")
        axes.setdefault(axis, WIDTHS.get(axis, int(rng.integers(0, 5))))
        return axes[axis] + dim.endswith("_bound")

    group = {}
    for name, spec in specs.items():
        shape = tuple(length(dim) for dim in spec.dims)
        if spec.bounds:
            inner = np.sort(rng.integers(0, length(spec.bounds) + 1, max(0, shape[0] - 2)))
            group[name] = np.array([0, *inner, length(spec.bounds)][-shape[0] :], spec.dtype)
            if shape[0] == 1:  # nothing to cut: then there is nothing on the other axis either
                group[name][:] = 0
        elif spec.refers:
            group[name] = rng.integers(-1, length(spec.refers), shape).astype(spec.dtype)
        elif np.dtype(spec.dtype).kind == "f":
            group[name] = rng.normal(size=shape).astype(spec.dtype)
        else:
            group[name] = rng.integers(0, 100, shape).astype(spec.dtype)
    return group


def _random_part(rng: np.random.Generator, number: int) -> PartArrays:
    # Axes that are cut into pieces are empty where there are no pieces, so every piece axis has at least one.
    axes = {axis: int(rng.integers(1, 5)) for axis in ("question", "rollout", "token", "completion", "child", "candidate")}
    texts = {}
    for name in ("question_id", "prompt", "reference_answer"):
        texts[name] = pack_texts([f"{number}.{row}" for row in range(axes["question"])])
        axes[f"{name}_byte"] = len(texts[name][0])
    student = _random_group(STUDENT, axes, rng)
    for name, (data, start) in texts.items():
        student[name], student[f"{name}_start"] = data, start
    teachers = {name: _random_group(TEACHER, axes | {"teacher_prompt_byte": 3}, rng) for name in ("a", "b")}
    return PartArrays(student, teachers)


@st.composite
def parts(draw: st.DrawFn) -> list[PartArrays]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [_random_part(rng, number) for number in range(draw(st.integers(1, 4)))]


@settings(max_examples=40, deadline=None)
@given(parts())
def test_every_part_can_be_cut_out_again(records: list[PartArrays]) -> None:
    whole = concatenate(records)
    assert whole.question_ids == tuple(name for record in records for name in record.question_ids)
    before: dict[str, int] = {}
    for record in records:
        before_student = dict(before)
        _check_cut(whole.student, record.student, STUDENT, before)
        for teacher, arrays in record.teachers.items():
            own = {**before_student, **{axis: before.get(f"{teacher} {axis}", 0) for axis in OWN_AXES}}
            _check_cut(whole.teachers[teacher], arrays, TEACHER, own)
            before |= {f"{teacher} {axis}": own[axis] for axis in OWN_AXES}


def _check_cut(whole: Arrays, piece: Arrays, specs: Mapping[str, ArraySpec], before: dict[str, int]) -> None:
    """`piece` lies in `whole` after the rows counted in `before`, which then takes its rows in."""
    lengths = axis_lengths("", piece, specs)
    for name, spec in specs.items():
        first = before.get(spec.dims[0].removesuffix("_bound"), 0)
        cut = whole[name][first : first + len(piece[name])]
        expected = piece[name]
        if spec.bounds:
            cut = cut - before.get(spec.bounds, 0)
        if spec.refers:
            cut = np.where(cut < 0, cut, cut - before.get(spec.refers, 0))
        if len(spec.dims) == 2:
            expected = pad_columns(expected, cut.shape[1], spec.fill)
        assert np.array_equal(cut, expected, equal_nan=expected.dtype.kind == "f"), name
        assert whole[name].dtype == piece[name].dtype
    for axis, length in lengths.items():
        before[axis] = before.get(axis, 0) + length


@settings(max_examples=10, deadline=None)
@given(parts())
def test_it_does_not_matter_in_which_steps(records: list[PartArrays]) -> None:
    at_once = concatenate(records)
    stepwise = records[0]
    for record in records[1:]:
        stepwise = concatenate([stepwise, record])
    for name, array in at_once.student.items():
        assert np.array_equal(array, stepwise.student[name], equal_nan=array.dtype.kind == "f"), name
    for name, array in at_once.teachers["b"].items():
        assert np.array_equal(array, stepwise.teachers["b"][name], equal_nan=array.dtype.kind == "f"), name


def _without(arrays: Arrays, name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in arrays.items() if key != name}


def test_what_is_wrong_with_a_part_is_named(records: list[PartArrays]) -> None:
    good = records[0]
    student = good.student
    for broken, reason in (
        (_without(student, "entropy"), "student/entropy is missing"),
        ({**student, "extra": student["entropy"]}, "student/extra is no array"),
        ({**student, "entropy": student["entropy"].astype("f8")}, "student/entropy is float64 instead of float16"),
        ({**student, "entropy": student["entropy"][1:]}, "student/entropy has .* token rows"),
        ({**student, "entropy": student["entropy"][:, None]}, "student/entropy has 2 axes"),
        ({**student, "token_start": student["token_start"][::-1]}, "student/token_start does not rise"),
        ({**student, "token_start": student["token_start"] // 2}, "student/token_start does not rise from 0"),
        ({**student, "path_node": student["path_node"] + 1000}, "student/path_node names a node row outside"),
    ):
        with pytest.raises(StoreError, match=reason):
            validate(PartArrays(broken, good.teachers))
    teacher = good.teachers["hot"]
    for broken, reason in (
        (_without(teacher, "fbar"), "teacher/hot/fbar is missing"),
        ({**teacher, "divergence": teacher["divergence"][:, :4]}, "teacher/hot/divergence has 4 columns instead of 5"),
        (dict(records[1].teachers["hot"]), "teacher/hot has .* rows, the student's part has"),
    ):
        with pytest.raises(StoreError, match=reason):
            validate(PartArrays(student, {**good.teachers, "hot": broken}))


def test_parts_that_do_not_go_together_are_refused(records: list[PartArrays]) -> None:
    with pytest.raises(StoreError, match="no record"):
        concatenate([])
    with pytest.raises(StoreError, match="'q000' twice"):
        concatenate([records[0], records[0]])
    fewer = PartArrays(records[1].student, {"hot": records[1].teachers["hot"]})
    with pytest.raises(StoreError, match="differ in their teachers"):
        concatenate([records[0], fewer])
    hot = records[1].teachers["hot"]
    other = {**records[1].teachers, "hot": {**hot, "fbar": hot["fbar"][:, :1]}}
    with pytest.raises(StoreError, match="teacher/hot/fbar has 1 objective columns"):
        concatenate([records[0], PartArrays(records[1].student, other)])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(), max_size=8))
def test_texts_survive_packing(texts: list[str]) -> None:
    assert unpack_texts(*pack_texts(texts)) == texts
