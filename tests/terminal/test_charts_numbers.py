"""What charts are drawn from: the numbers of the findings, and the nodes behind every mark."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import numpy as np
import pytest

import store
from compute.findings import correct_incorrect, depth_profile, difficulty, gather, teacher_ranking
from opd_tui.charts import Chart, Mark, Series, Study
from opd_tui.reading import Library
from opd_tui.widgets.plot import ticks
from store.errors import StoreError
from tests.conftest import CHAIN_SUMS

SHIPPED = str(CHAIN_SUMS / "chain_sums.zarr")


@pytest.fixture(scope="module")
def study() -> Study:
    return Library(SHIPPED).charts()


def numbers(mark: Mark) -> tuple[float, float, float]:
    return mark.mean, mark.low, mark.high


def test_every_number_is_that_of_the_findings(study: Study) -> None:
    evidence = gather(store.open(SHIPPED))
    ids, names = evidence.scores.teachers, evidence.scores.objectives
    outcomes, depths, rates = correct_incorrect(evidence), depth_profile(evidence), difficulty(evidence)
    ranking = teacher_ranking(evidence)
    for o, objective in enumerate(names):
        for mark in study.marks(Chart.OUTCOME, 0, o):
            row = outcomes.row(ids[mark.teacher], objective=objective, group="whole paths")
            found = row.intervals["alignment_correct" if mark.series is Series.CORRECT else "alignment_incorrect"]
            assert numbers(mark) == pytest.approx((found.mean, found.low, found.high))
            assert mark.n_questions == found.n
        for m, teacher in enumerate(ids):
            for b, mark in enumerate(study.marks(Chart.DEPTH, m, o)):
                found = depths.row(teacher, objective=objective, group=f"{b / 5:.2g}-{(b + 1) / 5:.2g}").intervals["alignment"]
                assert numbers(mark) == pytest.approx((found.mean, found.low, found.high), nan_ok=True)
                assert mark.n_questions == found.n
            for mark, group in zip(study.marks(Chart.DIFFICULTY, m, o)[:3], ("hard", "medium", "easy"), strict=True):
                found = rates.row(teacher, objective=objective, group=group).intervals["alignment"]
                assert numbers(mark) == pytest.approx((found.mean, found.low, found.high), nan_ok=True)
                assert mark.n_questions == found.n
            assert study.slope(m, o) == rates.row(teacher, objective=objective, group="slope").intervals["alignment"]
    for mark in study.marks(Chart.MATRIX, 0, 0):
        row = ranking.row(ids[mark.teacher], objective=names[mark.objective], group="")
        found = row.intervals["alignment"]
        assert numbers(mark) == pytest.approx((found.mean, found.low, found.high))
        assert (mark.n_nodes, mark.n_questions) == (row.numbers["n_decision_points"], row.numbers["n_questions"])
    for mark in study.marks(Chart.NULLS, 0, 1):
        group = "sign-flipped" if mark.series is Series.FLIPPED else ""
        found = ranking.row(ids[mark.teacher], objective=names[1], group=group).intervals["alignment"]
        assert numbers(mark) == pytest.approx((found.mean, found.low, found.high))


@pytest.mark.parametrize("chart", Chart)
def test_behind_every_mark_stand_its_nodes_each_once_from_worst_to_best(study: Study, chart: Chart) -> None:
    library = Library(SHIPPED)
    for mark in study.marks(chart, 1, 0):
        behind = study.behind(mark)
        assert len(behind) == mark.n_nodes
        assert (np.diff(behind.value_N) >= 0).all()
        if not len(behind) or isnan(mark.mean):
            continue
        nearest = np.abs(behind.value_N - mark.mean)
        assert nearest[behind.typical] == nearest.min()
        for row in {0, behind.typical, len(behind) - 1}:
            page = library.rollout(study.ids[int(behind.question_N[row])], int(behind.rollout_N[row]))
            node = page.node(int(behind.position_N[row]), mark.teacher, mark.objective)
            assert node is not None
            assert node.objectives[mark.objective].alignment == pytest.approx(float(behind.value_N[row]), abs=1e-6)
            assert page.rollout.correct == behind.correct_N[row]
            if mark.series in (Series.CORRECT, Series.INCORRECT):
                assert page.rollout.correct == (mark.series is Series.CORRECT)


def test_a_question_is_the_mean_of_its_paths(study: Study) -> None:
    questions = [mark for mark in study.marks(Chart.DIFFICULTY, 0, 0) if mark.series is Series.QUESTION]
    assert [mark.x for mark in questions] == sorted(mark.x for mark in questions)
    assert len(questions) == 24
    mark = next(mark for mark in questions if mark.label == "q003")
    assert mark.n_nodes == len(study.behind(mark)) == 8
    assert set(study.behind(mark).question_N.tolist()) == {3}


def test_charts_are_walked_round_and_round() -> None:
    assert Chart.OUTCOME.after(1) is Chart.DEPTH
    assert Chart.OUTCOME.after(-1) is Chart.DIFFICULTY


@pytest.mark.parametrize(
    ("low", "high", "at_most", "found"),
    [
        (-0.7, 0.9, 4, [-0.5, 0.0, 0.5]),
        (-0.06, 0.2, 6, [-0.05, 0.0, 0.05, 0.1, 0.15, 0.2]),
        (-1.0, 1.0, 0, [-1.0, 0.0, 1.0]),
        (-0.03, 0.02, 9, [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02]),
        (-0.1, 0.45, 20, [round(place * 0.05, 2) for place in range(-2, 10)]),
    ],
)
def test_ticks_are_round(low: float, high: float, at_most: int, found: list[float]) -> None:
    made = ticks(low, high, at_most)
    assert 0.0 in made and all(low <= tick <= high for tick in made)
    assert made == found


def test_too_many_nodes_and_none_at_all_are_sentences(
    calm_store: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="no node is measured yet"):
        Library(str(empty_store)).charts()
    monkeypatch.setattr("opd_tui.charts.MOST_SCORES", 10)
    with pytest.raises(StoreError, match="too many to draw here"):
        Library(str(calm_store)).charts()
