"""One question, from its prompt to its record: the phases of method.md 3 in their order.

rollouts -> grading -> demonstrations -> paths -> teacher passes -> targets -> completions -> record
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from compute import scoring, targeting
from compute.demonstrations import Pool, Writer, gather
from compute.engine import Completion, Engine, Job, Launch, Tick, complete_jobs
from compute.later import Later, nothing_later, read_later, reads_later
from compute.models import Model
from compute.passes import Stored, read
from compute.sampling import key
from compute.scoring import LogProbs
from compute.screening import difficulty
from compute.served.known import fbar_of, needed_tokens, rest_logprob
from compute.served.teacher import Reading, ServedTeacher
from compute.study import Study, Teacher
from compute.targeting import Batch, Target
from compute.tasks import CUT_OFF, Grade, Question
from compute.teachers import Material, context_of, prompt_with
from compute.tree import Path, Trie
from compute.whole import whole
from store.schema import UNKNOWN_OUTCOME, ChildKind, PathKind, QuestionStatus

#: Completions that are run, graded and spooled together: what a crash can cost.
_PIECE = 2048


@dataclass(frozen=True, slots=True)
class TeacherRun:
    """A teacher, ready to score: its settings, the model it runs on, and its distribution from that model's states."""

    settings: Teacher
    model: Model
    log_probs: LogProbs
    writer: Writer | None = None  #: of the demonstrations that it reads
    summariser: Writer | None = None  #: of these demonstrations
    served: ServedTeacher | None = None  #: asked in place of a model here


@dataclass(frozen=True, slots=True)
class Bench:
    """What every question of a study is worked on with."""

    study: Study
    student: Model
    engine: Engine
    teachers: tuple[TeacherRun, ...]
    grade: Callable[[Question, str], Grade]
    tick: Tick
    say: Callable[[str], None]  #: tells the user one sentence

    @property
    def student_log_probs(self) -> LogProbs:
        """The distribution that rollouts are sampled from."""
        return scoring.log_probs(self.student.logits)

    def prompt_ids(self, model: Model, question: Question, context: str) -> list[int]:
        """The prompt's tokens under `model`, with a teacher's context where it goes."""
        return model.prompt_ids(prompt_with(question.prompt, context), self.study.chat)


@dataclass(frozen=True, slots=True)
class Responses:
    """Graded responses of one question."""

    completions: tuple[Completion, ...]
    grades: tuple[Grade, ...]
    imported: bool = False  #: somebody else sampled them: they are read and give paths, and are no completions

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which of them were graded correct."""
        return np.array([grade.correct for grade in self.grades], dtype=np.bool_)


#: Gives the responses of a named piece of work: as they were kept, or made and kept.
Keeper = Callable[[str, Callable[[], Responses]], Responses]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a question's record is made of."""

    question: Question
    status: QuestionStatus
    prompt_ids: tuple[int, ...]
    teacher_prompts: tuple[str, ...]
    rollouts: Responses
    stored: tuple[Stored, ...]
    trie: Trie | None
    path_index: tuple[int, ...]  #: entry of `stored` of each path of the trie
    targets: tuple[Target, ...]
    batches: tuple[Batch, ...]
    outcomes: tuple[Responses, ...]  #: per batch
    later: tuple[Later, ...]  #: per target


def sample_rollouts(bench: Bench, question: Question) -> Responses:
    """G initial rollouts at temperature 1, graded."""
    return graded(bench, question, sample_together(bench, [question])[0])


def sample_together(bench: Bench, questions: Sequence[Question]) -> list[list[Completion]]:
    """The initial rollouts of several questions, in one batch where the engine can do that: those of each are the same alone."""
    seed, n_rollouts = bench.study.study.seed, bench.study.sampling.n_rollouts
    jobs = [
        Job(
            bench.prompt_ids(bench.student, one, ""),
            (),
            [Launch(0, key(seed, one.id, "rollout", (), -1, n)) for n in range(n_rollouts)],
        )
        for one in questions
    ]
    limit = bench.study.sampling.max_response_tokens
    return complete_jobs(bench.engine, jobs, max_response_tokens=limit, tick=bench.tick)


def screen(bench: Bench, rollouts: Responses) -> QuestionStatus:
    """Whether a question with these initial rollouts is scored: it was answered right, and is as difficult as asked for."""
    bin_ = difficulty(int(rollouts.correct.sum()), len(rollouts))
    if bin_ == "unsolved":
        return QuestionStatus.NO_SUCCESS
    wanted = bench.study.task.difficulty
    return QuestionStatus.SCORED if not wanted or bin_ in wanted else QuestionStatus.NOT_SELECTED


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question whose paths are chosen, before anybody has read them."""

    question: Question
    rollouts: Responses
    prompt_ids: tuple[int, ...]
    kept: Mapping[int, PathKind]  #: rollouts that go into the store
    shared_prompts: tuple[list[int], ...]  #: of every teacher
    prompts: Mapping[int, list[list[int]]]  #: of every teacher, for each of the rollouts


def prepare(
    bench: Bench, question: Question, rollouts: Responses, pools: Mapping[str, Pool], others: Mapping[str, str]
) -> Prepared | Findings:
    """Choose paths and word every teacher's prompt; the findings of a question that is left out."""
    prompt_ids = tuple(bench.prompt_ids(bench.student, question, ""))
    chosen = choose_paths(bench.study, question, rollouts)
    status = screen(bench, rollouts)
    texts = {at: bench.student.text(_tokens(rollouts, at)) for at in range(len(rollouts))}
    materials: tuple[Material, ...] | None = None
    if status is QuestionStatus.SCORED:
        materials, chosen = gather(bench, question, pools, others, texts, chosen)
        status = QuestionStatus.SCORED if materials is not None else QuestionStatus.NO_DEMONSTRATION
    if materials is None:
        return _left_out(bench, question, status, prompt_ids, rollouts)
    kept = dict(chosen)
    with_tools = [at for at, one in enumerate(rollouts.completions) if one.has_tool]
    if with_tools:
        kept |= dict.fromkeys(with_tools, PathKind.NONE)
        bench.say(
            f"Question {question.number + 1}: {len(with_tools)} of {len(rollouts)} rollouts have turns of a tool or an "
            "environment, which is not here to answer; all are kept to be read, and no completion is launched inside of any."
        )
    if bench.study.keep.rollouts == "all":
        shown = {text.strip() for one in materials for text in (one.demonstration, one.wrong, one.summary)}
        kept |= {at: PathKind.NONE for at in range(len(rollouts)) if at not in kept and texts[at].strip() not in shown}
    return worded(bench, question, rollouts, kept, materials)


def worded(
    bench: Bench, question: Question, rollouts: Responses, kept: Mapping[int, PathKind], materials: Sequence[Material]
) -> Prepared:
    """A question with every teacher's prompt for the rollouts that are `kept`."""
    prompt_ids = tuple(bench.prompt_ids(bench.student, question, ""))
    shared = [
        _teacher_prompt(bench, teacher, question, material) for teacher, material in zip(bench.teachers, materials, strict=True)
    ]
    prompts = {at: _prompts_of(bench, question, rollouts, at, materials, shared) for at in sorted(kept)}
    return Prepared(question, rollouts, prompt_ids, kept, tuple(shared), prompts)


def investigate(
    bench: Bench,
    question: Question,
    rollouts: Responses,
    pools: Mapping[str, Pool],
    others: Mapping[str, str],
    keep: Keeper,
    *,
    sample: int = 0,
) -> Findings:
    """All that follows the rollouts. `pools` and `others` are what contexts are made of: see `demonstrations.gather`."""
    prepared = prepare(bench, question, rollouts, pools, others)
    if isinstance(prepared, Findings):
        return prepared
    return follow(bench, prepared, read(bench, [prepared])[0], keep, sample=sample)


@dataclass(frozen=True, slots=True)
class Targeted:
    """The trie of a question's paths and its targeted nodes, before anything is launched there."""

    trie: Trie
    path_index: tuple[int, ...]  #: entry among the stored rollouts of each path of the trie
    targets: tuple[Target, ...]


def lay_out(bench: Bench, prepared: Prepared, stored: tuple[Stored, ...]) -> Targeted:
    """Find the targeted nodes, from the teachers' passes."""
    rollouts = prepared.rollouts
    path_index = tuple(n for n, one in enumerate(stored) if one.kind is not PathKind.NONE)
    trie = Trie(
        [
            Path(_tokens(rollouts, stored[n].index), stored[n].student.logprob_T, rollouts.grades[stored[n].index].correct)
            for n in path_index
        ]
    )
    return Targeted(trie, path_index, tuple(find_targets(bench, prepared.question, trie, [stored[n] for n in path_index])))


def follow(
    bench: Bench,
    prepared: Prepared,
    stored: tuple[Stored, ...],
    keep: Keeper,
    *,
    sample: int = 0,
    targeted: Targeted | None = None,
) -> Findings:
    """All that follows the teachers' passes, or the choice of nodes where that is done.

    With `sample`, only so many completions of every batch are run: enough to see what all of them would take.
    """
    question, rollouts, prompt_ids = prepared.question, prepared.rollouts, prepared.prompt_ids
    targeted = targeted or lay_out(bench, prepared, stored)
    trie, path_index, targets = targeted.trie, targeted.path_index, targeted.targets
    lengths = [len(one.token_ids) for one in rollouts.completions]
    plan = targeting.plan(trie, targets, bench.study.targeting, bench.study.study.seed, question.id, lengths)
    batches = plan.batches
    if plan.shortfall:
        bench.say(f"Question {question.number + 1}: {plan.shortfall}.")
    run = [replace(batch, launches=batch.launches[:sample]) for batch in batches] if sample else batches
    outcomes = run_completions(bench, question, prompt_ids, trie, run, keep)
    if reads_later(bench.study):
        by_path = [[prepared.prompts[stored[n].index][m] for n in path_index] for m in range(len(bench.teachers))]
        later = read_later(bench, prompt_ids, by_path, trie, targets, batches, outcomes)
    else:
        later = nothing_later(targets, len(bench.teachers))
    shown = zip(bench.teachers, prepared.shared_prompts, strict=True)
    return Findings(
        question=question,
        status=QuestionStatus.SCORED if targets else QuestionStatus.NO_NODE,
        prompt_ids=prompt_ids,
        teacher_prompts=tuple(teacher.model.shown(ids) for teacher, ids in shown),
        rollouts=rollouts,
        stored=stored,
        trie=trie,
        path_index=path_index,
        targets=targets,
        batches=tuple(batches),
        outcomes=tuple(outcomes),
        later=later,
    )


def choose_paths(study: Study, question: Question, rollouts: Responses) -> dict[int, PathKind]:
    """Representative paths: of either outcome `n_paths` different rollouts, chosen by seed (method.md 3.1).

    None where a rollout has turns of a tool: the student alone would continue otherwise than with its environment.
    """
    if any(one.has_tool for one in rollouts.completions):
        return {}
    order = sorted(range(len(rollouts)), key=lambda at: key(study.study.seed, question.id, "path", (), -1, at))
    chosen: dict[int, PathKind] = {}
    seen: set[tuple[int, ...]] = set()
    for kind, wanted in ((PathKind.CORRECT, True), (PathKind.INCORRECT, False)):
        found = 0
        for at in order:
            tokens = _tokens(rollouts, at)
            if rollouts.grades[at].correct == wanted and tokens not in seen and found < study.targeting.n_paths:
                chosen[at] = kind
                seen.add(tokens)
                found += 1
    return chosen


def find_targets(bench: Bench, question: Question, trie: Trie, paths: Sequence[Stored]) -> list[Target]:
    """The targeted nodes of a trie, by depth: nominated positions and forks where at least two tokens compete."""
    nominated: dict[int, int] = dict.fromkeys(trie.forks(), 0)
    takes_part = np.array([teacher.settings.takes_part for teacher in bench.teachers], dtype=np.bool_)
    for number, path in enumerate(paths):
        along = trie.along(number)
        barred = np.where(takes_part, 0.0, -np.inf)[:, None]
        length = len(path.student.logprob_T)
        gradient = np.array([scores.gradient_T for scores in path.teachers]).reshape(-1, length) + barred
        difference = np.array([scores.difference_T for scores in path.teachers]).reshape(-1, length) + barred
        for position, bits in enumerate(targeting.nominate(gradient, difference, bench.study.targeting)):
            if bits:
                nominated[along[position]] = nominated.get(along[position], 0) | int(bits)
    targets = []
    for node, bits in sorted(nominated.items(), key=lambda entry: (trie.nodes[entry[0]].depth, entry[0])):
        target = _target(bench, question, trie, paths, node, bits, takes_part)
        if target.competes:
            targets.append(target)
    return targets


def _target(
    bench: Bench, question: Question, trie: Trie, paths: Sequence[Stored], node: int, bits: int, takes_part: NDArray[np.bool_]
) -> Target:
    """The children of one trie node, with every teacher's exact log-probabilities and means over the whole vocabulary.

    A teacher that reads the rollout's feedback says something else of a shared node on each path: what it says on the
    node's first path is taken.
    """
    path, depth = paths[trie.nodes[node].path], trie.nodes[node].depth
    row = slice(depth, depth + 1)
    logp_V = scoring.exact(bench.student_log_probs, path.student_states[row])[0]
    logt_MV = np.array(
        [
            said.row(depth) if isinstance(said, Reading) else scoring.exact(one.log_probs, said[row])[0]
            for one, said in zip(bench.teachers, path.teacher_states, strict=True)
        ]
    ).reshape(len(bench.teachers), -1)
    names = bench.study.study.objectives
    find = partial(
        targeting.children,
        logp_V,
        on_path=tuple(trie.nodes[node].children),
        end_ids=bench.student.end_ids,
        tau=bench.study.targeting.tau,
        takes_part_M=takes_part,
    )
    tokens, kinds, logprobs, child_bits, teacher_logprobs = find(logt_MV=logt_MV)
    served = [(m, said) for m, said in enumerate(path.teacher_states) if isinstance(said, Reading)]
    if len(tokens) > 2 and served:
        wanted = needed_tokens(names, logp_V)
        while any(np.isnan(logt_MV[m, [*tokens[:-1], *wanted]]).any() for m, _ in served):
            for m, said in served:
                logt_MV[m] = said.row_with(depth, [*tokens[:-1].tolist(), *wanted], logt_MV[m], bench.tick)
            tokens, kinds, logprobs, child_bits, teacher_logprobs = find(logt_MV=logt_MV)
        for m, _ in served:
            teacher_logprobs[m, -1] = rest_logprob(logt_MV[m], tokens[:-1].tolist())
    fbar = np.array([[fbar_of(name, logp_V, logt_V) for name in names] for logt_V in logt_MV]).reshape(-1, len(names))
    outcomes = np.full(len(tokens), UNKNOWN_OUTCOME, dtype=np.uint8)
    for child in np.flatnonzero(kinds == ChildKind.END):
        outcomes[child] = bench.grade(question, bench.student.text([*trie.prefix(node), int(tokens[child])])).correct
    kept = whole(logp_V, logt_MV, tokens[tokens >= 0], bench.study.keep.top_k)
    return Target(node, bits, tokens, kinds, logprobs, child_bits, outcomes, teacher_logprobs, fbar, kept)


def run_completions(
    bench: Bench, question: Question, prompt_ids: Sequence[int], trie: Trie, batches: Sequence[Batch], keep: Keeper
) -> list[Responses]:
    """Run all batches, those off one path together, and grade the whole responses."""
    entries = [(b, launch) for b, batch in enumerate(batches) for launch in batch.launches]
    known: dict[tuple[int, ...], Grade] = {}
    done: dict[int, tuple[Completion, Grade]] = {}
    for number, path in enumerate(trie.paths):
        mine = [at for at, (b, _) in enumerate(entries) if batches[b].path == number]
        for piece, start in enumerate(range(0, len(mine), _PIECE)):
            places = mine[start : start + _PIECE]
            launches = [entries[at][1] for at in places]
            make = partial(_continue, bench, question, prompt_ids, path.token_ids, launches, known)
            responses = keep(f"completions-{number}-{piece}", make)
            done |= zip(places, zip(responses.completions, responses.grades, strict=True), strict=True)
    starts = np.cumsum([0, *(len(batch.launches) for batch in batches)])
    outcomes = []
    for first, end in itertools.pairwise(starts.tolist()):
        completions, grades = zip(*(done[at] for at in range(first, end)), strict=True)
        outcomes.append(Responses(completions, grades))
    return outcomes


def _continue(
    bench: Bench,
    question: Question,
    prompt_ids: Sequence[int],
    spine: Sequence[int],
    launches: Sequence[Launch],
    known: dict[tuple[int, ...], Grade],
) -> Responses:
    """Completions off one path, the whole responses graded."""
    completions = bench.engine.complete(
        prompt_ids, spine, launches, max_response_tokens=bench.study.sampling.max_response_tokens, tick=bench.tick
    )
    grades = tuple(
        _graded(bench, question, (*spine[: launch.depth], *one.token_ids.tolist()), one, known)
        for launch, one in zip(launches, completions, strict=True)
    )
    return Responses(tuple(completions), grades)


def graded(bench: Bench, question: Question, completions: Sequence[Completion]) -> Responses:
    """Free responses, graded."""
    known: dict[tuple[int, ...], Grade] = {}
    grades = tuple(_graded(bench, question, tuple(one.token_ids.tolist()), one, known) for one in completions)
    return Responses(tuple(completions), grades)


def _graded(
    bench: Bench, question: Question, tokens: tuple[int, ...], completion: Completion, known: dict[tuple[int, ...], Grade]
) -> Grade:
    """Grade a whole response; one cut off at the length limit is a failure whatever it says."""
    if completion.truncated:
        return Grade(0.0, False)
    if tokens not in known:
        known[tokens] = bench.grade(question, bench.student.text(tokens))
    return known[tokens]


def _tokens(rollouts: Responses, at: int) -> tuple[int, ...]:
    return tuple(rollouts.completions[at].token_ids.tolist())


def _teacher_prompt(bench: Bench, teacher: TeacherRun, question: Question, material: Material) -> list[int]:
    return bench.prompt_ids(teacher.model, question, context_of(teacher.settings, question, material))


def _prompts_of(
    bench: Bench, question: Question, rollouts: Responses, at: int, materials: Sequence[Material], shared: Sequence[list[int]]
) -> list[list[int]]:
    """Every teacher's prompt for one rollout: the `shared` one, except where it reads what the grader says of the rollout."""
    prompts = list(shared)
    for number, (teacher, material) in enumerate(zip(bench.teachers, materials, strict=True)):
        if teacher.settings.context == "feedback":
            told = replace(material, feedback=_feedback(bench, question, rollouts, at))
            prompts[number] = _teacher_prompt(bench, teacher, question, told)
    return prompts


def _feedback(bench: Bench, question: Question, rollouts: Responses, at: int) -> str:
    """What the grader says of a rollout. It is asked again: its words are not kept with every completion."""
    if rollouts.completions[at].truncated:
        return CUT_OFF
    return bench.grade(question, bench.student.text(_tokens(rollouts, at))).feedback


def _left_out(
    bench: Bench, question: Question, status: QuestionStatus, prompt_ids: tuple[int, ...], rollouts: Responses
) -> Findings:
    """A question that cannot be scored: its counts are kept, and why."""
    return Findings(question, status, prompt_ids, ("",) * len(bench.teachers), rollouts, (), None, (), (), (), (), ())
