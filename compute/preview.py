"""What every model of a study would be asked, before anything is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compute.demonstrations import gather
from compute.runner import others_of, pools_of
from compute.setup import Setup
from compute.study import Study, Teacher
from compute.tasks import Question
from compute.teachers import context_of, summary_request


def preview(setup: Setup, question: Question) -> Iterator[tuple[str, str]]:
    """The exact prompts of the student and of each teacher, special tokens visible: (who, prompt)."""
    bench = setup.bench
    yield "student", bench.student.shown(bench.prompt_ids(bench.student, question, ""))
    pools, others = pools_of(setup, question, None), others_of(setup, question, None)
    for teacher in bench.teachers:
        settings = teacher.settings
        materials, _ = gather(replace(bench, teachers=(teacher,)), question, pools, others, {}, {})
        if materials is None:
            yield settings.id, f"({_lacking(setup.study, settings)}: the question is left out)"
            continue
        if teacher.summariser is not None:
            asked = summary_request(settings, question, materials[0])
            model = teacher.summariser.model
            yield f"{settings.id}, the summariser", model.shown(model.prompt_ids(asked, setup.study.chat))
        context = context_of(settings, question, materials[0])
        yield settings.id, teacher.model.shown(bench.prompt_ids(teacher.model, question, context))


def _lacking(study: Study, teacher: Teacher) -> str:
    """Why a teacher's context could not be had."""
    if teacher.context == "hint":
        return f"its field `{teacher.hint_field}` is empty"
    kinds = "correct or no wrong demonstration" if teacher.reads_wrong else "correct demonstration"
    return f"no {kinds} in {study.demonstrations.max_tries} tries" + (", or no summary" if teacher.summarised else "")
