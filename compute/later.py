"""What teachers say of completions: the sums of -KL(P‖T) after a child that `minillm` needs (method.md 3).

Of every stratum the first few completions are read to their end by the student and by each teacher. Summing -KL at
every position has the same mean as the sampled log-ratio and far less variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from compute import objectives, scoring
from compute.served.scores import as_they_are
from compute.served.teacher import ServedTeacher
from compute.targeting import Batch, Target
from compute.tree import Trie
from store.schema import ForcedKind

if TYPE_CHECKING:
    from compute.pipeline import Bench, Responses
    from compute.study import Study


@dataclass(frozen=True, slots=True)
class Later:
    """Of one target: per child (and teacher) how many completions were read, and the sums over them, in nat."""

    n_K: NDArray[np.int32]
    sum_MK: NDArray[np.float64]
    sum_squares_MK: NDArray[np.float64]


def nothing_later(targets: Sequence[Target], n_teachers: int) -> tuple[Later, ...]:
    """For a study that does not ask."""
    return tuple(_empty(target, n_teachers) for target in targets)


def reads_later(study: Study) -> bool:
    """Whether the study has an objective that asks."""
    return any(objectives.parse(name).name == "minillm" for name in study.study.objectives)


def unknown_later(targets: Sequence[Target], n_teachers: int) -> tuple[Later, ...]:
    """For a teacher that nobody can ask any more, because the completions were not kept whole: none was read."""
    empty = nothing_later(targets, n_teachers)
    return tuple(Later(one.n_K, np.full_like(one.sum_MK, np.nan), np.full_like(one.sum_MK, np.nan)) for one in empty)


def read_later(
    bench: Bench,
    prompt_ids: Sequence[int],
    teacher_prompts: Sequence[Sequence[Sequence[int]]],
    trie: Trie,
    targets: Sequence[Target],
    batches: Sequence[Batch],
    outcomes: Sequence[Responses],
) -> tuple[Later, ...]:
    """Read up to `keep.minillm_completions` completions of every stratum that has launches of its own.

    `teacher_prompts` are each teacher's prompts by path.
    """
    found = nothing_later(targets, len(bench.teachers))
    for batch, responses in zip(batches, outcomes, strict=True):
        target = targets[batch.target]
        (child,) = np.flatnonzero(target.token_K == batch.token)
        leaves_at_once = batch.forced_kind is not ForcedKind.TOKEN or batch.token not in trie.nodes[target.node].children
        take = min(bench.study.keep.minillm_completions, len(responses)) if leaves_at_once else 0
        if not take:
            continue
        spine = trie.paths[batch.path].token_ids
        depths = [launch.depth for launch in batch.launches[:take]]
        own = [one.token_ids.tolist() for one in responses.completions[:take]]
        whole = [[*spine[:depth], *tokens] for depth, tokens in zip(depths, own, strict=True)]
        student = _after_first(scoring.batch_states(bench.student, prompt_ids, whole), len(prompt_ids), depths, own)
        lengths = [len(tokens) - 1 for tokens in own]
        for m, teacher in enumerate(bench.teachers):
            prompt = teacher_prompts[m][batch.path]
            if teacher.served is not None:
                sums = _served_sums(bench, teacher.served, prompt, whole, depths, student)
                found[batch.target].sum_MK[m, child] = sums.sum()
                found[batch.target].sum_squares_MK[m, child] = (sums**2).sum()
                continue
            if teacher.model is bench.student and list(prompt) == list(prompt_ids):
                theirs = student
            else:
                theirs = _after_first(scoring.batch_states(teacher.model, prompt, whole), len(prompt), depths, own)
            kl = scoring.kl_student_teacher(bench.student_log_probs, student, teacher.log_probs, theirs)
            sums = np.array([-piece.sum() for piece in np.split(kl.astype(np.float64), np.cumsum(lengths)[:-1])])
            found[batch.target].sum_MK[m, child] = sums.sum()
            found[batch.target].sum_squares_MK[m, child] = (sums**2).sum()
            bench.tick(0)
        found[batch.target].n_K[child] = take
    return found


def _served_sums(
    bench: Bench,
    teacher: ServedTeacher,
    prompt: Sequence[int],
    responses: Sequence[Sequence[int]],
    depths: Sequence[int],
    student_states: torch.Tensor,
) -> NDArray[np.float64]:
    """The sums of -KL(P‖T) after each completion's first token: NaN where the server does not name the whole vocabulary."""
    if not teacher.capabilities.whole:
        return np.full(len(responses), np.nan)
    sums, start = [], 0
    for response, depth in zip(responses, depths, strict=True):
        said = teacher.read(prompt, response, tick=bench.tick)
        rows = range(depth + 1, len(response))
        theirs = torch.tensor(np.array([said.row(at) for at in rows]).reshape(len(rows), teacher.vocab_size), dtype=torch.float32)
        ours = student_states[start : start + len(rows)]
        kl = scoring.kl_student_teacher(bench.student_log_probs, ours, as_they_are, theirs.to(ours.device))
        sums.append(-kl.astype(np.float64).sum())
        start += len(rows)
    return np.array(sums)


def _after_first(states: torch.Tensor, prompt: int, depths: Sequence[int], own: Sequence[Sequence[int]]) -> torch.Tensor:
    """The states that predict every token of each completion but its first, end to end."""
    rows = [
        states[row, prompt + depth : prompt + depth + len(tokens) - 1]
        for row, (depth, tokens) in enumerate(zip(depths, own, strict=True))
    ]
    return torch.cat(rows)


def _empty(target: Target, n_teachers: int) -> Later:
    shape = (n_teachers, len(target.token_K))
    return Later(np.zeros(shape[1], dtype=np.int32), np.zeros(shape), np.zeros(shape))
