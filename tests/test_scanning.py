"""What a scan finds is what a person finds who goes through the exported rows one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from compute.posterior import fit
from compute.scores import score
from opd_tui.export.rows import Row, Selection, rows
from opd_tui.search import scanner as subject
from opd_tui.search.columns import Chosen
from opd_tui.search.expression import parse
from opd_tui.search.matches import Found, Match
from opd_tui.search.scanner import Scanner
from opd_tui.search.scanning import scan
from store.reader import Store
from store.tables import TeacherInfo
from store.writer import add_teacher, create, publish_teacher
from tests.synthetic import question_record, root_attributes, write_store
from tests.synthetic_models import vocabulary

TEACHER, OBJECTIVE = "self-1c", "forward_kl"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Seven questions, the sixth left out; two rollouts of each have no nodes."""
    return store.open(
        write_store(tmp_path_factory.mktemp("scan") / "S.zarr", n_questions=7, n_rollouts=6, response_tokens=(20, 40))
    )


@pytest.fixture(scope="module")
def exported(opened: Store) -> list[Row]:
    return [row for row in rows(opened, Selection()) if row["teacher"] == TEACHER]


def found(opened: Store, text: str, **options: Any) -> list[Match]:
    expression = parse(text, [teacher.id for teacher in opened.teachers], opened.attributes.objectives)
    nodes, _ = opened.study_nodes()
    prior = fit(nodes, score(nodes, n_sig=opened.attributes.n_sig))
    blocks = list(scan(Scanner(opened, expression, Chosen(TEACHER, OBJECTIVE), prior=prior), **options))
    assert blocks[-1].n_done == blocks[-1].n_questions
    assert {(one.question, one.rollout) for block in blocks for one in block.matches} == set().union(*(b.where for b in blocks))
    return [one for block in blocks for one in block.matches]


def places(matches: list[Match]) -> list[tuple[str, int, int]]:
    return [(one.question, one.rollout, one.position) for one in matches]


def number(row: Row, name: str, objective: str | None = OBJECTIVE) -> float:
    value = row.get(name)
    value = value.get(objective) if isinstance(value, dict) else value
    return float("nan") if value is None else float(value)


def least_n(row: Row) -> float:
    kept = [child["n_effective"] for child in row.get("children", ()) if child["kept"]]
    return min((np.inf if n is None else n for n in kept), default=np.nan)


def taken(row: Row) -> float:
    found = [child["p_succ"] for child in row.get("children", ()) if child["token_id"] == row["token_id"]]
    return number({"p": found[0]}, "p") if found else np.nan


BY_ROW: dict[str, Callable[[Row], bool]] = {
    "js > 0.05": lambda row: number(row, "js") > 0.05,
    "incorrect & js > 0.05 & position >= 9": lambda row: not row["correct"] and number(row, "js") > 0.05 and row["position"] > 8,
    'token ~ "E" & logprob < -1': lambda row: "e" in row["token"].casefold() and number(row, "student_logprob") < -1,
    "log_ratio > 0.5 | entropy < 1": lambda row: (
        number(row, "teacher_logprob") - number(row, "student_logprob") > 0.5 or number(row, "student_entropy") < 1
    ),
    "teacher_entropy > entropy": lambda row: number(row, "teacher_entropy") > number(row, "student_entropy"),
    "kl_st < kl_ts": lambda row: number(row, "kl_student_teacher") < number(row, "kl_teacher_student"),
    'question ~ "3" & rollout == 1 & token_id > 20': lambda row: (
        "3" in row["question_id"] and row["rollout_index"] == 1 and row["token_id"] > 20
    ),
    "align < -0.3": lambda row: number(row, "alignment") < -0.3,
    "align[reverse_kl] < align": lambda row: number(row, "alignment", "reverse_kl") < number(row, "alignment"),
    "correct & gain > 0 & depth > 0.3 & decision": lambda row: row["correct"] and number(row, "gain") > 0 and row["depth"] > 0.3,
    "p_positive < 0.2": lambda row: number(row, "p_positive") < 0.2,
    "reliability >= 0.8 & known(align)": lambda row: number(row, "reliability") >= 0.8 and number(row, "alignment") > -2,
    "reliability < 0.9 & js > 0": lambda row: number(row, "reliability") < 0.9 and number(row, "js") > 0,
    "advantage > 0.02": lambda row: number(row, "teacher_advantage") > 0.02,
    "success_range > 0.5 & n_kept > 2": lambda row: number(row, "success_range", None) > 0.5 and number(row, "n_kept") > 2,
    "n > 25 & decision": lambda row: least_n(row) > 25,
    "p_succ < 0.3 & decision": lambda row: taken(row) < 0.3,
    "n_children >= 4 & decision": lambda row: sum(child["kind"] != "rest" for child in row.get("children", ())) >= 4,
    "completions > 100 & decision": lambda row: sum(child["n_completions"] for child in row.get("children", ())) > 100,
}  # fmt: skip


@pytest.mark.parametrize("text", BY_ROW)
def test_tokens_and_nodes_are_those_of_the_rows(opened: Store, exported: list[Row], text: str) -> None:
    lengths: dict[tuple[str, int], int] = {}
    for row in exported:
        lengths[row["question_id"], row["rollout_index"]] = row["position"] + 1
    for row in exported:
        row["depth"] = row["position"] / lengths[row["question_id"], row["rollout_index"]]
        row["success_range"] = row.get("success_rate_range")
    expected = [(row["question_id"], row["rollout_index"], row["position"]) for row in exported if BY_ROW[text](row)]
    assert 0 < len(expected) < len(exported)
    assert places(found(opened, text)) == expected


def test_another_teacher_can_be_named(opened: Store, exported: list[Row]) -> None:
    of_another = [row for row in rows(opened, Selection(teachers=("ext-7b",))) if number(row, "js") > 0.05]
    assert places(found(opened, "js[ext-7b] > 0.05")) == [
        (row["question_id"], row["rollout_index"], row["position"]) for row in of_another
    ]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("correct", lambda one: one.correct),
        ("!correct & length > 25", lambda one: not one.correct and one.n_tokens > 25),
        ("truncated | n_nodes > 5", lambda one: one.finish_reason == 1 or one.n_nodes > 5),
        ("!path & reward == 0", lambda one: one.path_kind == 0 and one.reward == 0),
    ],
)
def test_rollouts_are_those_of_the_lists(opened: Store, text: str, holds: Callable[[Any], bool]) -> None:
    expected = [(row.id, one.index, -1) for row in opened.questions() for one in row.rollouts if holds(one)]
    assert 0 < len(expected) < 42
    assert places(found(opened, text)) == expected


def test_means_along_rollouts(opened: Store, exported: list[Row]) -> None:
    values: dict[tuple[str, int], list[float]] = {}
    for row in exported:
        value = number(row, "alignment")
        if np.isfinite(value):
            values.setdefault((row["question_id"], row["rollout_index"]), []).append(value)
    low = [(*key, -1) for key, one in values.items() if np.mean(one) < 0]
    assert places(matches := found(opened, "mean_align < 0")) == low and low
    assert [one.value for one in matches] == pytest.approx([np.mean(values[key[:2]]) for key in low])
    assert places(found(opened, "worst_align > -0.8")) == [(*key, -1) for key, one in values.items() if min(one) > -0.8]
    assert places(found(opened, "!(mean_align < 0)")) == [(*key, -1) for key in values if (*key, -1) not in low]
    with_both = [
        (*key, position) for key, position in ((p[:2], p[2]) for p in places(found(opened, "js > 0.05"))) if (*key, -1) in low
    ]
    assert places(found(opened, "mean_align < 0 & js > 0.05")) == with_both


def test_questions_are_those_of_the_list(opened: Store) -> None:
    for text, holds in (
        ("left_out", lambda row: row.status != 0),
        ("success >= 0.5 & number != 3", lambda row: row.success_rate >= 0.5 and row.number != 3),
        ("n_correct == 0 | n_rollouts < 3", lambda row: row.n_correct == 0 or row.n_rollouts < 3),
    ):
        assert places(found(opened, text)) == [(row.id, -1, -1) for row in opened.questions() if holds(row)]
    assert places(found(opened, "null")) == [] and len(found(opened, "!null & true")) == 7
    assert len(found(opened, "judged_only")) == 0


def test_values_are_those_of_the_first_number_and_tokens_have_their_text(opened: Store, exported: list[Row]) -> None:
    by_place = {(row["question_id"], row["rollout_index"], row["position"]): row for row in exported}
    for one in found(opened, "correct & align < 0 & js > 0"):
        row = by_place[one.question, one.rollout, one.position]
        assert one.value == number(row, "alignment")
        assert one.text.replace("·", " ") == row["token"] or not row["token"].isalpha()
    assert all(np.isnan(one.value) for one in found(opened, "correct"))


def test_small_blocks_and_few_listed_change_no_count(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(opened, "align < 0 | js > 0.1")
    monkeypatch.setattr(subject, "BLOCK_TOKENS", 50)
    assert found(opened, "align < 0 | js > 0.1", every=0.0) == whole
    tokens = parse("js > 0.05")
    blocks: list[Found] = list(scan(Scanner(opened, tokens, Chosen(TEACHER, OBJECTIVE)), most=5, every=0.0))
    assert sum(len(block.matches) for block in blocks) == 5 < sum(block.n for block in blocks)
    assert sum(block.n for block in blocks) == len(found(opened, "js > 0.05"))
    assert [block.n_done for block in blocks] == list(range(8))


def test_a_scan_reads_no_more_than_its_names_ask_for(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    real = Store.columns

    def columns(self: Store, question: str, *rest: Any) -> Any:
        asked.append((question, rest))
        return real(self, question, *rest)

    monkeypatch.setattr(Store, "columns", columns)
    monkeypatch.setattr(Store, "rollout", None)
    list(scan(Scanner(opened, parse("correct & length > 3"), Chosen(TEACHER, OBJECTIVE)), most=0))
    assert not asked
    list(scan(Scanner(opened, parse("number == 2 & !correct & js > 0"), Chosen(TEACHER, OBJECTIVE)), most=0))
    assert {question for question, _ in asked} == {"q002"}
    assert all(rest[1:] == (set(), {"divergence"}, [TEACHER]) for _, rest in asked)


def test_a_teacher_that_was_not_asked_is_missing(tmp_path: Path) -> None:
    path = write_store(tmp_path / "S.zarr", n_questions=2, questions_per_part=1)
    add_teacher(path, TeacherInfo("late", "external", "", "late-1b", False, "added later"))
    publish_teacher(path, store.open(path).part_ids[0], "late", question_record(0).teachers["ext-7b"])
    both = store.open(path)
    for text in ("js[late] >= 0", "!(js[late] < 0)", "known(teacher_logprob[late])", "known(align[late])"):
        assert {one.question for one in found(both, text)} == {"q000"}, text
    assert {one.question for one in found(both, "known(mean_align[late])")} == {"q000"}
    assert {one.question for one in found(both, "!known(js[late])")} == {"q001"}
    assert {one.question for one in found(both, "js[ext-7b] >= 0")} == {"q000", "q001"}
    judged_only = [name for name in ("q000", "q001") if "late" in both.judged_only(name)]
    assert [one.question for one in found(both, "judged_only[late]")] == judged_only
    assert found(both, "judged_only") == []
    nodes = both.nodes("q000")
    bit = [one.id for one in both.teachers].index(TEACHER)
    expected = {int(p) for p, bits in zip(nodes.position_N, nodes.nominated_by_N, strict=True) if bits == 0 or bits >> bit & 1}
    assert {one.position for one in found(both, "nominated & number == 0")} == expected


def test_an_empty_store_is_scanned(tmp_path: Path) -> None:
    create(tmp_path / "S.zarr", root_attributes(2), vocabulary(False), range(3))
    for text in ("correct", "success > 0", "align < 0", "js > 0", "p_positive > 0"):
        assert list(scan(Scanner(store.open(tmp_path / "S.zarr"), parse(text), Chosen(TEACHER, OBJECTIVE)))) == [
            Found((), 0, frozenset(), 0, 0)
        ]
