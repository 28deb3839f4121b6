"""How difficult a question is, which ones are scored, and what is spent on the others."""

from __future__ import annotations

import json

import pytest

import store
from compute.progress import Reporter
from compute.runner import run
from compute.screening import DIFFICULTIES, difficulty
from compute.setup import prepare
from store.schema import QuestionStatus
from tests.conftest import run_opd, small_study


@pytest.mark.parametrize(
    ("n_correct", "n_rollouts", "name"),
    [
        (0, 200, "unsolved"),
        (1, 200, "hard"),
        (49, 200, "hard"),
        (50, 200, "medium"),  # exactly .25
        (159, 200, "medium"),
        (160, 200, "easy"),  # exactly .8
        (200, 200, "easy"),
        (8, 10, "easy"),  # .8 has no exact binary form
        (7, 9, "medium"),
        (0, 0, "unsolved"),
    ],
)
def test_the_bins_and_their_boundaries(n_correct, n_rollouts, name):
    assert difficulty(n_correct, n_rollouts) == name


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    """Ten questions, of which only the easy and the hard are asked for."""
    folder = tmp_path_factory.mktemp("screening")
    path = small_study(folder, limit=10, n_min=8)
    path.write_text(path.read_text().replace("[task]", '[task]\ndifficulty = ["hard", "easy"]', 1))
    run(prepare(path, Reporter(0)), folder / "s.zarr", Reporter(0))
    return folder / "s.zarr"


def test_only_the_chosen_bins_are_scored_and_every_rate_is_kept(selected):
    opened = store.open(selected)
    expected = {"medium": QuestionStatus.NOT_SELECTED, "unsolved": QuestionStatus.NO_SUCCESS}
    found = {}
    for line in opened.questions():
        name = difficulty(line.n_correct, line.n_rollouts)
        found[name] = found.get(name, 0) + 1
        assert line.n_rollouts == 24
        assert line.status == expected.get(name, QuestionStatus.SCORED)
        spent = opened.nodes(line.id).group_n_G.sum()
        assert bool(spent > 0) is (line.status is QuestionStatus.SCORED)
        assert bool(line.rollouts) is (line.status is QuestionStatus.SCORED)
    assert set(found) >= {"easy", "medium", "hard"}


def test_info_counts_the_bins(selected):
    told = json.loads(run_opd("info", selected, "--json").stdout)["difficulty"]
    assert list(told) == list(DIFFICULTIES)
    assert sum(told.values()) == 10
    shown = run_opd("info", selected).stdout
    assert f"{told['easy']} easy, {told['medium']} medium, {told['hard']} hard, {told['unsolved']} unsolved" in shown


def test_a_bin_that_is_none_is_named(tmp_path):
    path = small_study(tmp_path)
    path.write_text(path.read_text().replace("[task]", '[task]\ndifficulty = ["medum"]', 1))
    done = run_opd("compute", path, "-o", tmp_path / "s.zarr")
    assert done.returncode == 1
    assert "did you mean `medium`" in done.stderr
