"""A run: from a study file to a store, question by question, resumable at any moment.

Every finished phase of a question lies in a spool beside the store; finished questions are published as parts.
So a crash costs the phase in hand, and the same command goes on. Since every draw is keyed by what is drawn, a
resumed run stores what an uninterrupted one would have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace as replaced

from compute.batch import Batch, work_folder
from compute.demonstrations import Pool, Writer, sample_pool, writers
from compute.errors import ComputeError
from compute.locks import WHOLE, Shard, lock
from compute.passes import read
from compute.pipeline import Bench, Findings, Prepared, follow, graded, sample_rollouts, sample_together, screen
from compute.pipeline import prepare as prepare_question
from compute.progress import Reporter
from compute.record import to_record
from compute.setup import Setup
from compute.shelf import engine_name
from compute.spooled import Spool
from compute.stopping import signals
from compute.study import Study
from compute.tasks import Question
from store import writer
from store.parts import PartArrays
from store.place import PathLike
from store.schema import QuestionStatus
from store.words import are, counted


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    n_done: int  #: questions in the store
    n_planned: int
    seconds: float


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
        reporter.say(f"{reporter.done} of {counted(len(mine), 'question')} {are(reporter.done)} in the store; {len(todo)} to do.")
    return todo


def finish(out: PathLike, questions: Sequence[Question], spool: Spool) -> int:
    """How many questions the store has; once it has all, unfinished work is let go of."""
    n_done = len(writer.committed_question_ids(out))
    if n_done == len(questions):
        spool.remove()
    return n_done


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
    return f"{engine_name(study, bench.engine)}, {study.student.dtype} on {bench.student.device}, {bench.engine.batch_shape}"


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
