"""What self teachers read: graded responses of a question, and summaries of them (method.md 5).

A *writer* is a model that writes them: the student, or one that a teacher names. Everything is kept as text, because
a writer's tokens need not be the student's; and everything is written from the student's own prompt, or from a
request of its own, so that no teacher's context ever reaches the student.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compute.engine import Engine, Launch
from compute.errors import ComputeError
from compute.models import Model
from compute.sampling import key
from compute.teachers import Material, has_context, summary_request
from store.schema import PathKind

if TYPE_CHECKING:
    from compute.pipeline import Bench, TeacherRun
    from compute.tasks import Question

_BATCH = 20
#: Different responses of either outcome that are looked for: one of them may be the rollout that is scored.
_WANTED = 2
#: Summaries that are written at once; the first that can be used is taken.
_SUMMARIES = 4


@dataclass(frozen=True, slots=True)
class Writer:
    """A model that writes demonstrations or summaries."""

    id: str  #: names its draws and its spooled work; "" for the student
    model: Model
    engine: Engine


@dataclass(frozen=True, slots=True)
class Pool:
    """What one writer can show of one question: a few different responses of either outcome."""

    correct: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def sample_pool(bench: Bench, writer: Writer, question: Question, wants_wrong: bool) -> Pool:
    """Responses at the demonstrations' temperature, graded, until there are enough or `max_tries` are spent.

    One that was cut off is neither correct nor a demonstration of what goes wrong.
    """
    settings, limit = bench.study.demonstrations, bench.study.sampling.max_response_tokens
    prompt = bench.prompt_ids(writer.model, question, "")
    _require_room(writer, len(prompt) + limit, f"question {question.id} and a demonstration")
    correct: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for start in range(0, settings.max_tries, _BATCH):
        tries = range(start, min(start + _BATCH, settings.max_tries))
        purpose = f"demonstration {writer.id}" if writer.id else "demonstration"
        launches = [Launch(0, key(bench.study.study.seed, question.id, purpose, (), -1, n)) for n in tries]
        for one in writer.engine.complete(
            prompt, (), launches, max_response_tokens=limit, temperature=settings.temperature, tick=bench.tick
        ):
            text = writer.model.text(one.token_ids.tolist())
            if text.strip() and not one.truncated:
                (correct if bench.grade(question, text).correct else wrong).setdefault(text)
        if len(correct) >= _WANTED and (len(wrong) >= _WANTED or not wants_wrong):
            break
    return Pool(tuple(correct)[:_WANTED], tuple(wrong)[: _WANTED if wants_wrong else 0])


def writers(teachers: Collection[TeacherRun]) -> dict[str, tuple[Writer, bool]]:
    """All writers of demonstrations, by id, and whether a wrong response of theirs is read too."""
    found: dict[str, tuple[Writer, bool]] = {}
    for teacher in teachers:
        if teacher.writer is not None:
            wrong = found.get(teacher.writer.id, (teacher.writer, False))[1]
            found[teacher.writer.id] = (teacher.writer, wrong or teacher.settings.reads_wrong)
    return found


def gather(
    bench: Bench,
    question: Question,
    pools: Mapping[str, Pool],
    others: Mapping[str, str],
    texts: Mapping[int, str],
    chosen: dict[int, PathKind],
) -> tuple[tuple[Material, ...] | None, dict[int, PathKind]]:
    """What every teacher's context is made of, or None where one cannot be had; and the rollouts that may be scored with it.

    `pools` and `others` (another question's demonstration, or "") are keyed by writer, `texts` holds the text of every
    rollout, `chosen` those to be scored. No demonstration and no summary is the text of a rollout that is scored: where
    every one in the pool is, the rollout that equals the first is not scored.
    """
    shown: dict[tuple[str, bool], str] = {}
    for teacher in bench.teachers:
        if teacher.writer is not None and teacher.settings.reads_demonstrations:
            pool = pools[teacher.writer.id]
            for wrong in (False, True) if teacher.settings.reads_wrong else (False,):
                if (teacher.writer.id, wrong) not in shown:
                    picked, chosen = _pick(pool.wrong if wrong else pool.correct, texts, chosen)
                    shown[teacher.writer.id, wrong] = picked
    barred = frozenset(texts[at].strip() for at in chosen)
    materials = []
    for teacher in bench.teachers:
        material = _material(bench, teacher, question, shown, others, barred)
        if not has_context(teacher.settings, question, material):
            return None, chosen
        materials.append(material)
    return tuple(materials), chosen


def _material(
    bench: Bench,
    teacher: TeacherRun,
    question: Question,
    shown: Mapping[tuple[str, bool], str],
    others: Mapping[str, str],
    barred: Collection[str],
) -> Material:
    """What one teacher's context is made of, as far as it can be had."""
    settings = teacher.settings
    if teacher.writer is None:
        return Material()
    if settings.context == "other":
        return Material(demonstration=others[teacher.writer.id])
    material = Material(shown[teacher.writer.id, False], shown[teacher.writer.id, True] if settings.reads_wrong else "")
    if settings.summarised and material.demonstration and (material.wrong or not settings.reads_wrong):
        material = replace(material, summary=summarise(bench, teacher, question, material, barred))
    return material


def summarise(bench: Bench, teacher: TeacherRun, question: Question, material: Material, barred: Collection[str]) -> str:
    """A summary of the teacher's demonstrations; empty where the summariser writes nothing but what is `barred`."""
    assert teacher.summariser is not None
    writer, settings = teacher.summariser, bench.study.demonstrations
    request = writer.model.prompt_ids(summary_request(teacher.settings, question, material), bench.study.chat)
    where = f"the demonstrations of question {question.id} and a summary for teacher {teacher.settings.id}"
    _require_room(writer, len(request) + settings.summary_tokens, where)
    launches = [Launch(0, key(bench.study.study.seed, question.id, "summary", request, -1, n)) for n in range(_SUMMARIES)]
    written = writer.engine.complete(
        request, (), launches, max_response_tokens=settings.summary_tokens, temperature=settings.temperature, tick=bench.tick
    )
    # One that was cut off is still a summary, if there is none that ended.
    for one in sorted(written, key=lambda one: one.truncated):
        text = writer.model.text(one.token_ids.tolist()).strip()
        if text and text not in barred:
            return text
    return ""


def _pick(pool: tuple[str, ...], texts: Mapping[int, str], chosen: dict[int, PathKind]) -> tuple[str, dict[int, PathKind]]:
    """A response that is none of the chosen rollouts; where all are, the rollout that equals the first is not scored.

    Empty where the pool is, or where nothing would be left to score.
    """
    paths = {texts[at].strip() for at in chosen}
    for text in pool:
        if text.strip() not in paths:
            return text, chosen
    for text in pool:
        left = {at: kind for at, kind in chosen.items() if texts[at].strip() != text.strip()}
        if left:
            return text, left
    return "", chosen


def _require_room(writer: Writer, length: int, what: str) -> None:
    """Raise `ComputeError` where a writer's window is too short for what it reads and writes."""
    if writer.model.window is not None and length > writer.model.window:
        raise ComputeError(f"{what} take {length} tokens, and the window of {writer.model.name} has {writer.model.window}.")
