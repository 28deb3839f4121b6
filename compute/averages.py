"""Means along the tree: over the nodes of a path, over the paths of a question, and the questions that can be compared.

Questions are the unit of every interval (method.md 4), so whatever is said of a study passes through here. An *entry*
is one node on one path, the axis P of `Paths`: a node that two paths share is an entry of both. NaN is left out.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from store.tables import Int, Paths

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]
Outcome = Literal["all", "correct", "incorrect"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Averages(Struct, frozen=True):
    """Where every entry belongs: to which path, and each path to which question."""

    numbers_Q: Int  #: numbers of the questions that have paths, rising
    question_L: Int  #: place of each path's question in `numbers_Q`
    path_P: Int
    node_P: Int
    correct_L: Bool

    @classmethod
    def of(cls, paths: Paths) -> Averages:
        """The axes of a table of paths."""
        numbers_Q, question_L = np.unique(paths.question_L, return_inverse=True)
        path_P = np.repeat(np.arange(len(paths.question_L)), np.diff(paths.start_L1))
        return cls(numbers_Q, question_L, path_P, paths.node_P, np.asarray(paths.correct_L, dtype=bool))

    @property
    def question_P(self) -> Int:
        """Place of each entry's question in `numbers_Q`."""
        return np.asarray(self.question_L[self.path_P])

    def of_outcome(self, outcome: Outcome) -> Bool:
        """The paths of an outcome: [L]."""
        if outcome == "all":
            return np.ones(len(self.correct_L), dtype=bool)
        return self.correct_L if outcome == "correct" else ~self.correct_L

    def over_paths(self, value_XP: ArrayLike) -> Array:
        """Mean of the entries of every path: [.., L], NaN for a path without any."""
        return group_means(value_XP, self.path_P, len(self.question_L))

    def over_questions(self, mean_XL: ArrayLike, outcome: Outcome = "all") -> Array:
        """Mean of the means of a question's paths of one outcome: [.., Q], NaN for a question without any."""
        chosen_XL = np.where(self.of_outcome(outcome), np.asarray(mean_XL, dtype=np.float64), np.nan)
        return group_means(chosen_XL, self.question_L, len(self.numbers_Q))

    def question_means(self, value_XP: ArrayLike, outcome: Outcome = "all") -> Array:
        """From entries to questions in one step: [.., Q]."""
        return self.over_questions(self.over_paths(value_XP), outcome)

    def both_outcomes(self) -> Bool:
        """Entries whose node lies on a correct and on an incorrect path: all up to the fork of the two, [P]."""
        n_nodes = int(self.node_P.max(initial=-1)) + 1
        correct_P = self.correct_L[self.path_P]
        on_correct_N, on_incorrect_N = np.zeros(n_nodes, dtype=bool), np.zeros(n_nodes, dtype=bool)
        on_correct_N[self.node_P[correct_P]] = True
        on_incorrect_N[self.node_P[~correct_P]] = True
        return np.asarray((on_correct_N & on_incorrect_N)[self.node_P])


def group_means(value_XI: ArrayLike, group_I: Int, n_groups: int) -> Array:
    """Mean over the finite values of each group of the last axis: [.., n_groups], NaN for a group without any."""
    value = np.asarray(value_XI, dtype=np.float64)
    rows = value.reshape(math.prod(value.shape[:-1]), value.shape[-1])
    mean = np.empty((len(rows), n_groups))
    for row_I, mean_G in zip(rows, mean, strict=True):  # one by one: all at once takes many times their memory
        finite_I = np.isfinite(row_I)
        group_F = group_I[finite_I]
        with np.errstate(invalid="ignore"):
            mean_G[:] = np.bincount(group_F, row_I[finite_I], n_groups) / np.bincount(group_F, minlength=n_groups)
    return mean.reshape(*value.shape[:-1], n_groups)


def shared_questions(scored_MQ: NDArray[Any]) -> Bool:
    """Questions in which every teacher that is scored at all has a score: [Q].

    A teacher without any score (it equals the student) has nothing to compare, and takes nothing from the others.
    """
    scored_MQ = np.asarray(scored_MQ, dtype=bool)
    return np.asarray(scored_MQ[scored_MQ.any(axis=1)].all(axis=0) & scored_MQ.any(), dtype=bool)
