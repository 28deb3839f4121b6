"""What nodes are worth that were chosen by their scores: by a threshold, a gate, or as those of the best teacher.

Of many noisy scores the largest are too large. Nodes that are chosen and judged on the same completions earn what
luck gave them: a teacher worth 0.000 shows +0.12 to +0.15 (method.md 4). So what is shown to a rule never judges it:

    `judge`         a rule chooses nodes by the scores of one half of the completions; the other half judges them.
                    It says what these nodes are worth.
    `judge_fitted`  a rule is fitted to the scores of half of the questions, and chooses by features alone in the
                    other half, which judges it. It says what such a rule is worth on questions that it has not seen.

Both go in both directions and average them. A rule is a function of a `View` and sees nothing else: scores of the
side that is shown, and features that are known without any completion. (A question's success rate is none: initial
rollouts may count as completions, of both halves.) A view is a copy, in no particular order, so that an answer that
was made elsewhere does not fit it. Beside the result stands `unsplit`, what the rule seems to be worth where the same
completions choose and judge: a warning, never a result. Ready-made rules are in `compute.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compute.averages import Averages, Outcome, shared_questions
from compute.evidence import Evidence
from compute.halves import pooled, squared_norm
from compute.objectives import parse
from compute.statistics import Interval, jackknife_t, normal_cdf, t_interval
from store.tables import Int

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]
Score = Literal["alignment", "gain", "p_positive"]

#: In `Choice.teacher_P`: the node gets no teacher.
NO_TEACHER = -1


@dataclass(frozen=True, slots=True)
class View:
    """What a rule may look at. P: decision points of the side that is shown, along the paths, in no particular order."""

    teachers: tuple[str, ...]
    alignment_MP: Array
    gain_MP: Array
    gain_se_MP: Array
    p_positive_MP: Array  #: P(gain > 0) by the normal distribution; too sure where siblings are nearly equal
    question_P: Int  #: number of the question
    rollout_P: Int  #: index of the rollout; a node that two rollouts share is there twice
    features: Mapping[str, Array]  #: by name, [M, P]

    def __len__(self) -> int:
        return len(self.question_P)

    def score(self, by: Score) -> Array:
        """One of the scores by its name: [M, P]."""
        if by == "alignment":
            return self.alignment_MP
        return self.gain_MP if by == "gain" else self.p_positive_MP

    def teacher(self, name: str) -> int:
        """Row of a teacher. Raises ValueError for one that is not there."""
        if name not in self.teachers:
            raise ValueError(f"A rule names teacher {name!r}; it may choose among {', '.join(self.teachers)}.")
        return self.teachers.index(name)

    def feature(self, name: str, teacher: str) -> Array:
        """A feature under a teacher: [P]. Raises ValueError for one that is not there."""
        if name not in self.features:
            raise ValueError(f"A rule names feature {name!r}; there are {', '.join(sorted(self.features))}.")
        value_MP = self.features[name]
        return np.asarray(value_MP[self.teacher(teacher)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule chooses: at every entry of its view the row of a teacher, or NO_TEACHER."""

    teacher_P: Int
    note: str = ""  #: what the rule settled on, for people: a cut, the name of a teacher


Rule = Callable[[View], Choice]
Fit = Callable[[View], Rule]


@dataclass(frozen=True, slots=True)
class Worth:
    """Means over questions of the chosen entries, each under the teacher that was chosen for it."""

    alignment: Interval  #: raw mean cosine; by half of the completions it is drawn more towards zero than a study's mean
    gain: Interval  #: unbiased
    pooled: Interval  #: not shrunk by noise; see `compute.halves.pooled`


@dataclass(frozen=True, slots=True)
class Selected:
    """What a rule is worth. `split` is the result; `unsplit` shows what it would have seemed to be."""

    objective: str
    outcome: Outcome
    teachers: tuple[str, ...]
    split: Worth  #: chosen on one side, judged on the other, both directions averaged
    everything: Worth  #: all entries under every teacher, judged alike, on the same questions
    more_alignment: Interval  #: split less everything, paired by question
    more_gain: Interval
    gain_over_all: Interval  #: gain of the chosen entries averaged over all, those without a teacher earning nothing
    #: `gain_over_all` less the gain of every entry under every teacher, paired by question, however few were chosen
    more_over_all: Interval
    share: Interval  #: of the entries, how many got a teacher
    unsplit: Worth  #: WARNING: chosen and judged on the same completions, so that luck counts as worth
    notes: tuple[str, str, str]  #: what the rule settled on when shown one side, the other, everything
    #: for use (weights, a table of teachers): the choice from all there is, per entry of the study; it is worth `split`
    teacher_P: Int


def judge(
    evidence: Evidence,
    rule: Rule,
    *,
    objective: str | None = None,
    teachers: Sequence[str] | None = None,
    outcome: Outcome = "all",
    seed: int = 0,
) -> Selected:
    """What the nodes that a rule chooses are worth: chosen by one half of the completions, judged by the other.

    `objective` is the study's first by default. `teachers` are those that the rule may choose from (all by default).
    `seed` shuffles the views. Raises ValueError for unknown names, for an objective whose update is made from the
    completions that would judge it, and for a rule whose answer does not fit its view.
    """
    case = _Case.of(evidence, objective, teachers, outcome, seed)
    zero, one = case.halves
    crossed = [_Direction(case.choose(rule, shown), shown.decision_P, judged) for shown, judged in ((zero, one), (one, zero))]
    return case.selected(crossed, case.choose(rule, case.whole))


def judge_fitted(
    evidence: Evidence,
    fit: Fit,
    *,
    objective: str | None = None,
    teachers: Sequence[str] | None = None,
    outcome: Outcome = "all",
    seed: int = 0,
) -> Selected:
    """What a rule of features is worth on new questions: fitted on half of the questions, judged on the others.

    `fit` sees the scores of its half and gives a rule; that rule then sees the features of the other half, where all
    scores are NaN. Arguments and errors as in `judge`; `seed` also deals out the questions.
    """
    case = _Case.of(evidence, objective, teachers, outcome, seed)
    averages = evidence.averages
    dealt_Q = np.random.default_rng(seed).permutation(len(averages.numbers_Q)) % 2
    fold_P = dealt_Q[averages.question_P]
    crossed = []
    for fold in (0, 1):
        shown, judged = (
            replace(case.whole, decision_P=case.whole.decision_P & in_P) for in_P in (fold_P == fold, fold_P != fold)
        )
        crossed.append(_Direction(case.choose(fit(case.view(shown)), judged.blind()), judged.decision_P, judged))
    return case.selected(crossed, case.choose(fit(case.view(case.whole)), case.whole.blind()))


# How ------------------------------------------------------------------------------------------------

# Columns of what is averaged, the axis C.
_ALIGNMENT, _GAIN, _SQUARED = range(3)


@dataclass(frozen=True, slots=True)
class _Side:
    """Scores at every entry, from one half of the completions or from all."""

    alignment_MP: Array
    gain_MP: Array
    gain_se_MP: Array
    squared_P: Array
    decision_P: Bool  #: decision points of this side, of the outcome and the questions that are compared

    def blind(self) -> _Side:
        """The same entries without their scores."""
        nothing_MP = np.full_like(self.gain_MP, np.nan)
        return _Side(nothing_MP, nothing_MP, nothing_MP, np.full_like(self.squared_P, np.nan), self.decision_P)


@dataclass(frozen=True, slots=True)
class _Direction:
    """What was chosen, from which entries, and who judges it."""

    choice: Choice
    there_P: Bool
    judged: _Side


@dataclass(frozen=True, slots=True)
class _Case:
    """Teachers of a study under one objective and outcome."""

    evidence: Evidence
    objective: str
    outcome: Outcome
    teachers: tuple[str, ...]
    rows: tuple[int, ...]  #: of the teachers, in the evidence
    seed: int
    whole: _Side
    halves: tuple[_Side, _Side]

    @classmethod
    def of(cls, evidence: Evidence, objective: str | None, teachers: Sequence[str] | None, outcome: Outcome, seed: int) -> _Case:
        scores = evidence.scores
        o = _place(objective, scores.objectives, "objective") if objective is not None else 0
        if not scores.objectives or not scores.teachers:
            raise ValueError("Nothing can be selected in a study without teachers and objectives.")
        if parse(scores.objectives[o]).follows_completions:
            raise ValueError(
                f"The update of {scores.objectives[o]} is made from completions, so they cannot judge what is chosen for it."
            )
        names = scores.teachers if teachers is None else tuple(teachers)
        rows = tuple(_place(name, scores.teachers, "teacher") for name in names)
        averages = evidence.averages
        # The questions that all teachers of the study share, so that what is chosen of one compares with another's.
        scored_MQ = np.isfinite(averages.question_means(scores.alignment_MON[:, o][:, averages.node_P], outcome))
        compared_P = (averages.of_outcome(outcome) & shared_questions(scored_MQ)[averages.question_L])[averages.path_P]
        whole, zero, one = _sides(evidence, rows, o, compared_P)
        return cls(evidence, scores.objectives[o], outcome, names, rows, seed, whole, (zero, one))

    def view(self, side: _Side) -> View:
        """The decision points of a side, copied and shuffled."""
        return self._shown(side)[1]

    def choose(self, rule: Rule, side: _Side) -> Choice:
        """The rule's choice at every entry of the study."""
        shown_p, view = self._shown(side)
        choice = rule(view)
        answer_p = np.asarray(choice.teacher_P)
        if answer_p.shape != (len(view),):
            raise ValueError(
                f"The rule answers with shape {answer_p.shape} to a view of {len(view)} entries; "
                "it must be made from nothing but the view that it is given."
            )
        if answer_p.size and not (
            np.issubdtype(answer_p.dtype, np.integer) and NO_TEACHER <= answer_p.min() <= answer_p.max() < len(self.teachers)
        ):
            raise ValueError(f"The rule must answer with rows of its {len(self.teachers)} teachers, or {NO_TEACHER} for none.")
        teacher_P = np.full(len(side.decision_P), NO_TEACHER)
        teacher_P[shown_p] = answer_p
        return Choice(teacher_P, choice.note)

    def _shown(self, side: _Side) -> tuple[Int, View]:
        shown_p = np.random.default_rng(self.seed).permutation(np.flatnonzero(side.decision_P))
        path_p = self.evidence.averages.path_P[shown_p]
        gain_Mp, se_Mp = side.gain_MP[:, shown_p], side.gain_se_MP[:, shown_p]
        with np.errstate(invalid="ignore", divide="ignore"):
            p_positive_Mp = normal_cdf(gain_Mp / se_Mp)
        # Indexing copies: no array of a view leads back to one that holds the other side.
        return shown_p, View(
            teachers=self.teachers,
            alignment_MP=side.alignment_MP[:, shown_p],
            gain_MP=gain_Mp,
            gain_se_MP=se_Mp,
            p_positive_MP=p_positive_Mp,
            question_P=self.evidence.paths.question_L[path_p],
            rollout_P=self.evidence.paths.rollout_index_L[path_p],
            features={name: value_MP[list(self.rows)][:, shown_p] for name, value_MP in self.evidence.features.items()},
        )

    def selected(self, crossed: Sequence[_Direction], everything: Choice) -> Selected:
        """Both directions averaged question by question."""
        averages = self.evidence.averages
        split_CQ = _mean_of(_means(averages, way.judged, way.choice.teacher_P) for way in crossed)
        all_CQ = _mean_of(_means_of_all(averages, way.judged, way.there_P) for way in crossed)
        over_all_CQ = _mean_of(_means_over_all(averages, way) for way in crossed)
        chosen_Q = np.isfinite(split_CQ[_GAIN])
        first, second = crossed
        return Selected(
            objective=self.objective,
            outcome=self.outcome,
            teachers=self.teachers,
            split=_worth(split_CQ),
            everything=_worth(all_CQ[:, chosen_Q]),
            more_alignment=t_interval(split_CQ[_ALIGNMENT] - all_CQ[_ALIGNMENT]),
            more_gain=t_interval(split_CQ[_GAIN] - all_CQ[_GAIN]),
            gain_over_all=t_interval(over_all_CQ[0]),
            more_over_all=t_interval(over_all_CQ[0] - all_CQ[_GAIN]),
            share=t_interval(over_all_CQ[1]),
            unsplit=_worth(_means(averages, self.whole, everything.teacher_P)),
            notes=(first.choice.note, second.choice.note, everything.note),
            teacher_P=everything.teacher_P,
        )


def _sides(evidence: Evidence, rows: Sequence[int], o: int, compared_P: Bool) -> tuple[_Side, ...]:
    """All completions, half 0, half 1."""
    scores, halves, node_P = evidence.scores, evidence.halves, evidence.paths.node_P

    def side(alignment_MON: Array, gain_MON: Array, se_MON: Array, squared_N: Array, decision_N: Bool) -> _Side:
        alignment_MP, gain_MP, se_MP = (score_MON[list(rows), o][:, node_P] for score_MON in (alignment_MON, gain_MON, se_MON))
        return _Side(alignment_MP, gain_MP, se_MP, squared_N[node_P], decision_N[node_P] & compared_P)

    squared_N = squared_norm(evidence.nodes, scores)
    of_halves = (
        halves.alignment_HMON,
        halves.gain_HMON,
        halves.gain_se_HMON,
        halves.squared_norm_HN,
        halves.decision_point_HN,
    )
    whole = side(scores.alignment_MON, scores.gain_MON, scores.gain_se_MON, squared_N, scores.decision_point_N)
    return whole, *map(side, *of_halves)


def _means(averages: Averages, judged: _Side, teacher_P: Int) -> Array:
    """Question means of the chosen entries: [C, Q]."""
    at = np.maximum(teacher_P, 0), np.arange(len(teacher_P))
    gain_P = np.where(teacher_P == NO_TEACHER, np.nan, judged.gain_MP[at])
    columns_CP = np.stack([judged.alignment_MP[at], gain_P, judged.squared_P])
    return averages.question_means(np.where(np.isnan(gain_P), np.nan, columns_CP))


def _means_of_all(averages: Averages, judged: _Side, there_P: Bool) -> Array:
    """Question means of all entries that could be chosen, under every teacher: [C, Q]."""
    return _mean_of(_means(averages, judged, np.where(there_P, m, NO_TEACHER)) for m in range(len(judged.gain_MP)))


def _means_over_all(averages: Averages, way: _Direction) -> Array:
    """Question means over all entries that could be chosen: gain, nothing where not chosen, and the share chosen: [2, Q]."""
    teacher_P = way.choice.teacher_P
    gain_P = way.judged.gain_MP[np.maximum(teacher_P, 0), np.arange(len(teacher_P))]
    chosen_P = teacher_P != NO_TEACHER
    columns_CP = np.stack([np.where(chosen_P, gain_P, 0.0), chosen_P])
    return averages.question_means(np.where(way.there_P, columns_CP, np.nan))


def _mean_of(tables: Iterator[Array]) -> Array:
    """Mean of tables of one shape, NaN left out."""
    stacked = np.stack(list(tables))
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0), dtype=np.float64)


def _worth(mean_CQ: Array) -> Worth:
    return Worth(
        alignment=t_interval(mean_CQ[_ALIGNMENT], bound=1.0),
        gain=t_interval(mean_CQ[_GAIN]),
        pooled=jackknife_t(mean_CQ[[_GAIN, _SQUARED]].T, pooled),
    )


def _place(name: str, known: Sequence[str], what: str) -> int:
    if name not in known:
        raise ValueError(f"There is no {what} {name!r}; there is {', '.join(known) or 'none'}.")
    return known.index(name)
