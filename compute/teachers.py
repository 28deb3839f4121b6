"""Teachers: whose distribution it is, and the privileged context that a self teacher reads (method.md 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compute.errors import StudyError
from compute.study import Teacher
from compute.tasks import Question, fill

_REQUEST = "answer the question in your own words, with your reasoning."
_CORRECT = 'This is a correct response to the question:\n"""\n{demonstration}\n"""'
_WRONG = 'This is a wrong response to the question:\n"""\n{wrong}\n"""'
_SUMMARY = '"""\n{summary}\n"""'
#: The built-in wordings of contexts: the question stands before them, the request ends them.
TEMPLATES = {
    "1c": f"\n\nDemonstration. {_CORRECT}\n\nHaving read it, {_REQUEST}",
    "1c1w": f"\n\nDemonstration. {_CORRECT}\n\nCounterexample. {_WRONG}\n\n"
    f"Keep to what is right in the first, avoid what is wrong in the second, and {_REQUEST}",
    "sum-1c": f"\n\nNotes. This sums up a correct response to the question:\n{_SUMMARY}\n\nHaving read it, {_REQUEST}",
    "sum-1c1w": "\n\nNotes. This sums up a correct response to the question, and where a wrong one goes astray:\n"
    f"{_SUMMARY}\n\nHaving read it, {_REQUEST}",
    "answer": f"\n\nThe reference answer to this question is: {{answer}}\n\nNow {_REQUEST}",
    "hint": f"\n\nHint: {{hint}}\n\nWith this hint, {_REQUEST}",
    "feedback": f"\n\nYou have answered this question before. A grader says of that response: {{feedback}}\n\nNow {_REQUEST}",
}
TEMPLATES["other"] = TEMPLATES["1c"]
#: The built-in requests to a summariser.
SUMMARY_TEMPLATES = {
    "sum-1c": f"{{prompt}}\n\n{_CORRECT}\n\n"
    "Sum up in a few sentences how this response comes to its answer, and what the answer is. Add nothing of your own.",
    "sum-1c1w": f"{{prompt}}\n\n{_CORRECT}\n\n{_WRONG}\n\n"
    "Sum up in a few sentences how the correct response comes to its answer, what the answer is, and where the wrong response "
    "goes astray. Add nothing of your own.",
}
#: Stands for the feedback where a prompt is shown for a whole question: every rollout has its own.
FEEDBACK_PLACE = "[what the grader says of the rollout]"


@dataclass(frozen=True, slots=True)
class Material:
    """What the context of one teacher is made of, for one question; empty where it has none of it."""

    demonstration: str = ""
    wrong: str = ""
    summary: str = ""
    feedback: str = FEEDBACK_PLACE


def context_of(teacher: Teacher, question: Question, material: Material) -> str:
    """The text that `teacher` reads after the question; empty where it reads what the student reads.

    Responses stand there without the space that they end in. Raises `StudyError` where its wording names what is not there.
    """
    if not teacher.context:
        return ""
    values = {
        **question.fields,
        "demonstration": material.demonstration.rstrip(),
        "wrong": material.wrong.rstrip(),
        "summary": material.summary,
        "answer": question.answer,
        "hint": _hint(teacher, question),
        "feedback": material.feedback,
    }
    return fill(teacher.context_template or TEMPLATES[teacher.context], values, f"the context of teacher {teacher.id}")


def summary_request(teacher: Teacher, question: Question, material: Material) -> str:
    """What a summariser is asked. Raises `StudyError` where the wording names what is not there."""
    values = {
        **question.fields,
        "prompt": prompt_with(question.prompt, ""),
        "demonstration": material.demonstration.rstrip(),
        "wrong": material.wrong.rstrip(),
        "answer": question.answer,
    }
    return fill(teacher.summary_template or SUMMARY_TEMPLATES[teacher.context], values, f"the summary for teacher {teacher.id}")


def has_context(teacher: Teacher, question: Question, material: Material) -> bool:
    """Whether `material` has all that the teacher's context is made of."""
    if teacher.context == "hint":
        return bool(_hint(teacher, question).strip())
    needed = [material.demonstration] if teacher.reads_demonstrations or teacher.context == "other" else []
    needed += [material.wrong] if teacher.reads_wrong else []
    needed += [material.summary] if teacher.summarised else []
    return all(needed)


def require_fields(teachers: Sequence[Teacher], questions: Iterable[Question]) -> None:
    """Every field that a context names is there in every question. Raises `StudyError` with teacher and question."""
    worded = [one for one in teachers if one.context == "hint" or one.context_template or one.summary_template]
    for question in questions:
        for teacher in worded:
            if teacher.context == "hint" and teacher.hint_field not in question.fields:
                raise StudyError(
                    f"Question {question.id} has no field `{teacher.hint_field}` for teacher {teacher.id}; "
                    f"set `hint_field` to one of its fields: {', '.join(question.fields)}."
                )
            context_of(teacher, question, Material())
            if teacher.summarised:
                summary_request(teacher, question, Material())


def _hint(teacher: Teacher, question: Question) -> str:
    found = question.fields.get(teacher.hint_field) if teacher.context == "hint" else None
    return "" if found is None else fill("{hint}", {"hint": found}, "")


def prompt_with(prompt: str, context: str) -> str:
    """The question with a context at its {context}, or after it."""
    return prompt.replace("{context}", context) if "{context}" in prompt else prompt + context


def describe(teacher: Teacher) -> str:
    """One line for people."""
    if teacher.kind == "external":
        return f"external model {teacher.model}"
    if teacher.kind == "served":
        return f"model {teacher.served_model or 'of its own'} behind a server ({teacher.api})"
    if teacher.kind == "temperature":
        return f"null: the student at temperature {teacher.temperature:g}"
    by = f" by {teacher.context_model}" if teacher.context_model else ""
    through = f" by {teacher.summary_model}" if teacher.summary_model else ""
    shown = {
        "1c": f"the student, shown one correct demonstration{by}",
        "1c1w": f"the student, shown one correct and one wrong demonstration{by}",
        "sum-1c": f"the student, shown a summary{through} of one correct demonstration{by}",
        "sum-1c1w": f"the student, shown a summary{through} of one correct and one wrong demonstration{by}",
        "answer": "the student, shown the reference answer",
        "hint": f"the student, shown the question's `{teacher.hint_field}`",
        "feedback": "the student, shown what the grader says of the rollout",
        "other": f"null: the student, shown another question's demonstration{by}",
    }
    return shown[teacher.context]
