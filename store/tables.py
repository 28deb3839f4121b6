"""What crosses from the store to the rest: frozen tables of numpy arrays with named axes.

Axes: Q question, R rollout, T token, C candidate (top-K), N node, K child, G group of completions,
M teacher, D divergence, O objective, B moment, E extra. Rows refer to rows of the same table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from store.schema import FinishReason, ForcedKind, PathKind, QuestionStatus
from store.teacher_topk import Extras, TopK, join_topk, shared_topk

Int = NDArray[np.integer[Any]]
Float = NDArray[np.floating[Any]]


class TeacherInfo(Struct, frozen=True):
    """One teacher of the study, in the study's order."""

    id: str  #: what users type; also the name of its folder
    kind: str  #: "external", "self" or "temperature"
    context: str  #: name of the privileged context, "" where there is none
    model: str
    null: bool  #: a baseline that should earn nothing of itself
    description: str  #: one line for people


class RootAttributes(Struct, frozen=True):
    """What the root of a store says of the whole study. Written once, when the store is made."""

    study: str  #: the study file, as TOML text
    study_hash: str
    student: str  #: model name or folder
    teachers: tuple[TeacherInfo, ...]
    objectives: tuple[str, ...]  #: order of the objective axis of `fbar`
    question_ids: tuple[str, ...]  #: all planned questions, in order
    n_sig: int  #: effective count from which a child is kept
    top_k: int
    provenance: dict[str, Any] = field(default_factory=dict)  #: revisions, dtypes, seeds, versions
    chosen: tuple[str, ...] = ()  #: the questions of a slice, in order; none for a store that is to have them all


class RolloutRow(Struct, frozen=True):
    """One line of the list of rollouts."""

    question_id: str
    index: int
    correct: bool
    reward: float
    finish_reason: FinishReason
    path_kind: PathKind
    n_tokens: int
    n_nodes: int


class QuestionRow(Struct, frozen=True):
    """One line of the list of questions."""

    id: str
    number: int
    status: QuestionStatus
    n_rollouts: int
    n_correct: int
    n_truncated: int
    rollouts: tuple[RolloutRow, ...]

    @property
    def success_rate(self) -> float:
        """Share of the initial rollouts that were correct."""
        return self.n_correct / self.n_rollouts if self.n_rollouts else float("nan")


class Listing(Struct, frozen=True, eq=False):
    """Every question by number with its rollouts, as columns: what lists, filters and charts are made of.

    Rollouts of question q are the rows ``rollout_start_Q1[q]`` to ``rollout_start_Q1[q + 1]`` of the ``_R`` columns.
    """

    question_id_Q: tuple[str, ...]
    number_Q: Int
    status_Q: Int  #: `QuestionStatus`
    n_rollouts_Q: Int  #: initial rollouts sampled
    n_correct_Q: Int
    n_truncated_Q: Int
    rollout_start_Q1: Int
    index_R: Int
    correct_R: NDArray[np.bool_]
    reward_R: Float
    finish_reason_R: Int  #: `FinishReason`
    path_kind_R: Int  #: `PathKind`
    n_tokens_R: Int
    n_nodes_R: Int

    def __len__(self) -> int:
        return len(self.question_id_Q)


class QuestionPlace(Struct, frozen=True):
    """Where a question lies in a store."""

    question_id: str
    number: int
    part: str
    row: int  #: among the questions of the part
    generation: int  #: how often it was extended
    nominators: tuple[str, ...]  #: teachers that the bits of `nominated_by` name; nothing: the study's
    teachers: tuple[str, ...]  #: that have read it


class Question(Struct, frozen=True):
    """A question with its texts."""

    id: str
    number: int
    status: QuestionStatus
    prompt: str
    prompt_token_ids: Int
    reference_answer: str
    n_rollouts: int
    n_correct: int
    n_truncated: int

    @property
    def success_rate(self) -> float:
        """Share of the initial rollouts that were correct."""
        return self.n_correct / self.n_rollouts if self.n_rollouts else float("nan")


class Rollout(Struct, frozen=True, eq=False):
    """One rollout, token by token, with what every asked-for teacher says of each token."""

    question_id: str
    index: int
    correct: bool
    reward: float
    finish_reason: FinishReason
    path_kind: PathKind
    token_id_T: Int
    token_source_T: Int
    logprob_T: Float
    entropy_T: Float
    topk_token_id_TC: Int
    topk_logprob_TC: Float
    tail_mass_T: Float
    #: rows of the question's `Nodes` that lie on this rollout, in order of depth
    node_P: Int
    teachers: tuple[str, ...]
    teacher_logprob_TM: Float
    teacher_entropy_TM: Float
    divergence_TMD: Float
    teacher_logprob_at_student_topk_TMC: Float
    #: how many of the teacher's most likely tokens are known; 0 where it was not asked
    teacher_topk_n_TM: Int
    extras_M: tuple[Extras, ...]  #: those of each teacher's top-K that are not in the student's
    teacher_tail_mass_TM: Float

    def __len__(self) -> int:
        return len(self.token_id_T)

    def teacher_topk(self, teacher: int, tokens: slice = slice(None)) -> TopK:
        """The most likely tokens of the teacher in column `teacher`, at all tokens or at some in a row: [T, C], falling."""
        return join_topk(
            self.topk_token_id_TC[tokens],
            self.topk_logprob_TC[tokens],
            self.teacher_logprob_at_student_topk_TMC[tokens, teacher],
            self.teacher_topk_n_TM[tokens, teacher],
            self.extras_M[teacher][tokens],
        )

    def shared_topk(self, positions: Int) -> NDArray[np.bool_]:
        """Which of the student's top-K at `positions` are in each teacher's: [P, M, C]."""
        n_extra_MP = np.array([np.diff(extras.start_T1)[positions] for extras in self.extras_M], np.int64)
        n_shared_PM = self.teacher_topk_n_TM[positions] - n_extra_MP.reshape(len(self.teachers), len(positions)).T
        return shared_topk(self.teacher_logprob_at_student_topk_TMC[positions], n_shared_PM)


class Nodes(Struct, frozen=True, eq=False):
    """Targeted nodes with their children and their counts: of one question, of a part, or of many.

    Everything that a score needs: any objective, support, estimator and threshold is an expression
    over this table (method.md 1-4). Rows of `next_NK`, `parent_N` and `group_*_node_G` are rows of
    this table.
    """

    question_N: Int  #: number of the question (`QuestionRow.number`)
    position_N: Int
    parent_N: Int
    nominated_by_N: Int
    token_NK: Int
    kind_NK: Int
    logprob_NK: Float
    child_nominated_by_NK: Int
    next_NK: Int
    continue_logprob_NK: Float
    outcome_NK: Int
    group_launch_node_G: Int
    group_forced_kind_G: Int
    group_forced_token_G: Int
    group_exit_node_G: Int
    group_exit_token_G: Int
    group_half_G: Int
    group_n_G: Int
    group_n_success_G: Int
    group_n_truncated_G: Int
    teachers: tuple[str, ...]
    teacher_logprob_MNK: Float
    objectives: tuple[str, ...]
    fbar_MNO: Float
    # What other objectives than the study's take besides; None where it was not asked for.
    topk_logprob_NC: Float | None = None
    teacher_topk_logprob_MNC: Float | None = None
    rest_moment_MNB: Float | None = None
    gap_kl_MNK: Float | None = None
    later_n_MNK: Int | None = None
    later_sum_MNK: Float | None = None
    later_sum_squares_MNK: Float | None = None

    def __len__(self) -> int:
        return len(self.position_N)


class Completion(Struct, frozen=True):
    """One completion that was kept to be read."""

    launch_node: int
    forced_kind: ForcedKind
    exit_node: int
    exit_token: int
    sample: int
    position: int  #: tokens of the path before `token_ids`
    correct: bool
    finish_reason: FinishReason
    token_ids: Int


class Paths(Struct, frozen=True, eq=False):
    """Which rows of a `Nodes` table lie on which rollout. L: rollouts that have nodes, P: their nodes end to end."""

    question_L: Int  #: number of the question
    rollout_index_L: Int
    correct_L: NDArray[np.bool_]
    start_L1: Int  #: offsets into node_P, one more than rollouts
    node_P: Int


class StoreCounts(Struct, frozen=True):
    """How much is in a store. Of a question that two parts hold, one is counted."""

    n_questions_planned: int  #: of the study
    n_questions_chosen: int  #: of a slice of it; 0 where it is none
    n_questions_done: int
    n_rollouts: int  #: rollouts kept token by token
    n_tokens: int  #: tokens of these rollouts
    n_nodes: int  #: targeted nodes
    n_completions: int  #: completions launched at nodes and counted, kept to be read or not

    @property
    def complete(self) -> bool:
        """Whether every question is there that is to be there."""
        return self.n_questions_done >= (self.n_questions_chosen or self.n_questions_planned)


class PartRow(Struct, frozen=True):
    """One question of a part, as far as a teacher that is added needs to know."""

    question_id: str
    n_tokens: int
    n_nodes: int
    current: bool  #: whether readers take the question from this part


class PartRows(Struct, frozen=True):
    """The questions of a part in its order, and the widths of its arrays."""

    part: str
    rows: tuple[PartRow, ...]
    n_candidates: int
    n_children: int


class Page(Struct, frozen=True, eq=False):
    """What one look at a rollout needs."""

    question: Question
    rollout: Rollout
    nodes: Nodes
