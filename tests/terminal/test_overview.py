"""What the lists say of the whole study is what scoring all of it at once says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driving import NARROW, browsing, picture, until
from msgspec.structs import replace

import store
from compute.posterior import fit, posterior
from compute.scores import score
from compute.summary import summarise
from opd_tui import overview as subject
from opd_tui.facts import Score
from opd_tui.numbers import signed
from opd_tui.reading import Library


def last_overview(path: Path) -> subject.Overview:
    """The whole study."""
    (*_, last) = Library(str(path)).overviews()
    return last


@pytest.mark.parametrize("block", [1, 25, 10_000])
def test_scoring_in_blocks_changes_nothing(calm_store: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(subject, "BLOCK", block)
    nodes, _ = store.open(calm_store).study_nodes()
    whole, (alignment_MON, gain_MON) = score(nodes, n_sig=20), subject.score_in_blocks(nodes, 20)
    np.testing.assert_allclose(alignment_MON, whole.alignment_MON, rtol=1e-9)
    np.testing.assert_allclose(gain_MON, whole.gain_MON, rtol=1e-9)


def test_part_by_part_is_the_same_and_what_was_scored_is_kept(calm_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opd_tui.reading.TELL_EVERY", 0.0)
    library = Library(str(calm_store))
    steps = list(library.overviews())
    assert len(steps) == len(store.open(calm_store).part_ids) > 1
    assert [step.complete for step in steps] == [False] * (len(steps) - 1) + [True]
    assert "of the study scored" in steps[0].note and not steps[-1].note
    assert steps[0].prior is None and steps[-1].prior is not None
    monkeypatch.setattr(subject, "score_part", lambda *_: pytest.fail("scored again"))
    (*_, again) = library.overviews()
    assert again.mean(1, 0) == steps[-1].mean(1, 0)


def test_questions_rollouts_and_teachers_have_their_means(calm_store: Path) -> None:
    opened = store.open(calm_store)
    nodes, paths = opened.study_nodes()
    scores = score(nodes, n_sig=opened.attributes.n_sig)
    found = last_overview(calm_store)
    number = int(paths.question_L[0])
    along = scores.alignment_MON[1, 0, paths.node_P[paths.start_L1[0] : paths.start_L1[1]]]
    rollout = found.rollout(number, int(paths.rollout_index_L[0]), 1, 0)
    assert rollout.mean == pytest.approx(np.nanmean(along), rel=1e-5)
    assert rollout.worst == pytest.approx(np.nanmin(along), rel=1e-5)
    inside = scores.alignment_MON[1, 0, nodes.question_N == number]
    assert found.question(number, 1, 0).mean == pytest.approx(np.nanmean(inside), rel=1e-5)
    rows = summarise(nodes, paths, scores, null_teachers=nodes.teachers).rows
    row = next(
        row for row in rows if (row.teacher, row.objective, row.outcome) == (nodes.teachers[1], nodes.objectives[0], "all")
    )
    mean = found.mean(1, 0)
    assert (mean.mean, mean.low, mean.high) == pytest.approx(
        (row.alignment.mean, row.alignment.low, row.alignment.high), nan_ok=True
    )
    assert mean.gain == pytest.approx(row.gain.mean)
    chosen = [row for row in rows if (row.teacher, row.objective) == (nodes.teachers[1], nodes.objectives[0])]
    apart = {row.outcome: row.alignment.mean for row in chosen}
    assert (mean.correct, mean.incorrect) == pytest.approx((apart["correct"], apart["incorrect"]), nan_ok=True)


async def test_a_teachers_mean_gain_stands_beside_its_mean_alignment_in_80_columns(calm_store: Path) -> None:
    async with browsing(calm_store, NARROW) as (pilot, screen):
        assert screen.session.overview is not None
        mean = screen.session.overview.mean(0, 0)
        lines = [line for line in picture(pilot).splitlines() if "mean " in line and " gain " in line]
        assert f"mean {signed(mean.mean):>4} gain {signed(mean.gain, 3):>5} ✓ {signed(mean.correct):>4}" in lines[0]
        assert max(map(len, lines)) <= NARROW[0]


async def test_signs_are_uncertain_by_what_the_study_says_of_them(calm_store: Path) -> None:
    """Before the study is scored, and for nodes that it cannot speak of, by the error of the gain alone."""
    opened = store.open(calm_store)
    nodes, _ = opened.study_nodes()
    prior = fit(nodes, score(nodes, n_sig=opened.attributes.n_sig))
    async with browsing(calm_store) as (pilot, screen):
        session = screen.session
        await until(pilot, lambda: session.overview is not None)
        page = session.page
        assert page is not None and session.metric.needs == "objective"
        p_N = posterior(page.nodes, page.scores, prior).p_positive_MON[session.teacher, session.objective]
        known = {position: row for position, row in page.row_of.items() if np.isfinite(p_N[row])}
        uncertain = {position for position, row in known.items() if 0.05 <= p_N[row] <= 0.95}
        assert len(known) > 5 and session.colouring.uncertain & known.keys() == uncertain
        alone = page.colouring(session.metric, session.teacher, session.objective).uncertain
        gain_N, se_N = (a[session.teacher, session.objective] for a in (page.scores.gain_MON, page.scores.gain_se_MON))
        assert alone & known.keys() == {position for position, row in known.items() if abs(gain_N[row]) < 1.96 * se_N[row]}
        other = replace(prior, teachers=("another",))
        assert (
            page.colouring(
                session.metric, session.teacher, session.objective, page.sure(session.teacher, session.objective, other)
            ).uncertain
            == alone
        )


def test_what_was_not_scored_has_no_numbers(calm_store: Path) -> None:
    nothing = last_overview(calm_store).question(99, 0, 0)
    assert isinstance(nothing, Score)
    assert nothing.n_scored == 0
    assert not np.isfinite(nothing.mean)
