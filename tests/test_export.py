"""How sure an exported score is, and whether the study can say so."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import store
from opd_tui.cli import app
from opd_tui.export.job import Format, chosen_format
from opd_tui.export.rows import Row, Selection, rows
from opd_tui.usage import WrongUsage
from tests.synthetic import write_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("export") / "S.zarr", n_questions=6, response_tokens=(30, 60))


def points(path: Path, *objectives: str) -> list[Row]:
    return [row for row in rows(store.open(path), Selection(objectives=objectives)) if "alignment" in row]


def test_the_interval_of_the_cosine_and_its_sign_agree(made: Path) -> None:
    found = points(made, "reverse_kl")
    sure = 0
    for row in found:
        assert row["p_positive_calibrated"] == {"reverse_kl": True}
        low, high, p = (row[name]["reverse_kl"] for name in ("alignment_low", "alignment_high", "p_positive"))
        if row["alignment"]["reverse_kl"] is None:
            assert low is high is p is None
            continue
        assert -1.0 <= low <= high <= 1.0
        assert p < 0.99 or low > 0.0
        assert p > 0.01 or high < 0.0
        sure += not 0.01 <= p <= 0.99
    assert sure > 10


def test_what_cannot_be_calibrated_says_so_and_is_not_undefined(made: Path, tmp_path: Path) -> None:
    """An update that follows the completions that judge it; and a study with too few scores."""
    few = write_store(tmp_path / "few.zarr", n_questions=1, n_rollouts=2, response_tokens=(10, 12))
    for found, objective in ((points(made, "dr_grpo"), "dr_grpo"), (points(few, "reverse_kl"), "reverse_kl")):
        assert any(row["alignment"][objective] is not None for row in found)
        for row in found:
            assert row["p_positive_calibrated"] == {objective: False}
            assert [row[name][objective] for name in ("alignment_low", "alignment_high", "p_positive")] == [None] * 3


def where(path: Path, text: str, **selection: tuple[str, ...]) -> list[Row]:
    return list(rows(store.open(path), Selection(where=text, **selection)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def everything(made: Path) -> list[Row]:
    return list(rows(store.open(made), Selection()))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("incorrect", lambda row: not row["correct"]),
        ('question == "q002" & rollout != 1', lambda row: row["question_id"] == "q002" and row["rollout_index"] != 1),
        ("success == 0 | number == 1", lambda row: row["question_id"] in ("q005", "q001")),
        ("position < 3 | position == 9", lambda row: row["position"] < 3 or row["position"] == 9),
        ("js > 0.02 & correct", lambda row: row["js"] > 0.02 and row["correct"]),
        ("!null & position == 0", lambda row: row["teacher"] != "hot" and row["position"] == 0),
        ('teacher == "hot" & question_id != "q000"', lambda row: row["teacher"] == "hot" and row["question_id"] != "q000"),
        ("cosine < .9 & l2 > .2", lambda row: row["cosine"] < 0.9 and row["l2"] > 0.2),
        ("align < 0", lambda row: "alignment" in row and (row["alignment"]["reverse_kl"] or 1) < 0),
        ("p_positive[forward_kl] > .9", lambda row: "alignment" in row and (row["p_positive"]["forward_kl"] or 0) > 0.9),
        ("reliability > .9 & !known(align) == false", lambda row: "alignment" in row and row["reliability"] > 0.9),
        ('token ~ "o" & decision', lambda row: "alignment" in row and "o" in row["token"].lower()),
    ],
)  # fmt: skip
def test_where_keeps_the_rows_that_match(made: Path, everything: list[Row], text: str, holds: Callable[[Row], bool]) -> None:
    """Under every teacher's own numbers."""
    expected = [row for row in everything if holds(row)]
    assert 0 < len(expected) < len(everything)
    assert where(made, text) == expected


def test_where_goes_with_the_other_choices(made: Path, everything: list[Row]) -> None:
    assert where(made, " ") == everything
    found = where(made, "align < 0 & rollout < 2", teachers=("self-1c",), questions=("q001", "q003"), objectives=("jsd(0.5)",))
    assert found and {row["teacher"] for row in found} == {"self-1c"}
    assert all(row["alignment"]["jsd(0.5)"] < 0 and row["rollout_index"] < 2 for row in found)
    other = where(made, "align[ext-7b, reverse_kl] < 0", teachers=("self-1c",), objectives=("jsd(0.5)",))
    assert [(row["question_id"], row["rollout_index"], row["position"]) for row in other] == [
        (row["question_id"], row["rollout_index"], row["position"]) for row in where(made, "align < 0", teachers=("ext-7b",))
    ]
    assert where(made, "align > 1") == []


def test_every_format_keeps_the_same_rows(made: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    expected = [(row["question_id"], row["position"]) for row in where(made, "js > 0.02 & correct")]

    def export(name: str, *words: str) -> Path:
        out = tmp_path / name
        done = CliRunner().invoke(app, ["export", str(made), "-o", str(out), "--where", "js > 0.02 & correct", *words])
        assert done.exit_code == 0, done.output
        return out

    found = [json.loads(line) for line in export("rows.jsonl").read_text().splitlines()]
    assert [(row["question_id"], row["position"]) for row in found] == expected
    with export("rows.csv").open(newline="") as file:
        assert [(row["question_id"], int(row["position"])) for row in csv.DictReader(file)] == expected
    table = pyarrow.parquet.read_table(export("rows.parquet")).to_pylist()
    assert [(row["question_id"], row["position"]) for row in table] == expected
    slice_ = store.open(export("some.zip", "--question", "q001", "--question", "q005"))
    assert [row.id for row in slice_.questions()] == ["q001"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("aling < 0", "character 1: there is no name 'aling'; did you mean 'align'?"),
        ("align[biig] < 0", "character 7: there is no teacher 'biig'"),
        ("correct &", "character 10: a name, a number"),
        ("align", "compare it, as in align < 0"),
    ],
)
@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "zarr"])
def test_a_wrong_expression_is_wrong_usage_in_one_sentence(made: Path, tmp_path: Path, text: str, part: str, format: str) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["export", str(made), "-o", str(out), "--where", text, "--format", format])
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert part in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_one_row_is_no_rows(made: Path, tmp_path: Path) -> None:
    words = ["--question", "q001", "--rollout", "0", "--teacher", "ext-7b", "--tokens"]
    for tokens, said in (("0:1", "1 row is in "), ("0:2", "2 rows are in ")):
        done = CliRunner().invoke(app, ["export", str(made), "-o", str(tmp_path / "one.jsonl"), *words, tokens])
        assert done.output.startswith(said)


@pytest.mark.parametrize(
    ("out", "named", "format"),
    [
        ("q.jsonl", None, "jsonl"),
        ("q.CSV", None, "csv"),
        ("a.b/q.parquet", None, "parquet"),
        ("q.zip", None, "zarr"),
        ("q.zarr.zip", None, "zarr"),
        ("s3://bucket/q.zarr/", None, "zarr"),
        ("q.png", None, "png"),
        ("a.b/q", None, "jsonl"),
        ("-", None, "jsonl"),
        ("-", "csv", "csv"),
        ("q.txt", "csv", "csv"),
        ("q.zip", "zarr", "zarr"),
    ],
)
def test_the_format_is_the_ending_unless_it_is_named(out: str, named: Format | None, format: str) -> None:
    assert chosen_format(out, named) == format


@pytest.mark.parametrize(
    ("out", "named", "part"),
    [
        ("q.xyz", None, "No format ends in .xyz; name one with --format (jsonl, csv, parquet"),
        ("q.csv", "jsonl", ".csv is the ending of csv, not of jsonl"),
        ("q.zip", "npz", ".zip is the ending of zarr, not of npz"),
    ],
)
def test_an_ending_of_no_format_or_another_is_wrong_usage(out: str, named: Format | None, part: str) -> None:
    with pytest.raises(WrongUsage) as wrong:
        chosen_format(out, named)
    assert part in str(wrong.value)


def test_every_number_of_a_row_has_a_name(made: Path) -> None:
    """Under the column's own name, with the column's own value."""
    rows_ = [
        row for row in where(made, 'question == "q001"', teachers=("self-1c",)) if row.get("alignment", {}).get("reverse_kl")
    ]
    skipped = {"alignment_low", "alignment_high", "gain_se", "p_positive_calibrated", "children"}
    for name, cell in rows_[0].items():
        if name in skipped:
            continue
        value = cell["reverse_kl"] if isinstance(cell, dict) else cell
        here = f"position == {rows_[0]['position']} & rollout == {rows_[0]['rollout_index']}"
        if isinstance(value, bool):
            condition = name if value else f"!{name}"
        elif isinstance(value, str):
            condition = f"{name} == {json.dumps(value)}"
        else:
            condition = f"abs({name} - {value}) <= 1e-6 * abs({value})" if value >= 0 else f"abs({name} + {-value}) < 1e-6"
        assert where(made, f'question == "q001" & {here} & {condition}', teachers=("self-1c",)) == rows_[:1], name
