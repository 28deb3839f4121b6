"""Ready-made rules for `compute.selection`. They see a view, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compute.averages import group_means
from compute.selection import NO_TEACHER, Choice, Fit, Rule, Score, View

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]


def everywhere(teacher: str) -> Rule:
    """One teacher at every node."""
    return lambda view: Choice(np.full(len(view), view.teacher(teacher)), "everywhere")


def nowhere() -> Rule:
    """No teacher at any node."""
    return lambda view: Choice(np.full(len(view), NO_TEACHER), "nowhere")


def threshold(teacher: str, by: Score = "gain", at_least: float = 0.0) -> Rule:
    """One teacher where its score is at least so much."""

    def rule(view: View) -> Choice:
        return _where(view.score(by)[view.teacher(teacher)] >= at_least, view, teacher, f"{by} >= {at_least:g}")

    return rule


@dataclass(frozen=True, slots=True)
class Gate:
    """One teacher where a feature lies in a range; no score is looked at. A rule that can be read and written down."""

    teacher: str
    feature: str
    at_least: float = -np.inf
    at_most: float = np.inf

    @property
    def words(self) -> str:
        """The range as people write it."""
        low = f"{self.at_least:.4g} <= " if np.isfinite(self.at_least) else ""
        high = f" <= {self.at_most:.4g}" if np.isfinite(self.at_most) else ""
        return f"{low}{self.feature}{high}"

    def lets_in(self, value_X: Array) -> Bool:
        """Where the feature lies in the range; nowhere where it is unknown."""
        return np.asarray((value_X >= self.at_least) & (value_X <= self.at_most), dtype=bool)

    def __call__(self, view: View) -> Choice:
        """The teacher where it lets in."""
        return _where(self.lets_in(view.feature(self.feature, self.teacher)), view, self.teacher, self.words)


def gate(teacher: str, feature: str, *, at_least: float = -np.inf, at_most: float = np.inf) -> Gate:
    """One teacher where a feature lies in a range."""
    return Gate(teacher, feature, at_least, at_most)


def best_teacher(per: Literal["study", "question", "node"] = "question", by: Score = "gain") -> Rule:
    """The teacher with the largest mean score: over the study, over each question, or at each node."""

    def rule(view: View) -> Choice:
        score_MP = view.score(by)
        if per != "node":
            # Nodes of a path, paths of a question, and then the questions.
            paths, path_P = np.unique(np.stack([view.question_P, view.rollout_P]), axis=1, return_inverse=True)
            questions, question_L = np.unique(paths[0], return_inverse=True)
            score_MQ = group_means(group_means(score_MP, path_P.ravel(), paths.shape[1]), question_L, len(questions))
            if per == "study":
                score_MQ = np.repeat(group_means(score_MQ, np.zeros(len(questions), dtype=np.int64), 1), len(questions), axis=1)
            score_MP = score_MQ[:, question_L[path_P.ravel()]]
        known_P = np.isfinite(score_MP).any(axis=0)
        best_P = np.where(np.isfinite(score_MP), score_MP, -np.inf).argmax(axis=0)
        note = view.teachers[best_P[known_P][0]] if per == "study" and known_P.any() else f"best per {per}"
        return Choice(np.where(known_P, best_P, NO_TEACHER), note)

    return rule


def fitted_gate(teacher: str, features: Sequence[str] | None = None, n_cuts: int = 19) -> Fit:
    """The gate through one feature with the largest total gain in the view that it is fitted to, for `judge_fitted`.

    Cuts are quantiles of the feature; everywhere and nowhere are tried too. `features`: None for all there are.
    """

    def fit(view: View) -> Rule:
        gain_P = np.nan_to_num(view.gain_MP[view.teacher(teacher)])
        rule: Rule
        best, rule = (float(gain_P.sum()), everywhere(teacher)) if gain_P.sum() > 0.0 else (0.0, nowhere())
        for name in sorted(view.features) if features is None else features:
            cut_c, above_c, below_c = _cuts(view.feature(name, teacher), gain_P, n_cuts)
            for total_c, side in ((above_c, "at_least"), (below_c, "at_most")):
                if total_c.size and total_c.max() > best * (1.0 + 1e-9):  # a cut that leaves all in is none
                    best, rule = float(total_c.max()), gate(teacher, name, **{side: float(cut_c[total_c.argmax()])})
        return rule

    return fit


def _cuts(value_P: Array, gain_P: Array, n_cuts: int) -> tuple[Array, Array, Array]:
    """Cuts at quantiles of a feature, and the total gain from each cut up and from each cut down."""
    known_P = np.isfinite(value_P)
    order = np.argsort(value_P[known_P])
    value_p, total_p = value_P[known_P][order], np.concatenate([[0.0], np.cumsum(gain_P[known_P][order])])
    if not value_p.size:
        return value_p, value_p, value_p
    cut_c = np.unique(value_p[np.linspace(0, len(value_p) - 1, n_cuts + 2)[1:-1].round().astype(np.int64)])
    above_c = total_p[-1] - total_p[np.searchsorted(value_p, cut_c, side="left")]
    below_c = total_p[np.searchsorted(value_p, cut_c, side="right")]
    return cut_c, above_c, below_c


def _where(inside_P: Bool, view: View, teacher: str, note: str) -> Choice:
    return Choice(np.where(inside_P, view.teacher(teacher), NO_TEACHER), note)
