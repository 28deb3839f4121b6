"""The columns behind the names of an expression: from the listing, from tokens, from scored nodes.

Axes as in `store.tables`; X are the rows that an expression is evaluated at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from compute.posterior import Posterior, Prior, fit, posterior
from compute.scores import Scores, score
from compute.updates import takes_whole
from opd_tui.overview import PRIOR_NODES
from opd_tui.search.evaluating import Column, Float, Texts
from opd_tui.search.expression import Reference
from opd_tui.search.names import ALIASES
from store.node_tables import merge_nodes
from store.reader import Store
from store.schema import DIVERGENCES, ChildKind, FinishReason, PathKind, QuestionStatus, TokenSource
from store.tables import Listing, Nodes

Rows = NDArray[np.integer[Any]]

#: Arrays by token that names take: of the student, and of a teacher.
STUDENT_ARRAYS: Mapping[str, tuple[str, ...]] = {
    "token": ("token_id",), "token_id": ("token_id",), "p_succ": ("token_id",), "tool": ("token_source",),
    "logprob": ("logprob",), "log_ratio": ("logprob",), "entropy": ("entropy",),
}  # fmt: skip
TEACHER_ARRAYS: Mapping[str, tuple[str, ...]] = {
    "teacher_logprob": ("logprob",), "log_ratio": ("logprob",), "teacher_entropy": ("entropy",),
    **dict.fromkeys(("kl_st", "kl_ts", "js", "l2", "cosine"), ("divergence",)),
}  # fmt: skip
_DIVERGENCE = {ALIASES.get(array, array): place for place, array in enumerate(DIVERGENCES)}
#: Rollouts have these from their nodes.
FROM_NODES = frozenset({"mean_align", "worst_align"})


class Chosen(Struct, frozen=True):
    """The teacher and objective that names without brackets are about; "" where there is none."""

    teacher: str
    objective: str

    def teacher_of(self, reference: Reference) -> str:
        """The teacher that `reference` is about."""
        return reference.teacher if reference.teacher is not None else self.teacher

    def objective_of(self, reference: Reference) -> str:
        """The objective that it is about."""
        return reference.objective if reference.objective is not None else self.objective


def _floats(values: Any) -> Float:
    found: Float = np.asarray(values, np.float64)
    return found


# questions and rollouts


def listed(opened: Store, listing: Listing, reference: Reference, chosen: Chosen, q_X: Rows, r_X: Rows | None) -> Column | None:
    """A column of the lists for questions `q_X` and rollouts `r_X`, rows of `listing`; None for a name that is deeper."""
    match reference.name.key:
        case "question":
            return Texts(listing.question_id_Q, q_X)
        case "number":
            return _floats(listing.number_Q[q_X])
        case "success":
            n_X = _floats(listing.n_rollouts_Q[q_X])
            return _floats(listing.n_correct_Q[q_X]) / np.where(n_X > 0, n_X, nan)
        case "n_rollouts":
            return _floats(listing.n_rollouts_Q[q_X])
        case "n_correct":
            return _floats(listing.n_correct_Q[q_X])
        case "left_out":
            return np.asarray(listing.status_Q[q_X] != QuestionStatus.SCORED)
        case "teacher":
            return Texts((chosen.teacher_of(reference),), np.zeros(len(q_X), np.intp))
        case "null":
            nulls = {teacher.id for teacher in opened.teachers if teacher.null}
            return np.full(len(q_X), chosen.teacher_of(reference) in nulls)
        case "judged_only":
            return np.asarray(_judged_only(opened, listing, chosen.teacher_of(reference))[q_X])
    return None if r_X is None else _of_rollout(listing, reference.name.key, r_X)


def _of_rollout(listing: Listing, key: str, r_X: Rows) -> Column | None:
    match key:
        case "rollout":
            return _floats(listing.index_R[r_X])
        case "correct":
            return np.asarray(listing.correct_R[r_X])
        case "incorrect":
            return np.asarray(~listing.correct_R[r_X])
        case "truncated":
            return np.asarray(listing.finish_reason_R[r_X] == FinishReason.LENGTH)
        case "path":
            return np.asarray(listing.path_kind_R[r_X] != PathKind.NONE)
        case "reward":
            return _floats(listing.reward_R[r_X])
        case "length":
            return _floats(listing.n_tokens_R[r_X])
        case "n_nodes":
            return _floats(listing.n_nodes_R[r_X])
    return None


def _judged_only(opened: Store, listing: Listing, teacher: str) -> NDArray[np.bool_]:
    if all(teacher != added.id for added in opened.added_teachers):
        return np.zeros(len(listing), np.bool_)
    return np.array([teacher in opened.judged_only(question) for question in listing.question_id_Q], np.bool_)


# tokens


class Tokens(Struct, frozen=True, eq=False):
    """Arrays by token along some rollouts end to end; T: their tokens."""

    student: Mapping[str, NDArray[Any]]
    by_teacher: Mapping[str, Mapping[str, NDArray[Any]] | None]
    position_T: Rows
    length_T: Rows  #: of the rollout

    def column(self, opened: Store, reference: Reference, teacher: str, rows: Rows | slice) -> Column | None:
        """The column of a name by token, at some rows; None for a name that is none of tokens."""
        student, key = self.student, reference.name.key
        match key:
            case "position":
                return _floats(self.position_T[rows])
            case "depth":
                return _floats(self.position_T[rows]) / self.length_T[rows]
            case "token":
                different, index = np.unique(student["token_id"][rows], return_inverse=True)
                texts = [opened.vocab.bytes_of(one).decode("utf-8", "replace") for one in different.tolist()]
                return Texts(texts, index)
            case "token_id":
                return _floats(student["token_id"][rows])
            case "tool":
                return np.asarray(student["token_source"][rows] == TokenSource.TOOL)
            case "logprob" | "entropy":
                return _floats(student[key][rows])
        if key not in TEACHER_ARRAYS:
            return None
        read = self.by_teacher.get(teacher)
        if read is None:
            return np.full(len(self.position_T[rows]), nan)
        if key == "log_ratio":
            return _floats(read["logprob"][rows] - student["logprob"][rows])
        if key in _DIVERGENCE:
            return _floats(read["divergence"][rows, _DIVERGENCE[key]])
        return _floats(read[key.removeprefix("teacher_")][rows])


# nodes


class Scoring(Struct, frozen=True):
    """How nodes are scored for an expression: what of them is read, and what is known of the whole study."""

    teachers: tuple[str, ...]
    objectives: tuple[str, ...]
    whole: bool
    sure: bool  #: whether something asks how sure scores are
    n_draws: int
    prior: Prior | None

    def question(self, opened: Store, question_id: str) -> ScoredNodes:
        """The nodes of a question, scored."""
        nodes = opened.nodes(question_id, self.teachers, whole=self.whole)
        scores = score(nodes, n_sig=opened.attributes.n_sig, objectives=self.objectives, level=None)
        sure = posterior(nodes, scores, self.prior, level=None, n_draws=self.n_draws) if self.prior is not None else None
        return ScoredNodes(nodes, scores, sure, self)


def scoring(opened: Store, references: Collection[Reference], chosen: Chosen, prior: Prior | None) -> Scoring:
    """What it takes to score nodes for these names. `prior`: what is known already of how sure scores are."""
    keys = {one.name.key for one in references}
    needy = [one for one in references if one.name.needs != "nothing"]
    teachers = {chosen.teacher_of(one) for one in needy} - {""}
    objectives = {chosen.objective_of(one) for one in needy if one.name.needs == "objective"} - {""}
    if "reliability" in keys:  # it is told wherever any teacher is scored under any objective
        teachers, objectives = {one.id for one in opened.teachers}, objectives | set(opened.attributes.objectives)
    ids, names = tuple(sorted(teachers)), tuple(sorted(objectives))
    whole = takes_whole(names, opened.attributes.objectives)
    sure = bool(keys & {"p_positive", "reliability"})
    made = Scoring(ids, names, whole, sure, 256 if "reliability" in keys else 2, None)
    if not sure:
        return made
    return replace(made, prior=(narrowed(prior, ids, names) if prior is not None else None) or _fitted(opened, made))


def narrowed(prior: Prior, teachers: Sequence[str], objectives: Sequence[str]) -> Prior | None:
    """`prior` for some of its teachers and objectives; None where it does not have them."""
    if not (set(teachers) <= set(prior.teachers) and set(objectives) <= set(prior.objectives)):
        return None
    at = np.ix_([prior.teachers.index(one) for one in teachers], [prior.objectives.index(one) for one in objectives])
    return replace(
        prior,
        teachers=tuple(teachers),
        objectives=tuple(objectives),
        kappa_MO=prior.kappa_MO[at],
        positive_MOS=prior.positive_MOS[at],
        n_contrasts_MO=prior.n_contrasts_MO[at],
        calibrated_MO=prior.calibrated_MO[at],
    )


def _fitted(opened: Store, made: Scoring) -> Prior | None:
    """How sure scores are, from whole questions that lie evenly over the study, read one by one."""
    listing = opened.listing()
    start = listing.rollout_start_Q1
    n_nodes_Q = np.add.reduceat(np.r_[listing.n_nodes_R, 0], start[:-1]) if len(listing) else np.empty(0)
    with_nodes = np.flatnonzero(np.where(np.diff(start) > 0, n_nodes_Q, 0) > 0)
    step = max(1, -(-opened.counts().n_nodes // PRIOR_NODES))
    tables = [opened.nodes(listing.question_id_Q[q], made.teachers, whole=made.whole) for q in with_nodes[::step].tolist()]
    if not tables:
        return None
    nodes = merge_nodes(tables)
    return fit(nodes, score(nodes, n_sig=opened.attributes.n_sig, objectives=made.objectives, level=None))


class ScoredNodes(Struct, frozen=True, eq=False):
    """The nodes of one question with their scores."""

    nodes: Nodes
    scores: Scores
    sure: Posterior | None
    scoring: Scoring

    def _at(self, reference: Reference, chosen: Chosen) -> tuple[int, int] | None:
        """Teacher and objective on the axes of the scores; None where there is no such teacher or objective."""
        teachers, objectives = self.scoring.teachers, self.scoring.objectives
        teacher = chosen.teacher_of(reference)
        if teacher not in teachers:
            return None
        if reference.name.needs != "objective":
            return teachers.index(teacher), 0
        objective = chosen.objective_of(reference)
        return (teachers.index(teacher), objectives.index(objective)) if objective in objectives else None

    def by_node(self, reference: Reference, chosen: Chosen, order: Sequence[str]) -> Column | None:
        """A column over all nodes; `order`: the store's teachers. None for names that need the token that was taken."""
        if reference.name.key == "reliability":
            return self.sure.reliability_N if self.sure is not None else None
        found = self._of_node(reference.name.key)
        at = self._at(reference, chosen)
        return found if found is not None or at is None else self._of_score(reference, at, order)

    def _of_node(self, key: str) -> Column | None:
        scores, estimates = self.scores, self.scores.estimates
        match key:
            case "value":
                return estimates.value_N
            case "success_range":
                return scores.success_rate_range_N
            case "n":
                least_N = np.where(estimates.kept_NK, estimates.effective_n_NK, np.inf).min(axis=1, initial=np.inf)
                return np.where(estimates.kept_NK.any(axis=1), least_N, nan)
            case "completions":
                return _floats(estimates.n_NK.sum(axis=1))
            case "n_kept":
                return _floats(scores.n_kept_N)
            case "n_children":
                kind_NK = self.nodes.kind_NK
                return _floats(((kind_NK != ChildKind.ABSENT) & (kind_NK != ChildKind.REST)).sum(axis=1))
            case "decision":
                return scores.decision_point_N
        return None

    def _of_score(self, reference: Reference, at: tuple[int, int], order: Sequence[str]) -> Column | None:
        scores = self.scores
        match reference.name.key:
            case "align" | "mean_align" | "worst_align":
                return _floats(scores.alignment_MON[at])
            case "gain":
                return _floats(scores.gain_MON[at])
            case "p_positive" if self.sure is not None:
                return self.sure.p_positive_MON[at] if self.sure.calibrated_MO[at] else np.full(len(self.nodes), nan)
            case "advantage":
                return _floats(scores.advantage_MN[at[0]])
            case "nominated":
                bits_N = self.nodes.nominated_by_N
                bit = order.index(scores.teachers[at[0]])
                return np.asarray((bits_N == 0) | (bits_N >> np.uint32(bit) & np.uint32(1) == 1))
        return None

    def success_after(self, node_X: Rows, token_id_X: Rows) -> Float:
        """p_succ of the child that was taken; NaN where it is none of the node's."""
        taken_XK = self.nodes.token_NK[node_X] == token_id_X[:, None]
        found_X = self.scores.estimates.p_succ_NK[node_X, taken_XK.argmax(axis=1)]
        return np.where(taken_XK.any(axis=1), found_X, nan)
