"""Pages: what the loader reads for a screen, and what panes ask of it.

Imported in the loader's thread, after the first paint (it needs numpy); panes get pages in messages and see
facts. Axes as in `store.tables`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.scores import Scores
from opd_tui.colouring import Colouring
from opd_tui.facts import Candidate, ChildFacts, NodeFacts, ObjectiveFacts, TeacherFacts, TeacherLine, TokenFacts
from opd_tui.layout import Flow
from opd_tui.metrics import Metric
from opd_tui.text import Safe
from opd_tui.values import JS, KL_STUDENT_TEACHER, KL_TEACHER_STUDENT, Sure, overlap, scale_of, sureness, values
from store.schema import REST_TOKEN, ChildKind, TokenSource
from store.tables import Nodes, Rollout

if TYPE_CHECKING:
    from compute.posterior import Prior

Array = NDArray[np.floating[Any]]

#: A sign is sure where P(alignment > 0) is below the one or above the other.
UNSURE = (0.05, 0.95)
#: Where the study cannot say how sure a score is, or has not yet: a gain this many standard errors from zero has a sure sign.
SURE = 1.96
KINDS = {ChildKind.ON_PATH: "path", ChildKind.REST: "rest", ChildKind.END: "end"}


class RolloutPage(Struct, frozen=True):
    """One rollout with its scored nodes, ready to be asked by token, teacher and objective."""

    question_id: str
    index: int
    question: tuple[Safe, ...]  #: what the student was asked, the last paragraphs of it
    flow: Flow
    rollout: Rollout
    nodes: Nodes
    scores: Scores
    n_sig: int
    objectives: tuple[Safe, ...]
    teachers: tuple[Safe, ...]  #: their names
    label: Callable[[int], Safe]  #: a token id as safe text
    row_of: dict[int, int]  #: position of a node along the rollout to its row in `nodes`

    @property
    def n_tokens(self) -> int:
        """Tokens of the rollout."""
        return len(self.rollout)

    @property
    def n_teachers(self) -> int:
        """Teachers that were read."""
        return len(self.rollout.teachers)

    @property
    def node_positions(self) -> tuple[int, ...]:
        """Where the nodes are, in order."""
        return tuple(self.row_of)

    @property
    def n_candidates(self) -> int:
        """How many of the likeliest tokens are kept at each position."""
        return int(self.rollout.topk_token_id_TC.shape[1])

    @property
    def most_children(self) -> int:
        """Children of the node that has the most of them."""
        rows = list(self.row_of.values())
        return int((self.nodes.kind_NK[rows] != ChildKind.ABSENT).sum(axis=1).max()) if rows else 0

    # colours

    def sure(self, teacher: int, objective: int, prior: Prior | None) -> Sure:
        """How sure the scores of the question's nodes are, as far as `prior` can tell."""
        return sureness(self.nodes, self.scores, teacher, objective, prior)

    def colouring(
        self, metric: Metric, teacher: int, objective: int, sure: Sure | None = None, second: int | None = None
    ) -> Colouring:
        """`metric` at every token. How sure its sign is: as `sure` says, as far as that can tell, else by the error of the gain.

        `second`: the teacher that the current one is held against, for the metric that needs two.
        """
        sure = sure or self.sure(teacher, objective, None)
        values_T = values(self, metric, teacher, objective, second, sure)
        uncertain: frozenset[int] = frozenset()
        if metric.needs == "objective":
            rows = np.array(list(self.row_of.values()), int)
            gain_P, se_P = self.scores.gain_MON[teacher, objective, rows], self.scores.gain_se_MON[teacher, objective, rows]
            unsure_P = ~(np.abs(gain_P) >= SURE * se_P)
            p_P = sure.p_positive_N[rows]
            unsure_P = np.where(np.isnan(p_P), unsure_P, (p_P >= UNSURE[0]) & (p_P <= UNSURE[1]))
            uncertain = frozenset(position for position, unsure in zip(self.row_of, unsure_P, strict=True) if unsure)
        return Colouring(values_T.tolist(), scale_of(metric, values_T, self.teachers), uncertain)

    # a token

    def token(self, position: int, teacher: int) -> TokenFacts:
        """The token at `position` under one teacher, with what might have come instead."""
        rollout = self.rollout
        token_id = int(rollout.token_id_T[position])
        divergence_D = rollout.divergence_TMD[position, teacher]
        student_top = zip(
            rollout.topk_token_id_TC[position],
            rollout.topk_logprob_TC[position],
            rollout.teacher_logprob_at_student_topk_TMC[position, teacher],
            strict=True,
        )
        here = slice(position, position + 1)
        top = rollout.teacher_topk(teacher, here)
        teacher_top = zip(top.token_id_TC[0], top.student_logprob_TC[0], top.logprob_TC[0], strict=True)
        return TokenFacts(
            position=position,
            n_tokens=self.n_tokens,
            label=self.label(token_id),
            token_id=token_id,
            tool=int(rollout.token_source_T[position]) == TokenSource.TOOL,
            logprob=float(rollout.logprob_T[position]),
            entropy=float(rollout.entropy_T[position]),
            teacher_logprob=float(rollout.teacher_logprob_TM[position, teacher]),
            teacher_entropy=float(rollout.teacher_entropy_TM[position, teacher]),
            kl_student_teacher=float(divergence_D[KL_STUDENT_TEACHER]),
            kl_teacher_student=float(divergence_D[KL_TEACHER_STUDENT]),
            js=float(divergence_D[JS]),
            overlap=float(overlap(rollout, teacher, here, top)[0]),
            student_top=tuple(self._candidate(*row, token_id) for row in student_top if row[0] >= 0),
            teacher_top=tuple(self._candidate(*row, token_id) for row in teacher_top if row[0] >= 0),
            student_tail=float(rollout.tail_mass_T[position]),
            teacher_tail=float(rollout.teacher_tail_mass_TM[position, teacher]),
        )

    def _candidate(self, token_id: int, student: float, teacher: float, taken: int) -> Candidate:
        return Candidate(self.label(int(token_id)), _exp(student), _exp(teacher), int(token_id) == taken)

    # a node

    def node(self, position: int, teacher: int, objective: int, sure: Sure | None = None) -> NodeFacts | None:
        """The node before the token at `position`, if there is one."""
        row = self.row_of.get(position)
        if row is None:
            return None
        nodes, scores = self.nodes, self.scores
        nominated_by = int(nodes.nominated_by_N[row])
        return NodeFacts(
            row=row,
            number=list(self.row_of).index(position) + 1,
            n_nodes=len(self.row_of),
            reason=self._reason(row),
            n_kept=int(scores.n_kept_N[row]),
            success_range=float(scores.success_rate_range_N[row]),
            value=float(scores.estimates.value_N[row]),
            advantage=float(scores.advantage_MN[teacher, row]),
            p_positive=float(sure.p_positive_N[row]) if sure else nan,
            reliability=float(sure.reliability_N[row]) if sure else nan,
            low=float(sure.low_N[row]) if sure else nan,
            high=float(sure.high_N[row]) if sure else nan,
            judged_only=nominated_by != 0 and not nominated_by >> teacher & 1,
            objectives=tuple(
                ObjectiveFacts(
                    name,
                    float(scores.alignment_MON[teacher, o, row]),
                    float(scores.gain_MON[teacher, o, row]),
                    float(scores.gain_se_MON[teacher, o, row]),
                )
                for o, name in enumerate(self.objectives)
            ),
            children=self._children(row, position, teacher, objective),
        )

    def _children(self, row: int, position: int, teacher: int, objective: int) -> tuple[ChildFacts, ...]:
        nodes, estimates = self.nodes, self.scores.estimates
        taken = int(self.rollout.token_id_T[position])
        found = []
        for k, token_id in enumerate(nodes.token_NK[row].tolist()):
            kind = ChildKind(int(nodes.kind_NK[row, k]))
            if kind is ChildKind.ABSENT:
                continue
            found.append(
                ChildFacts(
                    label=Safe("the rest") if token_id == REST_TOKEN else self.label(token_id),
                    token_id=token_id,
                    kind=KINDS.get(kind, ""),
                    taken=token_id == taken,
                    kept=bool(estimates.kept_NK[row, k]),
                    p_student=_exp(nodes.logprob_NK[row, k]),
                    p_teacher=_exp(nodes.teacher_logprob_MNK[teacher, row, k]),
                    p_succ=float(estimates.p_succ_NK[row, k]),
                    low=float(estimates.low_NK[row, k]),
                    high=float(estimates.high_NK[row, k]),
                    n=float(estimates.effective_n_NK[row, k]),
                    ideal=float(self.scores.ideal_NK[row, k]),
                    update=float(self.scores.update_MONK[teacher, objective, row, k]),
                )
            )
        return tuple(sorted(found, key=lambda child: (child.kind == "rest", -child.p_student)))

    def _reason(self, row: int) -> str:
        scores = self.scores
        if bool(scores.decision_point_N[row]):
            return ""
        kinds_K = self.nodes.kind_NK[row]
        n_children = int(((kinds_K != ChildKind.ABSENT) & (kinds_K != ChildKind.REST)).sum())
        n_kept = int(scores.n_kept_N[row])
        if n_children < 2:
            return "one child only: nothing to compare"
        if n_kept < 2:
            return f"too few counts: {n_kept} of {n_children} children reach {self.n_sig}"
        return "all kept children succeed equally often"

    # teachers

    def teacher_lines(self, teachers: tuple[TeacherFacts, ...], objective: int, position: int) -> tuple[TeacherLine, ...]:
        """Every teacher at this token and along the rollout."""
        rows = list(self.row_of.values())
        here = list(self.row_of).index(position) if position in self.row_of else None
        lines = []
        for m, teacher in enumerate(teachers[: self.n_teachers]):
            trace_P = self.scores.alignment_MON[m, objective, rows] if rows else np.empty(0)
            gain = self.scores.gain_MON[m, objective, self.row_of[position]] if here is not None else nan
            alignment = float(trace_P[here]) if here is not None else nan
            lines.append(TeacherLine(teacher, alignment, float(gain), tuple(trace_P.tolist()), here))
        return tuple(lines)


def _exp(logprob: float) -> float:
    return exp(logprob) if isfinite(logprob) else 0.0 if logprob == -np.inf else nan
