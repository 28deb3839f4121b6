"""Teachers: whose distribution it is, and the privileged context that a self teacher reads (method.md 5)."""

from __future__ import annotations

from compute.errors import StudyError
from compute.study import Teacher
from compute.tasks import Question, fill

#: The built-in wordings; {answer} is the reference answer, {demonstration} a response that was graded correct.
TEMPLATES = {
    "answer": "\n\nThe reference answer to this question is: {answer}\n\n"
    "Now answer the question in your own words, with your reasoning.",
    "1c": '\n\nDemonstration. This is a correct response to the question:\n"""\n{demonstration}\n"""\n\n'
    "Having read it, answer the question in your own words, with your reasoning.",
}
TEMPLATES["other"] = TEMPLATES["1c"]


def needs_demonstration(teacher: Teacher) -> bool:
    """Whether the teacher reads a correct response to this very question."""
    return teacher.context == "1c"


def context_of(teacher: Teacher, question: Question, demonstration: str, others: str) -> str:
    """The text that `teacher` reads after the question; empty where it reads what the student reads.

    `demonstration` answers this question, `others` another one.
    """
    if not teacher.context:
        return ""
    template = teacher.context_template or TEMPLATES[teacher.context]
    values = {"answer": question.answer, "demonstration": others if teacher.context == "other" else demonstration}
    return fill(template, values, f"the context of teacher {teacher.id}")


def prompt_with(prompt: str, context: str) -> str:
    """The question with a context at its {context}, or after it."""
    return prompt.replace("{context}", context) if "{context}" in prompt else prompt + context


def describe(teacher: Teacher) -> str:
    """One line for people."""
    match teacher.kind, teacher.context:
        case "external", _:
            return f"external model {teacher.model}"
        case "temperature", _:
            return f"null: the student at temperature {teacher.temperature:g}"
        case _, "answer":
            return "the student, shown the reference answer"
        case _, "1c":
            return "the student, shown one correct demonstration"
        case _, "other":
            return "null: the student, shown another question's demonstration"
    raise StudyError(f"teacher {teacher.id} has no such kind and context: {teacher.kind}, {teacher.context}")
