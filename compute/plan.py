"""What a study will take, before anything is spent: a few of its questions in small, and the rest in proportion.

A pilot question goes through every phase as in a run, but only a few completions of every batch are sampled. Nothing is
written to the store or beside it; what earlier runs left beside it is used.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from compute.batch import work_folder
from compute.demonstrations import Writer
from compute.engine import Completion, Engine, Launch, Tick
from compute.pipeline import Bench, Findings, Responses, investigate, sample_rollouts, screen
from compute.progress import Reporter
from compute.record import to_record
from compute.runner import others_of, pools_of
from compute.setup import Setup
from compute.spooled import Spool
from compute.tasks import Question
from store import writer
from store.parts import PartArrays
from store.place import PathLike
from store.schema import QuestionStatus

#: Completions of every batch that are sampled: as many as the store keeps to be read.
SAMPLE = 8
MIN_PILOT, MAX_PILOT = 2, 6
#: No further pilot question begins after this.
PILOT_SECONDS = 12.0
#: Steps with this share of the most completions that ran together show the rate of a long run.
_NEARLY = 0.85
#: What one kept completion takes beside its tokens, before packing.
_COMPLETION_BYTES = 32


@dataclass(frozen=True, slots=True)
class Estimate:
    """A total over the questions left: as if all were like the average pilot question, the lightest, the heaviest.

    From one pilot question alone it is uncertain by a factor of two either way.
    """

    about: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What is left of a study, and what it will take."""

    n_questions: int  #: of the study
    n_done: int  #: in the store
    n_left: int  #: to do, within the limit that was given
    n_pilot: int  #: tried for these figures
    n_pilot_scored: int  #: of them, not left out
    n_rollouts: int
    demonstrations: Estimate  #: tries
    completions: Estimate
    tokens: Estimate  #: sampled, of rollouts, demonstrations and completions
    bytes: Estimate  #: on disk, in the store
    seconds: Estimate
    tokens_per_second: float  #: sampled, on this machine; NaN where nothing is left


@dataclass(slots=True)
class _Tally:
    """What engines did."""

    n: int = 0
    tokens: int = 0
    seconds: float = 0.0
    #: tokens and seconds of every step but the first of a call, which reads the prompt too
    steps: list[tuple[int, float]] = field(default_factory=list)

    def since(self, before: _Tally) -> _Tally:
        """What was done after `before`."""
        return _Tally(
            self.n - before.n, self.tokens - before.tokens, self.seconds - before.seconds, self.steps[len(before.steps) :]
        )

    def copy(self) -> _Tally:
        """As it is now."""
        return replace(self, steps=list(self.steps))

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(self.n + other.n, self.tokens + other.tokens, self.seconds + other.seconds, self.steps + other.steps)

    @property
    def rate(self) -> float:
        """Tokens a second; 0 where there was none."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def full_rate(self) -> float:
        """Tokens a second while nearly as many completions ran together as ever did."""
        most = max((n for n, _ in self.steps), default=0)
        full = [(n, seconds) for n, seconds in self.steps if n >= _NEARLY * most]
        return sum(n for n, _ in full) / max(sum(seconds for _, seconds in full), 1e-9) if most else self.rate


class _Metered:
    """An engine that says what it did."""

    def __init__(self, engine: Engine, tally: _Tally) -> None:
        self._engine, self._tally = engine, tally

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
        """As the engine's own, counted and timed."""
        started = latest = time.monotonic()
        first = True

        def ticked(n: int) -> None:
            nonlocal latest, first
            now = time.monotonic()
            if not first:
                self._tally.steps.append((n, now - latest))
            latest, first = now, False
            if tick is not None:
                tick(n)

        found = self._engine.complete(
            prompt_ids, spine, launches, max_response_tokens=max_response_tokens, temperature=temperature, tick=ticked
        )
        self._tally.n += len(found)
        self._tally.tokens += sum(len(one.token_ids) for one in found)
        self._tally.seconds += time.monotonic() - started
        return found


@dataclass(frozen=True, slots=True)
class _Pilot:
    """One question in small."""

    scored: bool
    rollout_tokens: int
    rollouts: _Tally  #: nothing where they were there already
    demonstrations: _Tally
    sampled: _Tally  #: completions that were run, summaries among them
    n_completions: int  #: that a run would launch
    completion_tokens: float  #: that these would come to
    other_seconds: float  #: teacher passes, targeting, grading
    record: PartArrays

    @property
    def free_tokens(self) -> int:
        """Tokens of free responses: rollouts and demonstrations."""
        return self.rollout_tokens + self.demonstrations.tokens

    @property
    def tokens(self) -> float:
        """All tokens that a run would sample for this question."""
        return self.free_tokens + self.completion_tokens


def plan(setup: Setup, out: PathLike | None, reporter: Reporter, *, limit: int = 0) -> StudyPlan:
    """What computing the study into `out` will take, as far as a pilot tells. `limit`: as of `runner.run`.

    Raises `StoreError` where `out` is anything but a store of this study or a free place.
    """
    fresh = out is None or not writer.is_store_of(out, setup.attributes.study_hash)
    done = frozenset[str]() if fresh or out is None else writer.committed_question_ids(out)
    todo = [question for question in setup.questions if question.id not in done]
    n_done = len(setup.questions) - len(todo)
    todo = todo[:limit] if limit else todo
    if not todo:
        nothing = Estimate(0.0, 0.0, 0.0)
        return StudyPlan(len(setup.questions), n_done, 0, 0, 0, 0, nothing, nothing, nothing, nothing, nothing, float("nan"))
    folder = work_folder(out) if out is not None else Path(tempfile.gettempdir(), "there is no such folder")
    spool = Spool(folder, setup.attributes.study_hash, read_only=True)
    pilots = _pilots(setup, todo, spool, reporter)
    left = len(todo)
    # What a run adds to the sample keeps all slots busy; free responses go in batches as they did here.
    free = sum((one.rollouts + one.demonstrations for one in pilots), _Tally())
    sampled = sum((one.sampled for one in pilots), _Tally())
    free_rate, full_rate = free.rate or sampled.rate or 1.0, sampled.full_rate or free.rate or 1.0

    def engine_seconds(one: _Pilot) -> float:
        more = one.completion_tokens - one.sampled.tokens
        return one.free_tokens / free_rate + one.sampled.seconds + max(more, 0.0) / full_rate

    def total(of: Callable[[_Pilot], float]) -> Estimate:
        return _total([of(one) for one in pilots], left)

    return StudyPlan(
        n_questions=len(setup.questions),
        n_done=n_done,
        n_left=left,
        n_pilot=len(pilots),
        n_pilot_scored=sum(one.scored for one in pilots),
        n_rollouts=left * setup.study.sampling.n_rollouts,
        demonstrations=total(lambda one: one.demonstrations.n),
        completions=total(lambda one: one.n_completions),
        tokens=total(lambda one: one.tokens),
        bytes=_bytes(setup, pilots, left, fresh=fresh),
        seconds=total(lambda one: engine_seconds(one) + one.other_seconds),
        tokens_per_second=sum(one.tokens for one in pilots) / max(sum(map(engine_seconds, pilots)), 1e-9),
    )


def _total(values: Sequence[float], n: int) -> Estimate:
    about = n * float(np.mean(values))
    if len(values) < n and len(values) == 1:
        return Estimate(about, about / 2.0, about * 2.0)
    if len(values) >= n:  # all of them were tried
        return Estimate(about, about, about)
    return Estimate(about, n * float(min(values)), n * float(max(values)))


def _pilots(setup: Setup, todo: Sequence[Question], spool: Spool, reporter: Reporter) -> list[_Pilot]:
    """A few questions of those to do, spread over them."""
    count = min(MAX_PILOT, len(todo))
    chosen = [todo[at] for at in np.linspace(0, len(todo) - 1, count).round().astype(int)]
    # The far ends first: if time is short, they say more than neighbours do.
    chosen = [*chosen[::2], *chosen[1::2]]
    tally, by_writers = _Tally(), _Tally()
    metered = replace(setup, bench=_metered(setup.bench, tally, by_writers))
    student = setup.bench.student
    warm_up = [Launch(0, number) for number in range(2)]
    setup.bench.engine.complete(student.prompt_ids("0", setup.study.chat), (), warm_up, max_response_tokens=2)
    started, pilots = time.monotonic(), list[_Pilot]()
    for question in chosen:
        if len(pilots) >= MIN_PILOT and time.monotonic() - started > PILOT_SECONDS:
            break
        reporter.say(f"Trying question {question.number + 1} of {len(setup.questions)} in small ...")
        pilots.append(_pilot(metered, question, spool, tally, by_writers))
    return pilots


def _metered(bench: Bench, tally: _Tally, by_writers: _Tally) -> Bench:
    """The same bench, with the student's work and that of writers of demonstrations counted."""

    def counted(one: Writer | None) -> Writer | None:
        return None if one is None else replace(one, engine=_Metered(one.engine, by_writers))

    teachers = tuple(
        replace(teacher, writer=counted(teacher.writer), summariser=counted(teacher.summariser)) for teacher in bench.teachers
    )
    return replace(bench, engine=_Metered(bench.engine, tally), teachers=teachers)


def _pilot(setup: Setup, question: Question, spool: Spool, tally: _Tally, by_writers: _Tally) -> _Pilot:
    bench = setup.bench
    before = tally.copy()
    rollouts = spool.responses(question, "rollouts", partial(sample_rollouts, bench, question))
    of_rollouts, before = tally.since(before), by_writers.copy()
    solvable = screen(bench, rollouts) is QuestionStatus.SCORED
    pools = pools_of(setup, question, spool) if solvable else {}
    demonstrations = by_writers.since(before)
    others = others_of(setup, question, spool) if solvable else {}  # the other question's own, whose turn comes
    before, summaries = tally.copy(), by_writers.copy()
    started = time.monotonic()
    found = investigate(bench, question, rollouts, pools, others, _make, sample=SAMPLE)
    record = to_record(setup.study, found)
    sampled = tally.since(before) + by_writers.since(summaries)
    return _Pilot(
        scored=found.status is QuestionStatus.SCORED,
        rollout_tokens=sum(len(one.token_ids) for one in rollouts.completions),
        rollouts=of_rollouts,
        demonstrations=demonstrations,
        sampled=sampled,
        n_completions=sum(len(batch.launches) for batch in found.batches),
        completion_tokens=_completion_tokens(found) + by_writers.since(summaries).tokens,
        other_seconds=max(time.monotonic() - started - sampled.seconds, 0.0),
        record=record,
    )


def _make(phase: str, make: Callable[[], Responses]) -> Responses:
    return make()


def _completion_tokens(found: Findings) -> float:
    """Tokens of all completions, every batch in proportion to its sample."""
    return sum(
        len(batch.launches) * float(np.mean([len(one.token_ids) for one in sample.completions]))
        for batch, sample in zip(found.batches, found.outcomes, strict=True)
    )


def _bytes(setup: Setup, pilots: Sequence[_Pilot], left: int, *, fresh: bool) -> Estimate:
    """From a store of the pilot questions: what a part takes of itself, and what its contents are packed to."""
    student = setup.bench.student
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pilot.zarr")
        writer.create(path, setup.attributes, student.tokens.token_bytes, student.tokens.special_ids)
        sizes = [_size(path)]
        for name, chosen in (("p-00000000-0000", pilots[:1]), ("p-00000000-0001", pilots)):
            # Ids are unique in a store, and the first question is in both parts: it is measured, not kept.
            writer.publish(path, name, writer.concatenate([one.record for one in chosen]))
            sizes.append(_size(path))
    own, one_part, all_part = sizes[0], sizes[1] - sizes[0], sizes[2] - sizes[1]
    raw = [float(_raw(one.record)) for one in pilots]
    if len(pilots) > 1 and all_part > one_part:
        ratio = (all_part - one_part) / max(sum(raw) - raw[0], 1)
        of_part = max(one_part - ratio * raw[0], 0.0)
    else:
        ratio, of_part = one_part / max(raw[0], 1), 0.0
    if setup.study.keep.completions == "all":
        raw = [size + _unsampled_bytes(one) for size, one in zip(raw, pilots, strict=True)]
    contents = _total([ratio * size for size in raw], left)
    parts = -(-left // setup.study.parts.questions)
    always = (own if fresh else 0) + parts * of_part
    return Estimate(always + contents.about, always + contents.low, always + contents.high)


def _unsampled_bytes(one: _Pilot) -> float:
    """Of the completions that a run would keep and the pilot did not run."""
    tokens, n = max(one.completion_tokens - one.sampled.tokens, 0.0), max(one.n_completions - one.sampled.n, 0)
    return 4.0 * tokens + _COMPLETION_BYTES * n


def _raw(record: PartArrays) -> int:
    groups = (record.student, *record.teachers.values())
    return sum(array.nbytes for arrays in groups for array in arrays.values())


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
