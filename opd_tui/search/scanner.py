"""What matches an expression in one question after the other, in bounded memory.

Every name costs what it takes: lists are read once for the whole store; a question's nodes are scored, and tokens of a rollout
are read, only where what is known before leaves it open whether they match, and only the arrays that names ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.posterior import Prior
from opd_tui.place import NOWHERE
from opd_tui.search.columns import (
    FROM_NODES,
    STUDENT_ARRAYS,
    TEACHER_ARRAYS,
    Chosen,
    Rows,
    ScoredNodes,
    Scoring,
    Tokens,
    listed,
    scoring,
)
from opd_tui.search.evaluating import Bool, Column, Columns, Float, Truth, evaluate
from opd_tui.search.expression import Expression, Reference
from opd_tui.search.names import Level
from store.reader import Store

#: Tokens that are evaluated together, but for a rollout that is longer by itself.
BLOCK_TOKENS = 1 << 17


class Hits(Struct, frozen=True, eq=False):
    """What matches in one question. X: matches, in order of rollout and position."""

    rollout_X: Rows  #: rows of the listing; -1: all of the question
    position_X: Rows  #: -1: all of the rollout
    value_X: Float
    text: tuple[bytes, ...] = ()  #: of the first of them, as many as were asked for

    def __len__(self) -> int:
        return len(self.rollout_X)


_NO_ROWS: NDArray[np.int64] = np.empty(0, np.int64)
NO_HITS = Hits(_NO_ROWS, _NO_ROWS, np.empty(0))


class Scanner:
    """Evaluates one expression. Raises StoreError where something cannot be read."""

    def __init__(
        self, opened: Store, expression: Expression, chosen: Chosen, *, prior: Prior | None = None, only: Bool | None = None
    ) -> None:
        """`prior`: how sure scores are, where that is known; `only`: rollouts (rows of the listing) that may match."""
        self.opened, self.expression, self.chosen = opened, expression, chosen
        self.listing = opened.listing()
        starts = self.listing.rollout_start_Q1
        self._question_R = np.repeat(np.arange(len(self.listing)), np.diff(starts))
        self._order = [teacher.id for teacher in opened.teachers]
        keys = {one.name.key for one in expression.references}
        self._scoring: Scoring | None = None
        if expression.level is Level.NODE or keys & FROM_NODES:
            self._scoring = scoring(opened, expression.references, chosen, prior)
        self._student = {array for key in keys for array in STUDENT_ARRAYS.get(key, ())}
        self._teacher = {array for key in keys for array in TEACHER_ARRAYS.get(key, ())}
        asked = {chosen.teacher_of(one) for one in expression.references if one.name.key in TEACHER_ARRAYS}
        self._teachers = [one for one in self._order if one in asked]
        self._columns = self._listed(None if expression.level is Level.QUESTION else np.arange(len(self._question_R)))
        n = len(self.listing) if expression.level is Level.QUESTION else len(self._question_R)
        self._truth = evaluate(expression, self._columns, n)
        if only is not None and expression.level is not Level.QUESTION:
            self._truth = Truth(self._truth.yes & only, self._truth.no | ~only)

    def _listed(self, r_X: Rows | None) -> dict[Reference, Column]:
        q_X = np.arange(len(self.listing)) if r_X is None else self._question_R
        found = {}
        for one in self.expression.references:
            column = listed(self.opened, self.listing, one, self.chosen, q_X, r_X)
            if column is not None:
                found[one] = column
        return found

    # one question

    def question(self, q: int, *, room: int = 0) -> Hits:
        """As `Search` says."""
        if self.expression.level is Level.QUESTION:
            row = np.array([q]) if self._truth.yes[q] else _NO_ROWS
            return Hits(np.full(len(row), NOWHERE), np.full(len(row), NOWHERE), self._value(self._columns, row))
        first, last = self.listing.rollout_start_Q1[q : q + 2].tolist()
        maybe_r = ~self._truth.no[first:last]
        if not maybe_r.any():
            return NO_HITS
        columns = {one: _take(column, slice(first, last)) for one, column in self._columns.items()}
        nodes = self._nodes(q, first, last)
        if nodes is not None and (of_rollouts := nodes.by_rollout(self)):
            columns |= of_rollouts
            maybe_r &= ~evaluate(self.expression, columns, last - first).no
        if self.expression.level is Level.ROLLOUT:
            yes_r = evaluate(self.expression, columns, last - first).yes & maybe_r
            found = np.flatnonzero(yes_r)
            return Hits(first + found, np.full(len(found), NOWHERE), self._value(columns, found))
        hits = [self._batch(q, places, maybe_r, columns, nodes, room) for places in self._batches(q, maybe_r)]
        return _joined([one for one in hits if len(one)])

    def _value(self, columns: Columns, rows: Rows) -> Float:
        column = columns.get(self.expression.value) if self.expression.value is not None else None
        return np.full(len(rows), nan) if not isinstance(column, np.ndarray) else np.asarray(column[rows], np.float64)

    def _nodes(self, q: int, first: int, last: int) -> _Paths | None:
        if self._scoring is None or not self.listing.n_nodes_R[first:last].any():
            return None
        name = self.listing.question_id_Q[q]
        read, _ = self.opened.columns(name, range(last - first), ("path_node",))
        place_P = np.repeat(np.arange(last - first), self.listing.n_nodes_R[first:last])
        scored = self._scoring.question(self.opened, name)
        node_P = read["path_node"]
        there_P = node_P >= 0
        inside_P = there_P & (scored.nodes.position_N[node_P] < self.listing.n_tokens_R[first:last][place_P])
        return _Paths(scored, place_P[inside_P], node_P[inside_P], last - first)

    def _batches(self, q: int, maybe_r: Bool) -> Iterator[range]:
        """Rollouts that may match, as many in a row as are evaluated together."""
        first = int(self.listing.rollout_start_Q1[q])
        start, n_tokens = 0, 0
        for place in range(len(maybe_r)):
            length = int(self.listing.n_tokens_R[first + place]) if self._reads_tokens else 0
            if place > start and (not maybe_r[place] or not maybe_r[start] or n_tokens + length > BLOCK_TOKENS):
                if maybe_r[start]:
                    yield range(start, place)
                start, n_tokens = place, 0
            n_tokens += length
        if len(maybe_r) and maybe_r[start]:
            yield range(start, len(maybe_r))

    @property
    def _reads_tokens(self) -> bool:
        return bool(self._student or self._teacher) or self.expression.level is Level.TOKEN

    def _batch(self, q: int, places: range, maybe_r: Bool, of_rollouts: Columns, nodes: _Paths | None, room: int) -> Hits:
        """Matches among the tokens or nodes of some rollouts in a row."""
        first = int(self.listing.rollout_start_Q1[q])
        length_r = self.listing.n_tokens_R[first + places.start : first + places.stop].astype(np.int64)
        start_r = np.cumsum(length_r) - length_r
        position_T = np.arange(int(length_r.sum())) - np.repeat(start_r, length_r)
        token_X: Rows | slice
        if self.expression.level is Level.NODE:
            if nodes is None:
                return NO_HITS
            here_P = (nodes.place_P >= places.start) & (nodes.place_P < places.stop)
            place_X, node_X = nodes.place_P[here_P], nodes.node_P[here_P]
            position_X: Rows = nodes.scored.nodes.position_N[node_X].astype(np.int64)
            token_X = start_r[place_X - places.start] + position_X
        else:
            place_X, node_X = np.repeat(np.arange(places.start, places.stop), length_r), _NO_ROWS
            position_X, token_X = position_T, slice(None)
        tokens = self._tokens(q, places, room > 0, position_T, np.repeat(length_r, length_r))
        columns = {one: _take(column, place_X) for one, column in of_rollouts.items()}
        for one in self.expression.references:
            if one not in columns and (column := self._deep(one, tokens, token_X, nodes, node_X)) is not None:
                columns[one] = column
        yes_X = evaluate(self.expression, columns, len(place_X)).yes & maybe_r[place_X]
        found = np.flatnonzero(yes_X)
        ids = tokens.student["token_id"][token_X][found[:room]].tolist() if room else ()
        text = tuple(self.opened.vocab.bytes_of(one) for one in ids)
        return Hits(first + place_X[found], position_X[found], self._value(columns, found), text)

    def _tokens(self, q: int, places: range, text: bool, position_T: Rows, length_T: Rows) -> Tokens:
        """The arrays by token that names ask for; `text`: and what the tokens are."""
        student = self._student | ({"token_id"} if text else set())
        if not (student or self._teacher):
            return Tokens({}, {}, position_T, length_T)
        name = self.listing.question_id_Q[q]
        return Tokens(*self.opened.columns(name, places, student, self._teacher, self._teachers), position_T, length_T)

    def _deep(self, one: Reference, tokens: Tokens, token_X: Rows | slice, nodes: _Paths | None, node_X: Rows) -> Column | None:
        """The column of a name of tokens or nodes."""
        if one.name.level is Level.TOKEN:
            return tokens.column(self.opened, one, self.chosen.teacher_of(one), token_X)
        if one.name.level is not Level.NODE or nodes is None:
            return None
        if one.name.key == "p_succ":
            return nodes.scored.success_after(node_X, tokens.student["token_id"][token_X])
        column = nodes.scored.by_node(one, self.chosen, self._order)
        return None if column is None else _take(column, node_X)


class _Paths(Struct, frozen=True, eq=False):
    """The nodes of a question along its rollouts. P: nodes of all rollouts end to end."""

    scored: ScoredNodes
    place_P: Rows  #: which rollout of the question
    node_P: Rows
    n_rollouts: int

    def by_rollout(self, scanner: Scanner) -> dict[Reference, Column]:
        """The names that rollouts have from their nodes."""
        found: dict[Reference, Column] = {}
        for one in scanner.expression.references:
            if one.name.key not in FROM_NODES:
                continue
            value_N = self.scored.by_node(one, scanner.chosen, ())
            if not isinstance(value_N, np.ndarray):
                continue
            value_P = value_N[self.node_P]
            there_P = np.isfinite(value_P)
            place, value = self.place_P[there_P], value_P[there_P]
            n_r = np.bincount(place, minlength=self.n_rollouts)
            if one.name.key == "mean_align":
                total_r = np.bincount(place, value, self.n_rollouts)
                found[one] = np.divide(total_r, n_r, out=np.full(self.n_rollouts, nan), where=n_r > 0)
            else:
                least_r = np.full(self.n_rollouts, np.inf)
                np.minimum.at(least_r, place, value)
                found[one] = np.where(n_r > 0, least_r, nan)
        return found


def _take(column: Column, rows: Any) -> Column:
    return column[rows] if isinstance(column, np.ndarray) else column.take(rows)


def _joined(hits: Sequence[Hits]) -> Hits:
    if len(hits) < 2:
        return hits[0] if hits else NO_HITS
    return Hits(
        np.concatenate([one.rollout_X for one in hits]),
        np.concatenate([one.position_X for one in hits]),
        np.concatenate([one.value_X for one in hits]),
        tuple(text for one in hits for text in one.text),
    )
