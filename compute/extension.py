"""`opd-tui compute --extend`: what teachers that were added later lack.

A question is redone with the study's teachers and the added ones. Every draw is keyed, so that in float32 the rollouts
are the same, and so is every completion that was launched before. Where nodes and children come out as they are stored,
the question is left alone; else it is stored again, in a part of a higher generation that readers prefer.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from msgspec.structs import replace as replaced

import store
from compute.added import WORK, open_added
from compute.batch import Batch, work_folder
from compute.engine import Completion, Engine, Launch, Tick
from compute.judging import Kept, kept
from compute.locks import WHOLE, Shard, lock
from compute.passes import read
from compute.pipeline import Prepared, Targeted, follow, lay_out
from compute.progress import Reporter
from compute.record import to_record
from compute.runner import begin, groups, made_with
from compute.sampling import key
from compute.setup import Setup
from compute.spooled import Spool
from compute.stopping import check, signals
from compute.tasks import Question
from store import writer
from store.errors import StoreError
from store.parts import PartArrays
from store.place import PathLike
from store.reader import Store
from store.schema import REST_TOKEN, ForcedKind, PathKind, QuestionStatus
from store.words import are, counted


class Reusing:
    """An engine that samples only what is not known already."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.known: Mapping[Launch, Completion] = {}
        self.n_launched = self.n_reused = 0  #: completions that were asked for, and those of them that were known

    @property
    def batch_shape(self) -> str:
        """The engine's own."""
        return self._engine.batch_shape

    def complete(
        self,
        prompt_ids: Sequence[int],
        spine: Sequence[int],
        launches: Sequence[Launch],
        *,
        max_response_tokens: int,
        temperature: float = 1.0,
        tick: Tick | None = None,
    ) -> list[Completion]:
        """As the engine's own."""
        fresh = [launch for launch in launches if launch not in self.known]
        self.n_launched += len(launches)
        self.n_reused += len(launches) - len(fresh)
        sampled = iter(
            self._engine.complete(
                prompt_ids, spine, fresh, max_response_tokens=max_response_tokens, temperature=temperature, tick=tick
            )
            if fresh
            else ()
        )
        return [self.known[launch] if launch in self.known else next(sampled) for launch in launches]


def extend(
    prepare: Callable[[], Setup], study_file: Path, out: PathLike, reporter: Reporter, *, limit: int = 0, shard: Shard = WHOLE
) -> str:
    """Extend the questions of `out` for the teachers that were added to it, at most `limit` of them (0: all); one sentence.

    `prepare` loads the study; it is not called where there is nothing to do. Raises `StoreError` where `out` is no store
    of it, `StudyError` where an added teacher is no longer what it was, `Interrupted` after a signal.
    """
    started = time.monotonic()
    opened = store.open(out)
    if not opened.added_teachers:
        return f"No teacher was added to {out}, so there is nothing to extend."
    if not any(opened.judged_only(line.id) for line in opened.questions()):
        return f"There is nothing to extend in {out}: the teachers that were added had their say in every question."
    base = prepare()
    if not writer.is_store_of(out, base.attributes.study_hash):
        raise StoreError(f"there is no store at {out}")
    setup, identity = open_added(base, opened, study_file)
    with lock(work_folder(out), out, shard):
        writer.remove_leftovers(out)  # of runs that were killed while they published
        opened.refresh()
        name = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
        spool = Spool(work_folder(out), name, shard)
        if shard == WHOLE:
            _forget(work_folder(out), {name, setup.attributes.study_hash})
        todo = _lacking(setup, opened, shard, spool)
        todo = todo[:limit] if limit else todo
        reporter.total = len(todo)
        reporter.say(f"{counted(len(todo), 'question')} to look at; {_reuse(setup)}.")
        nominators = tuple(run.settings.id for run in setup.bench.teachers)
        batch = Batch(setup.study, out, spool, generation=opened.generation + 1, nominators=nominators)
        engine, n_extended = Reusing(setup.bench.engine), 0
        with reporter, signals():
            try:
                for group in groups(setup.study, todo):
                    for question, record in _do(setup, opened, group, spool, engine, reporter):
                        if record is not None:
                            batch.add(question, record)
                            n_extended += 1
                        reporter.question_done()
            finally:  # interrupted, or a fault of one question: the finished ones are kept all the same
                batch.publish()
        opened.refresh()
        if shard == WHOLE and not _lacking(setup, opened, shard, spool):
            spool.keep_notes_alone()
        names = ", ".join(info.id for info in opened.added_teachers)
    alone = len(todo) - n_extended
    fresh = engine.n_launched - engine.n_reused
    return (
        f"{counted(n_extended, 'question')} {are(n_extended)} extended for {names}, {alone} left alone: "
        f"{counted(fresh, 'completion')} launched, "
        f"{engine.n_reused:,} taken from the store ({time.monotonic() - started:.0f} s)."
    )


def _forget(folder: Path, used: Collection[str]) -> None:
    """Remove unfinished work for other sets of added teachers; that of teachers that are being added stays."""
    for piece in folder.glob("*/"):
        if piece.name not in used and not piece.name.startswith(WORK):
            shutil.rmtree(piece, ignore_errors=True)


def _reuse(setup: Setup) -> str:
    """What becomes of the completions that the store has, in words."""
    if setup.study.keep.completions == "all":
        return "completions that the store has are taken from it"
    return (
        f'[keep] completions = "{setup.study.keep.completions}", so the completions of a question that is extended are '
        "launched again, all of them"
    )


def _lacking(setup: Setup, opened: Store, shard: Shard, spool: Spool) -> list[Question]:
    """The questions in whose nodes an added teacher had no say, that were not looked at before."""
    scored = {line.id for line in opened.questions() if line.status in (QuestionStatus.SCORED, QuestionStatus.NO_NODE)}
    takes_part = {run.settings.id for run in setup.bench.teachers if run.settings.takes_part}
    return [
        one
        for one in setup.questions
        if shard.has(one.number) and one.id in scored and opened.judged_only(one.id) & takes_part and not spool.is_left_alone(one)
    ]


def _do(
    setup: Setup, opened: Store, questions: Sequence[Question], spool: Spool, engine: Reusing, reporter: Reporter
) -> list[tuple[Question, PartArrays | None]]:
    """Records of some questions, None for those that are left alone; each phase for all of them, then the next."""
    ready = {one.id: spool.record(one) for one in questions}
    begun = {one.id: begin(setup, one, spool, reporter) for one in questions if ready[one.id] is None}
    paths = [one for one in begun.values() if isinstance(one, Prepared)]
    if paths:
        reporter.phase(f"question {paths[0].question.number + 1}{' and others' if len(paths) > 1 else ''}: teachers")
    stored = dict(zip((one.question.id for one in paths), read(setup.bench, paths), strict=True))
    for question in questions:
        check()
        prepared = begun.get(question.id)
        if not isinstance(prepared, Prepared):
            if ready[question.id] is None:
                spool.leave_alone(question)  # a context of an added teacher could not be had
            continue
        targeted = lay_out(setup.bench, prepared, stored[question.id])
        there = kept(opened, question)
        if _is_same(there, prepared, targeted):
            spool.leave_alone(question)
            continue
        reporter.phase(f"question {question.number + 1}: completions")
        engine.known = _known(setup, opened, there) if setup.study.keep.completions == "all" else {}
        n_before = engine.n_reused
        bench = replace(setup.bench, engine=engine)
        found = follow(bench, prepared, stored.pop(question.id), partial(spool.responses, question), targeted=targeted)
        lines = {made_with(setup.study, setup.bench), *(opened.made_with if engine.n_reused > n_before else ())}
        record = replaced(to_record(setup.study, found), made_with=frozenset(lines))
        spool.keep_record(question, record)
        ready[question.id] = record
    return [(one, ready[one.id]) for one in questions]


def _is_same(there: Kept, prepared: Prepared, targeted: Targeted) -> bool:
    """Whether paths, nodes and children are those that the store has."""
    then = [(kind, there.rollouts[n].token_id_T.tolist()) for n, kind in there.paths.items()]
    now = [
        (kind, prepared.rollouts.completions[n].token_ids.tolist())
        for n, kind in sorted(prepared.kept.items())
        if kind is not PathKind.NONE
    ]
    return (
        then == now
        and list(there.trie_nodes) == [one.node for one in targeted.targets]
        and all(np.array_equal(there.tokens(row), one.token_K) for row, one in enumerate(targeted.targets))
    )


def _known(setup: Setup, opened: Store, there: Kept) -> dict[Launch, Completion]:
    """The completions of a question that the store has, by how they were launched."""
    seed, question = setup.study.study.seed, there.question.id
    found = {}
    for one in opened.completions(question):
        node = there.trie_nodes[one.launch_node]
        prefix, sample = there.trie.prefix(node), one.sample
        if one.forced_kind is ForcedKind.TOKEN:
            token = int(one.token_ids[0])
            launch = Launch(len(prefix), key(seed, question, "child", prefix, token, sample), forced=token)
        elif one.forced_kind is ForcedKind.REST:
            excluded = tuple(int(token) for token in there.tokens(one.launch_node) if token >= 0)
            launch = Launch(len(prefix), key(seed, question, "rest", prefix, REST_TOKEN, sample), excluded=excluded)
        else:
            path = there.trie.paths[there.trie.chain(node, one.exit_token, there.trie_nodes).path].token_ids
            taken = path[one.position]
            launch = Launch(one.position, key(seed, question, "gap", path[: one.position], taken, sample), excluded=(taken,))
        found[launch] = Completion(one.token_ids.astype(np.int32), one.finish_reason)
    return found
