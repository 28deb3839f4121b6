"""Every finding gives back the truth of a study whose truth is known, from a store on disk."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from equal_siblings import equal_siblings
from known_store import TEACHERS, exact, known_study, write_known_store
from msgspec.structs import replace as replaced

import store
from benchmarks.made_tables import shares
from benchmarks.small_language_model import LENGTH, small_study
from compute import findings
from compute.evidence import Evidence, evidence
from compute.findings import Finding, FindingRow, correct_incorrect, counting, gather, selection_gain, teacher_ranking
from compute.rules import everywhere
from compute.selection import judge
from compute.statistics import Interval, jackknife_t, t_interval
from compute.summary import ratio
from store.schema import ChildKind

N_QUESTIONS = 24


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The findings of the store, and those of the same study with the true p_succ in place of counts."""
    study = known_study(N_QUESTIONS)
    opened = store.open(write_known_store(tmp_path_factory.mktemp("known") / "S.zarr", study, n_min=200, n_sig=20))
    found = gather(opened)
    true = exact(found, study)
    truths = {finding.__name__: finding(true) for finding in findings.FINDINGS}
    truths["within_path_correlation"] = findings.within_path_correlation(ties_broken(true))
    return SimpleNamespace(
        evidence=found,
        found={finding.__name__: finding(found) for finding in findings.FINDINGS},
        true=truths,
    )


def ties_broken(true: Evidence) -> Evidence:
    """A teacher that knows is aligned with +1 everywhere: ranks among equals are chance, in the truth as in what is found."""
    scores = true.scores
    chance_MON = 1e-6 * np.random.default_rng(0).normal(size=scores.alignment_MON.shape)
    return replace(true, scores=replaced(scores, alignment_MON=scores.alignment_MON + chance_MON))


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def pairs(known: SimpleNamespace, name: str) -> Iterator[tuple[FindingRow, FindingRow]]:
    """Rows of what was found and of the truth, side by side."""
    for row in known.found[name].rows:
        yield row, known.true[name].row(row.teacher, group=row.group, objective=row.objective, null=row.null)


#: Raw cosines are drawn towards zero by noise, and these are made of them.
SHRUNK = ("alignment", "sr_weighted", "reliability", "mean", "std", "share_positive", "more_alignment")


@pytest.mark.parametrize("name", [finding.__name__ for finding in findings.FINDINGS])
def test_every_number_of_every_finding_is_near_the_truth(known: SimpleNamespace, name: str) -> None:
    """At 200 completions a child: cosines within .13 and their ranks within .15, gains (of a size of .06) within .006 and
    their ranks within .05; what noise does not shrink has the truth in its interval. Unsplit choice is wrong by its nature."""
    n_compared = 0
    for row, true in pairs(known, name):
        for measure, interval in row.intervals.items():
            truth = true.intervals[measure].mean
            if measure == "reliability" or "unsplit" in measure or math.isnan(truth):
                continue
            of_gain, of_ranks = "gain" in measure, name == "within_path_correlation"
            at_most = (0.05 if of_gain else 0.15) if of_ranks else 0.006 if of_gain else 0.13
            if row.group == "slope" or "effective_n" in measure:
                at_most *= 2.0
            assert abs(interval.mean - truth) <= at_most, (row.teacher, row.group, measure, interval, truth)
            if not measure.startswith(SHRUNK) and interval.high > interval.low:
                assert covers(interval, truth), (row.teacher, row.group, measure, interval, truth)
            n_compared += 1
    everything = sum(len(row.intervals) for row in known.found[name].rows)
    assert n_compared == everything if name == "within_path_correlation" else n_compared >= 5


def test_the_store_has_what_was_put_in(known: SimpleNamespace) -> None:
    evidence = known.evidence
    assert evidence.scores.teachers == TEACHERS
    assert set(evidence.length_L.tolist()) == {LENGTH}
    assert [evidence.success_rates[number] for number in range(3)] == [0.9, 0.5, 0.1]
    P, T = (np.exp(a) for a in (evidence.nodes.logprob_NK, evidence.nodes.teacher_logprob_MNK[1]))
    kl_N = np.nansum(P * np.log(P / T), axis=1)
    np.testing.assert_allclose(evidence.features["kl_student_teacher"][1], kl_N[evidence.paths.node_P], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(evidence.features["depth"][0], evidence.nodes.position_N[evidence.paths.node_P] / LENGTH)


def test_the_ranking_puts_the_teacher_first_that_knows_most(known: SimpleNamespace) -> None:
    ranking = known.found["teacher_ranking"]
    order = [row.teacher for row in ranking.rows if not row.null]
    assert order[0] == "early" and order[-1] == "uninformed"
    assert [row.null for row in ranking.rows] == [False] * 5 + [True] * 5
    uninformed = ranking.row("uninformed", null=False)
    for measure in ("alignment", "gain", "pooled", "sr_weighted", "advantage"):
        assert covers(uninformed.intervals[measure], 0.0)
        assert ranking.row("early").intervals[measure].low > 0.0
    assert ranking.row("early").numbers["p_gain"] < 0.001
    assert uninformed.numbers["p_gain"] > 0.05
    best = {row.teacher: row.numbers["probability_best"] for row in ranking.rows if not row.null}
    assert sum(best.values()) == pytest.approx(1.0) and best["early"] > 0.9 and best["uninformed"] == 0.0
    for row in ranking.rows:
        if row.null:
            assert row.group == "sign-flipped" and covers(row.intervals["gain"], 0.0)


def test_a_teacher_that_knows_on_incorrect_rollouts_only(known: SimpleNamespace) -> None:
    """Off the shared prefix its alignment is exactly 1 on incorrect paths and nothing on correct ones."""
    true = known.true["correct_incorrect"].row("incorrect-only", group="after the fork")
    assert true.intervals["alignment_incorrect"].mean == pytest.approx(1.0, abs=1e-6)
    row = known.found["correct_incorrect"].row("incorrect-only", group="after the fork")
    assert row.intervals["alignment_incorrect"].mean > 0.9
    assert covers(row.intervals["alignment_correct"], 0.0) and covers(row.intervals["gain_correct"], 0.0)
    assert covers(row.intervals["alignment_difference"], 1.0)
    assert row.numbers["p_alignment"] < 0.001 and row.numbers["p_gain"] < 0.001 and not row.flags
    whole = known.found["correct_incorrect"].row("incorrect-only", group="whole paths")
    assert 0.2 < whole.intervals["alignment_difference"].mean < row.intervals["alignment_difference"].mean
    for teacher in ("early", "easy-only", "uninformed"):
        assert covers(known.found["correct_incorrect"].row(teacher, group="whole paths").intervals["gain_difference"], 0.0)


def test_along_the_path(known: SimpleNamespace) -> None:
    """`early` turns round in the middle, where it also becomes quiet: alignment falls with depth and rises with KL."""
    profile = [known.found["depth_profile"].row("early", group=group) for group in ("0-0.2", "0.2-0.4", "0.6-0.8", "0.8-1")]
    first, second, fourth, last = (row.intervals["alignment"].mean for row in profile)
    assert first > 0.85 and second > 0.8 and fourth < -0.85 and last < -0.95
    rho = known.found["within_path_correlation"]
    for measure in ("alignment", "gain"):
        assert rho.row("fading", group="depth").intervals[measure].high < -0.4
    assert rho.row("early", group="depth").intervals["alignment"].high < -0.2
    for feature in ("kl_student_teacher", "kl_teacher_student", "js", "l2"):
        assert rho.row("early", group=feature).intervals["alignment"].low > 0.2
        assert covers(rho.row("uninformed", group=feature).intervals["alignment"], 0.0)
    assert rho.row("early", group="cosine").intervals["alignment"].high < -0.2
    assert covers(rho.row("uninformed", group="depth").intervals["gain"], 0.0)


def test_difficulty(known: SimpleNamespace) -> None:
    found = known.found["difficulty"]
    easy, medium, hard = (found.row("easy-only", group=group) for group in ("easy", "medium", "hard"))
    assert easy.intervals["alignment"].mean > 0.9
    assert covers(medium.intervals["alignment"], 0.0) and covers(hard.intervals["alignment"], 0.0)
    assert [row.numbers["n_questions"] for row in (easy, medium, hard)] == [N_QUESTIONS / 3] * 3
    assert found.row("easy-only", group="slope").intervals["gain"].low > 0.0
    for teacher in ("early", "uninformed"):
        assert covers(found.row(teacher, group="slope").intervals["gain"], 0.0)


def test_two_children_and_spread(known: SimpleNamespace) -> None:
    scores = known.evidence.scores
    share = known.found["two_children"].row()
    assert 0.05 < share.intervals["share"].mean < 0.35
    assert share.numbers["n_decision_points"] == scores.decision_point_N.sum()
    left_out = teacher_ranking(known.evidence, min_children=3).row("early", null=False)
    assert left_out.intervals["gain"] == known.found["two_children"].row("early", group="three or more").intervals["gain"]
    # +1 on one side of the middle and -1 on the other.
    assert known.true["spread"].row("early").intervals["std"].mean == pytest.approx(
        math.sqrt(1.0 - known.true["spread"].row("early").intervals["mean"].mean ** 2), abs=1e-6
    )


def test_what_choosing_is_worth(known: SimpleNamespace) -> None:
    found = known.found["selection_gain"]
    gate = found.row("incorrect-only", group="fitted gate")
    assert gate.notes == ("correct <= 0",) * 3
    assert gate.intervals["more_gain"].low > 0.0 and gate.intervals["share"].mean == 0.5
    assert "depth <=" in found.row("early", group="fitted gate").notes[2]
    per = {per: found.row(group=f"best per {per}").intervals["gain_split"].mean for per in ("study", "question", "node")}
    assert per["study"] < per["question"] < per["node"]
    for row in found.rows:
        assert row.intervals["gain_unsplit"].mean >= row.intervals["gain_split"].mean - 1e-3


def test_findings_are_plain_json(known: SimpleNamespace) -> None:
    for name, finding in known.found.items():
        plain = json.loads(json.dumps(finding.to_json(), allow_nan=False))
        assert plain["name"] == name and len(plain["rows"]) == len(finding.rows)
        measure, interval = next(iter(finding.rows[0].intervals.items()))
        assert plain["rows"][0]["intervals"][measure]["mean"] == interval.mean


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="has no row of teacher 'x'"):
        Finding("spread", "", (FindingRow(teacher="y"),)).row("x")


@pytest.mark.parametrize(("path_n", "direction"), [(400, 1.0), (20, -1.0)])
def test_a_difference_that_counting_noise_makes_is_flagged(path_n: int, direction: float) -> None:
    """No child is better than its siblings, and yet the mean cosine of a merely sharpened student differs between
    correct and incorrect paths, one way or the other by how completions are spread. Gain does not."""
    for row in correct_incorrect(equal_siblings(600, path_n, 20, seed=0)).rows:
        assert covers(row.intervals["gain_difference"], 0.0)
        if row.teacher == "sharpened":
            assert row.numbers["p_alignment"] < 0.05 < row.numbers["p_gain"]
            assert 0.02 < direction * row.intervals["alignment_difference"].mean < 0.07
            assert [flag for flag in row.flags if "for the cosine only" in flag]
        else:
            assert covers(row.intervals["alignment_difference"], 0.0) and not row.flags


def test_luck_is_named(known: SimpleNamespace) -> None:
    for row in selection_gain(equal_siblings(100, 20, 20, seed=2)).rows:
        if row.group in ("alignment >= 0", "best per node"):
            assert row.intervals["gain_unsplit"].low > 0.0
            assert [flag for flag in row.flags if "is luck" in flag]
    assert not known.found["selection_gain"].row("early", group="alignment >= 0").flags


@pytest.fixture(scope="module")
def many() -> Evidence:
    """240 questions of an exact model at 20 completions a child, as a population to draw studies from."""
    study = small_study("mixing", 240, 7, objectives=("reverse_kl",))
    nodes = study.simulate(shares(study.children, 20), times=1, seed=0)
    return evidence(nodes, study.paths, n_sig=10, length_L=np.full(len(study.paths.question_L), LENGTH))


@pytest.mark.parametrize("n_questions", [6, 8, 12, 20, 40])
def test_intervals_cover_what_they_promise(many: Evidence, n_questions: int) -> None:
    """Of 95 % intervals over studies of few questions 93 to 97 % cover: of means, paired differences and ratios."""
    averages, scores = many.averages, many.scores
    rng = np.random.default_rng(n_questions)
    hits: dict[str, list[bool]] = {"alignment": [], "gain": [], "difference": [], "sr_weighted": []}
    range_P = scores.success_rate_range_N[averages.node_P]
    for m in range(len(scores.teachers)):
        alignment_P, gain_P = scores.alignment_MON[m, 0, averages.node_P], scores.gain_MON[m, 0, averages.node_P]
        columns_CP = np.stack([alignment_P, gain_P, range_P * alignment_P, np.where(np.isnan(alignment_P), np.nan, range_P)])
        mean_CQ = averages.question_means(columns_CP)
        incorrect_CQ, correct_CQ = (averages.question_means(columns_CP, outcome) for outcome in ("incorrect", "correct"))
        difference_Q = (incorrect_CQ - correct_CQ)[1]
        mean_CQ, difference_Q = (a[..., np.isfinite(difference_Q)] for a in (mean_CQ, difference_Q))
        truths = [*mean_CQ[:2].mean(axis=1), difference_Q.mean(), ratio(mean_CQ[2:].mean(axis=1))]
        for _ in range(600):
            drawn = rng.integers(len(difference_Q), size=n_questions)
            intervals = (
                t_interval(mean_CQ[0, drawn]),
                t_interval(mean_CQ[1, drawn]),
                t_interval(difference_Q[drawn]),
                jackknife_t(mean_CQ[2:, drawn].T, ratio),
            )
            for kept, interval, truth in zip(hits.values(), intervals, truths, strict=True):
                kept.append(covers(interval, float(truth)))
    for measure, kept in hits.items():
        assert 0.93 <= np.mean(kept) <= 0.97, (measure, np.mean(kept))


def test_teachers_are_compared_on_the_same_questions_everywhere(known: SimpleNamespace) -> None:
    """A teacher without scores in one question takes it from all, in every finding; one without any takes nothing."""
    scores = known.evidence.scores
    alignment_MON = scores.alignment_MON.copy()
    alignment_MON[3, 0, known.evidence.nodes.question_N == 0] = np.nan
    alignment_MON[2] = np.nan
    replaced = {"alignment_MON": alignment_MON}
    kept = {name: getattr(scores, name) for name in type(scores).__struct_fields__ if name not in replaced}
    fields = {name: getattr(known.evidence, name) for name in Evidence.__slots__}
    thinned = Evidence(**{**fields, "scores": type(scores)(**kept, **replaced)})
    for finding in (findings.teacher_ranking, findings.spread):
        assert {row.numbers["n_questions"] for row in finding(thinned).rows} == {N_QUESTIONS - 1}
        assert math.isnan(finding(thinned).row("easy-only").intervals[next(iter(finding(thinned).rows[0].intervals))].mean)
    chosen = judge(thinned, everywhere("early"), teachers=["early"])
    assert chosen.split.gain.n == chosen.unsplit.gain.n == N_QUESTIONS - 1
    for finding, group in ((findings.depth_profile, "0-0.2"), (findings.difficulty, "easy"), (findings.two_children, "two")):
        rows = [row for row in finding(thinned).rows if row.group == group]
        assert len({row.numbers["n_questions"] for row in rows}) == 1
        before = known.found[finding.__name__].row("early", group=group)
        assert rows[0].numbers["n_questions"] == before.numbers["n_questions"] - 1


def test_gap_mass_and_counts() -> None:
    study = small_study("mixing", 8, 1, targeting="sparse", objectives=("reverse_kl",))
    nodes = study.simulate(shares(study.children, 40), times=1, seed=0)
    found = counting(evidence(nodes, study.paths, n_sig=20, length_L=np.full(len(study.paths.question_L), LENGTH))).row()
    gaps = [1.0 - child.stay for row in study.children for child in row if child.kind == ChildKind.ON_PATH]
    assert 0.2 < found.intervals["gap_mass"].mean < 1.0
    assert found.intervals["gap_mass"].mean == pytest.approx(np.mean(gaps), abs=0.1)
    assert found.intervals["effective_n_off_path"].mean == pytest.approx(40.0)
    assert found.numbers["n_completions"] == nodes.group_n_G.sum()


def test_a_study_without_anything(known: SimpleNamespace, tmp_path: Path) -> None:
    """A store without a part yet: findings without a number, and no error."""
    study = known_study(1)
    path = write_known_store(tmp_path / "S.zarr", study, n_min=20, n_sig=20, publish_part=False)
    for finding in findings.all_findings(store.open(path)):
        for row in finding.rows:
            assert all(math.isnan(interval.mean) for interval in row.intervals.values())


def test_findings_load_numpy_alone() -> None:
    heavy = ("torch", "transformers", "scipy", "zarr", "tensorstore", "textual")
    code = f"import sys, compute.findings; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
