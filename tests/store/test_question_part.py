"""One question of a part, read alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import store
from store.cut import take_questions
from store.errors import StoreError
from store.parts import validate
from tests.synthetic import write_store


def test_a_question_read_alone_is_the_one_taken_out_of_its_part(tmp_path: Path) -> None:
    opened = store.open(write_store(tmp_path / "S.zarr", n_questions=3, questions_per_part=3))
    (name,) = opened.part_ids
    whole = opened.part(name)
    for row in range(3):
        alone, taken = opened.question_part(name, row), take_questions(whole, [row])
        validate(alone)
        assert alone.made_with == taken.made_with and alone.teachers.keys() == taken.teachers.keys()
        pairs = [(alone.student, taken.student), *((alone.teachers[one], taken.teachers[one]) for one in alone.teachers)]
        for mine, theirs in pairs:
            assert list(mine) == list(theirs)
            for key, array in mine.items():
                assert array.dtype == theirs[key].dtype, key
                assert np.array_equal(array, theirs[key], equal_nan=array.dtype.kind == "f"), key


def test_offsets_that_lead_out_are_damage_and_no_numbers(tmp_path: Path) -> None:
    import zarr

    path = write_store(tmp_path / "S.zarr", n_questions=2, questions_per_part=2)
    (name,) = store.open(path).part_ids
    array = zarr.open_array(path / "student" / name / "completion_token_start", mode="r+")
    array[...] = np.asarray(array[...]) + 10_000_000
    with pytest.raises(StoreError, match="completion_token_start points out of its"):
        store.open(path).question_part(name, 0)
