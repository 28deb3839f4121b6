"""What the student and every teacher say of the paths: one model after the other, its contexts in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from compute import scoring
from compute.errors import ComputeError
from compute.scoring import StudentScores, TeacherScores
from compute.served.scores import score_served
from compute.served.teacher import Reading
from store.schema import PathKind

if TYPE_CHECKING:
    from compute.pipeline import Bench, Prepared


@dataclass(frozen=True, slots=True)
class Stored:
    """A rollout that goes into the store: the student's and every teacher's word on its tokens, in the study's order."""

    index: int  #: among the initial rollouts
    kind: PathKind
    student: StudentScores
    student_states: torch.Tensor  #: [T, d]; nothing of a rollout that is no path
    teachers: tuple[TeacherScores, ...]
    teacher_states: tuple[torch.Tensor | Reading, ...]  #: of a served teacher what it said


def read(bench: Bench, prepared: Sequence[Prepared]) -> list[tuple[Stored, ...]]:
    """The student's and every teacher's pass over the rollouts of each question, one model after the other."""
    passes = [[_Passes(bench, one, at) for at in one.prompts] for one in prepared]
    everything = [one for of_question in passes for one in of_question]
    for one in everything:
        one.by_student()
    by_model: dict[int, list[int]] = {}
    for m, teacher in enumerate(bench.teachers):
        by_model.setdefault(id(teacher.model), []).append(m)
    for group in by_model.values():
        for one in everything:
            one.by_teachers(group)
    return [tuple(one.stored() for one in of_question) for of_question in passes]


class _Passes:
    """Those over one rollout, as far as they are done."""

    def __init__(self, bench: Bench, prepared: Prepared, at: int) -> None:
        self._bench, self._prepared, self._at = bench, prepared, at
        self._tokens = prepared.rollouts.completions[at].token_ids
        self._scores: dict[int, TeacherScores] = {}
        self._states: dict[int, torch.Tensor | Reading] = {}

    def by_student(self) -> None:
        """The student's own."""
        bench, ids = self._bench, self._tokens.tolist()
        self._student_states = scoring.states(bench.student, self._prepared.prompt_ids, ids)[:-1]
        self._student = scoring.score_student(bench.student_log_probs, self._student_states, self._tokens, bench.study.keep.top_k)

    def by_teachers(self, group: Sequence[int]) -> None:
        """Those of teachers that share one model, or are asked in its place."""
        for m in group:
            if self._bench.teachers[m].served is not None:
                self._by_server(m)
        states = self._states_of([m for m in group if self._bench.teachers[m].served is None])
        for m, theirs in states.items():
            log_probs, top = self._bench.teachers[m].log_probs, self._student.topk_token_id_TC
            scores = scoring.score_teacher(
                self._bench.student_log_probs, self._student_states, log_probs, theirs, self._tokens, top
            )
            self._scores[m], self._states[m] = scores, theirs
        self._bench.tick(0)

    def stored(self) -> Stored:
        """All of them."""
        kind, order = self._prepared.kept[self._at], range(len(self._bench.teachers))
        if kind is PathKind.NONE:  # targets are looked for on paths alone
            self._student_states, self._states = torch.empty(0), {}
        return Stored(
            self._at,
            kind,
            self._student,
            self._student_states,
            tuple(self._scores[m] for m in order),
            tuple(self._states[m] for m in order if m in self._states),
        )

    def _by_server(self, m: int) -> None:
        served, top = self._bench.teachers[m].served, self._student.topk_token_id_TC
        assert served is not None
        said = served.read(self._prompt(m), self._tokens.tolist(), top, self._bench.tick)
        self._scores[m] = score_served(self._bench.student_log_probs, self._student_states, said.known, self._tokens, top)
        self._states[m] = said

    def _states_of(self, group: Sequence[int]) -> dict[int, torch.Tensor]:
        """States [T, d] of teachers of one model; those that read what the student reads have the student's."""
        as_student = [m for m in group if self._bench.teachers[m].model is self._bench.student and self._reads_as_student(m)]
        own = [m for m in group if m not in as_student]
        states = dict.fromkeys(as_student, self._student_states)
        if own:
            model, prompts = self._bench.teachers[own[0]].model, [self._prompt(m) for m in own]
            try:
                found = scoring.context_states(model, prompts, self._tokens.tolist())
            except ComputeError as error:
                names = ", ".join(self._bench.teachers[m].settings.id for m in own)
                raise ComputeError(f"Teacher {names}: {error}") from error
            states |= {m: theirs[:-1] for m, theirs in zip(own, found, strict=True)}
        return states

    def _prompt(self, m: int) -> list[int]:
        return self._prepared.prompts[self._at][m]

    def _reads_as_student(self, m: int) -> bool:
        return tuple(self._prompt(m)) == self._prepared.prompt_ids
