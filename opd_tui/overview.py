"""What the lists and the teacher strip say of the whole study: scored part by part, so that it takes no more memory
for many rollouts than for a few. Imported after the first paint, as `opd_tui.pages`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import nan
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.averages import OUTCOMES, Averages, Outcome, group_means, shared_questions
from compute.posterior import Prior, fit_tables
from compute.scores import Scores, score
from compute.statistics import Interval, t_interval
from opd_tui.facts import Mean, Score
from opd_tui.turns import go_on
from opd_tui.view import OWN, Support, View
from store.node_tables import merge_nodes, take_nodes
from store.tables import Int, Nodes, Paths

NOTHING = Score(nan, nan, 0)
NO_MEAN = Mean(nan, nan, nan, nan, nan, nan)

Array = NDArray[np.floating[Any]]

#: Nodes that are scored together: each takes some 20 KB meanwhile.
BLOCK = 200
#: What a study teaches of how sure its scores are is learnt from about so many nodes.
PRIOR_NODES = 1000


class PartOverview(Struct, frozen=True, eq=False):
    """Mean and worst alignment of the questions and rollouts of one part. L: rollouts with nodes, Q: questions that have some.

    Questions have nodes that their rollouts share once.
    """

    number_Q: Int
    mean_MOQ: Array
    worst_MOQ: Array
    n_MOQ: Int
    number_L: Int  #: of the rollout's question
    index_L: Int
    correct_L: NDArray[np.bool_]
    mean_MOL: Array
    worst_MOL: Array
    n_MOL: Int
    gain_MOL: Array
    sample: Nodes | None  #: a few questions, to learn from how sure scores are


class Overview:
    """Mean and worst alignment of every question and rollout so far, and every teacher's means."""

    def __init__(
        self,
        parts: Sequence[PartOverview],
        teachers: Sequence[str],
        objectives: Sequence[str],
        *,
        share: float = 1.0,
        prior: Prior | None = None,
        view: View = OWN,
    ) -> None:
        """`share` of the study is in `parts`. `prior`: how sure scores are, where that is known. `view`: what was scored."""
        self.view = view
        self.share = share
        self.prior = prior
        self._parts = tuple(parts)  # their columns stay where they are: end to end they would be there twice
        self._questions = _Rows([part.number_Q for part in parts])
        self._rollouts = _Rows([_key(part.number_L, part.index_L) for part in parts])
        self._means = _means(self._parts, len(teachers), len(objectives)) if self.complete else {}

    @property
    def complete(self) -> bool:
        """Whether the whole study is in it."""
        return self.share >= 1.0

    @property
    def note(self) -> str:
        """How far it is, while it is not complete."""
        return "" if self.complete else f"{self.share:.0%} of the study scored"

    def question(self, number: int, teacher: int, objective: int) -> Score:
        """All nodes of a question, nodes that paths share once."""
        found = self._questions.find(number)
        if found is None:
            return NOTHING
        part, at = self._parts[found[0]], (teacher, objective, found[1])
        return Score(float(part.mean_MOQ[at]), float(part.worst_MOQ[at]), int(part.n_MOQ[at]))

    def rollout(self, number: int, index: int, teacher: int, objective: int) -> Score:
        """The nodes along a rollout."""
        found = self._rollouts.find(_key(number, index))
        if found is None:
            return NOTHING
        part, at = self._parts[found[0]], (teacher, objective, found[1])
        return Score(float(part.mean_MOL[at]), float(part.worst_MOL[at]), int(part.n_MOL[at]))

    def mean_of_number(self, teacher: int, objective: int) -> dict[int, float]:
        """Mean alignment of every question that has one, by its number."""
        return self._by_number([part.mean_MOQ[teacher, objective] for part in self._parts])

    def worst_of_number(self, teacher: int, objective: int) -> dict[int, float]:
        """Lowest alignment of every question that has one, by its number."""
        return self._by_number([part.worst_MOQ[teacher, objective] for part in self._parts])

    def _by_number(self, of_part: Sequence[Array]) -> dict[int, float]:
        found: dict[int, float] = {}
        for part, value_Q in zip(self._parts, of_part, strict=True):
            scored_Q = np.isfinite(value_Q)
            found |= zip(part.number_Q[scored_Q].tolist(), value_Q[scored_Q].tolist(), strict=True)
        return found

    def mean(self, teacher: int, objective: int) -> Mean:
        """A teacher over the whole study."""
        return self._means.get((teacher, objective), NO_MEAN)


def score_part(
    nodes: Nodes,
    paths: Paths,
    n_sig: float,
    sample_every: int,
    support: Support = "sliced",
    objectives: Sequence[str] | None = None,
    give_way: Callable[[], None] = go_on,
) -> PartOverview:
    """The questions of one part, scored a block of nodes at a time: scoring takes much more memory than its result.

    Questions whose number `sample_every` divides are the sample.
    """
    number_Q, question_N = np.unique(nodes.question_N, return_inverse=True)
    alignment_MON, gain_MON = score_in_blocks(nodes, n_sig, support, objectives, give_way)
    path_P = np.repeat(np.arange(len(paths.question_L)), np.diff(paths.start_L1))
    along_MOP = alignment_MON[:, :, paths.node_P]
    sampled_N = nodes.question_N % sample_every == 0
    mean_MOQ, worst_MOQ, n_MOQ = _by_group(alignment_MON, question_N, len(number_Q))
    mean_MOL, worst_MOL, n_MOL = _by_group(along_MOP, path_P, len(paths.question_L))
    return PartOverview(
        number_Q=number_Q,
        mean_MOQ=mean_MOQ,
        worst_MOQ=worst_MOQ,
        n_MOQ=n_MOQ,
        number_L=np.asarray(paths.question_L),
        index_L=np.asarray(paths.rollout_index_L),
        correct_L=np.asarray(paths.correct_L, bool),
        mean_MOL=mean_MOL,
        worst_MOL=worst_MOL,
        n_MOL=n_MOL,
        gain_MOL=group_means(gain_MON[:, :, paths.node_P], path_P, len(paths.question_L)).astype(np.float32),
        sample=_questions(nodes, sampled_N) if sampled_N.any() else None,
    )


def score_in_blocks(
    nodes: Nodes,
    n_sig: float,
    support: Support = "sliced",
    objectives: Sequence[str] | None = None,
    give_way: Callable[[], None] = go_on,
) -> tuple[Array, Array]:
    """Alignment and gain [M, O, N], scored a block of questions at a time, with a `give_way` before each."""
    shape = len(nodes.teachers), len(nodes.objectives if objectives is None else objectives), len(nodes)
    alignment_MON, gain_MON = np.full(shape, nan), np.full(shape, nan)
    for rows, _, scores in _scored(nodes, n_sig, support, objectives, give_way):
        alignment_MON[:, :, rows], gain_MON[:, :, rows] = scores.alignment_MON, scores.gain_MON
    return alignment_MON, gain_MON


def prior_of(
    parts: Sequence[PartOverview],
    n_sig: float,
    support: Support = "sliced",
    objectives: Sequence[str] | None = None,
    give_way: Callable[[], None] = go_on,
) -> Prior | None:
    """How sure scores are, from the samples of the parts; None where there is no node. With a `give_way` before each step."""
    samples = [part.sample for part in parts if part.sample is not None]
    if not samples:
        return None
    scored = [(block, scores) for _, block, scores in _scored(merge_nodes(samples), n_sig, support, objectives, give_way)]
    give_way()
    return fit_tables(scored)


def sampling(n_nodes: int) -> int:
    """Every how manieth question is in the sample of a study with so many nodes."""
    return max(1, -(-n_nodes // PRIOR_NODES))


def _scored(
    nodes: Nodes, n_sig: float, support: Support, objectives: Sequence[str] | None, give_way: Callable[[], None]
) -> Iterator[tuple[slice, Nodes, Scores]]:
    """Block after block with its rows and scores, and a `give_way` before each."""
    for rows, block in _blocks(nodes):
        give_way()
        yield rows, block, score(block, n_sig=n_sig, support=support, objectives=objectives, level=None)


def _blocks(nodes: Nodes) -> Iterator[tuple[slice, Nodes]]:
    """Whole questions with about `BLOCK` nodes together, and which rows they are. The nodes of a question follow each other."""
    node_G = _node_of_group(nodes)
    starts = np.flatnonzero(np.diff(nodes.question_N, prepend=-1))
    first = 0
    for stop in (*starts[1:].tolist(), len(nodes)):
        if stop > first and (stop - first >= BLOCK or stop == len(nodes)):
            groups = np.flatnonzero((node_G >= first) & (node_G < stop))
            yield slice(first, stop), take_nodes(nodes, np.arange(first, stop), groups)
            first = stop


def _questions(nodes: Nodes, chosen_N: NDArray[np.bool_]) -> Nodes:
    node_G = _node_of_group(nodes)
    return take_nodes(nodes, np.flatnonzero(chosen_N), np.flatnonzero((node_G >= 0) & chosen_N[node_G]))


def _node_of_group(nodes: Nodes) -> Int:
    """A node of the question that each group of completions belongs to.

    Completions that were launched at the root and followed a path to its end have none: they are in no stratum.
    """
    return np.where(nodes.group_exit_node_G >= 0, nodes.group_exit_node_G, nodes.group_launch_node_G)


class _Rows:
    """Finds rows of many parts by their keys."""

    def __init__(self, keys: Sequence[Int]) -> None:
        self._key_X = np.concatenate(keys) if keys else np.empty(0, np.int64)
        self._order_X = np.argsort(self._key_X)
        self._starts = list(accumulate(map(len, keys), initial=0))

    def find(self, wanted: int) -> tuple[int, int] | None:
        """Which part, and which of its rows; None where no part has it."""
        at = int(np.searchsorted(self._key_X, wanted, sorter=self._order_X))
        if at == len(self._order_X) or self._key_X[place := int(self._order_X[at])] != wanted:
            return None
        part = bisect_right(self._starts, place) - 1
        return part, place - self._starts[part]


def _key(number: Any, index: Any) -> Any:
    """A question's number and a rollout's index as one number."""
    return (np.int64(1) << 32) * number + index


def _means(parts: Sequence[PartOverview], n_teachers: int, n_objectives: int) -> Mapping[tuple[int, int], Mean]:
    """Mean alignment over questions by teacher and objective, with its interval, the mean gain, and apart by outcome.

    As `compute.summary.summarise` has them: for one objective and outcome all teachers on the same questions.
    """
    if not parts:
        return {}
    nothing = np.empty(0, np.intp)
    numbers_Q, question_L = np.unique(np.concatenate([part.number_L for part in parts]), return_inverse=True)
    averages = Averages(numbers_Q, question_L, nothing, nothing, np.concatenate([part.correct_L for part in parts]))
    found: dict[tuple[int, int], dict[Outcome, tuple[Interval, Interval]]] = {}
    for o in range(n_objectives):
        alignment_ML, gain_ML = (
            np.concatenate([column[:, o] for column in columns], axis=-1)
            for columns in ([part.mean_MOL for part in parts], [part.gain_MOL for part in parts])
        )
        for outcome in OUTCOMES:
            alignment_MQ, gain_MQ = (averages.over_questions(one, outcome) for one in (alignment_ML, gain_ML))
            shared_Q = shared_questions(np.isfinite(alignment_MQ))
            for m in range(n_teachers):
                pair = t_interval(alignment_MQ[m, shared_Q], bound=1.0), t_interval(gain_MQ[m, shared_Q])
                found.setdefault((m, o), {})[outcome] = pair
    return {key: _mean(by["all"], by["correct"][0], by["incorrect"][0]) for key, by in found.items()}


def _mean(both: tuple[Interval, Interval], correct: Interval, incorrect: Interval) -> Mean:
    alignment, gain = both
    return Mean(alignment.mean, alignment.low, alignment.high, gain.mean, correct.mean, incorrect.mean, gain.low, gain.high)


def _by_group(value_MON: Array, group_N: NDArray[np.integer[Any]], n_groups: int) -> tuple[Array, Array, Int]:
    """Mean, least and number of the finite values of each group, over the last axis."""
    shape = (*value_MON.shape[:2], n_groups)
    least, number = np.full(shape, np.inf), np.zeros(shape, np.uint16)
    there_MON = np.isfinite(value_MON)
    for at in np.ndindex(*shape[:2]):
        there = there_MON[at]
        number[at] = np.bincount(group_N[there], minlength=n_groups)
        np.minimum.at(least[at], group_N[there], value_MON[at][there])
    mean = group_means(value_MON, group_N, n_groups).astype(np.float32)
    return mean, np.where(number == 0, nan, least).astype(np.float32), number
