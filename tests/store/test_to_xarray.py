"""`Store.to_xarray`: what the reader says, with names; and a part that xarray opens as it is."""

from __future__ import annotations

import builtins
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import store
from compute.estimators import estimate
from store.errors import StoreError
from store.reader import Store
from store.schema import DIVERGENCES, STUDENT, TEACHER, ChildKind
from store.writer import PartArrays, concatenate, create, publish
from tests.synthetic import root_attributes, vocabulary


@pytest.fixture(scope="module")
def opened(shared_store: Path) -> Store:
    return store.open(shared_store)


@pytest.fixture(scope="module")
def whole(opened: Store) -> xr.Dataset:
    return opened.to_xarray()


def test_every_rollout_is_there_and_padded(opened: Store, whole: xr.Dataset) -> None:
    listed = [(row.id, line.index) for row in opened.questions() for line in row.rollouts]
    assert list(zip(whole.question_id.values.tolist(), whole.rollout_index.values.tolist(), strict=True)) == listed
    assert whole.sizes["token"] == whole.n_tokens.max()
    for row, (question, index) in enumerate(listed):
        rollout, n = opened.rollout(question, index), len(opened.rollout(question, index))
        one = whole.isel(rollout=row)
        for name, values in {
            "token_id": rollout.token_id_T,
            "student_logprob": rollout.logprob_T,
            "student_entropy": rollout.entropy_T,
            "teacher_logprob": rollout.teacher_logprob_TM,
            "distance": rollout.divergence_TMD,
            "student_topk_token_id": rollout.topk_token_id_TC,
            "teacher_logprob_at_student_topk": rollout.teacher_logprob_at_student_topk_TMC,
        }.items():
            np.testing.assert_array_equal(one[name].values[:n], values, name)
            beyond = one[name].values[n:]
            assert np.isnan(beyond).all() if beyond.dtype.kind == "f" else (beyond == -1).all(), name
        top = rollout.teacher_topk(1)
        np.testing.assert_array_equal(one.teacher_topk_token_id.values[:n, 1], top.token_id_TC)
        np.testing.assert_array_equal(one.teacher_topk_logprob.values[:n, 1], top.logprob_TC)
        assert (bool(one.correct), float(one.reward)) == (rollout.correct, rollout.reward)
        assert str(one.finish_reason.values) == rollout.finish_reason.name.lower()


def test_axes_have_names(whole: xr.Dataset) -> None:
    assert set(whole.sizes) == {"rollout", "token", "teacher", "divergence", "candidate"}
    of_one = whole.sel(teacher="self-1c", token=slice(0, 4)).distance.sel(divergence="js")
    assert of_one.dims == ("rollout", "token")
    assert of_one.sizes["token"] == 5
    assert tuple(whole.divergence.values) == DIVERGENCES
    mean = whole.student_logprob.groupby("question_id").mean(...)
    assert mean.sizes == {"question_id": len(set(whole.question_id.values))}
    assert whole.student_logprob.attrs == {"long_name": STUDENT["logprob"].doc, "units": "nat"}


def test_a_selection_is_what_was_asked_for_in_that_order(opened: Store, whole: xr.Dataset) -> None:
    some = opened.to_xarray(["q003", "q001"], [1, 0], ["hot", "ext-7b"], topk=False)
    assert list(dict.fromkeys(some.question_id.values)) == ["q003", "q001"]
    assert set(some.rollout_index.values) <= {0, 1}
    assert list(some.teacher.values) == ["hot", "ext-7b"]
    assert "candidate" not in some.sizes
    mine = some.isel(rollout=(some.question_id == "q001").values)
    theirs = whole.isel(rollout=((whole.question_id == "q001") & whole.rollout_index.isin([0, 1])).values)
    theirs = theirs.sel(teacher=["hot", "ext-7b"]).isel(token=slice(0, some.sizes["token"]))
    np.testing.assert_array_equal(mine.teacher_logprob, theirs.teacher_logprob)
    assert opened.to_xarray("q001", teachers=()).sizes["teacher"] == 0


def test_nodes_have_children_counts_and_lie_on_rollouts(opened: Store, whole: xr.Dataset) -> None:
    found = opened.nodes_to_xarray()
    assert found.sizes["node"] == opened.counts().n_nodes
    for row in opened.questions():
        table = opened.nodes(row.id)
        mine = found.isel(node=(found.question_id == row.id).values)
        width = table.token_NK.shape[1]
        np.testing.assert_array_equal(mine.token_id.values[:, :width], table.token_NK)
        np.testing.assert_array_equal(np.moveaxis(mine.teacher_logprob.values, 2, 0)[..., :width], table.teacher_logprob_MNK)
        np.testing.assert_array_equal(mine.fbar.sel(objective="forward_kl").values, table.fbar_MNO[:, :, 1].T)
        estimates = estimate(table, n_sig=20)
        np.testing.assert_array_equal(mine.n_completions.values[:, :width], estimates.n_NK)
        np.testing.assert_array_equal(mine.n_success.values[:, :width], estimates.n_success_NK)
        assert ((mine.kind == "absent").values[:, :width] == (table.kind_NK == ChildKind.ABSENT)).all()
    targeted = np.argwhere(whole.question_node.values >= 0)
    assert len(targeted) > 50
    for rollout, token in targeted[::7]:
        one = whole.isel(rollout=rollout, token=token)
        node = found.isel(node=((found.question_id == one.question_id) & (found.question_node == one.question_node)).values)
        assert node.position.item() == token
        assert int(one.token_id) in node.token_id.values
    above = found.parent.values
    assert (found.position.values[above[above >= 0]] < found.position.values[above >= 0]).all()


def test_what_is_too_large_says_how_large_and_how_to_choose(opened: Store) -> None:
    with pytest.raises(StoreError, match=r"rollouts of up to \d+ tokens under 3 teachers would take [\d.]+ MB.*topk=False"):
        opened.to_xarray(max_bytes=1000)
    with pytest.raises(StoreError, match=r"nodes of \d+ children .* choose fewer with questions= and teachers="):
        opened.nodes_to_xarray(max_bytes=1000)
    with pytest.raises(StoreError, match=r"would take") as refused:
        opened.to_xarray("q000", max_bytes=1000)
    n_bytes = int(str(refused.value).rpartition("=")[2])
    made = opened.to_xarray("q000", max_bytes=n_bytes)
    assert sum(one.nbytes for one in made.data_vars.values()) == n_bytes


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"questions": ["q9"]}, "no question 'q9'"),
        ({"teachers": ["me"]}, "no teacher 'me'"),
        ({"rollouts": [99]}, "has a rollout 99; there is 0, 1"),
    ],
)
def test_unknown_names_are_refused(opened: Store, wanted: dict[str, list[str]], says: str) -> None:
    with pytest.raises(StoreError, match=says):
        opened.to_xarray(**wanted)  # type: ignore[arg-type]


def test_a_study_without_results_is_a_dataset_without_rollouts(tmp_path: Path) -> None:
    create(tmp_path / "S.zarr", root_attributes(2), vocabulary(), [])
    empty = store.open(tmp_path / "S.zarr")
    assert empty.to_xarray().sizes["rollout"] == 0
    assert empty.nodes_to_xarray().sizes["node"] == 0


def test_without_xarray_one_sentence_names_the_extra(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: object, **named: object) -> object:
        if name == "xarray":
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    for make in (opened.to_xarray, opened.nodes_to_xarray):
        with pytest.raises(StoreError, match=r"install it: pip install 'opd-tui\[xarray\]'"):
            make()


def test_a_part_opens_in_xarray_as_it_is(tmp_path: Path, records: list[PartArrays]) -> None:
    create(tmp_path / "S.zarr", root_attributes(6), vocabulary(), [])
    part = concatenate(records[:2])
    publish(tmp_path / "S.zarr", "p-0", part)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("default", ResourceWarning)  # garbage is no part's: it is collected when Python likes
        student = xr.open_zarr(tmp_path / "S.zarr" / "student" / "p-0", consolidated=False).load()
        teacher = xr.open_zarr(tmp_path / "S.zarr" / "teacher" / "ext-7b" / "p-0", consolidated=False).load()
    for found, specs, arrays in ((student, STUDENT, part.student), (teacher, TEACHER, part.teachers["ext-7b"])):
        assert set(found.variables) == set(specs)
        for name, spec in specs.items():
            assert found[name].dims == spec.dims
            np.testing.assert_array_equal(found[name].values, arrays[name], name)
    assert xr.merge([student[["logprob"]], teacher[["logprob"]].rename(logprob="teacher_logprob")]).sizes["token"] > 0
