"""Teachers beside those that a study lists: its nulls, and those that were added to its store later."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from compute.errors import StudyError
from compute.study.reading import check_plain
from compute.study.settings import MOST_TEACHERS, Study, Teacher


def with_added(study: Study, added: Sequence[Teacher], where: str) -> Study:
    """The study with teachers that were added to its store, after its own. Raises `StudyError`, naming `where`."""
    taken = {teacher.id.lower(): "the study has" for teacher in study.teacher}
    for teacher in added:
        if teacher.id.lower() in taken:
            raise StudyError(f"{where}: {taken[teacher.id.lower()]} a teacher of the id {teacher.id} already; give it another.")
        taken[teacher.id.lower()] = "there is"
    check_plain(study, added, where)
    if len(study.teacher) + len(added) > MOST_TEACHERS:
        raise StudyError(f"{where}: {len(study.teacher) + len(added)} teachers, at most {MOST_TEACHERS} fit one store.")
    return msgspec.structs.replace(study, teacher=(*study.teacher, *added))


def with_nulls(study: Study, n_questions: int) -> Study:
    """The study with the null teachers that `study.nulls` asks for and that it does not list (method.md 4).

    Another question's demonstration needs a teacher whose demonstrations it can be compared with, whose wording and
    writer it takes, and a second question.
    """
    if not study.study.nulls:
        return study
    temperatures = {teacher.temperature for teacher in study.teacher if teacher.kind == "temperature"}
    nulls = [
        Teacher(id=f"null-t{temperature}", kind="temperature", temperature=temperature)
        for temperature in (0.7, 1.3)
        if temperature not in temperatures
    ]
    demonstrated = sorted((one for one in study.teacher if one.reads_demonstrations), key=lambda one: one.context != "1c")
    if demonstrated and n_questions > 1 and all(one.context != "other" for one in study.teacher):
        like = demonstrated[0]
        nulls.append(
            Teacher(
                id="null-other",
                kind="self",
                context="other",
                context_template=like.context_template if like.context == "1c" else "",
                context_model=like.context_model,
                revision=like.revision,
                dtype=like.dtype,
                device=like.device,
                trust_remote_code=like.trust_remote_code,
            )
        )
    taken = {teacher.id.lower() for teacher in study.teacher}
    for null in nulls:
        if null.id in taken:
            raise StudyError(
                f"Teacher {null.id}: a null of this id is added to every study; rename it, or set `study.nulls` = false."
            )
    if len(study.teacher) + len(nulls) > MOST_TEACHERS:
        raise StudyError(
            f"{len(study.teacher)} teachers and {len(nulls)} nulls, and at most {MOST_TEACHERS} fit one study; leave some out, "
            "or set `study.nulls` = false."
        )
    return msgspec.structs.replace(study, teacher=(*study.teacher, *nulls))
