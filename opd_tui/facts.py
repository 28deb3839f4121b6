"""What panes show: plain numbers and safe text, frozen. Made by `opd_tui.pages`, drawn by `opd_tui.widgets`.

Nothing here needs numpy. Panes know these only by name: making so many classes takes time that the first paint
does not have. NaN means: no such number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from opd_tui.text import Safe

if TYPE_CHECKING:
    from opd_tui.questions import Questions


class Mean(Struct, frozen=True):
    """Mean alignment with its 95 % interval, the mean gain of the same nodes, and alignment apart by outcome."""

    mean: float
    low: float
    high: float
    gain: float
    correct: float
    incorrect: float
    gain_low: float = float("nan")
    gain_high: float = float("nan")


class Score(Struct, frozen=True):
    """What the scored nodes of a rollout or question come to, under one teacher and objective."""

    mean: float
    worst: float
    n_scored: int


class QuestionFacts(Struct, frozen=True):
    """One line of the list of questions."""

    id: str  #: as stored; never drawn
    label: Safe
    number: int
    n_rollouts: int
    n_correct: int
    left_out: str  #: why it was not scored, "" where it was
    rollouts: Sequence[RolloutFacts]

    @property
    def success_rate(self) -> float:
        """Share of the rollouts that were correct."""
        return self.n_correct / self.n_rollouts if self.n_rollouts else float("nan")

    @property
    def first_rollout(self) -> int | None:
        """Index of the rollout to begin with: one that has nodes, if there is one."""
        first = min(self.rollouts, key=lambda rollout: (not rollout.n_nodes, rollout.index), default=None)
        return None if first is None else first.index


class RolloutFacts(Struct, frozen=True):
    """One line of the list of rollouts."""

    index: int
    correct: bool
    truncated: bool
    representative: bool
    n_tokens: int
    n_nodes: int


class TeacherFacts(Struct, frozen=True):
    """A teacher of the study."""

    id: str  #: as stored; never drawn
    label: Safe
    description: Safe
    null: bool
    late: bool = False  #: added later, and judged only at nodes that others nominated
    context: Safe = Safe("")  #: what kind of teacher: external, or the context that the student is given


class Catalogue(Struct, frozen=True, eq=False):
    """What is in the store."""

    title: Safe
    student: Safe
    teachers: tuple[TeacherFacts, ...]
    objectives: tuple[Safe, ...]
    n_planned: int
    questions: Questions
    spellings: tuple[str, ...] = ()  #: of the objectives, as stored; never drawn
    study_hash: str = ""
    n_chosen: int = 0  #: questions of a slice of the study; 0 where it is none

    @property
    def complete(self) -> bool:
        """Whether every question is there that is to be there."""
        return len(self.questions) >= (self.n_chosen or self.n_planned)


class ChildFacts(Struct, frozen=True):
    """A child of a node: how likely, how good, and where the two gradients push it."""

    label: Safe
    token_id: int
    kind: str  #: "", "path", "rest" or "end"
    taken: bool  #: the rollout went on with it
    kept: bool  #: it has counts enough to be part of the score
    p_student: float
    p_teacher: float
    p_succ: float
    low: float
    high: float
    n: float  #: effective count of completions; infinite where the outcome is exact
    ideal: float
    update: float


class ObjectiveFacts(Struct, frozen=True):
    """What one objective's update is worth at a node."""

    label: Safe
    alignment: float
    gain: float
    gain_se: float


class NodeFacts(Struct, frozen=True):
    """A node under one teacher."""

    row: int
    number: int  #: place among the rollout's nodes, from 1
    n_nodes: int
    reason: str  #: why it is no decision point, "" where it is one
    n_kept: int
    success_range: float
    value: float
    advantage: float
    p_positive: float  #: P(alignment > 0) under the current objective
    reliability: float
    low: float  #: ends of the 95 % interval of the alignment under the current objective
    high: float
    judged_only: bool  #: the teacher did not nominate this position
    objectives: tuple[ObjectiveFacts, ...]
    children: tuple[ChildFacts, ...]


class Candidate(Struct, frozen=True):
    """A token that might have come instead."""

    label: Safe
    p_student: float
    p_teacher: float
    taken: bool


class TokenFacts(Struct, frozen=True):
    """A token under one teacher."""

    position: int
    n_tokens: int
    label: Safe
    token_id: int
    tool: bool  #: written by a tool, not by the student
    logprob: float
    entropy: float
    teacher_logprob: float
    teacher_entropy: float
    kl_student_teacher: float
    kl_teacher_student: float
    js: float
    overlap: float  #: share of the student's most likely tokens that are among the teacher's
    student_top: tuple[Candidate, ...]
    teacher_top: tuple[Candidate, ...]
    student_tail: float
    teacher_tail: float


class TeacherLine(Struct, frozen=True):
    """One teacher at the token under the cursor, and over the rollout."""

    teacher: TeacherFacts
    alignment: float
    gain: float
    trace: tuple[float, ...]  #: alignment at the rollout's nodes, in order
    here: int | None  #: which node of the trace is under the cursor


class Passage(Struct, frozen=True):
    """A text to be read: a prompt, or a completion with how it ended."""

    heading: str
    body: tuple[Safe, ...]  #: paragraphs
    verdict: bool | None = None
