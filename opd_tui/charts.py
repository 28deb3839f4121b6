"""What Charts draws: marks with numbers, and the nodes behind each of them. Imported after the first paint.

Numbers are those of `compute.findings` and `compute.summary`: means over questions, all teachers on the same ones,
95 % intervals over questions. Axes as there: M teacher, O objective, P entry (a node on a path), Q question, L path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from math import nan
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from compute.averages import Averages, Outcome
from compute.evidence import Evidence
from compute.findings import Finding, FindingRow, depth_profile, difficulty
from compute.findings.profiles import EASY, MEDIUM
from compute.findings.shape import comparable
from compute.halves import split
from compute.scores import score
from compute.statistics import Interval, t_interval
from compute.summary import SummaryRow, summarise
from opd_tui.overview import score_in_blocks
from opd_tui.text import Safe, safe
from opd_tui.turns import go_on
from opd_tui.view import Support
from store.node_tables import take_nodes
from store.tables import Listing, Nodes, Paths

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int = NDArray[np.integer[Any]]

N_BINS = 5
#: So many scores (nodes times teachers times objectives) are kept to be drawn; each takes some 40 bytes.
MOST_SCORES = 8_000_000
NOTHING = Interval(nan, nan, nan, 0)
_NO_ROWS = np.empty(0, np.intp)


class Chart(Enum):
    """What there is to see, in the order in which one key goes through it: a short name, and what it shows."""

    OUTCOME = ("outcome", "every teacher on correct (✓) and incorrect (✗) rollouts of the same questions")
    DEPTH = ("depth", "one teacher along the response: position over length, 0 is its beginning")
    MATRIX = ("matrix", "every teacher under every objective")
    NULLS = ("nulls", "every teacher (o), itself with random signs (+), nulls of the study (n)")
    DIFFICULTY = ("difficulty", "one teacher by success rate: questions (·), easy, hard (o)")

    @property
    def title(self) -> str:
        """Its name in the line of charts."""
        return self.value[0]

    @property
    def meaning(self) -> str:
        """What it shows."""
        return self.value[1]

    def after(self, step: int) -> Chart:
        """The one `step` places on, round and round."""
        every = list(Chart)
        return every[(every.index(self) + step) % len(every)]


class Series(Enum):
    """What kind of mark it is: it has a sign and a colour of its own."""

    PLAIN = "o"
    CORRECT = "✓"
    INCORRECT = "✗"
    FLIPPED = "+"
    NULL = "n"
    QUESTION = "·"


class Part(Struct, frozen=True):
    """A part of the study: what a mark speaks of."""

    outcome: Outcome = "all"
    paired: bool = False  #: only questions with paths of both outcomes
    depth: tuple[float, float] | None = None
    rate: tuple[float, float] | None = None
    question: int | None = None  #: number of the only question


class Mark(Struct, frozen=True):
    """One bar, point or cell, with its numbers."""

    label: Safe
    series: Series
    x: float
    mean: float
    low: float
    high: float
    n_nodes: int
    n_questions: int
    teacher: int
    objective: int
    part: Part


class Behind(Struct, frozen=True, eq=False):
    """The nodes behind a mark, from the worst to the best. Rows are read one at a time."""

    label: Safe
    question_N: Int
    rollout_N: Int
    position_N: Int
    value_N: Array
    correct_N: Bool
    typical: int  #: the row whose value is nearest to the mean of the mark

    def __len__(self) -> int:
        return len(self.value_N)


class Study(Struct, frozen=True, eq=False):
    """A scored study as far as charts need it."""

    teachers: tuple[Safe, ...]
    null_M: tuple[bool, ...]
    objectives: tuple[Safe, ...]
    ids: Mapping[int, str]  #: by question number
    rates: Mapping[int, float]
    averages: Averages
    alignment_MOP: Array
    position_P: Int
    depth_P: Array
    rollout_L: Int
    _summary: Mapping[tuple[int, int, bool], SummaryRow]  #: by teacher, objective, and whether signs are flipped
    _depth: Mapping[tuple[int, int, str], FindingRow]
    _difficulty: Mapping[tuple[int, int, str], FindingRow]
    _inside: dict[tuple[int, Part], Bool] = {}

    # marks

    def marks(self, chart: Chart, teacher: int, objective: int) -> tuple[Mark, ...]:
        """What to draw: of all teachers, or of one, under one objective or under all."""
        match chart:
            case Chart.OUTCOME:
                return tuple(self._outcome(m, objective, outcome) for m in self._all for outcome in ("correct", "incorrect"))
            case Chart.DEPTH:
                return tuple(self._at_depth(teacher, objective, b) for b in range(N_BINS))
            case Chart.MATRIX:
                pairs = ((m, o) for m in self._all for o in range(len(self.objectives)))
                return tuple(self._cell(m, o, Safe(f"{self.teachers[m]} · {self.objectives[o]}"), o + 1.0) for m, o in pairs)
            case Chart.NULLS:
                return tuple(self._against_nulls(objective))
            case Chart.DIFFICULTY:
                return (*self._bins(teacher, objective), *self._questions(teacher, objective))

    def slope(self, teacher: int, objective: int) -> Interval:
        """How much mean alignment changes with a success rate of one instead of none."""
        row = self._difficulty.get((teacher, objective, "slope"))
        return row.intervals["alignment"] if row else NOTHING

    @property
    def _all(self) -> range:
        return range(len(self.teachers))

    def _mark(self, label: Safe, series: Series, x: float, found: Interval, teacher: int, objective: int, part: Part) -> Mark:
        alignment_P = self.alignment_MOP[teacher, objective]
        counted_P = self.inside(objective, part) & np.isfinite(alignment_P)
        n_nodes = _how_many(self.averages.node_P[counted_P])
        n_questions = _how_many(self.averages.question_P[counted_P])
        return Mark(label, series, x, found.mean, found.low, found.high, n_nodes, n_questions, teacher, objective, part)

    def _outcome(self, m: int, o: int, outcome: Outcome) -> Mark:
        """As `compute.findings.correct_incorrect` has it for whole paths."""
        series = Series.CORRECT if outcome == "correct" else Series.INCORRECT
        part = Part(outcome, paired=True)
        inside_P = self.inside(o, part)
        mean_Q = self.averages.question_means(np.where(inside_P, self.alignment_MOP[m, o], nan), outcome)
        mean_Q = mean_Q[np.isfinite(mean_Q)]
        x = m + (0.85 if outcome == "correct" else 1.15)
        return self._mark(self.teachers[m], series, x, t_interval(mean_Q, bound=1.0), m, o, part)

    def _at_depth(self, m: int, o: int, b: int) -> Mark:
        low, high = b / N_BINS, (b + 1) / N_BINS
        row = self._depth.get((m, o, f"{low:.2g}-{high:.2g}"))
        found = row.intervals["alignment"] if row else NOTHING
        label = Safe(f"depth {low:.1f} to {high:.1f}")
        return self._mark(label, Series.PLAIN, (low + high) / 2, found, m, o, Part(depth=(low, high)))

    def _cell(self, m: int, o: int, label: Safe, x: float, *, flipped: bool = False) -> Mark:
        row = self._summary.get((m, o, flipped))
        series = Series.FLIPPED if flipped else Series.NULL if self.null_M[m] else Series.PLAIN
        return self._mark(label, series, x, row.alignment if row else NOTHING, m, o, Part())

    def _against_nulls(self, o: int) -> Sequence[Mark]:
        marks = []
        for place, m in enumerate(sorted(self._all, key=lambda m: self.null_M[m]), 1):
            marks.append(self._cell(m, o, self.teachers[m], float(place)))
            if not self.null_M[m]:
                marks.append(self._cell(m, o, Safe(f"{self.teachers[m]}, flipped"), place + 0.3, flipped=True))
        return marks

    def _bins(self, m: int, o: int) -> Sequence[Mark]:
        edges = {"hard": (0.0, MEDIUM), "medium": (MEDIUM, EASY), "easy": (EASY, 1.0)}
        found = []
        for name, (low, high) in edges.items():
            row = self._difficulty.get((m, o, name))
            interval = row.intervals["alignment"] if row else NOTHING
            label = Safe(f"{name}: success {low:.2g} to {high:.2g}")
            found.append(self._mark(label, Series.PLAIN, (low + high) / 2, interval, m, o, Part(rate=(low, high))))
        return found

    def _questions(self, m: int, o: int) -> Sequence[Mark]:
        averages = self.averages
        mean_Q = averages.question_means(self.alignment_MOP[m, o])
        entries = np.flatnonzero(np.isfinite(self.alignment_MOP[m, o]))
        _, first = np.unique(averages.node_P[entries], return_index=True)
        n_nodes_Q = np.bincount(averages.question_P[entries[first]], minlength=len(mean_Q)).tolist()
        found = []
        for number, mean, n_nodes in zip(averages.numbers_Q.tolist(), mean_Q.tolist(), n_nodes_Q, strict=True):
            if n_nodes:
                rate, label = self.rates.get(number, nan), safe(self.ids.get(number, ""))
                found.append(Mark(label, Series.QUESTION, rate, mean, nan, nan, n_nodes, 1, m, o, Part(question=number)))
        return sorted(found, key=lambda mark: (mark.x, mark.mean))

    # what is behind a mark

    def inside(self, objective: int, part: Part) -> Bool:
        """Entries that the numbers of a part are made of, in the questions that all teachers share: [P]."""
        key = objective, part
        if key not in self._inside:
            self._inside[key] = self._find(objective, part)
        return self._inside[key]

    def _find(self, objective: int, part: Part) -> Bool:
        averages, alignment_MP = self.averages, self.alignment_MOP[:, objective]
        if part.question is not None:
            return np.asarray(averages.numbers_Q[averages.question_P] == part.question)
        inside_P = averages.of_outcome(part.outcome)[averages.path_P]
        if part.depth is not None:
            low, high = part.depth
            inside_P = inside_P & (self.depth_P >= low) & ((self.depth_P < high) | (high >= 1.0))
        if part.rate is not None:
            low, high = part.rate
            rate_Q = np.array([self.rates.get(number, nan) for number in averages.numbers_Q.tolist()])
            inside_Q = (rate_Q > 0.0) & (rate_Q >= low) & ((rate_Q < high) | (high >= 1.0))
            inside_P = inside_P & inside_Q[averages.question_P]
        if part.paired:
            shared_Q = comparable(averages, alignment_MP, "correct", "incorrect")
        else:
            shared_Q = comparable(averages, np.where(inside_P, alignment_MP, nan))
        return np.asarray(inside_P & shared_Q[averages.question_P])

    def behind(self, mark: Mark) -> Behind:
        """The nodes that a mark is the mean of, each once."""
        averages = self.averages
        value_P = self.alignment_MOP[mark.teacher, mark.objective]
        entries = np.flatnonzero(self.inside(mark.objective, mark.part) & np.isfinite(value_P))
        _, first = np.unique(averages.node_P[entries], return_index=True)
        entries = entries[first]
        entries = entries[np.lexsort((entries, value_P[entries]))]
        path_N, value_N = averages.path_P[entries], value_P[entries]
        return Behind(
            label=Safe(f"{mark.label} {mark.series.value}") if mark.part.paired else mark.label,
            question_N=averages.numbers_Q[averages.question_L[path_N]],
            rollout_N=self.rollout_L[path_N],
            position_N=self.position_P[entries],
            value_N=value_N,
            correct_N=averages.correct_L[path_N],
            typical=int(np.abs(value_N - mark.mean).argmin()) if len(value_N) and np.isfinite(mark.mean) else 0,
        )


def _how_many(numbers: Int) -> int:
    """How many different ones."""
    seen = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=bool)
    seen[numbers] = True
    return int(seen.sum())


class ChartPart(Struct, frozen=True, eq=False):
    """What charts keep of one part of a store: scores at its nodes, and which node lies on which path."""

    alignment_MON: Array
    gain_MON: Array
    position_N: Int
    question_N: Int
    paths: Paths
    nothing: Nodes  #: the part's table of nodes without any row
    support: Support
    objectives: tuple[str, ...]


def chart_part(
    nodes: Nodes,
    paths: Paths,
    n_sig: float,
    support: Support = "sliced",
    objectives: tuple[str, ...] | None = None,
    give_way: Callable[[], None] = go_on,
) -> ChartPart:
    """One part, scored a block of nodes at a time, under the study's objectives or any others."""
    names = nodes.objectives if objectives is None else objectives
    scored = score_in_blocks(nodes, n_sig, support, names, give_way)
    alignment_MON, gain_MON = (np.asarray(one, dtype=np.float64) for one in scored)
    nothing = take_nodes(nodes, _NO_ROWS, _NO_ROWS)
    return ChartPart(alignment_MON, gain_MON, nodes.position_N.copy(), nodes.question_N.copy(), paths, nothing, support, names)


def study(parts: Sequence[ChartPart], listing: Listing, n_sig: float, null_teachers: Sequence[str]) -> Study:
    """What there is to draw, from all parts."""
    evidence = _evidence(parts, listing, n_sig, null_teachers)
    teachers, objectives = evidence.scores.teachers, evidence.scores.objectives
    summary = summarise(evidence.nodes, evidence.paths, evidence.scores, null_teachers=null_teachers)
    m_of, o_of = {name: m for m, name in enumerate(teachers)}, {name: o for o, name in enumerate(objectives)}
    cells = {
        (m_of[row.teacher], o_of[row.objective], row.null and row.teacher not in null_teachers): row
        for row in summary.rows
        if row.outcome == "all"
    }

    def by_place(finding: Finding) -> dict[tuple[int, int, str], FindingRow]:
        return {(m_of[row.teacher], o_of[row.objective], row.group): row for row in finding.rows}

    node_P = evidence.paths.node_P
    return Study(
        teachers=tuple(map(safe, teachers)),
        null_M=tuple(teacher in null_teachers for teacher in teachers),
        objectives=tuple(map(safe, objectives)),
        ids=dict(zip(listing.number_Q.tolist(), listing.question_id_Q, strict=True)),
        rates=evidence.success_rates,
        averages=evidence.averages,
        alignment_MOP=evidence.scores.alignment_MON[:, :, node_P],
        position_P=evidence.nodes.position_N[node_P],
        depth_P=evidence.depth_P,
        rollout_L=evidence.paths.rollout_index_L,
        _summary=cells,
        _depth=by_place(depth_profile(evidence, n_bins=N_BINS)),
        _difficulty=by_place(difficulty(evidence)),
    )


def _evidence(parts: Sequence[ChartPart], listing: Listing, n_sig: float, null_teachers: Sequence[str]) -> Evidence:
    """What findings take, as far as those that are drawn need it: alignment and gain, no halves and no features."""
    paths = _joined_paths(parts)
    nothing = parts[0].nothing
    no_scores = score(nothing, n_sig=n_sig, support=parts[0].support, objectives=parts[0].objectives)
    number_R = np.repeat(listing.number_Q, np.diff(listing.rollout_start_Q1))
    keys = zip(number_R.tolist(), listing.index_R.tolist(), strict=True)
    lengths = dict(zip(keys, listing.n_tokens_R.tolist(), strict=True))
    keys_L = zip(paths.question_L.tolist(), paths.rollout_index_L.tolist(), strict=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate_Q = listing.n_correct_Q / listing.n_rollouts_Q
    return Evidence(
        nodes=replace(
            nothing,
            position_N=np.concatenate([part.position_N for part in parts]),
            question_N=np.concatenate([part.question_N for part in parts]),
        ),
        paths=paths,
        scores=replace(
            no_scores,
            alignment_MON=np.concatenate([part.alignment_MON for part in parts], axis=2),
            gain_MON=np.concatenate([part.gain_MON for part in parts], axis=2),
        ),
        halves=split(nothing, no_scores),
        length_L=np.array([lengths.get(key, 1) for key in keys_L], dtype=np.int64),
        features={},
        success_rates=dict(zip(listing.number_Q.tolist(), rate_Q.tolist(), strict=True)),
        null_teachers=frozenset(null_teachers),
    )


def _joined_paths(parts: Sequence[ChartPart]) -> Paths:
    """The paths of all parts end to end, over the nodes of all parts end to end."""
    first_nodes = np.cumsum([0, *(len(part.position_N) for part in parts)])
    first_entries = np.cumsum([0, *(len(part.paths.node_P) for part in parts)])
    starts = [part.paths.start_L1[:-1] + first for part, first in zip(parts, first_entries, strict=False)]
    return Paths(
        question_L=np.concatenate([part.paths.question_L for part in parts]),
        rollout_index_L=np.concatenate([part.paths.rollout_index_L for part in parts]),
        correct_L=np.concatenate([part.paths.correct_L for part in parts]),
        start_L1=np.concatenate([*starts, first_entries[-1:]]),
        node_P=np.concatenate([part.paths.node_P + first for part, first in zip(parts, first_nodes, strict=False)]),
    )
