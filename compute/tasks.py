"""Questions and graders: where questions come from, what a model is asked, and when an answer is right."""

from __future__ import annotations

import importlib.util
import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute.errors import ComputeError, StudyError
from compute.study import Task

#: Given (response, reference answer, the question's fields), what the response earns.
Grader = Callable[[str, str, Mapping[str, Any]], float]


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a study."""

    id: str
    number: int  #: place in the study
    prompt: str  #: what the model is asked; still holds {context} where the task's prompt does
    answer: str  #: the reference answer
    fields: Mapping[str, Any]  #: everything the source says of it


@dataclass(frozen=True, slots=True)
class Grade:
    """What one response earned."""

    reward: float
    correct: bool


def load_questions(task: Task, folder: Path, seed: int) -> tuple[Question, ...]:
    """All questions of `task`; files are looked for relative to `folder`.

    Raises `StudyError` naming file and line.
    """
    rows = _read_jsonl(folder / task.questions, task) if task.questions else _reasoning_gym(task, seed)
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for place, fields in rows:
        identity = str(fields.get(task.id_field, "")) if task.id_field else ""
        identity = identity or f"q{len(questions) + task.skip:04d}"
        if identity in seen:
            raise StudyError(f"{place}: the question `{identity}` is there twice, first at {seen[identity]}; ids must be unique.")
        seen[identity] = place
        if task.answer_field not in fields:
            raise StudyError(f"{place}: no field `{task.answer_field}` for the reference answer; fields: {', '.join(fields)}.")
        prompt = fill(task.prompt, {**fields, "context": "{context}"}, f"{place}: `task.prompt`")
        questions.append(Question(identity, len(questions), prompt, _text(fields[task.answer_field]), fields))
    if not questions:
        raise StudyError(f"No questions are left of {task.questions or task.reasoning_gym} after skip = {task.skip}.")
    return tuple(questions)


def fill(template: str, values: Mapping[str, Any], where: str) -> str:
    """Put `values` into the {names} of `template`, once: braces inside values stay text. {a.b} is field b of field a."""

    def value(match: re.Match[str]) -> str:
        found: Any = values
        for name in match[1].split("."):
            if not isinstance(found, Mapping) or name not in found:
                raise StudyError(f"{where} names {{{match[1]}}}, but there is only {', '.join(sorted(values))}.")
            found = found[name]
        return _text(found)

    return re.sub(r"\{([A-Za-z_][A-Za-z0-9_.]*)\}", value, template)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "\n".join(f"{letter}. {_text(one)}" for letter, one in zip(string.ascii_uppercase, value, strict=False))
    return json.dumps(value, ensure_ascii=False)


def _read_jsonl(path: Path, task: Task) -> list[tuple[str, dict[str, Any]]]:
    rows = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                place = f"{path}, line {number}"
                try:
                    fields = json.loads(line)
                except (json.JSONDecodeError, UnicodeDecodeError) as error:
                    raise StudyError(f"{place} is not valid JSON: {error}.") from None
                if not isinstance(fields, dict):
                    raise StudyError(f"{place} is not a JSON object.")
                rows.append((place, fields))
    except OSError as error:
        raise StudyError(f"The question file {path} cannot be read: {error.strerror}.") from None
    end = task.skip + task.limit if task.limit else None
    return rows[task.skip : end]


def _reasoning_gym(task: Task, seed: int) -> list[tuple[str, dict[str, Any]]]:
    import reasoning_gym

    size = task.skip + (task.limit or 100)
    try:
        made = reasoning_gym.create_dataset(task.reasoning_gym, **{"seed": seed, "size": size, **task.reasoning_gym_arguments})
    except Exception as error:  # whatever the library says of a wrong name or argument is the user's to read
        raise StudyError(f"reasoning-gym cannot make `{task.reasoning_gym}`: {error}") from None
    rows = [
        (f"{task.reasoning_gym} {number}", {"id": f"{task.reasoning_gym}-{number}", **made[number]}) for number in range(size)
    ]
    return rows[task.skip :]


def make_grader(task: Task, folder: Path, seed: int) -> Callable[[Question, str], Grade]:
    """The grader of `task` as one function of question and response text. Raises `StudyError` where it is none."""
    grade = _named_grader(task, folder, seed)
    try:
        pattern = re.compile(task.answer_pattern, re.DOTALL) if task.answer_pattern else None
    except re.error as error:
        raise StudyError(f"`task.answer_pattern` is no regular expression: {error}.") from None
    if pattern is not None and pattern.groups < 1:
        raise StudyError("`task.answer_pattern` has no group; put the answer in parentheses.")

    def graded(question: Question, response: str) -> Grade:
        answer = response
        if pattern is not None:
            found = list(pattern.finditer(response))
            if not found:
                return Grade(0.0, False)
            answer = found[-1][1] or ""
        try:
            reward = float(grade(answer, question.answer, question.fields))
        except Exception as error:  # the grader may be the user's; whatever it raises is named with its place
            raise ComputeError(
                f"The grader `{task.grader}` failed on question {question.id}, response {answer[:80]!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return Grade(reward, reward >= task.success_at)

    return graded


def _named_grader(task: Task, folder: Path, seed: int) -> Grader:
    name = task.grader
    if name in GRADERS:
        return GRADERS[name]
    if name == "reasoning_gym":
        if not task.reasoning_gym:
            raise StudyError('`task.grader` = "reasoning_gym" needs questions from `task.reasoning_gym`.')
        import reasoning_gym

        made = reasoning_gym.create_dataset(task.reasoning_gym, **{"seed": seed, "size": 1, **task.reasoning_gym_arguments})
        return lambda response, answer, fields: made.score_answer(response.strip(), dict(fields))
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        allowed = ", ".join([*GRADERS, "reasoning_gym"])
        raise StudyError(f"`task.grader` = {name!r} is no grader; there is {allowed}, or FILE.py:FUNCTION.")
    file = folder / path
    spec = importlib.util.spec_from_file_location("opd_tui_grader", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise StudyError(f"`task.grader`: there is no file {file}.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own file
        raise StudyError(f"`task.grader`: {file} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise StudyError(f"`task.grader`: {file} has no function `{function}`.")
    return found  # type: ignore[no-any-return]  # its type is the user's promise; a wrong result is caught when graded


_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def exact(response: str, answer: str, fields: Mapping[str, Any]) -> float:
    """1 where the response is the answer, but for surrounding space and case."""
    return float(response.strip().casefold() == answer.strip().casefold())


def number(response: str, answer: str, fields: Mapping[str, Any]) -> float:
    """1 where the last number of the response equals the last number of the answer."""
    given, wanted = _numbers(response), _numbers(answer)
    return float(bool(given and wanted) and given[-1] == wanted[-1])


def boolean(response: str, answer: str, fields: Mapping[str, Any]) -> float:
    """1 where the last yes/no or true/false of the response says what the answer says."""
    found = re.findall(r"\b(yes|no|true|false)\b", response.casefold())
    truth = answer.strip().casefold() in ("true", "yes", "1")
    return float(bool(found) and (found[-1] in ("yes", "true")) == truth)


def choice(response: str, answer: str, fields: Mapping[str, Any]) -> float:
    """1 where the last single capital letter A-J of the response is the answer."""
    found = re.findall(r"\b([A-J])\b", response)
    return float(bool(found) and found[-1] == answer.strip().upper())


GRADERS: dict[str, Grader] = {"exact": exact, "number": number, "boolean": boolean, "choice": choice}
