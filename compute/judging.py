"""What a teacher that was added later says of a question in a store: at its tokens, its nodes and its completions.

Everything is read off the stored rollouts' own tokens and the stored nodes and children. Nothing is sampled or chosen,
so that the arrays are those that the teacher would have had in the study, at nodes and children that both have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from compute import scoring
from compute.demonstrations import Pool, gather
from compute.engine import Completion, Launch
from compute.errors import ComputeError
from compute.later import Later, nothing_later, read_later, reads_later, unknown_later
from compute.passes import Stored, read
from compute.pipeline import Bench, Findings, Prepared, Responses, worded
from compute.record import Arrays, teacher_record
from compute.scoring import TeacherScores
from compute.served.known import fbar_of, needed_tokens, rest_logprob
from compute.served.teacher import Reading
from compute.targeting import Batch, Target, with_rest
from compute.tasks import Grade, Question
from compute.tree import Path, Trie
from compute.whole import Whole, whole
from store.reader import Store
from store.schema import ABSENT_TOKEN, DIVERGENCES, REST_MOMENTS, TEACHER, ForcedKind, PathKind
from store.tables import Nodes, PartRow, PartRows, Rollout

Float = NDArray[np.float64]

#: Mean difference of the student's log-probabilities, in nat, above which it is not the one that the store knows.
_SAME_STUDENT = 0.1


@dataclass(frozen=True, slots=True)
class Kept:
    """A question as a store has it."""

    question: Question
    rollouts: tuple[Rollout, ...]
    nodes: Nodes
    trie: Trie  #: of the representative paths
    path_index: tuple[int, ...]  #: entry of `rollouts` of each path
    trie_nodes: tuple[int, ...]  #: of every row of `nodes`

    @property
    def responses(self) -> Responses:
        """The rollouts as they were when they were graded."""
        return Responses(
            tuple(Completion(one.token_id_T.astype(np.int32), one.finish_reason) for one in self.rollouts),
            tuple(Grade(one.reward, one.correct) for one in self.rollouts),
        )

    @property
    def paths(self) -> dict[int, PathKind]:
        """The representative paths among `rollouts`."""
        return {n: self.rollouts[n].path_kind for n in self.path_index}

    def tokens(self, row: int) -> NDArray[np.int32]:
        """The children of a node, the rest last."""
        return np.asarray(self.nodes.token_NK[row][self.nodes.token_NK[row] != ABSENT_TOKEN], dtype=np.int32)


def kept(opened: Store, question: Question) -> Kept:
    """Read a question with its rollouts and nodes, of no teacher. Raises StoreError."""
    rollouts = tuple(opened.rollout(question.id, row.index, ()) for row in opened.line(question.id).rollouts)
    nodes = opened.nodes(question.id, ())
    path_index = tuple(n for n, one in enumerate(rollouts) if one.path_kind is not PathKind.NONE)
    trie = Trie([Path(tuple(rollouts[n].token_id_T.tolist()), rollouts[n].logprob_T, rollouts[n].correct) for n in path_index])
    of_row = {
        row: trie.along(path)[int(nodes.position_N[row])]
        for path, n in enumerate(path_index)
        for row in rollouts[n].node_P.tolist()
    }
    return Kept(question, rollouts, nodes, trie, path_index, tuple(of_row[row] for row in range(len(nodes))))


def judge(bench: Bench, opened: Store, question: Question, pools: Mapping[str, Pool], others: Mapping[str, str]) -> Arrays | None:
    """The arrays of the bench's one teacher for a question of the store.

    None where its context cannot be had, and where the study left the question out. Where a rollout is what the teacher
    is shown, its tokens, and nodes that lie on no other path, are NaN. `pools` and `others`: see `demonstrations.gather`.
    Raises ComputeError where the student or the question is not the store's.
    """
    found = kept(opened, question)
    if not found.rollouts:
        return None  # the question was left out
    prompt_ids = bench.prompt_ids(bench.student, question, "")
    if prompt_ids != opened.question(question.id).prompt_token_ids.tolist():
        raise ComputeError(f"The prompt of question {question.id} is not the one in the store; the chat template has changed.")
    texts = {n: bench.student.text(one.token_id_T.tolist()) for n, one in enumerate(found.rollouts)}
    materials, scored = gather(bench, question, pools, others, texts, found.paths)
    if materials is None:
        return None
    shown = {text.strip() for one in materials for text in (one.demonstration, one.wrong, one.summary) if text.strip()}
    barred = {n for n in texts if n not in scored and (n in found.paths or texts[n].strip() in shown)}
    prepared = worded(bench, question, found.responses, {n: one.path_kind for n, one in enumerate(found.rollouts)}, materials)
    stored = read(bench, [prepared])[0]
    _require_same_student(found, stored)
    stored = tuple(_silent(one) if one.index in barred else one for one in stored)
    targets = tuple(_target(bench, found, stored, row, barred) for row in range(len(found.nodes)))
    silent = frozenset(row for row, target in enumerate(targets) if np.isnan(target.teacher_logprob_MK).all())
    return teacher_record(
        bench.study,
        Findings(
            question=question,
            status=opened.question(question.id).status,
            prompt_ids=tuple(prompt_ids),
            teacher_prompts=(bench.teachers[0].model.shown(prepared.shared_prompts[0]),),
            rollouts=found.responses,
            stored=stored,
            trie=found.trie,
            path_index=found.path_index,
            targets=targets,
            batches=(),
            outcomes=(),
            later=_later(bench, opened, found, prepared, targets, silent),
        ),
        0,
    )


def absent(row: PartRow, part: PartRows, n_objectives: int, top_k: int) -> Arrays:
    """The arrays of a question that the teacher says nothing of."""
    sizes = {
        "token": row.n_tokens,
        "token_bound": row.n_tokens + 1,
        "extra": 0,
        "node": row.n_nodes,
        "question_bound": 2,
        "teacher_prompt_byte": 0,
        "child": part.n_children,
        "candidate": part.n_candidates or top_k,
        "objective": n_objectives,
        "moment": len(REST_MOMENTS),
        "divergence": len(DIVERGENCES),
    }
    return {
        name: np.full([sizes[dim] for dim in spec.dims], 0 if spec.bounds else spec.fill, dtype=spec.dtype)
        for name, spec in TEACHER.items()
    }


def _require_same_student(found: Kept, stored: Sequence[Stored]) -> None:
    """Raise ComputeError where the student gives the rollouts other log-probabilities than it did."""
    for then, now in zip(found.rollouts, stored, strict=True):
        if len(then) and np.abs(then.logprob_T - now.student.logprob_T).mean() > _SAME_STUDENT:
            raise ComputeError(
                f"The student gives rollout {then.index} of question {found.question.id} other probabilities than the store has; "
                "use the weights, dtype and package versions that the store was computed with."
            )


def _silent(one: Stored) -> Stored:
    """A rollout that the teacher is shown: it says nothing of it."""
    (scores,) = one.teachers
    nothing = {
        field.name: np.full_like(array, ABSENT_TOKEN if array.dtype.kind == "i" else np.nan)
        for field in fields(TeacherScores)
        if (array := getattr(scores, field.name)) is not None
    }
    return replace(one, teachers=(TeacherScores(**nothing),))


def _target(bench: Bench, found: Kept, stored: Sequence[Stored], row: int, barred: set[int]) -> Target:
    """A stored node with the teacher's exact log-probabilities of its children, and means over the whole vocabulary.

    As in the study, a teacher that reads feedback is asked on the node's first path.
    """
    node, tokens = found.trie_nodes[row], found.tokens(row)
    depth = found.trie.nodes[node].depth
    path = stored[found.path_index[found.trie.nodes[node].path]]
    (said,), names = path.teacher_states, bench.study.study.objectives
    rows = slice(depth, depth + 1)
    logp_V = scoring.exact(bench.student_log_probs, path.student_states[rows])[0]
    if isinstance(said, Reading):
        known = [*tokens[:-1].tolist(), *needed_tokens(names, logp_V)]
        logt_V = said.row_with(depth, known, said.row(depth), bench.tick)
        teacher_K = np.append(logt_V[tokens[:-1]], rest_logprob(logt_V, tokens[:-1].tolist()))
    else:
        logt_V = scoring.exact(bench.teachers[0].log_probs, said[rows])[0]
        teacher_K = with_rest(logt_V, tokens[:-1])
    fbar_O = np.array([fbar_of(name, logp_V, logt_V) for name in names])
    sums = whole(logp_V, logt_V[None], tokens[:-1], bench.study.keep.top_k)
    on = (number for number in range(len(found.path_index)) if node in found.trie.along(number))
    if barred and all(found.path_index[number] in barred for number in on):
        teacher_K, fbar_O = np.full_like(teacher_K, np.nan), np.full_like(fbar_O, np.nan)
        sums = Whole(
            sums.topk_logprob_C, np.full_like(sums.teacher_topk_logprob_MC, np.nan), np.full_like(sums.rest_moment_MB, np.nan)
        )
    kinds = found.nodes.kind_NK[row, : len(tokens)].astype(np.uint8)
    bits, logprobs = np.zeros(len(tokens), np.uint32), found.nodes.logprob_NK[row, : len(tokens)].astype(np.float64)
    outcomes = found.nodes.outcome_NK[row, : len(tokens)].astype(np.uint8)
    return Target(node, 0, tokens, kinds, logprobs, bits, outcomes, teacher_K[None], fbar_O[None], sums)


def _later(
    bench: Bench, opened: Store, found: Kept, prepared: Prepared, targets: Sequence[Target], silent: frozenset[int]
) -> tuple[Later, ...]:
    """What the teacher says of the completions, where the study asks and the store kept them whole."""
    if not reads_later(bench.study):
        return nothing_later(targets, 1)
    if bench.study.keep.completions != "all":
        return unknown_later(targets, 1)
    batches, outcomes = _batches(opened, found)
    wanted = [n for n, batch in enumerate(batches) if batch.target not in silent]
    prompts = [[prepared.prompts[n][0] for n in found.path_index]]
    return read_later(
        bench,
        prepared.prompt_ids,
        prompts,
        found.trie,
        targets,
        [batches[n] for n in wanted],
        [outcomes[n] for n in wanted],
    )


def _batches(opened: Store, found: Kept) -> tuple[list[Batch], list[Responses]]:
    """The stored completions of every stratum's own launches, as they were launched; keys are of no use any more."""
    grouped = defaultdict(list)
    for one in opened.completions(found.question.id):
        if one.forced_kind in (ForcedKind.GAP, ForcedKind.REST) or not _on_path(found, one.launch_node, int(one.token_ids[0])):
            grouped[one.launch_node, one.forced_kind, one.exit_token].append(one)
    batches, outcomes = [], []
    for (row, forced_kind, token), completions in grouped.items():
        completions.sort(key=lambda one: one.sample)
        node = found.trie_nodes[row]
        if forced_kind is ForcedKind.GAP:
            path = found.trie.chain(node, token, found.trie_nodes).path
        else:
            path = found.trie.nodes[node].path
        launches = tuple(Launch(one.position, 0) for one in completions)
        batches.append(Batch(row, forced_kind, token, path, launches))
        outcomes.append(
            Responses(
                tuple(Completion(one.token_ids.astype(np.int32), one.finish_reason) for one in completions),
                tuple(Grade(float(one.correct), one.correct) for one in completions),
            )
        )
    return batches, outcomes


def _on_path(found: Kept, row: int, token: int) -> bool:
    return token in found.trie.nodes[found.trie_nodes[row]].children
