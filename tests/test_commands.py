"""Each command as a user meets it: right input, wrong input, one sentence, the right exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

import opd_tui
import store
from store.teacher_topk import coarse
from tests.conftest import CHAIN_SUMS, run_opd, small_study


def fails(done, *says: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for words in says:
        assert words in last
    assert "Traceback" not in done.stderr


def test_init_writes_a_study_that_fails_only_for_its_placeholders(tmp_path):
    assert run_opd("init", cwd=tmp_path).returncode == 0
    assert (tmp_path / "study.toml").read_text().startswith("# A study for opd-tui")
    fails(run_opd("compute", "study.toml", "-o", "s.zarr", cwd=tmp_path), "questions.jsonl cannot be read")
    fails(run_opd("init", cwd=tmp_path), "exists already", code=2)


def test_init_from_an_example_computes_anywhere(tmp_path):
    assert run_opd("init", "--from", "chain_sums", cwd=tmp_path).returncode == 0
    done = run_opd("compute", "study.toml", "--preview", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fails(run_opd("init", "--from", "chain_sum", "-o", "x.toml", cwd=tmp_path), "there are chain_sums", code=2)


def test_preview_shows_every_prompt_with_its_special_tokens(tmp_path):
    done = run_opd("compute", small_study(tmp_path), "--preview")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<user>") == 7  # the student and six teachers
    assert "|" in done.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[sampling]", "[sampling]\nn_rolouts = 3"), ["`n_rolouts`", "did you mean `n_rollouts`"]),
        (('kind = "external"', 'kind = "outside"'), ["`teacher[0].kind`", "external, self, served, temperature"]),
        (('grader = "number"', 'grader = "numbr"'), ["`task.grader`", "number"]),
        ((str(CHAIN_SUMS / "student"), "/nowhere/student"), ["/nowhere/student"]),
    ],
)
def test_a_wrong_study_is_one_sentence(tmp_path, change, says):
    path = small_study(tmp_path)
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    fails(run_opd("compute", path, "-o", tmp_path / "s.zarr"), *says)
    assert not (tmp_path / "s.zarr").exists()


def test_a_missing_study(tmp_path):
    fails(run_opd("compute", tmp_path / "no.toml", "-o", tmp_path / "s.zarr"), "no study file", "opd-tui init")


def test_a_model_folder_without_weights(tmp_path):
    shutil.copytree(CHAIN_SUMS / "student", tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    path = small_study(tmp_path)
    path.write_text(path.read_text().replace(str(CHAIN_SUMS / "student"), str(tmp_path / "bare")))
    fails(run_opd("compute", path, "-o", tmp_path / "s.zarr"), "has no weights", "bare")


def test_a_teacher_with_another_tokenizer(tmp_path):
    shutil.copytree(CHAIN_SUMS / "teacher", tmp_path / "other")
    tokenizer = tmp_path / "other" / "tokenizer.json"
    told = json.loads(tokenizer.read_text())
    vocabulary = told["model"]["vocab"]
    vocabulary["7"], vocabulary["8"] = vocabulary["8"], vocabulary["7"]
    tokenizer.write_text(json.dumps(told))
    path = small_study(tmp_path)
    path.write_text(path.read_text().replace(str(CHAIN_SUMS / "teacher"), str(tmp_path / "other")))
    fails(run_opd("compute", path, "-o", tmp_path / "s.zarr"), "tokenizers of student", "differ")


def test_a_grader_that_raises_keeps_what_is_finished(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def grade(response, answer, question):\n"
        "    if question['id'] == 'q003':\n"
        "        raise RuntimeError('no idea')\n"
        "    return float(response.split('=')[-1].rstrip('.') == answer)\n"
    )
    path = small_study(tmp_path, n_min=8)
    path.write_text(path.read_text().replace('grader = "number"', 'grader = "mine.py:grade"'))
    fails(run_opd("compute", path, "-o", tmp_path / "s.zarr"), "mine.py:grade", "no idea")
    # The third question already reads the fourth one's demonstration.
    assert json.loads(run_opd("info", tmp_path / "s.zarr", "--json").stdout)["n_questions_done"] == 2


def test_a_store_of_another_study_is_refused_with_both_hashes(computed, tmp_path):
    hash_there = json.loads(run_opd("info", computed, "--json").stdout)["study_hash"]
    done = run_opd("compute", small_study(tmp_path, n_min=9), "-o", computed)
    fails(done, hash_there)
    assert len(set(re.findall(r"[0-9a-f]{32}", done.stderr))) == 2


@pytest.mark.full
def test_no_space_left_keeps_the_store_valid(tmp_path):
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    path, out = small_study(tmp_path), tmp_path / "s.zarr"
    done = run_opd("compute", path, "-o", out, preexec_fn=no_room)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    again = run_opd("compute", path, "-o", out)
    assert again.returncode == 0, again.stderr
    assert json.loads(run_opd("info", out, "--json").stdout)["complete"]


def test_log_probabilities_of_likely_tokens_are_rounded_and_those_that_scores_are_made_of_are_not(computed):
    opened = store.open(computed)
    part = opened.part(opened.part_ids[0])
    of_tokens = [part.student["topk_logprob"]]
    exact = [part.student[name] for name in ("logprob", "child_logprob", "node_topk_logprob")]
    for arrays in part.teachers.values():
        of_tokens += [arrays[name] for name in ("logprob_at_student_topk", "extra_logprob", "extra_student_logprob")]
        exact += [arrays[name] for name in ("logprob", "child_logprob", "node_topk_logprob")]
    for array in of_tokens:
        assert np.array_equal(array, coarse(array), equal_nan=True)
    for array in exact:
        assert array.dtype == np.float32
        assert (array != array.astype(np.float16))[np.isfinite(array)].mean() > 0.9
    assert max(len(np.unique(array)) for array in of_tokens) > 100


def test_a_finished_store_is_not_computed_again(computed):
    study = computed.parent / "study.toml"
    done = run_opd("compute", study, "-o", computed)
    assert done.returncode == 0
    assert "6 of 6 questions" in done.stderr


def test_info_keeps_its_contract(computed):
    told = json.loads(run_opd("info", computed, "--json").stdout)
    assert set(told) == {
        *("schema", "study_hash", "student", "teachers", "objectives", "n_questions_planned", "n_questions_done", "n_rollouts"),
        *("n_tokens", "n_nodes", "n_completions", "complete", "difficulty", "made_with", "imported", "n_questions_chosen"),
    }
    assert told["n_questions_chosen"] is None
    assert told["n_questions_done"] == told["n_questions_planned"] == 6
    assert told["complete"] is True
    assert sum(told["difficulty"].values()) == 6
    assert "6 of 6" in run_opd("info", computed).stdout


def test_export_keeps_its_contract(computed):
    rows = [json.loads(line) for line in run_opd("export", computed, "-o", "-").stdout.splitlines()]
    every = {
        *(
            "question_id",
            "rollout_index",
            "correct",
            "position",
            "token_id",
            "token",
            "student_logprob",
            "student_entropy",
            "teacher",
        ),
        *("teacher_logprob", "teacher_entropy", "kl_student_teacher", "kl_teacher_student", "js", "l2", "cosine"),
    }
    scored = {
        "alignment",
        "alignment_low",
        "alignment_high",
        "gain",
        "gain_se",
        "p_positive",
        "p_positive_calibrated",
        "reliability",
        "teacher_advantage",
        "success_rate_range",
        "n_kept",
        "judged_only",
        "children",
    }
    assert all(set(row) in (every, every | scored) for row in rows)
    points = [row for row in rows if "alignment" in row]
    assert points
    assert set(points[0]["alignment"]) == {"reverse_kl", "forward_kl"}
    values = [value for row in points for value in row["alignment"].values() if value is not None]
    assert values
    assert all(-1 <= value <= 1 for value in values)
    child = points[0]["children"][0]
    assert child.keys() >= {
        "token_id",
        "token",
        "kind",
        "student_logprob",
        "teacher_logprob",
        "n_completions",
        "n_success",
        "p_succ",
    }


def test_export_scores_under_any_objective(computed):
    """Those of the study come out the same; others without computing anything again."""
    words = ("--teacher", "teacher", "--objective", "reverse_kl", "--objective", "jsd(beta=0.3)")
    rows = [json.loads(line) for line in run_opd("export", computed, "-o", "-", *words).stdout.splitlines()]
    study = [json.loads(line) for line in run_opd("export", computed, "-o", "-", "--teacher", "teacher").stdout.splitlines()]
    scored = [(row, own) for row, own in zip(rows, study, strict=True) if "alignment" in row]
    assert len(scored) > 10
    for row, own in scored:
        assert list(row["alignment"]) == ["reverse_kl", "jsd(0.3)"]
        assert row["alignment"]["reverse_kl"] == own["alignment"]["reverse_kl"]
        assert row["gain"]["reverse_kl"] == own["gain"]["reverse_kl"]
    assert any(row["alignment"]["jsd(0.3)"] != row["alignment"]["reverse_kl"] for row, _ in scored)
    csv_words = ("--format", "csv", "--objective", "chi2", "--tokens", "0:4")
    header = run_opd("export", computed, "-o", "-", *csv_words).stdout.splitlines()[0]
    assert "gain.chi2" in header
    assert "reverse_kl" not in header
    fails(run_opd("export", computed, "-o", "-", "--objective", "reverse"), "did you mean 'reverse_kl'", code=2)
    far = run_opd("export", computed, "-o", "-", "--objective", "bogus")
    fails(far, "Unknown objective 'bogus'. Allowed: reverse_kl,", code=2)
    fails(run_opd("export", computed, "-o", "-", "--objective", "top_k_reverse_kl(99)"), "most likely tokens, not 99")


def test_report_says_the_findings_in_80_columns_and_whole_as_json(computed):
    text = run_opd("report", computed, "--objective", "jsd(0.3)").stdout
    assert "Which teacher moves the student towards success" in text
    assert "flipped self-answer" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    found = json.loads(run_opd("report", computed, "--json").stdout)
    assert found["schema"] == "opd-tui/report/1"
    ranking = next(one for one in found["findings"] if one["name"] == "teacher_ranking")
    row = next(one for one in ranking["rows"] if one["teacher"] == "teacher" and not one["null"])
    assert row["intervals"]["gain"]["low"] < row["intervals"]["gain"]["mean"] < row["intervals"]["gain"]["high"]
    fails(run_opd("report", computed, "--objective", "minilm"), "did you mean 'minillm'", code=2)
    fails(run_opd("report", computed / "nothing"), "There is no store")


def test_objectives_are_listed():
    text = run_opd("objectives").stdout
    listed = json.loads(run_opd("objectives", "--json").stdout)
    assert listed["schema"] == "opd-tui/objectives/1"
    names = [one["name"] for one in listed["objectives"]]
    assert {"reverse_kl", "minillm", "dr_grpo", "k3_reward"} <= set(names)
    assert all(f"\n{name}" in text for name in names)


def test_export_slices(computed):
    rows = [json.loads(line) for line in run_opd("export", computed, "-o", "-").stdout.splitlines()]
    first = rows[0]
    words = ("--question", first["question_id"], "--rollout", first["rollout_index"], "--teacher", "self-1c", "--tokens", "1:3")
    some = [json.loads(line) for line in run_opd("export", computed, "-o", "-", *words).stdout.splitlines()]
    assert some == [
        row
        for row in rows
        if (row["question_id"], row["rollout_index"], row["teacher"]) == (first["question_id"], first["rollout_index"], "self-1c")
        and row["position"] in (1, 2)
    ]
    table = list(csv.DictReader(io.StringIO(run_opd("export", computed, "-o", "-", "--format", "csv", *words).stdout)))
    assert [int(row["position"]) for row in table] == [1, 2]


def test_wrong_slices_are_refused(computed, tmp_path):
    fails(run_opd("export", computed, "-o", "-", "--question", "nobody"), "nobody")
    fails(run_opd("export", computed, "-o", "-", "--teacher", "nobody"), "nobody")
    fails(run_opd("export", computed, "-o", "-", "--rollout", "999"), "rollout 999")
    fails(run_opd("export", computed, "-o", "-", "--tokens", "3"), "no range", code=2)
    fails(run_opd("export", computed, "-o", tmp_path / "no" / "x.jsonl"), "cannot be written")
    fails(run_opd("info", tmp_path), str(tmp_path))
    fails(run_opd("browse", computed), "needs a terminal")
    assert run_opd("nonsense").returncode == 2


def test_a_foreign_store_module_is_named(tmp_path):
    (tmp_path / "store.py").write_text("x = 1\n")
    done = run_opd("info", "x", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    fails(done, str(tmp_path / "store.py"), "rename it")


def test_demo_without_a_terminal_prints_the_summary(tmp_path):
    done = run_opd("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("objective reverse_kl", "teacher", "self-1c", "flipped", "null-t0.7", "correct", "incorrect"):
        assert words in done.stdout
    assert (tmp_path / "opd-tui-demo.zarr").is_dir()


def test_help_is_short_and_names_every_command():
    told = run_opd("--help").stdout
    for word in ("demo", "init", "compute", "browse", "info", "export", "objectives", "report", "migrate", "merge", "compact"):
        assert word in told
    assert Path(CHAIN_SUMS / "study.toml").is_file()
    assert run_opd("-h").stdout == told
    assert "-h, --help" in run_opd("info", "-h").stdout


def test_the_version_is_the_installed_one():
    done = run_opd("--version")
    assert (done.returncode, done.stdout) == (0, f"opd-tui {opd_tui.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        ("compute", "nothing.toml", "--plan"),
        ("compute", "nothing.toml", "-o", "S.zarr"),
        ("add-teacher", CHAIN_SUMS / "chain_sums.zarr", "nothing.toml"),
        ("import", "nothing.jsonl", CHAIN_SUMS / "study.toml", "--from", "verl", "-o", "S.zarr"),
    ],
    ids=lambda words: words[0],
)
def test_a_file_that_is_not_there_is_said_before_models_are_loaded(tmp_path, words):
    done = run_opd(*words, cwd=tmp_path)
    fails(done, "nothing.")
    assert "Loading" not in done.stderr
    assert not list(tmp_path.iterdir())
