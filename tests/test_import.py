"""`opd-tui import`: rollouts that a trainer wrote come out as the rollouts that the student wrote, or are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import store
from compute.added import add, prepare_teacher
from compute.errors import StudyError
from compute.imported import FORMATS, BadLine
from compute.imported.setup import Options, prepare_import
from compute.progress import Reporter
from compute.runner import create, run
from compute.setup import prepare
from opd_tui.info import describe
from opd_tui.report.terminal import print_report
from store import doctor
from store.errors import StoreError
from store.parts import concatenate
from store.schema import ForcedKind, QuestionStatus, TokenSource
from tests import written_rollouts as written
from tests.conftest import CHAIN_SUMS, ROOT, run_opd, small_study
from tests.terminal.driving import browsing, picture, press


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(0)
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("study"), limit=3, n_min=6)


@pytest.fixture(scope="module")
def setup(study):
    return prepare(study, Reporter(0))


@pytest.fixture(scope="module")
def sampled(setup):
    return written.sample(setup)


@pytest.fixture(scope="module")
def by_compute(setup, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("computed") / "s.zarr"
    run(setup, out, Reporter(0))
    return out


def taken(study: Path, file: Path, format: str, **more):
    heard = Heard()
    return prepare_import(file, study, file.parent / "no.zarr", Options(format, **more), heard), heard.said


def refusal(study: Path, file: Path, format: str, **more) -> str:
    with pytest.raises(StudyError) as caught:
        taken(study, file, format, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LINES = {
    "verl": (written.verl, "verl"),
    "trl": (written.trl, "trl"),
    "prime-rl": (written.prime_rl, "prime-rl"),
    "verifiers": (written.verifiers, "verifiers"),
    "openai": (written.openai, "openai"),
    "openai over the wire": (written.exchange, "openai"),
}


@pytest.mark.parametrize("name", LINES)
def test_every_format_gives_the_rollouts_that_were_written(study, sampled, tmp_path, name):
    line, kind = LINES[name]
    rows, responses = sampled
    file = written.write(tmp_path / "r.jsonl", [line(one) for one in rows])
    setup, said = taken(study, file, kind)
    for question in setup.questions:
        given, own = setup.given.responses[question.id], responses[question.id]
        assert [one.token_ids.tolist() for one in given.completions] == [one.token_ids.tolist() for one in own.completions]
        assert [one.finish_reason for one in given.completions] == [one.finish_reason for one in own.completions]
        assert (given.correct == own.correct).all()
    compared = any(line.startswith("0 of ") and "log-probabilities differ" in line for line in said)
    assert compared == (name not in ("verl", "trl"))
    assert any("nothing shows" in line for line in said) != compared


def test_an_imported_store_is_the_computed_one(study, setup, sampled, by_compute, tmp_path):
    """The same rollouts, so the same store, number by number, but for its name and where the rollouts are from."""
    file = written.write(tmp_path / "r.jsonl", [written.openai(one, step=40, checkpoint="ck") for one in sampled[0]])
    imported, _ = taken(study, file, "openai")
    out = tmp_path / "s.zarr"
    run(imported, out, Reporter(0), limit=1)
    run(imported, out, Reporter(0))
    opened, other = store.open(out), store.open(by_compute)
    ours = concatenate([opened.part(name) for name in sorted({place.part for place in opened.places()})])
    (whole,) = (other.part(name) for name in {place.part for place in other.places()})
    for group, expected in (("student", whole.student), *whole.teachers.items()):
        found = ours.student if group == "student" else ours.teachers[group]
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{group}/{name}")
    assert [(row.id, row.n_rollouts, row.n_correct) for row in opened.questions()] == [
        (row.id, row.n_rollouts, row.n_correct) for row in other.questions()
    ]
    assert opened.attributes.study_hash != other.attributes.study_hash
    assert any(line.endswith("rollouts imported from openai, step 40, checkpoint ck") for line in opened.made_with)
    told = opened.attributes.provenance["imported"]
    assert (told["policy_step"], told["checkpoint"], told["n_rollouts"]) == (40, "ck", len(sampled[0]))
    (tmp_path / "t.toml").write_text('[[teacher]]\nid = "cold"\nkind = "temperature"\ntemperature = 0.5\n')
    addition = prepare_teacher(out, tmp_path / "t.toml", Reporter(0), study_file=study)
    assert add(addition, out, Reporter(0)).n_done == 3


def test_the_command_ends_in_a_store_that_every_reader_reads(study, setup, sampled, tmp_path, capsys):
    file = written.write(tmp_path / "120.jsonl", [written.verl(one) for one in sampled[0]])
    out = tmp_path / "s.zarr"
    done = run_opd("import", file, "--from", "verl", study, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 questions are in" in done.stderr
    info = describe(str(out))
    assert info["complete"]
    assert "rollouts imported from verl, step 120" in info["made_with"][0]
    print_report(str(out), as_json=True)
    assert json.loads(capsys.readouterr().out)["findings"]
    assert not doctor.examine(out, deep=True).findings
    with pytest.raises(StoreError, match="this study is"):
        create(setup, out)


def test_imported_rollouts_never_count_as_completions(study, sampled, tmp_path):
    """However many there are: how they were sampled is not known."""
    file = written.write(tmp_path / "r.jsonl", [written.verl(one) for one in sampled[0]] * 5)
    setup, _ = taken(study, file, "verl")
    run(setup, tmp_path / "s.zarr", Reporter(0), limit=1)
    opened = store.open(tmp_path / "s.zarr")
    student = opened.part(opened.places()[0].part).student
    assert student["question_n_rollouts"].tolist() == [120]
    assert len(student["group_forced_kind"])
    assert (student["group_forced_kind"] != ForcedKind.NONE).all()


def test_log_probabilities_of_another_policy_are_refused_with_the_worst_place(study, sampled, tmp_path):
    lines = [written.openai(one) for one in sampled[0]]
    for line in lines:
        line["logprobs"] = [1.4 * value for value in line["logprobs"]]
    file = written.write(tmp_path / "r.jsonl", lines)
    sentence = refusal(study, file, "openai")
    for words in (
        "does not look like rollouts of this student",
        "log-probabilities differ",
        "worst",
        "line ",
        "--force-mismatch",
    ):
        assert words in sentence
    setup, said = taken(study, file, "openai", force_mismatch=True)
    assert "whatever differs" in setup.given.words
    assert any("log-probabilities differ" in line for line in said)


def test_a_little_noise_of_another_engine_passes_and_is_told(study, sampled, tmp_path):
    noise = np.random.default_rng(0)
    lines = [written.openai(one) for one in sampled[0]]
    for line in lines:
        line["logprobs"] = [value + noise.normal(0.0, 0.02) for value in line["logprobs"]]
    lines[5]["logprobs"][3] -= 2.0
    _, said = taken(study, written.write(tmp_path / "r.jsonl", lines), "openai")
    told = next(line for line in said if "log-probabilities differ" in line)
    assert told.startswith("1 of ")
    assert "line 6, token 3" in told


def test_prompts_and_texts_that_are_not_the_study_s_are_refused(study, sampled, tmp_path):
    other = [{**written.prime_rl(one), "question_id": one.question_id} for one in sampled[0]]
    for line in other:
        line["token_ids"][1:1] = [6]
        for name in ("loss_mask", "rewards", "inference_logprobs"):
            line[name].insert(1, type(line[name][0])(0))
    assert "prompts are not the study's (first on line 1)" in refusal(
        study, written.write(tmp_path / "p.jsonl", other), "prime-rl"
    )
    asked = [written.openai(one) for one in sampled[0]]
    for line in asked:
        line["messages"].insert(0, {"role": "system", "content": "Be brief."})
    assert "prompts are not the study's" in refusal(study, written.write(tmp_path / "s.jsonl", asked), "openai")
    texts = [{**written.verl(one), "response_ids": one.ids} for one in sampled[0]]
    texts[2]["output"] += "1"
    _, said = taken(study, written.write(tmp_path / "t.jsonl", texts), "verl")
    assert any(line.startswith("1 of ") and "(first on line 3)" in line for line in said)


def test_broken_lines_are_named_by_number_and_skipped_only_when_asked(study, sampled, tmp_path):
    lines = [written.verl(one) for one in sampled[0]]
    lines[1:1] = ["{broken", {"input": "1+1?"}, [1]]
    file = written.write(tmp_path / "r.jsonl", lines)
    last = refusal(study, file, "verl")
    for words in ("line 2 is no valid JSON", "3 broken lines: 2, 3, 4", "--skip-bad"):
        assert words in last
    setup, said = taken(study, file, "verl", skip_bad=True)
    assert sum(map(len, setup.given.responses.values())) == len(sampled[0])
    assert any(line.startswith("3 broken lines are left out: 2, 3, 4.") for line in said)


def test_a_response_longer_than_the_study_allows_is_a_broken_line(study, sampled, tmp_path):
    lines = [written.openai(one) for one in sampled[0]]
    lines[4] |= {"token_ids": [6] * 40, "logprobs": None, "finish_reason": "length"}
    lines[5] |= {"token_ids": [6, 1, 6], "logprobs": None}
    lines[6] |= {"token_ids": [999], "logprobs": None}
    sentence = refusal(study, written.write(tmp_path / "r.jsonl", lines), "openai")
    assert "line 5 has 40 tokens, and `sampling.max_response_tokens` of the study is 32" in sentence
    assert "3 broken lines: 5, 6, 7" in sentence


def test_policies_are_not_mixed(study, sampled, tmp_path):
    rows = sampled[0]
    file = written.write(tmp_path / "r.jsonl", [written.verl(one, 10 + (n > 5)) for n, one in enumerate(rows)])
    assert "step 10 on line 1, step 11 on line 7" in refusal(study, file, "verl")
    setup, _ = taken(study, file, "verl", step=11)
    assert sum(map(len, setup.given.responses.values())) == len(rows) - 6
    assert "step 11" in setup.given.words
    assert "no rollout of step 12; there are steps 10, 11" in refusal(study, file, "verl", step=12)


def test_rollouts_of_other_questions_are_left_out_and_counted(study, sampled, tmp_path):
    lines = [written.verl(one) for one in sampled[0] if one.question_id != sampled[0][0].question_id]
    lines += [{**lines[0], "input": other} for other in ("9+9+9?", f"2{lines[0]['input']}", f"2+{lines[0]['input']}")]
    setup, said = taken(study, written.write(tmp_path / "r.jsonl", lines), "verl")
    assert [question.number for question in setup.questions] == [0, 1]
    assert "3 rollouts are of no question of the study, and left out." in said
    assert "1 of 3 questions have no rollout and are left out." in said
    none = written.write(tmp_path / "n.jsonl", lines[-1:])
    assert "answers a question of the study" in refusal(study, none, "verl")
    one = written.write(tmp_path / "o.jsonl", lines[:1])
    assert "null-other" in refusal(study, one, "verl")


def test_rewards_count_where_there_is_no_reference_answer(study, sampled, tmp_path):
    questions = [json.loads(line) for line in (CHAIN_SUMS / "questions.jsonl").read_text().splitlines()[:3]]
    written.write(tmp_path / "q.jsonl", [{**one, "answer": ""} for one in questions])
    (tmp_path / "g.py").write_text("def grade(response, answer, question):\n    return float(response.endswith('.'))\n")
    text = study.read_text().replace(str(CHAIN_SUMS / "questions.jsonl"), str(tmp_path / "q.jsonl"))
    text = text.replace('grader = "number"', 'grader = "g.py:grade"\nsuccess_at = 0.5').replace(
        'answer_pattern = "=(\\\\d+)\\\\."', ""
    )
    blind = tmp_path / "study.toml"
    blind.write_text(text)
    lines = [written.verl(one) | {"score": 0.75 if n % 3 else 0.25} for n, one in enumerate(sampled[0])]
    setup, _ = taken(blind, written.write(tmp_path / "r.jsonl", lines), "verl")
    grades = [grade for question in setup.questions for grade in setup.given.responses[question.id].grades]
    cut = [one.cut_off for one in sampled[0]]
    assert [grade.correct for grade in grades] == [bool(n % 3) and not cut[n] for n in range(len(grades))]


def test_a_grader_that_disagrees_with_the_rewards_is_told(study, sampled, tmp_path):
    lines = [written.verl(one) | {"score": 0.0} for one in sampled[0]]
    n_right = sum(one.reward > 0 for one in sampled[0])
    _, said = taken(study, written.write(tmp_path / "r.jsonl", lines), "verl")
    assert any(f"Of {len(lines)} rewards in the file, {n_right} are on the other side" in line for line in said)


async def test_turns_of_a_tool_are_kept_and_masked_and_nothing_is_launched_inside(study, sampled, tmp_path):
    lines = []
    for one in sampled[0]:
        ids, mask = [*one.ids[:4], 6, 15, 6, *one.ids[4:]], [1] * 4 + [0] * 3 + [1] * (len(one.ids) - 4)
        logprobs = [*one.logprobs[:4], 0.0, 0.0, 0.0, *one.logprobs[4:]]
        if len(ids) <= 32 and not one.cut_off:
            teacher = [0.0] * len(ids)
            lines.append(written.verl(one) | {"response_ids": ids, "response_mask": mask, "teacher_logprobs": teacher})
            assert len(logprobs) == len(mask)
    setup, said = taken(study, written.write(tmp_path / "r.jsonl", lines), "verl")
    assert any("these alone give no alignment, so none are kept" in line for line in said)
    heard = Heard()
    setup = prepare_import(tmp_path / "r.jsonl", study, tmp_path / "s.zarr", Options("verl"), heard)
    run(setup, tmp_path / "s.zarr", heard)
    assert any("no completion is launched inside of any" in line for line in heard.said)
    opened = store.open(tmp_path / "s.zarr")
    assert opened.counts().n_nodes == opened.counts().n_completions == 0
    assert {row.status for row in opened.questions()} <= {QuestionStatus.NO_NODE, QuestionStatus.NO_SUCCESS}
    row = next(row for row in opened.questions() if row.rollouts)
    rollout = opened.rollout(row.id, row.rollouts[0].index)
    assert rollout.token_source_T[:8].tolist() == [TokenSource.MODEL] * 4 + [TokenSource.TOOL] * 3 + [TokenSource.MODEL]
    assert np.isfinite(rollout.logprob_T).all()
    assert opened.attributes.provenance["imported"]["n_rollouts_with_tools"] == len(lines)
    async with browsing(tmp_path / "s.zarr") as (pilot, screen):
        await press(pilot, screen, "right", "right", "m", "t")
        shown = picture(pilot)
        assert row.id.removeprefix("q") in shown


def test_a_conversation_of_texts_gets_the_template_s_words_between(study, sampled, tmp_path):
    one = next(one for one in sampled[0] if not one.cut_off and len(one.ids) < 16)
    others = [written.openai(other) for other in sampled[0] if other.question_id != one.question_id]
    talk = [{"role": "user", "content": one.question}, {"role": "assistant", "content": "1+1="},
            {"role": "tool", "content": "2"}, {"role": "assistant", "content": "2."}]  # fmt: skip
    setup, _ = taken(study, written.write(tmp_path / "r.jsonl", [{"id": one.question_id, "messages": talk}, *others]), "openai")
    completion = setup.given.responses[one.question_id].completions[0]
    model = setup.bench.student
    assert model.shown(completion.token_ids.tolist()) == "1+1=<end>2<assistant>2.<end>"
    tool = [int(token) for token, by_tool in zip(completion.token_ids, completion.tool_T, strict=True) if by_tool]
    assert model.shown(tool) == "2<assistant>"


@pytest.mark.parametrize(
    ("format", "fields", "says"),
    [
        ("verl", {"input": "q"}, "has no text `output`"),
        ("verl", {"input": "q", "output": "a", "score": "high"}, "`score` that is no number"),
        ("verl", {"input": "q", "output": "a", "response_ids": [1, "x"]}, "no list of token ids"),
        ("verl", {"input": "q", "output": "a", "response_ids": [1, 2], "rollout_log_probs": [0.0]}, "1 log-probabilities"),
        ("verl", {"input": "q", "output": "a", "response_ids": [1, 2], "response_mask": [1]}, "no list of 0 and 1"),
        ("trl", {"prompt": [{"role": "assistant", "content": "q"}], "completion": "a"}, "of the roles assistant"),
        ("trl", {"prompt": "q"}, "has no text `completion`"),
        ("prime-rl", {"schema_version": 2}, "schema 2; schema 1 is read"),
        ("prime-rl", {"token_ids": [1, 2], "loss_mask": [False, False]}, "no token in `loss_mask`"),
        ("verifiers", {"reward": 1}, "neither an episode"),
        ("verifiers", {"traces": [{"nodes": [{"parent": None}, {"parent": 0}, {"parent": 0}]}]}, "a trace that branches"),
        ("openai", {"prompt": "q"}, "neither `messages` nor `request`"),
        ("openai", {"messages": [{"role": "user", "content": "q"}]}, "no answer of the assistant"),
        ("openai", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant"}]}, "is no text"),
        (
            "openai",
            {"response": {"choices": []}, "request": {"messages": [{"role": "user", "content": "q"}]}},
            "without `choices`",
        ),
    ],
)
def test_a_line_that_is_no_rollout_says_why(format, fields, says):
    with pytest.raises(BadLine, match=says.replace("(", r"\(")):
        FORMATS[format](fields)


def test_what_a_file_says_never_reaches_the_terminal_as_it_is(study, sampled, tmp_path):
    lines = [written.openai(one, checkpoint=f"\x1b[2J{n % 2}\u202e") for n, one in enumerate(sampled[0])]
    file = written.write(tmp_path / "r.jsonl", [{"\x1b]0;x\n": 1}, *lines])
    assert "\\x1b]0;x\\n" in refusal(study, file, "verl")
    assert "checkpoint \\x1b[2J0\\u202e on line 2" in refusal(study, file, "openai", skip_bad=True)


def test_null_log_probabilities_are_unknown():
    (one,) = FORMATS["openai"](
        {
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "token_ids": [4],
            "logprobs": [None],
        }
    )
    assert math.isnan(one.turns[0].logprobs[0])


def test_wrong_usage_and_missing_files(study, tmp_path):
    assert run_opd("import", "r.jsonl", "--from", "nemo", study, "-o", tmp_path / "s.zarr").returncode == 2
    assert run_opd("import", "r.jsonl", study, "-o", tmp_path / "s.zarr").returncode == 2
    missing = run_opd("import", tmp_path / "no.jsonl", "--from", "trl", study, "-o", tmp_path / "s.zarr")
    assert missing.returncode == 1
    assert "no.jsonl cannot be read" in missing.stderr.strip().splitlines()[-1]
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "holds no rollout" in refusal(study, tmp_path / "empty.jsonl", "trl")


#: Files made by the tools' own code from rollouts of the tiny student: verifiers 0.4.0 (`write_episode`), verl 0.9.1
#: (`RayPPOTrainer._write_generations`), and the table of TRL 1.16.0's `GRPOTrainer.log`, through pandas as there.
@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("verifiers_traces.jsonl", "verifiers", "checkpoint run/step-7"),
        ("verl_120.jsonl", "verl", "step 120"),
        ("trl_completions_00030.parquet", "trl", "step 30"),
    ],
)
def test_files_that_the_tools_wrote(study, sampled, name, kind, words):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    setup, said = taken(study, ROOT / "tests" / "imported" / name, kind)
    for question in setup.questions:
        own = [one.token_ids.tolist() for one in sampled[1][question.id].completions[:4]]
        given = setup.given.responses[question.id]
        assert [one.token_ids.tolist() for one in given.completions] == own
    assert setup.given.words.endswith(words)
    assert len(said) == 1
