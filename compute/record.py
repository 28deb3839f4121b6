"""A question's findings as one record of the store: a part that holds this question alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.engine import Completion
from compute.pipeline import Findings, Responses
from compute.scoring import TeacherScores
from compute.study import Study
from compute.targeting import Batch
from store.parts import PartArrays, pack_texts
from store.rounding import rounded
from store.schema import (
    ABSENT_TOKEN,
    DIVERGENCE_BITS,
    DIVERGENCES,
    NOWHERE,
    REST_MOMENTS,
    STUDENT,
    TEACHER,
    UNKNOWN_OUTCOME,
    ChildKind,
    ForcedKind,
    PathKind,
    TokenSource,
)
from store.teacher_topk import TopK, coarse, split_topk, to_half

#: From how many initial rollouts on they count as completions: fewer would be biased by the choice of paths (method.md 3).
COUNT_ROLLOUTS_FROM = 100
_SAMPLE = 8

Arrays = dict[str, NDArray[Any]]


def to_record(study: Study, found: Findings) -> PartArrays:
    """The record of one question: student and teacher arrays of the schema."""
    rows = {target.node: row for row, target in enumerate(found.targets)}
    student: Arrays = {
        **_question(found),
        **_rollouts(found, rows),
        **_tokens(study, found),
        **_nodes(study, found, rows),
        **_groups(found, rows),
        **_completions(study, found, rows),
    }
    teachers = {settings.id: teacher_record(study, found, number) for number, settings in enumerate(study.teacher)}
    return PartArrays(_typed(student, STUDENT), teachers)


def teacher_record(study: Study, found: Findings, number: int) -> Arrays:
    """What one teacher says of a question: its arrays of schema 1. Of the findings' completions none are read."""
    return _typed(_teacher(study, found, {target.node: row for row, target in enumerate(found.targets)}, number), TEACHER)


def _typed(arrays: Arrays, specs: Any) -> Arrays:
    """The schema's types."""
    typed = {}
    for name, array in arrays.items():
        dtype = np.dtype(specs[name].dtype)
        typed[name] = np.ascontiguousarray(to_half(array) if dtype == np.float16 else array, dtype=dtype)
    return typed


def _bounds(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)


def _texts(name: str, *texts: str) -> Arrays:
    data, start = pack_texts([text.encode("utf-8", "replace").decode() for text in texts])
    return {name: data, f"{name}_start": start}


def _question(found: Findings) -> Arrays:
    question, rollouts = found.question, found.rollouts
    truncated = sum(one.truncated for one in rollouts.completions)
    return {
        **_texts("question_id", question.id),
        **_texts("prompt", question.prompt.replace("{context}", "")),
        **_texts("reference_answer", question.answer),
        "prompt_token_id": np.array(found.prompt_ids),
        "prompt_token_start": _bounds([len(found.prompt_ids)]),
        "question_number": np.array([question.number]),
        "question_status": np.array([found.status]),
        "question_n_rollouts": np.array([len(rollouts)]),
        "question_n_correct": np.array([int(rollouts.correct.sum())]),
        "question_n_truncated": np.array([truncated]),
        "rollout_start": _bounds([len(found.stored)]),
        "node_start": _bounds([len(found.targets)]),
    }


def _rollouts(found: Findings, rows: dict[int, int]) -> Arrays:
    grades = [found.rollouts.grades[one.index] for one in found.stored]
    completions = [found.rollouts.completions[one.index] for one in found.stored]
    along: list[list[int]] = [[] for _ in found.stored]
    if found.trie is not None:
        for path, entry in enumerate(found.path_index):
            along[entry] = [rows[node] for node in found.trie.along(path) if node in rows]
    return {
        "rollout_index": np.array([one.index for one in found.stored]),
        "reward": np.array([grade.reward for grade in grades]),
        "correct": np.array([grade.correct for grade in grades]),
        "finish_reason": np.array([one.finish_reason for one in completions]),
        "path_kind": np.array([one.kind for one in found.stored]),
        "token_start": _bounds([len(one.token_ids) for one in completions]),
        "path_node_start": _bounds([len(nodes) for nodes in along]),
        "path_node": np.array([node for nodes in along for node in nodes]),
    }


def _joined(pieces: list[NDArray[Any]], *tail: int) -> NDArray[Any]:
    return np.concatenate(pieces) if pieces else np.zeros((0, *tail))


def _tokens(study: Study, found: Findings) -> Arrays:
    completions = [found.rollouts.completions[one.index] for one in found.stored]
    tokens = _joined([one.token_ids for one in completions])
    return {
        "token_id": tokens,
        "token_source": _joined([_sources(one) for one in completions]),
        "logprob": _joined([one.student.logprob_T for one in found.stored]),
        "entropy": _joined([one.student.entropy_T for one in found.stored]),
        "topk_token_id": _joined([one.student.topk_token_id_TC for one in found.stored], study.keep.top_k),
        "topk_logprob": coarse(_joined([one.student.topk_logprob_TC for one in found.stored], study.keep.top_k)),
        "tail_mass": _joined([one.student.tail_mass_T for one in found.stored]),
    }


def _sources(completion: Completion) -> NDArray[np.int64]:
    """Who wrote each token."""
    tool_T = np.zeros(len(completion.token_ids), dtype=np.bool_) if completion.tool_T is None else completion.tool_T
    return np.where(tool_T, int(TokenSource.TOOL), int(TokenSource.MODEL))


def _children(pieces: Sequence[NDArray[Any]], fill: Any) -> NDArray[Any]:
    """One row [K] for each target as [N, K], padded with `fill`."""
    table = np.full((len(pieces), max(map(len, pieces), default=1)), fill)
    for row, values in enumerate(pieces):
        table[row, : len(values)] = values
    return table


def _nodes(study: Study, found: Findings, rows: dict[int, int]) -> Arrays:
    targets, trie = found.targets, found.trie
    following = _children([np.full(len(target.token_K), NOWHERE) for target in targets], NOWHERE)
    staying = _children([np.full(len(target.token_K), np.nan) for target in targets], np.nan)
    outcome = _children([target.outcome_K for target in targets], UNKNOWN_OUTCOME)
    for row, target in enumerate(targets):
        assert trie is not None
        for child in np.flatnonzero(target.kind_K == ChildKind.ON_PATH):
            chain = trie.chain(target.node, int(target.token_K[child]), rows)
            following[row, child] = rows.get(chain.next_node, NOWHERE)
            staying[row, child] = chain.continue_logprob
            outcome[row, child] = chain.outcome
    parents = np.full(len(targets), NOWHERE)
    for row, child in zip(*np.nonzero(following != NOWHERE), strict=True):
        parents[following[row, child]] = row
    return {
        "node_position": np.array([trie.nodes[target.node].depth for target in targets] if trie else []),
        "node_parent": parents,
        "node_nominated_by": np.array([target.nominated_by for target in targets]),
        "node_topk_logprob": _joined([target.whole.topk_logprob_C[None] for target in targets], study.keep.top_k),
        "child_token_id": _children([target.token_K for target in targets], ABSENT_TOKEN),
        "child_kind": _children([target.kind_K for target in targets], ChildKind.ABSENT),
        "child_logprob": _children([target.logprob_K for target in targets], np.nan),
        "child_nominated_by": _children([target.child_nominated_by_K for target in targets], 0),
        "child_next": following,
        "child_continue_logprob": staying,
        "child_outcome": outcome,
    }


def _groups(found: Findings, rows: dict[int, int]) -> Arrays:
    """Completions counted by launch, stratum and half."""
    counts: Counter[tuple[int, int, int, int, int, int]] = Counter()
    successes: Counter[tuple[int, int, int, int, int, int]] = Counter()
    truncated: Counter[tuple[int, int, int, int, int, int]] = Counter()
    children = {target.node: frozenset(target.token_K.tolist()) for target in found.targets}
    for batch, outcomes in zip(found.batches, found.outcomes, strict=True):
        forced = batch.token if batch.forced_kind is not ForcedKind.REST else ABSENT_TOKEN
        for sample, (completion, grade) in enumerate(zip(outcomes.completions, outcomes.grades, strict=True)):
            exit_ = _exit(found, rows, children, batch, completion)
            group = (batch.target, int(batch.forced_kind), forced, *exit_, sample % 2)
            counts[group] += 1
            successes[group] += grade.correct
            truncated[group] += completion.truncated
    if found.trie is not None and len(found.rollouts) >= COUNT_ROLLOUTS_FROM and not found.rollouts.imported:
        paths = {one.index for one in found.stored if one.kind is not PathKind.NONE}
        for sample, (completion, grade) in enumerate(zip(found.rollouts.completions, found.rollouts.grades, strict=True)):
            if sample in paths:
                continue
            node, token = found.trie.exit(completion.token_ids.tolist(), rows, children)
            group = (NOWHERE, int(ForcedKind.NONE), ABSENT_TOKEN, rows.get(node, NOWHERE), token, sample % 2)
            counts[group] += 1
            successes[group] += grade.correct
            truncated[group] += completion.truncated
    table = np.array(sorted(counts), dtype=np.int64).reshape(-1, 6)
    groups = sorted(counts)
    return {
        "group_start": _bounds([len(groups)]),
        "group_launch_node": table[:, 0],
        "group_forced_kind": table[:, 1],
        "group_forced_token": table[:, 2],
        "group_exit_node": table[:, 3],
        "group_exit_token": table[:, 4],
        "group_half": table[:, 5],
        "group_n": np.array([counts[group] for group in groups]),
        "group_n_success": np.array([successes[group] for group in groups]),
        "group_n_truncated": np.array([truncated[group] for group in groups]),
    }


def _exit(
    found: Findings, rows: dict[int, int], children: dict[int, frozenset[int]], batch: Batch, completion: Completion
) -> tuple[int, int]:
    """The stratum of a completion: row of the node and child token that name it.

    Only one that was forced onto a path and then left alone may end in another than its launch's.
    """
    trie, target = found.trie, found.targets[batch.target]
    assert trie is not None
    if batch.forced_kind is not ForcedKind.TOKEN or batch.token not in trie.nodes[target.node].children:
        return batch.target, batch.token
    node, token = trie.exit([*trie.prefix(target.node), *completion.token_ids.tolist()], rows, children)
    return rows[node], token


def _kept(study: Study, outcomes: Responses) -> list[int]:
    """Which completions of a batch are stored: all, none, or the shortest few, right and wrong alike."""
    if study.keep.completions == "counts":
        return []
    everything = list(range(len(outcomes)))
    if study.keep.completions == "all":
        return everything
    shortest = sorted(everything, key=lambda at: (len(outcomes.completions[at].token_ids), at))
    right = [at for at in shortest if outcomes.grades[at].correct][: _SAMPLE // 2]
    wrong = [at for at in shortest if not outcomes.grades[at].correct][: _SAMPLE // 2]
    return sorted(right + wrong)


def _completions(study: Study, found: Findings, rows: dict[int, int]) -> Arrays:
    children = {target.node: frozenset(target.token_K.tolist()) for target in found.targets}
    entries: list[tuple[Batch, int, Responses]] = [
        (batch, at, outcomes)
        for batch, outcomes in zip(found.batches, found.outcomes, strict=True)
        for at in _kept(study, outcomes)
    ]
    completions = [outcomes.completions[at] for _, at, outcomes in entries]
    exits = [_exit(found, rows, children, batch, one) for (batch, _, _), one in zip(entries, completions, strict=True)]
    return {
        "completion_start": _bounds([len(entries)]),
        "completion_launch_node": np.array([batch.target for batch, _, _ in entries]),
        "completion_forced_kind": np.array([batch.forced_kind for batch, _, _ in entries]),
        "completion_exit_node": np.array([node for node, _ in exits]),
        "completion_exit_token": np.array([token for _, token in exits]),
        "completion_sample": np.array([at for _, at, _ in entries]),
        "completion_position": np.array([batch.launches[at].depth for batch, at, _ in entries]),
        "completion_correct": np.array([outcomes.grades[at].correct for _, at, outcomes in entries]),
        "completion_finish_reason": np.array([one.finish_reason for one in completions], dtype=np.int64),
        "completion_token_start": _bounds([len(one.token_ids) for one in completions]),
        "completion_token_id": _joined([one.token_ids for one in completions]),
    }


def _teacher(study: Study, found: Findings, rows: dict[int, int], number: int) -> Arrays:
    scores = [one.teachers[number] for one in found.stored]
    top_k = study.keep.top_k
    objectives = len(study.study.objectives)
    return {
        **_texts("teacher_prompt", found.teacher_prompts[number]),
        "logprob": _joined([one.logprob_T for one in scores]),
        "entropy": _joined([one.entropy_T for one in scores]),
        "divergence": rounded(
            _joined([one.divergence_TD for one in scores], len(DIVERGENCES)).astype(np.float32), DIVERGENCE_BITS
        ),
        **_topk(found, scores, top_k),
        "tail_mass": _joined([one.tail_mass_T for one in scores]),
        "child_logprob": _children([target.teacher_logprob_MK[number] for target in found.targets], np.nan),
        "fbar": np.array([target.fbar_MO[number] for target in found.targets]).reshape(-1, objectives),
        "node_topk_logprob": _joined([target.whole.teacher_topk_logprob_MC[number][None] for target in found.targets], top_k),
        "rest_moment": _joined([target.whole.rest_moment_MB[number][None] for target in found.targets], len(REST_MOMENTS)),
        "child_gap_kl": _gap_kl(found, rows, number),
        "later_n": _children([later.n_K for later in found.later], 0),
        "later_sum": _children([later.sum_MK[number] for later in found.later], np.nan),
        "later_sum_squares": _children([later.sum_squares_MK[number] for later in found.later], np.nan),
    }


def _topk(found: Findings, scores: Sequence[TeacherScores], top_k: int) -> Arrays:
    """The teacher's most likely tokens, as what they add to the student's."""
    return split_topk(
        _joined([one.student.topk_token_id_TC for one in found.stored], top_k),
        _joined([one.logprob_at_student_topk_TC for one in scores], top_k),
        TopK(
            _joined([one.topk_token_id_TC for one in scores], top_k),
            _joined([one.topk_logprob_TC for one in scores], top_k),
            _joined([one.student_logprob_at_topk_TC for one in scores], top_k),
        ),
    )


def _gap_kl(found: Findings, rows: dict[int, int], number: int) -> NDArray[Any]:
    """Of on-path children the expected sum of KL(P‖T) over the positions before the next targeted node."""
    table = _children([np.full(len(target.token_K), np.nan) for target in found.targets], np.nan)
    at = DIVERGENCES.index("kl_student_teacher")
    for row, target in enumerate(found.targets):
        assert found.trie is not None
        for child in np.flatnonzero(target.kind_K == ChildKind.ON_PATH):
            chain = found.trie.chain(target.node, int(target.token_K[child]), rows)
            kl_T = found.stored[found.path_index[chain.path]].teachers[number].divergence_TD[:, at]
            table[row, child] = chain.reach() @ kl_T[list(chain.positions)].astype(np.float64)
    return table
