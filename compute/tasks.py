"""Questions and grading: where questions come from, what a model is asked, and what a response earns."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

from compute.errors import ComputeError, StudyError
from compute.graders import GRADERS, BuiltIn
from compute.study import Task
from compute.user_code import is_named, load_function

#: Given (response, reference answer, the question's fields), what the response earns, and what may be said of it.
Grader = Callable[[str, str, Mapping[str, Any]], float | tuple[float, str]]

# What is said of a response. None of it names the reference answer: a study that wants that puts {answer} in its wording.
RIGHT = "The response was graded correct."
WRONG = "The response was graded wrong."
NO_ANSWER = "No answer was found in the response."
CUT_OFF = "The response was cut off at the length limit, so it counts as wrong."


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a study."""

    id: str
    number: int  #: place in the study
    prompt: str  #: what the model is asked; still holds {context} where the task's prompt does
    answer: str  #: the reference answer
    fields: Mapping[str, Any]  #: everything the source says of it

    @property
    def digest(self) -> str:
        """A hash of all fields: contexts and graders may read any of them."""
        text = json.dumps(_stable(self.fields), default=_plain)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Grade:
    """What one response earned."""

    reward: float
    correct: bool
    feedback: str = ""  #: what may be said of it, for a teacher that reads it


def load_questions(task: Task, folder: Path, seed: int) -> tuple[Question, ...]:
    """All questions of `task`; files are looked for relative to `folder`.

    Raises `StudyError` naming file and line.
    """
    named: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, (place, fields) in enumerate(_rows(task, folder, seed)):
        identity = (str(fields.get(task.id_field, "")) if task.id_field else "") or f"q{number:04d}"
        if identity in named:
            raise StudyError(
                f"{place}: the question `{identity}` is there twice, first at {named[identity][0]}; ids must be unique."
            )
        named[identity] = (place, fields)
    for key, names in (("only", task.only), ("leave_out", task.leave_out)):
        for name in names:
            if name not in named:
                raise StudyError(f"`task.{key}` names `{name}`, and no question of {_source(task)} is called that.")
    wanted = [one for one in named.items() if (not task.only or one[0] in task.only) and one[0] not in task.leave_out]
    chosen = wanted[task.skip : task.skip + task.limit if task.limit else None]
    if not chosen:
        raise StudyError(f"No questions of {_source(task)} are left: see `only`, `leave_out` and `skip` in [task].")
    questions = tuple(
        _question(task, number, identity, place, fields) for number, (identity, (place, fields)) in enumerate(chosen)
    )
    _require_answers(task, questions, [place for _, (place, _) in chosen])
    return questions


def _source(task: Task) -> str:
    return task.questions or task.dataset or task.reasoning_gym


def _question(task: Task, number: int, identity: str, place: str, fields: dict[str, Any]) -> Question:
    if task.answer_field not in fields:
        raise StudyError(f"{place}: no field `{task.answer_field}` for the reference answer; fields: {', '.join(fields)}.")
    prompt = fill(task.prompt, {**fields, "context": "{context}"}, f"{place}: `task.prompt`")
    return Question(identity, number, prompt, _text(fields[task.answer_field]), fields)


def _require_answers(task: Task, questions: tuple[Question, ...], places: list[str]) -> None:
    """Every reference answer is what a built-in grader compares with. Raises `StudyError` with the first place and all ids."""
    grader = GRADERS.get(task.grader)
    if grader is None:
        return
    bad = [one for one in questions if grader.reference(one.answer, _graded_fields(task, one)) is None]
    if bad:
        ids = json.dumps([one.id for one in bad[:20]], ensure_ascii=False) + (" and more" if len(bad) > 20 else "")
        raise StudyError(
            f"{places[bad[0].number]}: the reference answer {bad[0].answer[:80]!r} of question {bad[0].id} is not "
            f'{grader.wants}, which the grader "{task.grader}" needs; correct it, or leave such questions out: '
            f"`task.leave_out` = {ids}."
        )


def _graded_fields(task: Task, question: Question) -> Mapping[str, Any]:
    """The fields that a grader sees: the built-in ones look for the choices under one name."""
    if task.choices_field == "choices" or task.grader not in GRADERS:
        return question.fields
    return {**question.fields, "choices": question.fields.get(task.choices_field)}


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
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    """What JSON has no word for: times as text; of anything else only its type, since its text may hold an address."""
    return str(value) if isinstance(value, date | time) else f"<{type(value).__name__}>"


def _stable(value: Any) -> Any:
    """`value` with every mapping as a list sorted by its keys, which need not be texts."""
    if isinstance(value, Mapping):
        return sorted(([str(key), _stable(one)] for key, one in value.items()), key=lambda entry: entry[0])
    return [_stable(one) for one in value] if isinstance(value, list | tuple) else value


def _rows(task: Task, folder: Path, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """All that the source has, each with its place for people."""
    if task.questions:
        return _read_jsonl(folder / task.questions)
    return _read_dataset(task, folder) if task.dataset else _reasoning_gym(task, seed)


def _read_jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
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
    return rows


def _read_dataset(task: Task, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """A data set on the hub, or a folder with its files. Code that comes with a data set is never run."""
    try:
        import datasets
    except ImportError as error:
        raise StudyError(
            f"`task.dataset` needs the package `{error.name}`; install the extra: pip install 'opd-tui[datasets]'."
        ) from None
    here = (folder / task.dataset).expanduser()
    location = str(here.resolve()) if here.is_dir() else task.dataset
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(
            location, name=task.dataset_config or None, split=task.split, revision=task.dataset_revision or None
        )
    except Exception as error:  # whatever the library meets concerns this data set
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise StudyError(f"The data set `{task.dataset}` cannot be loaded: {what[0]}") from error
    return [(f"{task.dataset} ({task.split}), row {number}", dict(row)) for number, row in enumerate(found)]


def _reasoning_gym(task: Task, seed: int) -> list[tuple[str, dict[str, Any]]]:
    import reasoning_gym

    size = len(task.leave_out) + task.skip + (task.limit or 100)
    try:
        made = reasoning_gym.create_dataset(task.reasoning_gym, **{"seed": seed, "size": size, **task.reasoning_gym_arguments})
    except Exception as error:  # whatever the library says of a wrong name or argument is the user's to read
        raise StudyError(f"reasoning-gym cannot make `{task.reasoning_gym}`: {error}") from None
    name = task.reasoning_gym
    return [(f"{name} {number}", {"id": f"{name}-{number}", **made[number]}) for number in range(size)]


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
                return Grade(0.0, False, NO_ANSWER)
            answer = found[-1][1] or ""
        fields = _graded_fields(task, question)
        try:
            earned = grade(answer, question.answer, fields)
            reward, said = earned if isinstance(earned, tuple) else (earned, "")
            reward = float(reward)
        except Exception as error:  # the grader may be the user's; whatever it raises is named with its place
            raise ComputeError(
                f"The grader `{task.grader}` failed on question {question.id}, response {answer[:80]!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        correct = reward >= task.success_at
        return Grade(reward, correct, str(said) or _said(grade, correct, answer, fields))

    return graded


def _said(grade: Grader, correct: bool, answer: str, fields: Mapping[str, Any]) -> str:
    """What is said of a response by a grader that says nothing itself."""
    if correct:
        return RIGHT
    if not isinstance(grade, BuiltIn):
        return WRONG
    given = grade.read(answer, fields)
    if given is None:
        return NO_ANSWER
    return f"The response's answer, {given[:200]}, was graded wrong." if grade.quotes(fields) else WRONG


def grader_digest(task: Task, folder: Path) -> str:
    """A hash of the file that a grader of the user's own is in; empty for the others."""
    path, colon, _ = task.grader.rpartition(":")
    return hashlib.blake2b((folder / path).read_bytes(), digest_size=8).hexdigest() if colon else ""


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
    if not is_named(name):
        allowed = ", ".join([*GRADERS, "reasoning_gym"])
        raise StudyError(f"`task.grader` = {name!r} is no grader; there is {allowed}, or FILE.py:FUNCTION.")
    return load_function(name, folder, "task.grader")
