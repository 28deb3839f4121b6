"""Questions and graders."""

from pathlib import Path

import pytest

from compute.errors import ComputeError, StudyError
from compute.study import Task
from compute.tasks import GRADERS, Question, load_questions, make_grader

QUESTION = Question("q", 0, "?", "12", {})


def write(folder: Path, text: str) -> Task:
    (folder / "q.jsonl").write_text(text)
    return Task(questions="q.jsonl")


def test_a_broken_line_is_named(tmp_path):
    task = write(tmp_path, '{"id": "a", "question": "?", "answer": "1"}\n{"id": "b", \n')
    with pytest.raises(StudyError, match=r"q\.jsonl, line 2 is not valid JSON"):
        load_questions(task, tmp_path, 0)


def test_a_missing_field_names_line_and_fields(tmp_path):
    with pytest.raises(StudyError, match=r"line 1.*`answer`.*id, question"):
        load_questions(write(tmp_path, '{"id": "a", "question": "?"}\n'), tmp_path, 0)


def test_two_questions_of_one_name_are_refused(tmp_path):
    line = '{"id": "a", "question": "?", "answer": "1"}\n'
    with pytest.raises(StudyError, match=r"line 2.*twice"):
        load_questions(write(tmp_path, line + line), tmp_path, 0)


def test_an_unknown_field_of_the_prompt_is_named(tmp_path):
    write(tmp_path, '{"id": "a", "question": "?", "answer": "1"}\n')
    with pytest.raises(StudyError, match=r"\{passage\}"):
        load_questions(Task(questions="q.jsonl", prompt="{passage}"), tmp_path, 0)


def test_braces_in_a_question_stay_text(tmp_path):
    task = write(tmp_path, '{"id": "a", "question": "{answer} and {x}", "answer": "1"}\n')
    assert load_questions(task, tmp_path, 0)[0].prompt == "{answer} and {x}"


def test_reasoning_gym_makes_the_same_questions_for_the_same_seed(tmp_path):
    task = Task(reasoning_gym="chain_sum", limit=3, grader="reasoning_gym")
    first, again = load_questions(task, tmp_path, 5), load_questions(task, tmp_path, 5)
    assert [one.prompt for one in first] == [one.prompt for one in again]
    grade = make_grader(task, tmp_path, 5)
    assert grade(first[0], first[0].answer).correct
    assert not grade(first[0], "no number").correct


@pytest.mark.parametrize(
    ("grader", "response", "answer", "right"),
    [
        ("exact", " Twelve\n", "twelve", True),
        ("number", "3 + 9 = 12.", "12", True),
        ("number", "the sum is 1,200", "1200.0", True),
        ("number", "12, no: 13", "12", False),
        ("number", "none", "12", False),
        ("boolean", "I think yes. So the answer is no", "false", True),
        ("boolean", "nothing known", "false", False),
        ("choice", "A or B? It is (C).", "C", True),
        ("choice", "It is c", "C", False),
    ],
)
def test_graders(grader, response, answer, right):
    assert bool(GRADERS[grader](response, answer, {})) is right


def test_the_pattern_takes_the_last_match(tmp_path):
    grade = make_grader(Task(questions="q", grader="number", answer_pattern=r"Answer: (\d+)"), tmp_path, 0)
    assert grade(QUESTION, "Answer: 3. Wait. Answer: 12").correct
    assert not grade(QUESTION, "It is 12").correct


def test_a_users_grader_is_called_and_named_when_it_raises(tmp_path):
    (tmp_path / "mine.py").write_text("def grade(response, answer, question):\n    return {'right': 1.0}[response]\n")
    grade = make_grader(Task(questions="q", grader="mine.py:grade"), tmp_path, 0)
    assert grade(QUESTION, "right").correct
    with pytest.raises(ComputeError, match=r"`mine.py:grade` failed on question q.*'wrong'.*KeyError"):
        grade(QUESTION, "wrong")


@pytest.mark.parametrize(
    ("grader", "says"),
    [
        ("exakt", "exact, number"),
        ("no.py:grade", "no file"),
        ("q.py:nothing", "no function `nothing`"),
        ("bad.py:f", "SyntaxError"),
    ],
)
def test_wrong_graders_are_named(tmp_path, grader, says):
    (tmp_path / "q.py").write_text("")
    (tmp_path / "bad.py").write_text("def f(:")
    with pytest.raises(StudyError, match=says):
        make_grader(Task(questions="q", grader=grader), tmp_path, 0)
