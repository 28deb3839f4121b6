"""`opd-tui decide` on stores: files that trainers take, sentences, exit codes, and no half a file under the final name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

import store
from compute.decisions import gates
from opd_tui.cli import app
from opd_tui.decide import results as module
from opd_tui.decide import rows as decide_rows
from opd_tui.decide.hashes import Hashes
from opd_tui.decide.rows import Prompts, privileged_context
from store.errors import StoreError
from tests.conftest import ROOT
from tests.synthetic import write_store

#: The store that is shipped: two tiny models, 24 questions, real prompts.
CHAIN_SUMS = ROOT / "examples" / "chain_sums" / "chain_sums.zarr"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as many flipped nulls."""
    monkeypatch.setattr(gates, "FLIPS", 19)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("decide") / "S.zarr", n_questions=9, response_tokens=(10, 20))


def decide(path: Path, kind: str, out: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["decide", str(path), "--kind", kind, "-o", str(out), *words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_go_no_go(tmp_path: Path) -> None:
    out = tmp_path / "go.json"
    said = decide(CHAIN_SUMS, "go-no-go", out)
    found = json.loads(out.read_text())
    assert (found["schema"], found["kind"], found["student"]) == ("opd-tui/decide/1", "go-no-go", "student")
    assert "Mean gains are not those of `opd-tui report`" in said
    assert found["task"]["grader"] == "number" and found["contexts"]["self-1c"] == {"kind": "self", "context": "1c"}
    assert [one["teacher"] for one in found["verdicts"]] == ["teacher", "self-answer", "self-1c"]
    for one in found["verdicts"]:
        assert one["verdict"] in ("go", "no-go", "undecided") and one["gain"]["n"] == 24
        assert [null["null"] for null in one["against"]] == ["null-other", "null-t0.7", "null-t1.3"]
        assert one["detectable"] > 0.0 and f"{one['teacher']}: {one['sentence']}" in said
    sharp = json.loads(decide(CHAIN_SUMS, "go-no-go", out, "--teacher", "null-t0.7", "--json"))
    assert sharp["verdicts"][0]["temperature"] == pytest.approx(0.7) and sharp["file"] == str(out)
    assert "the student at temperature 0.7" in sharp["verdicts"][0]["sentence"]


def test_gate(tmp_path: Path) -> None:
    out = tmp_path / "gate.json"
    assert "Mean gains" not in decide(CHAIN_SUMS, "gate", out, "--teacher", "teacher")
    (gate,) = json.loads(out.read_text())["gates"]
    assert gate["verdict"] == "something" and gate["rule"]["kind"] == "range"
    assert gate["rule"]["feature"] in gate["words"] and len(gate["words_by_half"]) == 2
    assert 0.0 < gate["share_kept"]["mean"] < 1.0 and gate["flipped"]["n"] == 19


def test_routing_for_people_and_for_trainers(tmp_path: Path) -> None:
    said = decide(CHAIN_SUMS, "routing", tmp_path / "r.json")
    whole = json.loads((tmp_path / "r.json").read_text())
    assert "judged by completions that did not choose" in said and whole["gain"]["n"] == len(whole["questions"]) == 24
    decide(CHAIN_SUMS, "routing", tmp_path / "r.jsonl")
    rows = {row["question_id"]: row for row in lines(tmp_path / "r.jsonl")}
    assert {name: {**row, "question_id": name} for name, row in whole["questions"].items()} == rows
    opened = store.open(CHAIN_SUMS)
    decide(CHAIN_SUMS, "routing", tmp_path / "trl.jsonl", "--format", "trl")
    trl = lines(tmp_path / "trl.jsonl")
    assert {row["question_id"] for row in trl} == {
        name for name, row in rows.items() if (row["teacher"] or "").startswith("self")
    }
    for row in trl:
        question = opened.question(row["question_id"])
        assert row["prompt"] == [{"role": "user", "content": question.prompt}]
        if row["teacher"] == "self-answer":
            assert row["privileged_context"] == f"|{question.reference_answer}"
    decide(CHAIN_SUMS, "routing", tmp_path / "verl.parquet", "--format", "verl")
    table = pyarrow.parquet.read_table(tmp_path / "verl.parquet").to_pylist()
    assert {row["teacher_key"] for row in table} == {"teacher"} and len(table) + len(trl) == whole["n_routed"]
    assert table[0]["prompt"][0]["role"] == "user" and table[0]["reward_model"]["ground_truth"]
    decide(CHAIN_SUMS, "routing", tmp_path / "t.jsonl", "--format", "tinker")
    assert {"prompt", "teacher", "answer"} < set(lines(tmp_path / "t.jsonl")[0])


def test_weights_are_those_of_the_gate(tmp_path: Path) -> None:
    out, words = tmp_path / "w.jsonl", ("--teacher", "teacher")
    said = decide(CHAIN_SUMS, "weights", out, *words)
    decide(CHAIN_SUMS, "gate", tmp_path / "g.json", *words)
    rule = json.loads((tmp_path / "g.json").read_text())["gates"][0]["rule"]
    assert rule["feature"] == "kl_student_teacher"
    opened, rows = store.open(CHAIN_SUMS), lines(out)
    assert "does not say which chat template" in said and rows[0]["chat_template_hash"] is None
    assert rows[0]["tokenizer_hash"] == opened.attributes.provenance["tokens"]
    assert len(rows) == sum(len(line.rollouts) for line in opened.questions())
    for row in rows:
        rollout = opened.rollout(row["question_id"], row["rollout_index"], ["teacher"])
        assert row["token_ids"] == rollout.token_id_T.tolist() and row["first_position"] == 0
        assert row["weights"] == (rollout.divergence_TMD[:, 0, 0] >= rule["at_least"]).astype(int).tolist()
    decide(CHAIN_SUMS, "weights", tmp_path / "w.npz", *words)
    packed = np.load(tmp_path / "w.npz", allow_pickle=False)
    assert packed["weight"].tolist() == [w for row in rows for w in row["weights"]]
    assert packed["token_id"].tolist() == [token for row in rows for token in row["token_ids"]]
    assert packed["rollout_start"][-1] == len(packed["position"]) and packed["position"][:3].tolist() == [0, 1, 2]
    assert json.loads(str(packed["about"]))["rule"] == rule


def test_weights_for_trainers(tmp_path: Path) -> None:
    opened, words = store.open(CHAIN_SUMS), ("--teacher", "teacher", "--by", "posterior")
    decide(CHAIN_SUMS, "weights", tmp_path / "w.jsonl", *words)
    rows = lines(tmp_path / "w.jsonl")
    decide(CHAIN_SUMS, "weights", tmp_path / "t.jsonl", *words, "--format", "tinker")
    for row, tinker in zip(rows, lines(tmp_path / "t.jsonl"), strict=True):
        prompt = opened.question(row["question_id"]).prompt_token_ids.tolist()
        assert tinker["target_tokens"] == (prompt + row["token_ids"])[1:]
        assert tinker["mask"] == [0] * (len(prompt) - 1) + row["weights"]
    for trainer, field in (
        ("trl", "weights"),
        ("verl", "rollout_is_weights"),
        ("prime-rl", "loss_mask"),
        ("skyrl", "loss_masks"),
    ):
        decide(CHAIN_SUMS, "weights", tmp_path / "f.jsonl", *words, "--format", trainer)
        assert [row[field] for row in lines(tmp_path / "f.jsonl")] == [row["weights"] for row in rows]


def test_weights_for_trl_bring_the_context_of_a_self_teacher(tmp_path: Path) -> None:
    """Its batches have a completion_mask of their own, which says what the models see: weights have another name."""
    for teacher, more in (("teacher", set()), ("self-answer", {"prompt", "privileged_context"})):
        decide(CHAIN_SUMS, "weights", tmp_path / "w.jsonl", "--teacher", teacher, "--format", "trl")
        rows, opened = lines(tmp_path / "w.jsonl"), store.open(CHAIN_SUMS)
        assert {"prompt", "privileged_context", "completion_mask"} & set(rows[0]) == more
        for row in rows if more else ():
            question = opened.question(row["question_id"])
            assert row["prompt"] == [{"role": "user", "content": question.prompt}]
            assert row["privileged_context"] == f"|{question.reference_answer}"


class Told:
    """A store of one question: the student's prompt, and the prompt of a teacher who reads a context of this kind."""

    def __init__(self, ours: str, theirs: str, context: str = "1c") -> None:
        self.vocab, self.teachers = SimpleNamespace(text=lambda _ids: ours), [SimpleNamespace(id="T", context=context)]
        self.teacher_prompt = lambda _question, _teacher: theirs


@pytest.mark.parametrize(
    ("asked", "ours", "theirs", "context"),
    [
        ("Q?", "<u>Q?<a>", "<u>Q? Hint.<a>", " Hint."),
        ("Q?", "Q?<u>Q?<a>", "Q?<u>Q?\n\nQ? is 3.\n<a>", "\n\nQ? is 3.\n"),  # the system prompt has the question too
        ("\nQ?\n", "<u>Q?<a>", "<u>Q?\n|3<a>", "|3"),  # the template strips, the context comes after the line's end
        ("Read. Q?", "<u>Read. Q?<a>", "<u>Read. Hint. Q?<a>", None),  # the prompt has its {context} in the middle
        ("Q?", "<u>Q?<a>", "", None),  # never asked
        ("", "<u><a>", "<u>Hint.<a>", None),
    ],
)
def test_a_context_is_what_comes_after_the_question_or_is_not_given(asked: str, ours: str, theirs: str, context: str) -> None:
    question: Any = SimpleNamespace(id="q", prompt=asked, prompt_token_ids=())
    told: Any = Told(ours, theirs)
    assert privileged_context(told, question, "T") == context
    told = Told(ours, theirs, "feedback")  # each rollout has its own
    assert privileged_context(told, question, "T") is None


def test_trl_is_not_given_what_it_cannot_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_rows, "privileged_context", lambda *_: None)
    said = decide(CHAIN_SUMS, "routing", tmp_path / "r.jsonl", "--format", "trl", "--json")
    assert json.loads(said)["n_left_out_by_format"] == json.loads(said)["n_routed"] and not lines(tmp_path / "r.jsonl")
    words = ["decide", str(CHAIN_SUMS), "--kind", "weights", "--teacher", "self-1c", "-o", str(tmp_path / "w.jsonl")]
    done = CliRunner().invoke(app, [*words, "--format", "trl"])
    assert isinstance(done.exception, StoreError) and "what self-1c reads is other" in str(done.exception)
    assert CliRunner().invoke(app, words).exit_code == 0


def test_prompts_are_messages_or_texts() -> None:
    prompts = Prompts("", plain=True)
    assert prompts.written("Q?") == "Q?" and prompts.messages("Q?") == [{"role": "user", "content": "Q?"}]
    assert Prompts("Be brief.", plain=False).written("Q?")[0] == {"role": "system", "content": "Be brief."}


def test_weights_by_probability_are_zero_where_nothing_is_known(tmp_path: Path) -> None:
    words = ("--teacher", "teacher", "--by")
    decide(CHAIN_SUMS, "weights", tmp_path / "p.jsonl", *words, "probability")
    decide(CHAIN_SUMS, "weights", tmp_path / "q.jsonl", *words, "posterior")
    opened = store.open(CHAIN_SUMS)
    for p, q in zip(lines(tmp_path / "p.jsonl"), lines(tmp_path / "q.jsonl"), strict=True):
        page = opened.page(p["question_id"], p["rollout_index"])
        nodes = set(page.nodes.position_N[page.rollout.node_P].tolist())
        assert {at for at, weight in enumerate(p["weights"]) if weight} <= nodes
        assert [int(weight >= 0.5) for weight in p["weights"]] == q["weights"]


def test_a_store_of_made_up_models(made: Path, tmp_path: Path) -> None:
    """Its teachers know nothing, its temperature is named, and its tokenizer is hashed from the vocabulary."""
    said = decide(made, "go-no-go", tmp_path / "a.json", "--teacher", "hot", "--objective", "forward_kl")
    assert json.loads((tmp_path / "a.json").read_text())["objective"] == "forward_kl" and said
    decide(made, "weights", tmp_path / "w.jsonl", "--teacher", "ext-7b")
    opened = store.open(made)
    for row in lines(tmp_path / "w.jsonl"):
        rollout = opened.rollout(row["question_id"], row["rollout_index"], ["ext-7b"])
        assert not np.array(row["weights"])[rollout.token_source_T != 0].any()
    assert len(Hashes.of(opened).tokenizer) == 32
    shipped = store.open(CHAIN_SUMS)
    kept = shipped.attributes.provenance.pop("tokens")
    assert Hashes.of(shipped).tokenizer == kept


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gate", "g.jsonl"), "gate is written to a file that ends in .json"),
        (("weights", "-"), "weights is written to a file that ends in .jsonl, .npz"),
        (("gate", "g.json", "--format", "trl"), "--format is for routing and weights"),
        (("routing", "r.json", "--format", "trl"), "takes rows"),
        (("gate", "g.json", "--by", "posterior"), "--by is for weights"),
        (("gate", "g.json", "--worth", "1"), "--worth is for go-no-go"),
        (("weights", "w.jsonl", "--by", "probability", "--format", "skyrl"), "takes masks of 0 and 1"),
        (("gate", "g.json", "--objective", "nonsense"), "nonsense"),
        (("gate", "g.json", "--seed", "-1"), "--seed"),
        (("other", "g.json"), "--kind"),
    ],
)
def test_wrong_usage_is_2(words: tuple[str, ...], said: str) -> None:
    kind, out, *more = words
    done = CliRunner().invoke(app, ["decide", str(CHAIN_SUMS), "--kind", kind, "-o", out, *more], env={"COLUMNS": "400"})
    assert done.exit_code == 2 and said in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gate", "g.json", "--teacher", "nobody"), "There is no teacher 'nobody'; there is teacher, self-answer"),
        (("gate", "g.json", "--objective", "dr_grpo"), "is made from completions"),
        (("gate", "nowhere/g.json"), "cannot be written: there is no folder"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_1(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    failed(words, said, 1, tmp_path)


@pytest.mark.parametrize("teachers", [(), ("teacher", "self-1c")])
def test_weights_of_no_one_teacher_are_wrong_usage(teachers: tuple[str, ...], tmp_path: Path) -> None:
    named = [word for name in teachers for word in ("--teacher", name)]
    said = "Weights are for one teacher: name it with --teacher (teacher, self-answer, self-1c)."
    failed(("weights", "w.jsonl", *named), said, 2, tmp_path)


def failed(words: tuple[str, ...], said: str, exit_code: int, tmp_path: Path) -> None:
    kind, out, *more = words
    code = "from opd_tui.entry import main; main()"
    command = [sys.executable, "-c", code, "decide", str(CHAIN_SUMS), "--kind", kind, "-o", str(tmp_path / out), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == exit_code and said in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("opd-tui: ") and not done.stdout
    assert not list(tmp_path.iterdir())


def test_half_a_file_never_has_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "w.jsonl"
    out.write_text("what was there")
    rows = module.weight_row

    def fails(*words: Any) -> Any:
        assert out.read_text() == "what was there" and len(list(tmp_path.iterdir())) == 2
        if words[0].question.id == "q003":
            raise RuntimeError("in the middle")
        return rows(*words)

    monkeypatch.setattr(module, "weight_row", fails)
    done = CliRunner().invoke(app, ["decide", str(CHAIN_SUMS), "--kind", "weights", "--teacher", "teacher", "-o", str(out)])
    assert isinstance(done.exception, RuntimeError)
    assert out.read_text() == "what was there" and list(tmp_path.iterdir()) == [out]


def test_the_lines_for_trl_are_those_of_the_example_that_is_run() -> None:
    lines_of = (ROOT / "docs" / "decide.md").read_text().split("### TRL")[1].split("### ")[0].split("```python\n")[1:]
    example = (ROOT / "examples" / "trl" / "distil.py").read_text()
    assert len(lines_of) == 2 and all(one.split("\n```")[0] in example for one in lines_of)
