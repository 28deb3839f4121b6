"""Reading study files: what types alone cannot say is checked here, and a fault is explained with its place and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from compute import objectives
from compute.errors import StudyError
from compute.study.explain import explain
from compute.study.settings import MOST_TEACHERS, SLOTS, Study, Teacher


class _TeacherFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file with one teacher, for `opd-tui add-teacher`."""

    teacher: tuple[Teacher, ...]


def parse_teacher(text: str, path: Path) -> Teacher:
    """The one teacher of a file that `opd-tui add-teacher` takes; `path` is named in errors. Raises `StudyError`."""
    try:
        raw = msgspec.toml.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise StudyError(f"{path} is not valid TOML: {error}") from None
    try:
        teachers = msgspec.convert(raw, _TeacherFile).teacher
    except msgspec.ValidationError as error:
        raise StudyError(f"{path}: {explain(error, _TeacherFile, raw)}") from None
    if len(teachers) != 1:
        raise StudyError(f"{path} has {len(teachers)} teachers; a file for add-teacher has one [[teacher]] table.")
    _check_teacher(teachers[0], f"{path}: `teacher[0]` ({teachers[0].id})")
    return teachers[0]


def load(path: Path) -> Study:
    """Read and check the study file at `path`.

    Raises `StudyError` with the file, the key, what is allowed and the nearest name.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"There is no study file {path}; `opd-tui init` writes one.") from None
    except OSError as error:
        raise StudyError(f"The study file {path} cannot be read: {error.strerror}.") from None
    return parse(data, path)


def parse(data: bytes, path: Path) -> Study:
    """As `load`, from the file's bytes; `path` is named in errors."""
    try:
        raw = msgspec.toml.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is not valid TOML: {error}") from None
    try:
        study = msgspec.convert(raw, Study)
    except msgspec.ValidationError as error:
        raise StudyError(f"{path}: {explain(error, Study, raw)}") from None
    _check(study, path)
    return study


def _check(study: Study, path: Path) -> None:
    """What types alone cannot say."""
    task = study.task
    if sum(map(bool, (task.questions, task.dataset, task.reasoning_gym))) != 1:
        raise StudyError(
            f"{path}: [task] needs either `questions` (a JSONL file), `dataset` (a name or folder), "
            "or `reasoning_gym` (a task name)."
        )
    if not task.dataset and (task.dataset_config or task.dataset_revision):
        raise StudyError(f"{path}: [task] `dataset_config` and `dataset_revision` mean nothing without `dataset`.")
    for name in study.study.objectives:
        try:
            objectives.parse(name)
        except ValueError as error:
            raise StudyError(f"{path}: `study.objectives`: {error}") from None
    _check_teachers(study, path)
    if study.targeting.budget_completions and study.targeting.budget_tokens:
        raise StudyError(f"{path}: [targeting] takes `budget_completions` or `budget_tokens`, not both.")
    if study.chat.template == "plain":
        if study.chat.system or study.chat.arguments:
            raise StudyError(f'{path}: [chat] `system` and `arguments` mean nothing with template = "plain".')
        check_plain(study, study.teacher, str(path))


def check_plain(study: Study, teachers: Iterable[Teacher], where: str) -> None:
    """Whether the study has a place for the contexts of teachers where its prompts are plain text."""
    plain = study.chat.template == "plain" and "{context}" not in study.task.prompt
    if plain and any(teacher.context for teacher in teachers):
        raise StudyError(
            f'{where}: with [chat] template = "plain", `task.prompt` must say where a teacher\'s context goes: {{context}}.'
        )


def _check_teachers(study: Study, path: Path) -> None:
    """What the kind of a teacher asks for."""
    seen: set[str] = set()
    for number, teacher in enumerate(study.teacher):
        where = f"{path}: `teacher[{number}]` ({teacher.id})"
        if teacher.id.lower() in seen:
            raise StudyError(f"{where}: another teacher has this id; ids differ by more than case.")
        seen.add(teacher.id.lower())
        _check_teacher(teacher, where)
    if len(study.teacher) > MOST_TEACHERS:
        raise StudyError(f"{path}: {len(study.teacher)} teachers, at most {MOST_TEACHERS} fit one study.")


def _check_teacher(teacher: Teacher, where: str) -> None:
    """What the kind of one teacher asks for."""
    if teacher.kind == "external" and not teacher.model:
        raise StudyError(f"{where}: an external teacher needs `model`.")
    if teacher.kind != "external" and teacher.model:
        raise StudyError(f"{where}: only an external teacher has a `model`; this one is the student.")
    _check_served(teacher, where)
    if teacher.kind == "self" and not teacher.context:
        raise StudyError(f"{where}: a self teacher needs a `context`: {', '.join(SLOTS)}.")
    if teacher.kind != "self" and teacher.context:
        raise StudyError(f"{where}: only a self teacher has a `context`.")
    if teacher.kind != "temperature" and teacher.temperature != 1.0:
        raise StudyError(f"{where}: only a temperature teacher has a `temperature`; this one would ignore it.")
    if teacher.context_template and not teacher.context:
        raise StudyError(f"{where}: `context_template` words a `context`, and this teacher has none.")
    if teacher.kind == "temperature" and teacher.temperature == 1.0:
        raise StudyError(f"{where}: at `temperature` 1 the teacher is the student, and every score is undefined.")
    _check_context(teacher, where)


def _check_served(teacher: Teacher, where: str) -> None:
    """What a teacher behind a server asks for. Its address stands in the store: a key must not."""
    if teacher.kind != "served":
        if teacher.url or teacher.served_model or teacher.key_env:
            raise StudyError(f"{where}: `url`, `served_model` and `key_env` belong to a served teacher.")
        return
    parts = urlsplit(teacher.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StudyError(f"{where}: a served teacher needs `url`, such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise StudyError(
            f"{where}: `url` may hold no name, password or query, because it is stored; name a variable in `key_env`."
        )
    if not teacher.served_model and teacher.api != "sglang":
        raise StudyError(f"{where}: a served teacher needs `served_model`, the model's name there.")


def _check_context(teacher: Teacher, where: str) -> None:
    """What the context of a teacher asks for, and what it would ignore."""
    for slot in SLOTS.get(teacher.context, ()):
        if teacher.context_template and f"{{{slot}}}" not in teacher.context_template:
            raise StudyError(f"{where}: `context_template` has no {{{slot}}}, so the teacher would not see it.")
    if teacher.summary_template:
        for slot in ("demonstration", "wrong") if teacher.reads_wrong else ("demonstration",):
            if f"{{{slot}}}" not in teacher.summary_template:
                raise StudyError(f"{where}: `summary_template` has no {{{slot}}}, so the summariser would not see it.")
    if teacher.context_model and not (teacher.reads_demonstrations or teacher.context == "other"):
        raise StudyError(f"{where}: `context_model` writes demonstrations, and this teacher reads none.")
    if (teacher.summary_model or teacher.summary_template) and not teacher.summarised:
        raise StudyError(f"{where}: `summary_model` and `summary_template` belong to the contexts sum-1c and sum-1c1w.")
    if teacher.hint_field != "hint" and teacher.context != "hint":
        raise StudyError(f'{where}: `hint_field` belongs to the context "hint".')
