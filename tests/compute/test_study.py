"""A study file's faults are named: file, key, what is allowed, nearest name."""

from pathlib import Path

import pytest

from compute.errors import StudyError
from compute.study import Study, fingerprint, load, parse
from compute.study.template import study_template

GOOD = """
[study]
name = "a study"
[student]
model = "m"
[task]
questions = "q.jsonl"
[[teacher]]
id = "t"
kind = "external"
model = "n"
"""


def study(text: str) -> Study:
    return parse(text.encode(), Path("study.toml"))


def fault(text: str) -> str:
    with pytest.raises(StudyError) as caught:
        study(text)
    sentence = str(caught.value)
    assert sentence.startswith("study.toml")
    assert "\n" not in sentence
    return sentence


def test_a_good_study_loads():
    assert study(GOOD).teacher[0].takes_part


def test_the_template_is_a_study():
    assert {teacher.id for teacher in study(study_template()).teacher} >= {"teacher", "self-1c", "null-other"}


def test_every_key_of_the_template_can_be_uncommented():
    lines = [line.removeprefix("# ") if line.startswith("# ") and " = " in line.partition("  ")[0] else line for line in
             study_template().splitlines()]  # fmt: skip
    keys = [line for line in lines if line and not line.startswith("#") and line.split(" = ")[0].isidentifier()]
    assert len(keys) > 40


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("[task]", "[task]\nquestion = 'x'"), ["`question`", "[task]", "did you mean `questions`", "grader"]),
        (GOOD + "[samplin]\nn_rollouts = 3\n", ["`samplin`", "did you mean `sampling`"]),
        (GOOD.replace("external", "extern"), ["`teacher[0].kind` = 'extern'", "did you mean `external`", "self", "temperature"]),
        (GOOD + "[sampling]\nn_rollouts = 'many'\n", ["`sampling.n_rollouts`", "int"]),
        (GOOD + "[sampling]\nn_rollouts = 0\n", ["`sampling.n_rollouts` = 0", ">= 1"]),
        (GOOD.replace('name = "a study"', ""), ["`study.name` is missing"]),
        (GOOD.replace('questions = "q.jsonl"', ""), ["[task] needs either"]),
        (GOOD.replace('name = "a study"', 'name = "a"\nobjectives = ["reverse_lk"]'), ["study.objectives", "reverse_kl"]),
        (GOOD + '[[teacher]]\nid = "T"\nkind = "self"\ncontext = "1c"\n', ["teacher[1]", "differ by more than case"]),
        (GOOD + '[[teacher]]\nid = "u"\nkind = "self"\n', ["teacher[1]", "needs a `context`"]),
        (GOOD + '[[teacher]]\nid = "../u"\nkind = "self"\ncontext = "1c"\n', ["teacher[1].id"]),
        (GOOD + '[[teacher]]\nid = "u"\nkind = "temperature"\n', ["every score is undefined"]),
        (GOOD + '[[teacher]]\nid = "u"\nkind = "self"\ncontext = "1c"\ntemperature = 0.7\n', ["would ignore it"]),
        (GOOD + 'context_template = "{answer}"\n', ["this teacher has none"]),
        (GOOD + '[[teacher]]\nid = "u"\nkind = "self"\ncontext = "1c"\ncontext_template = "x"\n', ["{demonstration}"]),
        (GOOD + '[chat]\ntemplate = "plain"\n[[teacher]]\nid = "u"\nkind = "self"\ncontext = "1c"\n', ["{context}"]),
        ("[study", ["not valid TOML"]),
    ],
)
def test_faults_say_where_and_what_is_allowed(text, says):
    sentence = fault(text)
    for words in says:
        assert words in sentence


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(StudyError, match="opd-tui init"):
        load(tmp_path / "no.toml")


def test_the_hash_knows_what_changes_results_and_nothing_else():
    base = fingerprint(study(GOOD), [])
    assert fingerprint(study(GOOD + "[engine]\nslots = 64\n[parts]\nquestions = 3\n"), []) == base
    assert fingerprint(study(GOOD.replace('model = "m"', 'model = "m"\ndevice = "cuda"')), []) == base
    assert fingerprint(study(GOOD + "[sampling]\nn_rollouts = 33\n"), []) != base
    assert fingerprint(study(GOOD), ["another question"]) != base
