"""A run: from a study file to a store, question by question, resumable at any moment.

Every finished phase of a question lies in a spool beside the store; finished questions are published as parts.
So a crash costs the phase in hand, and the same command goes on. Since every draw is keyed by what is drawn, a
resumed run stores what an uninterrupted one would have.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from compute import models, objectives, scoring
from compute.errors import ComputeError, Interrupted
from compute.pipeline import Bench, TeacherRun, investigate, sample_demonstrations, sample_rollouts
from compute.progress import Reporter
from compute.record import to_record
from compute.spooled import Spool
from compute.study import ModelSettings, Study, Teacher, fingerprint, load
from compute.tasks import Question, load_questions, make_grader
from compute.teachers import context_of, describe
from store import writer
from store.parts import PartArrays
from store.tables import RootAttributes, TeacherInfo


@dataclass(frozen=True, slots=True)
class Setup:
    """A study with everything it names: questions, models, and the hash of it all."""

    study: Study
    questions: tuple[Question, ...]
    bench: Bench
    attributes: RootAttributes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    n_done: int  #: questions in the store
    n_planned: int
    seconds: float


def prepare(path: Path, reporter: Reporter, *, device: str = "") -> Setup:
    """Load a study and all that it names. `device` overrides every device of the file. Raises `StudyError`."""
    study = load(path)
    folder = path.resolve().parent
    questions = load_questions(study.task, folder, study.study.seed)
    grade = make_grader(study.task, folder, study.study.seed)
    reporter.phase("loading models")
    student = _model(study.student, folder, device, study.sampling.stop)
    from compute.engine.transformers import TransformersEngine

    if study.engine.threads:
        import torch

        torch.set_num_threads(study.engine.threads)
    teachers = tuple(_teacher(settings, student, folder, device) for settings in study.teacher)
    tick = _Ticker(reporter)
    bench = Bench(study, student, TransformersEngine(student, slots=study.engine.slots), teachers, grade, tick, reporter.say)
    contents = {
        "questions": [[question.id, question.prompt, question.answer] for question in questions],
        "weights": [models.weights_digest(student.name), *(models.weights_digest(one.model.name) for one in teachers)],
        "tokens": student.tokens.digest(),
    }
    attributes = RootAttributes(
        study=path.read_text(encoding="utf-8"),
        study_hash=fingerprint(study, contents),
        student=study.student.model,
        teachers=tuple(
            TeacherInfo(
                id=one.id,
                kind=one.kind,
                context=one.context,
                model=one.model or study.student.model,
                null=one.null,
                description=describe(one),
            )
            for one in study.teacher
        ),
        objectives=tuple(str(objectives.parse(name)) for name in study.study.objectives),
        question_ids=tuple(question.id for question in questions),
        n_sig=study.targeting.n_sig,
        top_k=study.keep.top_k,
        provenance=_provenance(study, contents, student),
    )
    return Setup(study, questions, bench, attributes)


def run(setup: Setup, out: Path, reporter: Reporter, *, limit: int = 0) -> Outcome:
    """Compute what `out` lacks of the study, at most `limit` further questions (0: all).

    Raises `StoreError` where `out` holds another study or cannot be written, `Interrupted` after a signal.
    """
    started = time.monotonic()
    student = setup.bench.student
    writer.create(out, setup.attributes, student.tokens.token_bytes, student.tokens.special_ids)
    with _lock(out):
        writer.remove_leftovers(out)  # of runs that were killed while they published
        spool = Spool(_work_folder(out), setup.attributes.study_hash)
        done = writer.committed_question_ids(out)
        todo = [question for question in setup.questions if question.id not in done]
        todo = todo[:limit] if limit else todo
        reporter.done = sum(question.id in done for question in setup.questions)
        reporter.total = reporter.done + len(todo)
        finished: list[tuple[Question, PartArrays]] = []
        with reporter, _signals():
            if len(todo) < len(setup.questions):
                reporter.say(f"{reporter.done} of {len(setup.questions)} questions are in the store; {len(todo)} to do.")
            opened = time.monotonic()
            try:
                for question in todo:
                    finished.append((question, _question(setup, question, spool, reporter)))
                    reporter.question_done()
                    parts = setup.study.parts
                    if len(finished) >= parts.questions or time.monotonic() - opened > 60 * parts.minutes:
                        _publish(out, finished, spool)
                        opened = time.monotonic()
            except ComputeError:  # interrupted, or a fault of one question: the finished ones are kept all the same
                _publish(out, finished, spool)
                raise
            _publish(out, finished, spool)
        n_done = len(writer.committed_question_ids(out))
        if n_done == len(setup.questions):
            spool.remove()
    return Outcome(n_done, len(setup.questions), time.monotonic() - started)


def preview(setup: Setup, question: Question) -> Iterator[tuple[str, str]]:
    """The exact prompts of the student and of each teacher, special tokens visible: (who, prompt)."""
    bench = setup.bench
    yield "student", bench.student.shown(bench.prompt_ids(bench.student, question, ""))
    contexts = {teacher.settings.context for teacher in bench.teachers}
    own = sample_demonstrations(bench, question) if "1c" in contexts else []
    others = _others(setup, question, None) if "other" in contexts else None
    for teacher in bench.teachers:
        lacking = (teacher.settings.context == "1c" and not own) or (teacher.settings.context == "other" and others is None)
        if lacking:
            yield (
                teacher.settings.id,
                f"(no correct demonstration in {setup.study.demonstrations.max_tries} tries: the question is left out)",
            )
            continue
        context = context_of(
            teacher.settings, question, bench.student.text(own[0] if own else ()), bench.student.text(others or ())
        )
        yield teacher.settings.id, teacher.model.shown(bench.prompt_ids(teacher.model, question, context))


def _question(setup: Setup, question: Question, spool: Spool, reporter: Reporter) -> PartArrays:
    """The record of one question, from the spool as far as it goes."""
    ready = spool.record(question)
    if ready is not None:
        return ready
    bench = setup.bench
    reporter.phase(f"question {question.number + 1}: rollouts")  # by number: its name is data, and this goes to a terminal
    rollouts = spool.responses(question, "rollouts", partial(sample_rollouts, bench, question))
    contexts = {teacher.settings.context for teacher in bench.teachers}
    demonstrations: Sequence[tuple[int, ...]] = ()
    others: tuple[int, ...] | None = None
    if rollouts.correct.any():
        if "1c" in contexts:
            reporter.phase(f"question {question.number + 1}: demonstrations")
            demonstrations = spool.sequences(question, "demonstrations", partial(sample_demonstrations, bench, question))
        if "other" in contexts:
            others = _others(setup, question, spool)
    reporter.phase(f"question {question.number + 1}: completions")
    findings = investigate(bench, question, rollouts, demonstrations, others, partial(spool.responses, question))
    record = to_record(setup.study, findings)
    spool.keep_record(question, record)
    return record


def _others(setup: Setup, question: Question, spool: Spool | None) -> tuple[int, ...] | None:
    """The demonstration of the next question that has one, in the study's circle."""
    count = len(setup.questions)
    for step in range(1, count):
        other = setup.questions[(question.number + step) % count]
        sample = partial(sample_demonstrations, setup.bench, other)
        found = sample() if spool is None else spool.sequences(other, "demonstrations", sample)
        if found:
            return found[0]
    return None


def _publish(out: Path, finished: list[tuple[Question, PartArrays]], spool: Spool) -> None:
    """Publish finished records as one part, then let go of them."""
    if not finished:
        return
    writer.publish(out, writer.next_part_id(out, spool.run_id), writer.concatenate([record for _, record in finished]))
    for question, _ in finished:
        spool.drop_record(question)
    finished.clear()


def _model(settings: ModelSettings | Teacher, folder: Path, device: str, stop: Sequence[str]) -> models.Model:
    return models.load(
        models.locate(settings.model, folder),
        revision=settings.revision,
        dtype=settings.dtype,
        device=device or settings.device,
        trust_remote_code=settings.trust_remote_code,
        stop=stop,
    )


def _teacher(settings: Teacher, student: models.Model, folder: Path, device: str) -> TeacherRun:
    if settings.kind != "external":
        temperature = settings.temperature if settings.kind == "temperature" else 1.0
        return TeacherRun(settings, student, scoring.log_probs(student.logits, temperature))
    model = _model(settings, folder, device, ())
    models.require_same_tokens(student, model)
    return TeacherRun(settings, model, scoring.log_probs(model.logits))


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
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


class _Ticker:
    """Counts tokens, and stops the run between two steps once a signal came."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def __call__(self, n: int) -> None:
        if _STOP:
            raise Interrupted(f"stopped by {_STOP[0]}")
        self._reporter.tokens(n)


#: The name of the signal that asked us to stop, once one did. Signals belong to the process, so this does too.
_STOP: list[str] = []


@contextmanager
def _signals() -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into a stop between two steps."""

    def stop(number: int, frame: FrameType | None) -> None:
        _STOP.append(signal.Signals(number).name)

    _STOP.clear()
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """One run at a time per store; the system lets go of the lock when a process dies."""
    folder = _work_folder(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ComputeError(f"The folder {folder} for unfinished work cannot be written: {error.strerror}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ComputeError(
                f"Another run is computing {out} at this moment; wait for it, or give this one another store."
            ) from None
        yield
        if not any(folder.glob("*/*")):
            shutil.rmtree(folder, ignore_errors=True)


def _work_folder(out: Path) -> Path:
    """Where unfinished work lies, beside the store."""
    return out.with_name(out.name + ".work")
