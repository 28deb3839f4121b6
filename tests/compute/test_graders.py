"""The built-in graders: for each a right, a wrong and an unparsable response, and the ways that answers are written."""

from __future__ import annotations

import threading

import pytest

from compute.graders import GRADERS
from compute.study import Task
from compute.tasks import NO_ANSWER, RIGHT, WRONG, Question, make_grader

RIVERS = {"choices": ["The Nile", "The Amazon", "The Danube", "The Rhine"]}


def read(grader: str, response: str, fields: dict | None = None) -> str | None:
    return GRADERS[grader].read(response, fields or {})


@pytest.mark.parametrize(
    ("grader", "answer", "fields", "right", "wrong", "unparsable"),
    [
        ("exact", "Ulan Bator", {}, " ulan bator\n", "Almaty", " \n"),
        ("number", "#### 1,234", {}, "So she has $1,234.00 left.", "So she has 1,233 left.", "I cannot say."),
        ("number", "042", {}, "The sum m + n is 42.", "The sum is 420.", "m + n"),
        ("math", "293", {}, r"so $m+n = \boxed{293}$", r"\boxed{239}", "no idea"),
        ("math", r"\frac{3}{4}", {}, "Hence the ratio is $0.75$.", r"It is $\frac{4}{3}$.", "no idea"),
        ("boolean", "true", {}, "The passage says so. Yes.", "It does not. So no.", "The passage is silent."),
        ("boolean", "no", {}, "That is false.", "That is true.", "That is unknown."),
        ("choice", "2", RIVERS, "It flows into the Black Sea, so (C).", "The answer is A.", "It is a river."),
    ],
)
def test_right_wrong_and_unparsable(tmp_path, grader, answer, fields, right, wrong, unparsable):
    grade = make_grader(Task(questions="q", grader=grader), tmp_path, 0)
    question = Question("q", 0, "?", answer, fields)
    assert (grade(question, right).correct, grade(question, right).feedback) == (True, RIGHT)
    assert not grade(question, wrong).correct
    assert grade(question, wrong).feedback not in (RIGHT, NO_ANSWER)
    assert (grade(question, unparsable).correct, grade(question, unparsable).feedback) == (False, NO_ANSWER)


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("$18", "18"),
        ("$18.", "18"),
        ("18.00", "18.00"),
        ("about 1,234,567 people", "1234567"),
        ("1,2,3", "3"),
        ("one of 12, 13", "13"),
        ("20 - 8 = 12", "12"),
        ("it is 5-3", "3"),
        ("x = -3", "-3"),
        ("x = −3", "-3"),
        ("from 10-12", "12"),
        ("50%", "50"),
        (".5", ".5"),
        ("2e-3", "2e-3"),
        ("3/4", "3/4"),
        (r"\boxed{1{,}000}", "1000"),
        ("#### 7", "7"),
    ],
)
def test_the_last_number(response, number):
    assert read("number", response) == number


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("18.00", "18", True),
        ("3/4", "0.75", True),
        ("1/4", "3/4", False),
        ("12345678901234567890", "12345678901234567891", False),
        ("1/0", "1", False),
        ("1e3", "1000", True),
    ],
)
def test_numbers_are_compared_exactly(one, other, same):
    assert bool(GRADERS["number"](one, other, {})) is same


def test_a_number_of_any_length_is_read():
    assert GRADERS["number"]("9" * 5000, "1", {}) == 0.0


@pytest.mark.parametrize(
    ("response", "truth"),
    [
        ("yes", "yes"),
        ("So yes, there is no evidence against it", "yes"),
        ("It has no moon. So no.", "no"),
        ("No, since it has moons", "no"),
        ("The answer is no because yes men say so", "no"),
        ("**Answer:** True", "yes"),
        ("This is not true.", "no"),
        ("It is not false", "yes"),
        ("nothing, noon, yesterday", None),
    ],
)
def test_the_last_yes_or_no(response, truth):
    assert read("boolean", response) == truth


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B) The Amazon", "B"),
        ("B. The Amazon", "B"),
        ("Answer: B", "B"),
        ("**B**", "B"),
        ("**Answer:** (B)", "B"),
        ("the answer is B", "B"),
        ("The correct answer is option B, because A is in Africa.", "B"),
        ("The answer is B. Option A is wrong.", "B"),
        ("answer: b", "B"),
        (r"$\boxed{B}$", "B"),
        (r"\boxed{\text{B}}", "B"),
        ("A or B? It is (C).", "C"),
        ("The answer is A", "A"),
        ("The answer is A because it is longer.", "A"),
        ("A river is long. It is B", "B"),
        ("A long river.", None),
        ("The answer is a long story.", None),
        ("I think so. A river it is.", None),
        ("I'd say D", "D"),
        ("F", None),  # there are four choices
        ("It is the Danube.", "C"),
        ("The Nile or the Rhine.", None),
    ],
)
def test_the_letter_that_is_meant(response, letter):
    assert read("choice", response, RIVERS) == letter


@pytest.mark.parametrize("answer", ["C", "(c)", "2", "the danube"])
def test_a_reference_is_a_letter_an_index_or_a_text(answer):
    assert GRADERS["choice"]("C", answer, RIVERS) == 1.0
    assert GRADERS["choice"]("B", answer, RIVERS) == 0.0


def test_an_index_comes_before_the_text_of_a_choice():
    assert GRADERS["choice"].reference("2", {"choices": ["1", "2", "3", "4"]}) == "C"


@pytest.mark.parametrize(
    ("grader", "answer"), [("number", "many"), ("boolean", "perhaps"), ("choice", "4"), ("math", ""), ("choice", "answer")]
)
def test_what_is_no_reference_answer(grader, answer):
    assert GRADERS[grader].reference(answer, RIVERS) is None


def test_math_verify_works_off_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(GRADERS["math"](r"$\frac{2}{4}$", "1/2", {})))
    thread.start()
    thread.join()
    assert found == [1.0]


@pytest.mark.parametrize(
    ("grader", "answer", "fields", "response"),
    [
        ("number", "12", {}, "It is 11."),
        ("choice", "C", RIVERS, "It is (A)."),
        ("choice", "B", {"choices": ["warm", "cold"]}, "It is (A)."),
        ("boolean", "yes", {}, "no"),
        ("exact", "Oslo", {}, "Rome"),
    ],
)
def test_feedback_never_says_the_reference_answer(tmp_path, grader, answer, fields, response):
    grade = make_grader(Task(questions="q", grader=grader), tmp_path, 0)
    question = Question("q", 0, "?", answer, fields)
    for text in (response, answer, ""):
        assert answer not in grade(question, text).feedback.replace(RIGHT, "").split()
    if grader == "boolean" or len(fields.get("choices", ())) == 2:  # that a wrong no is wrong would say yes
        assert grade(question, response).feedback == WRONG


def test_a_users_grader_may_say_something(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def grade(response, answer, question):\n    return (0.5, 'Half of it is there.') if response else 0\n"
    )
    grade = make_grader(Task(questions="q", grader="mine.py:grade", success_at=0.5), tmp_path, 0)
    question = Question("q", 0, "?", "12", {})
    assert (grade(question, "x").correct, grade(question, "x").feedback) == (True, "Half of it is there.")
    assert (grade(question, "").correct, grade(question, "").feedback) == (False, WRONG)
