"""A study with everything it names, ready to run: questions, models, teachers, and the hash of it all."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace as replaced

from compute import models, objectives
from compute.demonstrations import Writer
from compute.pipeline import Bench, Responses
from compute.progress import Reporter
from compute.residence import Residence
from compute.shelf import Shelf, engine_name, load_model, open_teacher, study_engine
from compute.stopping import Ticker
from compute.study import Study, Teacher, fingerprint, load, with_nulls
from compute.tasks import Question, grader_digest, load_questions, make_grader
from compute.teachers import describe, require_fields
from store.tables import RootAttributes, TeacherInfo


@dataclass(frozen=True, slots=True)
class Setup:
    """A study with everything it names: questions, models, and the hash of it all."""

    study: Study
    questions: tuple[Question, ...]
    bench: Bench
    attributes: RootAttributes
    shelf: Shelf  #: where further teachers find their models
    given: Given | None = None  #: rollouts that take the place of sampled ones


@dataclass(frozen=True, slots=True)
class Given:
    """Initial rollouts that were sampled elsewhere."""

    responses: Mapping[str, Responses]  #: of every question, by its id
    words: str  #: where they are from, for the store


def prepare(path: Path, reporter: Reporter, *, device: str = "", engine: str = "") -> Setup:
    """Load a study and all that it names. `device` overrides every device of the file, `engine` its engine.

    Raises `StudyError`.
    """
    study = load(path)
    if engine:
        study = replaced(study, engine=replaced(study.engine, kind=engine))
    folder = path.resolve().parent
    questions = load_questions(study.task, folder, study.study.seed)
    grade = make_grader(study.task, folder, study.study.seed)
    study = with_nulls(study, len(questions))
    require_fields(study.teacher, questions)
    reporter.phase("loading models")
    shared = Residence() if study.engine.resident == "one" else None
    student = load_model(study.student.model, study.student, folder, device, study.sampling.stop, shared)
    if study.engine.threads:
        import torch

        torch.set_num_threads(study.engine.threads)
    runs = study_engine(study, student, folder, reporter.say)
    shelf = Shelf(study, folder, device, Writer("", student, runs), reporter.say, shared)
    teachers = tuple(open_teacher(settings, shelf) for settings in study.teacher)
    tick = Ticker(reporter)
    bench = Bench(study, student, runs, teachers, grade, tick, reporter.say)
    served = examine(bench, questions)
    used = [student, *(one.model for one in teachers), *(one.model for one in shelf.writers.values() if one.id)]
    weights = [models.weights_digest(model.name) for model in used]
    contents = contents_of(study, questions, folder, weights, student.tokens.digest())
    attributes = RootAttributes(
        study=path.read_text(encoding="utf-8"),
        study_hash=fingerprint(study, contents),
        student=study.student.model,
        teachers=tuple(teacher_info(one, study) for one in study.teacher),
        objectives=tuple(str(objectives.parse(name)) for name in study.study.objectives),
        question_ids=tuple(question.id for question in questions),
        n_sig=study.targeting.n_sig,
        top_k=study.keep.top_k,
        provenance=_provenance(study, contents, student) | {"engine": engine_name(study, runs), "served": served},
    )
    return Setup(study, questions, bench, attributes, shelf)


def contents_of(study: Study, questions: Sequence[Question], folder: Path, weights: Sequence[str], tokens: str) -> dict[str, Any]:
    """What a study names, as its hash takes it: its questions and grader, and digests of its models."""
    return {
        "questions": [[question.id, question.prompt, question.answer, question.digest] for question in questions],
        "grader": grader_digest(study.task, folder),
        "weights": list(weights),
        "tokens": tokens,
    }


def teacher_info(teacher: Teacher, study: Study) -> TeacherInfo:
    """What a store says of a teacher."""
    return TeacherInfo(
        id=teacher.id,
        kind=teacher.kind,
        context=teacher.context,
        model=teacher.model or teacher.served_model or study.student.model,
        null=teacher.null,
        description=describe(teacher),
    )


def examine(bench: Bench, questions: Sequence[Question]) -> dict[str, Any]:
    """Find out what the servers of served teachers give, from the first questions: told, and returned for the store."""
    found = {}
    for teacher in bench.teachers:
        if teacher.served is not None:
            probes = [bench.prompt_ids(bench.student, question, "") for question in questions[:2]]
            capabilities = teacher.served.examine(probes, bench.study.keep.top_k, bench.tick)
            bench.say(capabilities.sentence(teacher.settings.id))
            found[teacher.settings.id] = asdict(capabilities)
    return found


def _provenance(study: Study, contents: dict[str, Any], student: models.Model) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "seed": study.study.seed,
        "student_dtype": study.student.dtype,
        "device": str(student.device),
        "slots": study.engine.slots,
        "weights": contents["weights"],
        "tokens": contents["tokens"],
        "chat_template": _template_digest(study, student),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _template_digest(study: Study, student: models.Model) -> str:
    """A hash of the student's chat template, "" where the study goes without one."""
    template = getattr(student.tokenizer, "chat_template", None)
    if study.chat.template == "plain" or not isinstance(template, str):
        return ""
    return hashlib.blake2b(template.encode(), digest_size=16).hexdigest()
