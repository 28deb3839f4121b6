"""A run: from a study file to a store, question by question, resumable at any moment.

Every finished phase of a question lies in a spool beside the store; finished questions are published as parts.
So a crash costs the phase in hand, and the same command goes on. Since every draw is keyed by what is drawn, a
resumed run stores what an uninterrupted one would have.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace as replaced

from compute import models, objectives, scoring
from compute.demonstrations import Pool, Writer, gather, sample_pool, writers
from compute.engine import Engine
from compute.errors import ComputeError, StudyError
from compute.locks import WHOLE, Shard, lock
from compute.passes import read
from compute.pipeline import (
    Bench,
    Findings,
    Prepared,
    Responses,
    TeacherRun,
    follow,
    graded,
    sample_rollouts,
    sample_together,
    screen,
)
from compute.pipeline import prepare as prepare_question
from compute.progress import Reporter
from compute.record import to_record
from compute.residence import Residence
from compute.served.teacher import open_served
from compute.spooled import Spool
from compute.stopping import Ticker, signals
from compute.study import ModelSettings, Study, Teacher, fingerprint, load, with_nulls
from compute.tasks import Question, grader_digest, load_questions, make_grader
from compute.teachers import context_of, describe, require_fields, summary_request
from compute.user_code import is_named, load_function
from store import writer
from store.parts import PartArrays
from store.place import PathLike, is_remote
from store.schema import QuestionStatus
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    n_done: int  #: questions in the store
    n_planned: int
    seconds: float


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
        provenance=_provenance(study, contents, student) | {"engine": _engine_name(study, runs), "served": served},
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


def run(setup: Setup, out: PathLike, reporter: Reporter, *, limit: int = 0, shard: Shard = WHOLE) -> Outcome:
    """Compute what `out` lacks of the study, or of a shard of it; at most `limit` further questions (0: all).

    Raises `StoreError` where `out` holds another study or cannot be written, `Interrupted` after a signal.
    """
    started = time.monotonic()
    create(setup, out)
    with lock(work_folder(out), out, shard):
        writer.remove_leftovers(out)  # of runs that were killed while they published
        spool = Spool(work_folder(out), setup.attributes.study_hash, shard)
        todo = missing(setup.questions, out, shard, limit, reporter)
        batch = Batch(setup.study, out, spool)
        with reporter, signals():
            try:
                for group in groups(setup.study, todo):
                    look_ahead(setup, todo[todo.index(group[0]) :], spool, reporter)
                    for question, record in do_questions(setup, group, spool, reporter):
                        batch.add(question, record)
                        reporter.question_done()
            finally:  # interrupted, or a fault of one question: the finished ones are kept all the same
                batch.publish()
        n_done = finish(out, setup.questions, spool)
    return Outcome(n_done, len(setup.questions), time.monotonic() - started)


def create(setup: Setup, out: PathLike) -> None:
    """Make the store of the study, or see that it is there."""
    tokens = setup.bench.student.tokens
    writer.create(out, setup.attributes, tokens.token_bytes, tokens.special_ids)


def missing(questions: Sequence[Question], out: PathLike, shard: Shard, limit: int, reporter: Reporter) -> list[Question]:
    """The questions of a shard that the store lacks, at most `limit` (0: all); tells how many there are."""
    mine = [question for question in questions if shard.has(question.number)]
    done = writer.committed_question_ids(out)
    todo = [question for question in mine if question.id not in done]
    reporter.done = len(mine) - len(todo)
    todo = todo[:limit] if limit else todo
    reporter.total = reporter.done + len(todo)
    if len(todo) < len(mine):
        reporter.say(f"{reporter.done} of {len(mine)} questions are in the store; {len(todo)} to do.")
    return todo


def finish(out: PathLike, questions: Sequence[Question], spool: Spool) -> int:
    """How many questions the store has; once it has all, unfinished work is let go of."""
    n_done = len(writer.committed_question_ids(out))
    if n_done == len(questions):
        spool.remove()
    return n_done


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


def groups(study: Study, questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    """Questions that are done together, phase by phase: those of a part where models take turns in memory, else one."""
    size = study.parts.questions if study.engine.resident == "one" else 1
    return (questions[start : start + size] for start in range(0, len(questions), size))


def look_ahead(setup: Setup, todo: Sequence[Question], spool: Spool, reporter: Reporter) -> None:
    """Sample rollouts of the next questions together where one alone would leave the engine's slots empty."""
    if setup.given is not None:
        return
    room = getattr(setup.bench.engine, "room", 0) // setup.study.sampling.n_rollouts
    if room < 2 or not todo or spool.has(todo[0], "rollouts"):
        return
    chosen = [question for question in todo if not spool.has(question, "rollouts")][:room]
    reporter.phase(f"questions {chosen[0].number + 1} to {chosen[-1].number + 1}: rollouts")
    for question, completions in zip(chosen, sample_together(setup.bench, chosen), strict=True):
        with suppress(ComputeError):  # a grader that fails is told of at its own question, when those before it are finished
            spool.responses(question, "rollouts", partial(graded, setup.bench, question, completions))


def do_questions(
    setup: Setup, questions: Sequence[Question], spool: Spool, reporter: Reporter
) -> Iterator[tuple[Question, PartArrays]]:
    """The records of some questions, from the spool as far as it goes: each phase for all of them, then the next."""
    ready = {question.id: spool.record(question) for question in questions}
    begun = {one.id: begin(setup, one, spool, reporter) for one in questions if ready[one.id] is None}
    paths = [one for one in begun.values() if isinstance(one, Prepared)]
    if paths:
        reporter.phase(f"question {paths[0].question.number + 1}{' and others' if len(paths) > 1 else ''}: teachers")
    stored = dict(zip((one.question.id for one in paths), read(setup.bench, paths), strict=True))
    for question in questions:
        record = ready[question.id]
        if record is None:
            reporter.phase(f"question {question.number + 1}: completions")
            found = begun[question.id]
            if isinstance(found, Prepared):
                found = follow(setup.bench, found, stored.pop(question.id), partial(spool.responses, question))
            line = made_with(setup.study, setup.bench) + (f"; {setup.given.words}" if setup.given is not None else "")
            record = replaced(to_record(setup.study, found), made_with=frozenset([line]))
            spool.keep_record(question, record)
        yield question, record


def made_with(study: Study, bench: Bench) -> str:
    """What runs the completions, in one line for the store."""
    return f"{_engine_name(study, bench.engine)}, {study.student.dtype} on {bench.student.device}, {bench.engine.batch_shape}"


def do_question(setup: Setup, question: Question, spool: Spool, reporter: Reporter) -> PartArrays:
    """The record of one question, from the spool as far as it goes."""
    ((_, record),) = do_questions(setup, [question], spool, reporter)
    return record


def begin(setup: Setup, question: Question, spool: Spool, reporter: Reporter) -> Prepared | Findings:
    """What comes before the teachers' passes."""
    bench = setup.bench
    reporter.phase(f"question {question.number + 1}: rollouts")  # by number: its name is data, and this goes to a terminal
    if setup.given is not None:
        rollouts = setup.given.responses[question.id]
    else:
        rollouts = spool.responses(question, "rollouts", partial(sample_rollouts, bench, question))
    pools: dict[str, Pool] = {}
    others: dict[str, str] = {}
    if screen(bench, rollouts) is QuestionStatus.SCORED:
        reporter.phase(f"question {question.number + 1}: demonstrations")
        pools, others = pools_of(setup, question, spool), others_of(setup, question, spool)
    return prepare_question(bench, question, rollouts, pools, others)


def _pool(setup: Setup, question: Question, author: Writer, wants_wrong: bool, spool: Spool | None) -> Pool:
    """The demonstrations of one writer, as kept, or sampled and kept."""
    make = partial(sample_pool, setup.bench, author, question, wants_wrong)
    phase = f"demonstrations-{author.id}" if author.id else "demonstrations"
    return make() if spool is None else spool.pool(question, phase, make)


def pools_of(setup: Setup, question: Question, spool: Spool | None) -> dict[str, Pool]:
    """By writer, the demonstrations of this question that its teachers read."""
    readers = [one for one in setup.bench.teachers if one.settings.reads_demonstrations]
    return {
        name: _pool(setup, question, author, wants_wrong, spool)
        for name, (author, wants_wrong) in writers(setup.bench.teachers).items()
        if name in writers(readers)
    }


def others_of(setup: Setup, question: Question, spool: Spool | None) -> dict[str, str]:
    """By writer, the demonstration of the next question that has one, in the study's circle; "" where none has."""
    found: dict[str, str] = {}
    readers = [one for one in setup.bench.teachers if one.settings.context == "other"]
    count = len(setup.questions)
    for name, (author, wants_wrong) in writers(setup.bench.teachers).items():
        if name in writers(readers):
            around = (setup.questions[(question.number + step) % count] for step in range(1, count))
            pools = (_pool(setup, other, author, wants_wrong, spool) for other in around)
            found[name] = next((pool.correct[0] for pool in pools if pool.correct), "")
    return found


class Batch:
    """Finished records that are published together: a part once there are enough of them, or after some minutes."""

    def __init__(
        self, study: Study, out: PathLike, spool: Spool, *, generation: int = 0, nominators: tuple[str, ...] = ()
    ) -> None:
        self._parts, self._out, self._spool = study.parts, out, spool
        self._generation, self._nominators = generation, nominators
        self._finished: list[tuple[Question, PartArrays]] = []
        self._opened = time.monotonic()

    def add(self, question: Question, record: PartArrays) -> None:
        """One more finished record."""
        self._finished.append((question, record))
        if len(self._finished) >= self._parts.questions or time.monotonic() - self._opened > 60 * self._parts.minutes:
            self.publish()

    def publish(self) -> None:
        """Publish what there is as one part, in the study's order, then let go of it."""
        self._opened = time.monotonic()
        if not self._finished:
            return
        finished = sorted(self._finished, key=lambda entry: entry[0].number)
        records = writer.concatenate([record for _, record in finished])
        writer.publish(
            self._out,
            writer.next_part_id(self._out, self._spool.run_id),
            records,
            generation=self._generation,
            nominators=self._nominators,
        )
        for question, _ in finished:
            self._spool.drop_record(question)
        self._finished.clear()


class Shelf:
    """Every model that a study names, loaded once however many teachers use it."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        device: str,
        student: Writer,
        note: Callable[[str], None],
        shared: Residence | None,
    ) -> None:
        self.student = student.model
        self._note, self._shared = note, shared
        #: by id: those who write demonstrations or summaries
        self.writers = {student.id: student}
        self._study, self._folder, self._device = study, folder, device
        self._models: dict[tuple[str, ...], models.Model] = {}

    def beside(self, folder: Path) -> Shelf:
        """The same models, for a teacher whose relative paths count from another folder."""
        other = Shelf(self._study, folder, self._device, self.writers[""], self._note, self._shared)
        other.writers, other._models = self.writers, self._models
        return other

    def model(self, name: str, settings: Teacher) -> models.Model:
        """The model `name` with the revision, dtype and device of a teacher."""
        facts = (models.locate(name, self._folder), settings.revision, settings.dtype, self._device or settings.device)
        if facts not in self._models:
            self._models[facts] = load_model(name, settings, self._folder, self._device, (), self._shared)
        return self._models[facts]

    def writer(self, name: str, settings: Teacher) -> Writer:
        """Who writes for a teacher: the student, or the model that it names."""
        if not name:
            return self.writers[""]
        # From the study's words alone: a study draws the same wherever its models lie.
        identity = f"{name}\0{settings.revision}\0{settings.dtype}".encode()
        found = hashlib.blake2b(identity, digest_size=4).hexdigest()
        if found not in self.writers:
            model = models.stopping(self.model(name, settings), self._study.sampling.stop)
            self.writers[found] = Writer(found, model, transformers_engine(self._study, model, self._note))
        return self.writers[found]


def load_model(
    name: str,
    settings: ModelSettings | Teacher,
    folder: Path,
    device: str,
    stop: Sequence[str],
    shared: Residence | None,
) -> models.Model:
    """Load a model; with `shared`, one that takes turns with the others there."""
    location = models.locate(name, folder)
    options: dict[str, Any] = {
        "revision": settings.revision,
        "dtype": settings.dtype,
        "device": device or settings.device,
        "trust_remote_code": settings.trust_remote_code,
    }
    model = models.load(location, stop=stop, **options)
    if shared is not None:
        shared.take_in(model, partial(models.load_network, location, **options))
    return model


def study_engine(study: Study, student: models.Model, folder: Path, note: Callable[[str], None]) -> Engine:
    """The engine that the study asks for. Raises `StudyError`."""
    if study.engine.kind == "vllm":
        from compute.engine.vllm import VllmEngine

        if study.student.trust_remote_code:
            raise StudyError("The engine vllm runs no code that comes with a model; `student.trust_remote_code` must be false.")
        return VllmEngine(
            student,
            dtype=study.student.dtype,
            revision=study.student.revision,
            slots=study.engine.slots,
            arguments=study.engine.vllm,
        )
    if is_named(study.engine.kind):
        return _users_engine(study, student, folder)
    if study.engine.kind != "transformers":
        raise StudyError(f"`engine.kind` = {study.engine.kind!r} is no engine; there is transformers, vllm, or FILE.py:FUNCTION.")
    return transformers_engine(study, student, note)


def _users_engine(study: Study, student: models.Model, folder: Path) -> Engine:
    try:
        engine = load_function(study.engine.kind, folder, "engine.kind")(student)
    except StudyError:
        raise
    except Exception as error:  # the user's own function
        raise StudyError(f"`engine.kind`: {study.engine.kind} failed: {type(error).__name__}: {error}") from error
    if not callable(getattr(engine, "complete", None)) or not isinstance(getattr(engine, "batch_shape", None), str):
        raise StudyError(f"`engine.kind`: what {study.engine.kind} gives is no engine; it needs `complete` and `batch_shape`.")
    return engine  # type: ignore[no-any-return]  # as far as can be seen before it is called


def transformers_engine(study: Study, model: models.Model, note: Callable[[str], None]) -> Engine:
    """transformers' engine with the settings of the study."""
    from compute.engine.transformers import open_engine

    limit = int(study.engine.memory_limit * 2**30) or None
    return open_engine(model, slots=study.engine.slots, memory_limit=limit, note=note)


def _engine_name(study: Study, engine: Engine) -> str:
    """What runs the completions, with its version where that is not transformers' (which is named beside it)."""
    return f"{study.engine.kind} {getattr(engine, 'version', '')}".strip()


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


def open_teacher(settings: Teacher, shelf: Shelf) -> TeacherRun:
    """A teacher, ready to score. Raises `StudyError` where its model does not fit."""
    if settings.kind == "served":
        log_probs = scoring.log_probs(shelf.student.logits)  # of the prompt's model, never asked: the server is
        return TeacherRun(settings, shelf.student, log_probs, served=open_served(settings, shelf.student.tokens.token_bytes))
    if settings.kind == "external":
        model = shelf.model(settings.model, settings)
        models.require_same_tokens(shelf.student, model)
        return TeacherRun(settings, model, scoring.log_probs(model.logits))
    temperature = settings.temperature if settings.kind == "temperature" else 1.0
    reads = settings.reads_demonstrations or settings.context == "other"
    return TeacherRun(
        settings,
        shelf.student,
        scoring.log_probs(shelf.student.logits, temperature),
        shelf.writer(settings.context_model, settings) if reads else None,
        shelf.writer(settings.summary_model, settings) if settings.summarised else None,
    )


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


def work_folder(out: PathLike) -> Path:
    """Where unfinished work lies: beside the store, or, for one that is far away, in the folder that one works in."""
    if is_remote(out):
        return Path(f"{os.fspath(out).rstrip('/').rsplit('/', 1)[-1]}.work")
    path = Path(out)
    return path.with_name(path.name + ".work")
