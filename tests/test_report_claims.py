"""Sentences of a report follow from its numbers: on studies with known effects, and on one with none."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "compute"))

from equal_siblings import equal_siblings
from known_store import known_study, write_known_store

import store
from compute import findings
from compute.evidence import Evidence, gather
from compute.findings import Finding
from compute.statistics import Interval
from opd_tui.report.claims import LOCAL, Claim, claims
from store.tables import StoreCounts
from tests.conftest import ROOT


def all_of(evidence: Evidence) -> list[Finding]:
    return [finding(evidence) for finding in findings.FINDINGS]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    study = known_study(24)
    return all_of(gather(store.open(write_known_store(tmp_path_factory.mktemp("claims") / "S.zarr", study, n_min=200, n_sig=20))))


def counts(n_done: int = 24, n_chosen: int = 0) -> StoreCounts:
    return StoreCounts(24, n_chosen, n_done, n_rollouts=0, n_tokens=0, n_nodes=0, n_completions=0)


def texts(found: list[Claim], verdict: str, teacher: str) -> list[str]:
    return [one.text for one in found if one.verdict == verdict and teacher in one.text]


def test_known_effects_are_said(known: list[Finding]) -> None:
    """Teachers that know p_succ on incorrect paths, early, or nowhere (tests/compute/known_store.py)."""
    found = claims(known, counts())
    assert any("early moves the student towards success" in text for text in texts(found, "supported", "early"))
    assert any("The gain of early is larger early in a response" in text for text in texts(found, "supported", "early"))
    assert any("The gain of fading is larger early" in text for text in texts(found, "supported", "fading"))
    assert any("is larger on incorrect rollouts" in text for text in texts(found, "supported", "incorrect-only"))
    assert any("Whether uninformed helps or harms is not shown" in text for text in texts(found, "not supported", "uninformed"))
    assert not any(text.startswith(("uninformed ", "The gain of uninformed")) for text in texts(found, "supported", "uninformed"))
    assert found[-1].text == LOCAL


def test_where_there_is_nothing_no_teacher_is_said_to_help() -> None:
    """All siblings equal: a sharpened student shows a difference of cosines between outcomes, and no gain."""
    n_supported = 0
    for seed in range(4):
        found = claims(all_of(equal_siblings(24, 200, 20, seed)), counts())
        about_teachers = [one for one in found if one.finding in ("teacher_ranking", "correct_incorrect")]
        assert any(one.verdict == "not supported" for one in about_teachers)
        n_supported += sum(one.verdict == "supported" and "moves the student" in one.text for one in about_teachers)
        n_supported += sum(one.verdict == "supported" and "is larger on" in one.text for one in about_teachers)
    assert n_supported <= 2, "of 16 tests one in twenty shows something by chance"


def changed(
    known: list[Finding], name: str, teacher: str, group: str = "", *, null: bool = False, **given: object
) -> list[Finding]:
    """The same findings with other numbers in one row."""

    def of(row: findings.FindingRow) -> findings.FindingRow:
        if (row.teacher, row.group, row.null) != (teacher, group, null):
            return row
        intervals = {key: value for key, value in given.items() if isinstance(value, Interval)}
        numbers = {key: value for key, value in given.items() if isinstance(value, float)}
        return replace(row, intervals={**row.intervals, **intervals}, numbers={**row.numbers, **numbers})

    return [replace(one, rows=tuple(map(of, one.rows))) if one.name == name else one for one in known]


NAN = float("nan")


@pytest.mark.parametrize(
    ("gain", "p", "verdict", "words"),
    [
        (Interval(0.02, 0.01, 0.03, 24), 0.001, "supported", "towards success"),
        (Interval(-0.02, -0.03, -0.01, 24), 0.001, "supported", "away from success: gain x 1000 is -20.0 [-30.0, -10.0]"),
        (Interval(0.02, -0.01, 0.05, 24), 0.2, "not supported", "is not shown"),
        (Interval(0.02, 0.001, 0.05, 24), 0.06, "not supported", "is not shown"),  # interval and test disagree
        (Interval(0.02, NAN, NAN, 4), NAN, "not supported", "4 questions are too few"),
    ],
)
def test_a_teacher_helps_where_test_and_interval_say_so(
    known: list[Finding], gain: Interval, p: float, verdict: str, words: str
) -> None:
    found = claims(changed(known, "teacher_ranking", "uninformed", gain=gain, p_gain=p), counts())
    assert any(words in text for text in texts(found, verdict, "uninformed"))


def test_what_a_null_earns_as_well_is_not_the_teachers_knowledge(known: list[Finding]) -> None:
    ranking = next(one for one in known if one.name == "teacher_ranking")
    best = next(row for row in ranking.rows if row.teacher == "early" and not row.null)
    for gain, verdict in ((best.intervals["gain"], "not supported"), (Interval(0.0, -0.001, 0.001, 24), "supported")):
        null = replace(best, teacher="hot", null=True, intervals={**best.intervals, "gain": gain})
        with_null = [replace(one, rows=(*one.rows, null)) if one is ranking else one for one in known]
        found = claims(with_null, counts())
        assert any("moves the student towards success" in text and "hot" in text for text in texts(found, verdict, "early"))


def test_a_null_above_the_best_teacher_is_named(known: list[Finding]) -> None:
    ranking = next(one for one in known if one.name == "teacher_ranking")
    best = max((row for row in ranking.rows if not row.null), key=lambda row: row.numbers["probability_best"])
    assert best.numbers["probability_best"] >= 0.95
    for more, named in ((0.001, True), (-0.001, False)):
        gain = Interval(best.intervals["gain"].mean + more, -1.0, 1.0, 24)
        null = replace(best, teacher="hot", null=True, intervals={**best.intervals, "gain": gain})
        with_null = [replace(one, rows=(*one.rows, null)) if one is ranking else one for one in known]
        (said,) = (one for one in claims(with_null, counts()) if "has the largest mean gain" in one.text)
        assert ("That of hot, which knows nothing of the answer, is larger still." in said.text) is named


def test_numbers_in_the_sentences_of_the_shown_report_are_those_of_its_tables() -> None:
    page = (ROOT / "docs" / "report_boolq.md").read_text()
    sentences = [line for line in page.splitlines() if line.startswith("- ") and " flagged" not in line]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| ")]
    n_seen = 0
    for sentence in sentences:
        for number in re.findall(r"[+-]\d+\.\d+ \[[^\]]+\]", sentence):
            teacher = next((name for name in ("self-1c", "self-answer") if name in sentence), "")
            assert any(number in row and row[0] == teacher for row in rows), (number, sentence)
            n_seen += 1
    assert n_seen == 13
    for share, title in ((100, "best"), (24, "cut off")):
        (head, *_) = (row for row in rows if title in row)
        assert any(f"{share}%" in sentence for sentence in sentences)
        cells = [row[head.index(title)] for row in rows[rows.index(head) :] if len(row) == len(head)]
        assert any(cell.startswith(f"{share / 100:.2f}") for cell in cells), (share, cells)


@pytest.mark.parametrize(
    ("after", "p", "words"),
    [
        (Interval(0.03, 0.01, 0.05, 24), 0.001, "Where their paths have parted it is +30.0 [+10.0, +50.0], and holds."),
        (Interval(0.03, -0.01, 0.07, 24), 0.2, "[-10.0, +70.0], which does not show it."),
        (Interval(-0.03, -0.05, -0.01, 24), 0.001, "[-50.0, -10.0], which does not show it."),
    ],
)
def test_a_difference_between_outcomes_is_said_with_what_is_left_after_the_fork(
    known: list[Finding], after: Interval, p: float, words: str
) -> None:
    found = changed(known, "correct_incorrect", "incorrect-only", "after the fork", gain_difference=after, p_gain=p)
    said = texts(claims(found, counts()), "supported", "incorrect-only")
    assert any("is larger on incorrect rollouts" in text and words in text for text in said)


def test_limits_are_said_where_they_are_reached(known: list[Finding]) -> None:
    found = claims(known, counts(20))
    assert any("not finished: 20 of 24 questions" in one.text for one in found)
    sliced = [one.text for one in claims(known, counts(20, 20))]
    assert any("a slice of the study, 20 of its 24 questions" in text for text in sliced)
    assert not any("not finished" in text for text in sliced)
    noisy = changed(known, "teacher_ranking", "early", reliability=Interval(0.2, 0.1, 0.3, 24))
    assert any("Single scores are mostly noise" in one.text for one in claims(noisy, counts()))
    cut = changed(known, "counting", "", truncated=Interval(0.2, 0.1, 0.3, 24))
    assert any("20% of the completions were cut off" in one.text for one in claims(cut, counts()))
    assert not any("cut off" in one.text for one in claims(known, counts()))


def test_a_weak_correlation_is_said_to_be_weak(known: list[Finding]) -> None:
    group = "kl_student_teacher"
    for rho, p, words in (
        (Interval(0.01, -0.05, 0.07, 24), 0.6, "says next to nothing of where the gain of early is large"),
        (Interval(0.4, 0.3, 0.5, 24), 0.001, "The gain of early is larger where KL(P‖T) is large"),
        (Interval(0.1, -0.2, 0.4, 24), 0.5, "That KL(P‖T) tells where the gain of early is large is not shown"),
    ):
        found = claims(changed(known, "within_path_correlation", "early", group, gain=rho, p_gain=p), counts())
        assert any(words in one.text for one in found)
