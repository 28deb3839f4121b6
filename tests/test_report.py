"""What a report says in 80 columns and in 120, held against its JSON."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from compute.findings import Finding, FindingRow
from compute.statistics import Interval
from opd_tui.report.document import document
from opd_tui.report.terminal import table
from tests.conftest import run_opd
from tests.synthetic import write_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("report") / "S.zarr", n_questions=12, response_tokens=(30, 60))


@pytest.fixture(scope="module")
def found(made: Path) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(run_opd("report", made, "--json").stdout)["findings"]}


def report(path: Path, columns: int) -> str:
    text = run_opd("report", path, "--objective", "reverse_kl", env={**os.environ, "COLUMNS": str(columns)}).stdout
    assert max(map(len, text.splitlines())) <= columns
    return text


def part(text: str, title: str) -> list[str]:
    """The lines of one finding, without its title."""
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith(title))
    return lines[first + 1 : lines.index("", first)]


def test_every_line_says_how_many_questions_it_rests_on(made: Path, found: dict[str, Any]) -> None:
    text = report(made, 80)
    for name, finding in found.items():
        rows = [row for row in finding["rows"] if row["objective"] in ("", "reverse_kl")]
        numbers = {next(iter(row["intervals"].values()))["n"] for row in rows}
        if len(numbers) == 1:
            assert f"{finding['title']}  n = {numbers.pop()}\n" in text
            continue
        lines = [line for line in part(text, finding["title"]) if not line.startswith("!")]
        for row in (row for row in rows if row["teacher"]):
            shown = [line for line in lines if line.startswith(row["teacher"]) and f" {row['group']} " in line]
            assert len(shown) == 1 and shown[0].endswith(f" {next(iter(row['intervals'].values()))['n']}"), (name, row)
    assert text.count("  n = ") < len(found), "in no finding did lines rest on different questions"


def test_the_ranking_shows_its_p_values_and_on_a_broad_terminal_pooled_gain(made: Path, found: dict[str, Any]) -> None:
    ranking = found["teacher_ranking"]
    rows = [row for row in ranking["rows"] if row["objective"] == "reverse_kl"]
    narrow, broad = (part(report(made, columns), ranking["title"]) for columns in (80, 120))
    assert "pooled" not in narrow[0] and re.search(r"pooled +SR-weighted +positive$", broad[0])
    for row, short, long in zip(rows, narrow[1:], broad[1:], strict=True):
        p, pooled = row["numbers"]["p_gain"], row["intervals"]["pooled"]
        said = " <.001 " if p < 0.0005 else f" {p:.3f}".replace(" 0.", " .") + " "
        assert said in short and said in long
        assert f" {pooled['mean']:+.3f} [{pooled['low']:+.3f}, {pooled['high']:+.3f}] " in long
        assert f" {row['intervals']['sr_weighted']['mean']:+.2f} " in long


def test_gain_stands_beside_the_mean_whose_spread_is_shown(made: Path, found: dict[str, Any]) -> None:
    spread = found["spread"]
    for row, line in zip(spread["rows"], part(report(made, 80), spread["title"])[1:], strict=False):
        gain = row["intervals"]["gain"]
        assert f"{1000 * gain['mean']:+.1f} [{1000 * gain['low']:+.1f}, {1000 * gain['high']:+.1f}]" in line


@pytest.mark.parametrize("teacher", ["t", "a-teacher-with-a-long-name", "後知恵の先生の先生"])
def test_names_give_way_to_numbers(teacher: str) -> None:
    """The widest numbers that a study may have leave a name less room than it takes; none of them is cut."""
    intervals = {
        "alignment_difference": Interval(-0.5, -1.066, 0.315, 128),
        "gain_difference": Interval(-0.1024, -0.3025, 0.1097, 128),
    }
    rows = [FindingRow(teacher, "reverse_kl", group, intervals=intervals) for group in ("whole paths", "after the fork")]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(Finding("correct_incorrect", "", tuple(rows)), rows, counted=True, width=80))
    for line, row in zip(captured.get().splitlines()[1:], rows, strict=True):
        assert line.endswith("-0.500 [-1.066, +0.315] -102.4 [-302.5, +109.7] 128") and f" {row.group} " in line
        assert cell_len(line) <= 80 and line.startswith(teacher[:4])


def test_what_follows_its_own_completions_is_flagged(computed: Path) -> None:
    found = run_opd("report", computed, "--objective", "dr_grpo", "--json")
    rows = next(one for one in json.loads(found.stdout)["findings"] if one["name"] == "teacher_ranking")["rows"]
    assert all("noise counts as agreement" in row["flags"][-1] for row in rows)
    shown = run_opd("report", computed, "--objective", "dr_grpo")
    assert "believe neither its cosine nor its gain" in re.sub(r"\s+", " ", shown.stdout)
    assert "noise counts" not in run_opd("report", computed).stdout


def test_biased_counting_is_marked(computed: Path) -> None:
    found = json.loads(run_opd("report", computed, "--estimator", "plain", "--json").stdout)
    assert found["estimator"] == "plain"
    assert all("counted as `plain`, which is biased" in row["flags"][-1] for one in found["findings"] for row in one["rows"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--objective", "minillm"), "compute it with minillm among `study.objectives`"),
        (("--estimator", "on_policy"), 'compute the study with `targeting.allocation` = "uniform"'),
    ],
)
def test_what_a_store_cannot_give_is_one_sentence(computed: Path, words: tuple[str, ...], sentence: str) -> None:
    found = run_opd("report", computed, *words)
    assert found.returncode == 1
    assert sentence in re.sub(r"\s+", " ", found.stderr)


def test_supports_differ_and_the_json_says_which(computed: Path) -> None:
    sliced, lumped = (json.loads(run_opd("report", computed, "--support", one, "--json").stdout) for one in ("sliced", "lumped"))
    assert (sliced["support"], sliced["estimator"], sliced["level"]) == ("sliced", "backup", 0.95)
    assert lumped["support"] == "lumped"
    assert sliced["findings"][0] != lumped["findings"][0]


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_the_sentences_of_the_files_stand_below_their_tables(made: Path, found: dict[str, Any], columns: int) -> None:
    said = document(str(made), ["reverse_kl"]).claims
    assert len(said) > 5
    text = report(made, columns)
    flat = " ".join(text.split())
    titles = {name: finding["title"] for name, finding in found.items()}
    for one in said:
        mark = {"supported": "✓ ", "not supported": "? ", "limit": "limit: "}[one.verdict]
        whole = mark + one.text
        assert " ".join(whole.split()) in flat
        if one.verdict != "limit":
            assert flat.index(titles[one.finding]) < flat.index(" ".join(whole.split()))
    as_json = json.loads(run_opd("report", made, "--objective", "reverse_kl", "--json").stdout)
    assert [(one["verdict"], one["finding"], one["text"]) for one in as_json["claims"]] == [
        (one.verdict, one.finding, one.text) for one in said
    ]
