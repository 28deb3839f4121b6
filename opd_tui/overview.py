"""What the lists and the teacher strip say of the whole study. Imported after the first paint, as `opd_tui.pages`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.posterior import Prior, fit
from compute.scores import Scores, score
from compute.summary import SummaryRow, summarise
from opd_tui.facts import Mean, Score
from store.node_tables import take_nodes
from store.tables import Nodes, Paths

NOTHING = Score(nan, nan, 0)
NO_MEAN = Mean(nan, nan, nan, nan, nan, nan)

Array = NDArray[np.floating[Any]]

#: Nodes that are scored together: each takes some 20 KB meanwhile.
BLOCK = 1000
#: What a study teaches of how sure its scores are is learnt from about so many nodes.
PRIOR_NODES = 2000
_NO_ROWS = np.empty(0, np.intp)


@dataclass(frozen=True, slots=True)
class Overview:
    """Mean and worst alignment of every question and rollout, and every teacher's means. L: rollouts with nodes, Q: questions."""

    place_Q: Mapping[int, int]  #: number of a question to its place on the question axis
    place_L: Mapping[tuple[int, int], int]  #: question number and rollout index to its place on the rollout axis
    mean_MOQ: Array
    worst_MOQ: Array
    n_MOQ: Array
    mean_MOL: Array
    worst_MOL: Array
    n_MOL: Array
    means: Mapping[tuple[int, int], Mean]  #: by teacher and objective
    prior: Prior | None = None  #: how sure scores are
    note: str = ""  #: why there is nothing, where there is nothing

    def question(self, number: int, teacher: int, objective: int) -> Score:
        """All nodes of a question, nodes that paths share once."""
        place = self.place_Q.get(number)
        if place is None:
            return NOTHING
        at = (teacher, objective, place)
        return Score(float(self.mean_MOQ[at]), float(self.worst_MOQ[at]), int(self.n_MOQ[at]))

    def rollout(self, number: int, index: int, teacher: int, objective: int) -> Score:
        """The nodes along a rollout."""
        place = self.place_L.get((number, index))
        if place is None:
            return NOTHING
        at = (teacher, objective, place)
        return Score(float(self.mean_MOL[at]), float(self.worst_MOL[at]), int(self.n_MOL[at]))

    def mean(self, teacher: int, objective: int) -> Mean:
        """A teacher over the whole study."""
        return self.means.get((teacher, objective), NO_MEAN)


def overview(
    nodes: Nodes, paths: Paths, scores: Scores, means: Mapping[tuple[int, int], Mean], prior: Prior | None = None
) -> Overview:
    """Means over the decision points of `nodes`, by question and by rollout."""
    numbers, question_N = np.unique(nodes.question_N, return_inverse=True)
    rollout_P = np.repeat(np.arange(len(paths.question_L)), np.diff(paths.start_L1))
    by_question = _by_group(scores.alignment_MON, question_N, len(numbers))
    by_rollout = _by_group(scores.alignment_MON[:, :, paths.node_P], rollout_P, len(paths.question_L))
    keys = zip(paths.question_L.tolist(), paths.rollout_index_L.tolist(), strict=True)
    return Overview(
        {int(number): place for place, number in enumerate(numbers)},
        {key: place for place, key in enumerate(keys)},
        *by_question,
        *by_rollout,
        means,
        prior,
    )


def score_study(nodes: Nodes, n_sig: float) -> Scores:
    """Alignment and gain of many questions, a block of them at a time: scoring takes much more memory than its result.

    The other fields are those of no node, so that whoever looks for them finds nothing.
    """
    alignments, gains = [], []
    for block in _blocks(nodes):
        scores = score(block, n_sig=n_sig, support="sliced")
        alignments.append(scores.alignment_MON)
        gains.append(scores.gain_MON)
    empty = score(take_nodes(nodes, _NO_ROWS, _NO_ROWS), n_sig=n_sig, support="sliced")
    if not alignments:
        return empty
    return replace(empty, alignment_MON=np.concatenate(alignments, axis=2), gain_MON=np.concatenate(gains, axis=2))


def study_prior(nodes: Nodes, n_sig: float) -> Prior:
    """How sure scores are, from whole questions that lie evenly over the study."""
    numbers = np.unique(nodes.question_N)
    chosen = numbers[:: max(1, -(-len(nodes) // PRIOR_NODES))]
    node_G = np.where(nodes.group_exit_node_G >= 0, nodes.group_exit_node_G, nodes.group_launch_node_G)
    inside_N = np.isin(nodes.question_N, chosen)
    some = take_nodes(nodes, np.flatnonzero(inside_N), np.flatnonzero((node_G >= 0) & inside_N[node_G]))
    return fit(some, score(some, n_sig=n_sig, support="sliced"))


def _blocks(nodes: Nodes) -> Iterator[Nodes]:
    """Whole questions with about `BLOCK` nodes together. The nodes of a question follow each other.

    Completions that were launched at the root and followed a path to its end are left out: they are in no stratum.
    """
    question_N = nodes.question_N
    node_G = np.where(nodes.group_exit_node_G >= 0, nodes.group_exit_node_G, nodes.group_launch_node_G)
    starts = np.flatnonzero(np.diff(question_N, prepend=-1))
    first = 0
    for stop in (*starts[1:].tolist(), len(nodes)):
        if stop - first >= BLOCK or stop == len(nodes):
            yield take_nodes(nodes, np.arange(first, stop), np.flatnonzero((node_G >= first) & (node_G < stop)))
            first = stop


def study_means(nodes: Nodes, paths: Paths, scores: Scores) -> dict[tuple[int, int], Mean]:
    """Mean alignment over questions by teacher and objective, with its interval, the mean gain, and apart by outcome."""
    found: dict[tuple[int, int], dict[str, SummaryRow]] = {}
    for row in summarise(nodes, paths, scores, null_teachers=nodes.teachers).rows:
        key = nodes.teachers.index(row.teacher), nodes.objectives.index(row.objective)
        found.setdefault(key, {})[row.outcome] = row
    return {key: _mean(by["all"], by["correct"], by["incorrect"]) for key, by in found.items()}


def _mean(both: SummaryRow, correct: SummaryRow, incorrect: SummaryRow) -> Mean:
    overall = both.alignment
    return Mean(overall.mean, overall.low, overall.high, both.gain.mean, correct.alignment.mean, incorrect.alignment.mean)


def no_overview(n_nodes: int) -> Overview:
    """In place of a study that is too large to be scored while somebody waits."""
    nothing = np.empty((0, 0, 0))
    return Overview({}, {}, *(nothing,) * 6, {}, None, note=f"{n_nodes:,} nodes are too many to score here")


def _by_group(value_MON: Array, group_N: NDArray[np.integer[Any]], n_groups: int) -> tuple[Array, Array, Array]:
    """Mean, least and number of the finite values of each group, over the last axis."""
    shape = (*value_MON.shape[:2], n_groups)
    total, least, number = np.zeros(shape), np.full(shape, np.inf), np.zeros(shape)
    there_MON = np.isfinite(value_MON)
    for at in np.ndindex(*shape[:2]):
        there = there_MON[at]
        group, value = group_N[there], value_MON[at][there]
        total[at] = np.bincount(group, value, n_groups)
        number[at] = np.bincount(group, minlength=n_groups)
        np.minimum.at(least[at], group, value)
    empty = number == 0
    mean = np.divide(total, number, out=np.full(shape, nan), where=~empty)
    return mean.astype(np.float32), np.where(empty, nan, least).astype(np.float32), number.astype(np.int32)
