"""A study whose initial rollouts are given: loaded, tokenised, compared with the student, graded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace as replaced

from compute.errors import StudyError
from compute.imported import FORMATS
from compute.imported.checks import Comparison, Placed, compare
from compute.imported.lines import Broken, Line, Lines, of_one_policy, policy_words, read_lines, without_broken
from compute.imported.matching import Questions
from compute.imported.rollout import BadLine
from compute.imported.tokens import Tokenised, tokenise
from compute.pipeline import Bench, Responses, graded
from compute.progress import Reporter
from compute.setup import Given, Setup, prepare
from compute.tasks import Grade, Question
from store import writer
from store.place import PathLike
from store.words import are, counted


class Options(msgspec.Struct, frozen=True):
    """How a file is taken in."""

    format: str
    skip_bad: bool = False
    force_mismatch: bool = False
    step: int | None = None  #: take the rollouts of this step alone


def prepare_import(
    path: Path, study: Path, out: PathLike, options: Options, reporter: Reporter, *, device: str = "", engine: str = ""
) -> Setup:
    """The study at `study` with the rollouts of `path`. Says what was left out and what differs.

    Raises `StudyError` where a line is broken, policies are mixed, nothing matches, or too much differs.
    """
    found = read_lines(path, FORMATS[options.format])
    told = list(without_broken(found, options.skip_bad))
    lines = of_one_policy(found, options.step)
    setup = prepare(study, reporter, device=device, engine=engine)
    placed, n_others, n_teachers = _place(setup, found, lines, options, told)
    questions = _questions(setup, placed, path)
    told += _left_out(setup, questions, n_others, n_teachers)
    setup = _with_identity(setup, questions, found, options, placed, lines)
    todo = _missing(setup, placed, out)
    reporter.phase("comparing rollouts with the student")
    comparison = compare(setup.bench, todo)
    told += comparison.sentences() if todo else []
    for sentence in told:
        reporter.say(sentence)
    if comparison.too_many and not options.force_mismatch:
        raise StudyError(
            f"{path} does not look like rollouts of this student: {_worst(comparison)} --force-mismatch takes them all the same."
        )
    responses = _responses(setup.bench, placed, questions, reporter)
    policy = policy_words(*lines[0].rollout.policy)
    words = f"rollouts imported from {options.format}, {policy}" + (", whatever differs" if options.force_mismatch else "")
    return replace(setup, given=Given(responses, words))


def _worst(comparison: Comparison) -> str:
    return " ".join(one for one in comparison.sentences() if " of " in one)


def _place(setup: Setup, found: Lines, lines: Sequence[Line], options: Options, told: list[str]) -> tuple[list[Placed], int, int]:
    """Every rollout of a question of the study, in tokens; how many are of other questions, and have a teacher's words."""
    bench = setup.bench
    known = Questions(
        setup.questions,
        lambda one: tuple(bench.prompt_ids(bench.student, one, "")),
        bench.student.text,
        bench.study.chat.system,
    )
    placed, broken = [], []
    n_others = n_teachers = 0
    for line in lines:
        match = known.match(line.rollout)
        if match is None:
            n_others += 1
            continue
        try:
            tokenised = tokenise(bench.student, bench.study, match.question, line.rollout)
        except BadLine as error:
            broken.append(Broken(line.number, str(error)))
            continue
        n_teachers += line.rollout.has_teacher
        placed.append(Placed(line.number, match.question, tokenised, match.same_prompt, line.rollout.reward))
    told += without_broken(replaced(found, broken=tuple(broken)), options.skip_bad)
    return placed, n_others, n_teachers


def _questions(setup: Setup, placed: Sequence[Placed], path: Path) -> tuple[Question, ...]:
    """The questions that have rollouts, numbered anew in the study's order."""
    answered = {one.question.id for one in placed}
    questions = [one for one in setup.questions if one.id in answered]
    if not questions:
        raise StudyError(
            f"No rollout of {path} answers a question of the study; they are matched by `id`, by the text of the prompt, or by "
            "its tokens: see [task] `prompt`, `id_field`, `skip` and `limit`."
        )
    others = [one.id for one in setup.study.teacher if one.context == "other"]
    if len(questions) == 1 and others:
        raise StudyError(
            f"The rollouts of {path} answer one question of the study, and teacher {others[0]} reads another's demonstration; "
            "leave it out, and set `study.nulls` = false."
        )
    return tuple(replace(one, number=number) for number, one in enumerate(questions))


def _left_out(setup: Setup, questions: Sequence[Question], n_others: int, n_teachers: int) -> list[str]:
    told = []
    if n_others:
        told.append(f"{counted(n_others, 'rollout')} {are(n_others)} of no question of the study, and left out.")
    if len(questions) < len(setup.questions):
        n_without = len(setup.questions) - len(questions)
        told.append(f"{n_without} of {len(setup.questions)} questions have no rollout and are left out.")
    if n_teachers:
        told.append(
            f"{counted(n_teachers, 'rollout')} {'has' if n_teachers == 1 else 'have'} a teacher's log-probabilities of the "
            "sampled tokens; these alone give no alignment, so none are kept: the study's teachers read the rollouts themselves."
        )
    return told


def _with_identity(
    setup: Setup,
    questions: tuple[Question, ...],
    found: Lines,
    options: Options,
    placed: Sequence[Placed],
    lines: Sequence[Line],
) -> Setup:
    """The study as one of these rollouts: it has a hash of its own, and says where they are from."""
    identity = f"{setup.attributes.study_hash}\0{options.format}\0{found.digest}\0{options.step}\0{options.force_mismatch}"
    step, checkpoint = lines[0].rollout.policy
    provenance: dict[str, Any] = {
        "study_hash": setup.attributes.study_hash,  #: of the study without them
        "format": options.format,
        "file": found.path.name,
        "digest": found.digest,
        "policy_step": step,
        "checkpoint": checkpoint,
        "n_rollouts": len(placed),
        "n_rollouts_with_tools": sum(one.tokenised.completion.has_tool for one in placed),
        "n_broken_lines": len(found.broken),
        "mismatch_accepted": options.force_mismatch,
    }
    attributes = replaced(
        setup.attributes,
        study_hash=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        question_ids=tuple(one.id for one in questions),
        provenance=setup.attributes.provenance | {"imported": provenance},
    )
    return replace(setup, questions=questions, attributes=attributes)


def _missing(setup: Setup, placed: Sequence[Placed], out: PathLike) -> list[Placed]:
    """The rollouts of questions that the store lacks: the others were compared when they were taken in.

    Raises `StoreError` where another study's store is at `out`.
    """
    done = writer.committed_question_ids(out) if writer.is_store_of(out, setup.attributes.study_hash) else ()
    return [one for one in placed if one.question.id not in done]


def _responses(
    bench: Bench, placed: Sequence[Placed], questions: Sequence[Question], reporter: Reporter
) -> Mapping[str, Responses]:
    """The rollouts of every question, graded; tells how often the grader and the file's rewards disagree."""
    of_question: dict[str, list[Placed]] = defaultdict(list)
    for one in placed:
        of_question[one.question.id].append(one)
    found, n_rewards, n_disagree = {}, 0, 0
    for question in questions:
        own = of_question[question.id]
        by_grader = graded(bench, question, [one.tokenised.completion for one in own])
        grades = tuple(_grade(bench, question, one, grade) for one, grade in zip(own, by_grader.grades, strict=True))
        found[question.id] = Responses(by_grader.completions, grades, imported=True)
        rewarded = [(one, grade) for one, grade in zip(own, grades, strict=True) if one.reward is not None]
        n_rewards += len(rewarded)
        at = bench.study.task.success_at
        n_disagree += sum(one.reward is not None and (one.reward >= at) != grade.correct for one, grade in rewarded)
    if n_disagree:
        reporter.say(
            f"Of {n_rewards} rewards in the file, {n_disagree} are on the other side of `task.success_at` = "
            f"{bench.study.task.success_at:g} than the study's grader says; the grader's word is taken."
        )
    return found


def _grade(bench: Bench, question: Question, one: Placed, by_grader: Grade) -> Grade:
    """The grader's word; the file's reward where there is no reference answer, or where a tool took part."""
    completion = one.tokenised.completion
    if completion.truncated:
        return by_grader
    if one.reward is not None and (not question.answer.strip() or completion.has_tool):
        return Grade(one.reward, one.reward >= bench.study.task.success_at)
    if completion.has_tool:
        return bench.grade(question, bench.student.text(_last_words(one.tokenised)))
    return by_grader


def _last_words(tokenised: Tokenised) -> list[int]:
    """What the student wrote after the last turn of a tool."""
    completion = tokenised.completion
    assert completion.tool_T is not None
    last = max(at for at, tool in enumerate(completion.tool_T) if tool)
    return [int(one) for one in completion.token_ids[last + 1 :]]
