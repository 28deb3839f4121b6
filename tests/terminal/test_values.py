"""Metrics and views, against numbers made by hand."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import numpy as np
import pytest

import store
from compute.alignment import SUPPORTS
from compute.posterior import posterior
from compute.scores import score
from opd_tui import view
from opd_tui.metrics import BY_KEY, METRICS
from opd_tui.palette import Depth, Palette, contrast, number
from opd_tui.reading import Library
from opd_tui.values import overlap
from opd_tui.view import View
from opd_tui.walk import ranked, sign_flips
from store.errors import StoreError
from tests.terminal.test_overview import last_overview

#: Two real models; the made-up ones have the same likeliest tokens.
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "chain_sums" / "chain_sums.zarr"


@pytest.fixture(scope="module")
def library(calm_store: Path) -> Library:
    return Library(str(calm_store))


def values(library: Library, key: str, teacher: int = 0, second: int | None = None, prior: object = None) -> np.ndarray:
    page = library.rollout("q000", 1)
    sure = page.sure(teacher, 0, prior)  # type: ignore[arg-type]
    return np.array(page.colouring(BY_KEY[key], teacher, 0, sure, second).values)


def test_overlap_is_the_share_of_the_students_top_that_the_teacher_has() -> None:
    library = Library(str(EXAMPLE))
    first = library.catalogue().questions[0]
    rollout = library.rollout(first.id, first.rollouts[0].index).rollout
    shares = set()
    for m in range(len(rollout.teachers)):
        top = rollout.teacher_topk(m)
        found = overlap(rollout, m)
        shares |= set(found.tolist())
        for t in range(len(rollout)):
            students = {one for one in rollout.topk_token_id_TC[t].tolist() if one >= 0}
            n = int(rollout.teacher_topk_n_TM[t, m])
            teachers = set(top.token_id_TC[t, :n].tolist())
            assert found[t] == pytest.approx(len(students & teachers) / len(students))
    assert len(shares) > 1


def test_entropies_are_subtracted(library: Library) -> None:
    rollout = library.rollout("q000", 1).rollout
    expected = rollout.teacher_entropy_TM[:, 1].astype(float) - rollout.entropy_T.astype(float)
    np.testing.assert_allclose(values(library, "entropy-difference", 1), expected)


def test_two_teachers_are_subtracted_and_the_best_is_named(library: Library) -> None:
    page = library.rollout("q000", 1)
    alignment_MN = page.scores.alignment_MON[:, 0]
    difference, best = values(library, "alignment-difference", 0, 2), values(library, "best-teacher")
    for position, row in page.row_of.items():
        np.testing.assert_equal(difference[position], alignment_MN[0, row] - alignment_MN[2, row])
        if np.isfinite(alignment_MN[:, row]).any():
            assert best[position] == np.nanargmax(alignment_MN[:, row])
        else:
            assert isnan(best[position])
    assert len(np.unique(best[np.isfinite(best)])) > 1
    assert np.isnan(values(library, "alignment-difference", 0, None)).all()


def test_p_positive_and_reliability_are_those_of_the_study(calm_store: Path, library: Library) -> None:
    prior = last_overview(calm_store).prior
    assert prior is not None
    page = library.rollout("q000", 1)
    whole = posterior(page.nodes, page.scores, prior)
    p, reliability = values(library, "p-positive", 1, None, prior), values(library, "reliability", 1, None, prior)
    calibrated = bool(whole.calibrated_MO[1, 0])
    for position, row in page.row_of.items():
        np.testing.assert_allclose(p[position], whole.p_positive_MON[1, 0, row] if calibrated else np.nan)
        np.testing.assert_allclose(reliability[position], whole.reliability_N[row])
    assert calibrated and np.isfinite(p).any() and np.isfinite(reliability).any()
    assert np.isnan(values(library, "p-positive")).all()  # no prior, no answer


def test_the_middle_of_a_probability_is_a_half(calm_store: Path, library: Library) -> None:
    page = library.rollout("q000", 1)
    colouring = page.colouring(BY_KEY["p-positive"], 1, 0, page.sure(1, 0, last_overview(calm_store).prior))
    assert (colouring.scale.low, colouring.scale.middle, colouring.scale.high) == (0.0, 0.5, 1.0)
    assert [colouring.scale.step(value) for value in (0.0, 0.5, 1.0)] == [0, 3, 6]
    sure = [
        (place, value) for place, value in enumerate(colouring.values) if not isnan(value) and place not in colouring.uncertain
    ]
    flips = [after[0] for before, after in zip(sure, sure[1:], strict=False) if (before[1] - 0.5) * (after[1] - 0.5) < 0]
    assert sign_flips(colouring) == flips


def test_names_have_no_order(library: Library) -> None:
    colouring = library.rollout("q000", 1).colouring(BY_KEY["best-teacher"], 0, 0)
    assert colouring.scale.names == ("ext-7b", "self-1c", "hot")
    assert ranked(colouring, worst_is_low=False) == []


def test_categories_can_be_read_and_told_apart() -> None:
    for depth in Depth:
        palette = Palette(depth, dark=True)
        styles = [palette.category(place) for place in range(8)]
        if depth is not Depth.NONE:
            assert len({str(style) for style in styles}) == 8
            for style in styles:
                assert style.color is not None and style.bgcolor is not None
                assert contrast(style.color.get_truecolor().hex, style.bgcolor.get_truecolor().hex) >= 4.5
    assert [number(place) for place in (0, 8, 9, 99)] == ["1", "9", "a", "*"]


def test_the_supports_are_those_that_can_be_scored() -> None:
    assert view.SUPPORTS == SUPPORTS


@pytest.mark.parametrize("support", SUPPORTS)
def test_another_view_scores_everything_so(calm_store: Path, support: view.Support) -> None:
    library = Library(str(calm_store))
    catalogue = library.look(View(("jsd(0.3)",), support), "q000")
    assert catalogue.spellings == ("reverse_kl", "forward_kl", "jsd(0.3)")
    page, overview = library.rollout("q000", 0), list(library.overviews())[-1]
    opened = store.open(calm_store)
    nodes = opened.nodes("q000", whole=True)
    names = ("reverse_kl", "forward_kl", "jsd(0.3)")
    expected = score(nodes, n_sig=opened.attributes.n_sig, support=support, objectives=names)
    np.testing.assert_array_equal(page.scores.alignment_MON, expected.alignment_MON)
    assert np.isfinite(page.scores.alignment_MON[:, 2]).any()
    number_of = catalogue.questions.get("q000")
    assert number_of is not None
    found = overview.question(number_of.number, 0, 2)
    np.testing.assert_allclose(found.mean, np.nanmean(expected.alignment_MON[0, 2]), rtol=1e-5)
    assert overview.prior is not None and overview.prior.objectives == names


def test_what_a_store_does_not_keep_is_a_sentence_and_nothing_changes(calm_store: Path) -> None:
    library = Library(str(calm_store))
    with pytest.raises(StoreError, match="top"):
        library.look(View(("top_k_reverse_kl(5000)",)), "q000")
    with pytest.raises(StoreError, match="did you mean"):
        library.look(View(("jsdd",)), None)
    assert library.view == View()
    assert library.catalogue().spellings == ("reverse_kl", "forward_kl")


def test_every_metric_says_what_it_is(library: Library) -> None:
    page = library.rollout("q000", 1)
    for metric in METRICS:
        assert metric.meaning and metric.key == metric.key.lower()
        assert len(page.colouring(metric, 0, 0, None, 1).values) == page.n_tokens
