"""Which exported rows match an expression. A row is one token under one teacher: names without brackets are about its teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from compute.posterior import Prior
from opd_tui.search.columns import Chosen
from opd_tui.search.evaluating import Bool
from opd_tui.search.expression import Expression, ExpressionError, parse
from opd_tui.search.scanner import Hits, Scanner
from store.reader import Store


def parse_where(opened: Store, text: str, objectives: Sequence[str]) -> Expression | None:
    """The expression in `text` over a store; None for none. Raises ExpressionError."""
    if not text.strip():
        return None
    return parse(
        text, [teacher.id for teacher in opened.teachers], [*dict.fromkeys((*objectives, *opened.attributes.objectives))]
    )


def matching_questions(opened: Store, text: str) -> list[str]:
    """Ids of the questions that have any match, under the study's first teacher and objective. Raises ExpressionError."""
    expression = parse_where(opened, text, ())
    if expression is None:
        raise ExpressionError(0, "a condition is wanted")
    teachers, objectives = opened.teachers, opened.attributes.objectives
    scanner = Scanner(opened, expression, Chosen(teachers[0].id if teachers else "", objectives[0] if objectives else ""))
    return [name for q, name in enumerate(scanner.listing.question_id_Q) if len(scanner.question(q))]


class Where:
    """An expression under every teacher of an export."""

    def __init__(
        self, opened: Store, expression: Expression, teachers: Sequence[str], objective: str, prior: Prior | None
    ) -> None:
        """`objective`: what names without brackets are about; `prior`: how sure scores are, as the export says it."""
        about = teachers if expression.needs_teacher else teachers[:1]
        self._scanners = [Scanner(opened, expression, Chosen(teacher, objective), prior=prior) for teacher in about]
        self._n_teachers = len(teachers)
        self._row = {name: q for q, name in enumerate(self._scanners[0].listing.question_id_Q)} if self._scanners else {}

    def question(self, question_id: str) -> Matching:
        """What matches in a question."""
        q = self._row.get(question_id)
        if q is None:
            return Matching((), {}, self._n_teachers)
        listing = self._scanners[0].listing
        first, last = listing.rollout_start_Q1[q : q + 2].tolist()
        rows = {int(index): first + place for place, index in enumerate(listing.index_R[first:last])}
        return Matching(tuple(scanner.question(q) for scanner in self._scanners), rows, self._n_teachers)


class Matching(Struct, frozen=True):
    """What matches in one question, by teacher; once where it is the same for all."""

    hits: tuple[Hits, ...]
    rows: dict[int, int]  #: rollout index to its row of the listing
    n_teachers: int

    @property
    def any(self) -> bool:
        """Whether anything does."""
        return any(len(one) > 0 for one in self.hits)

    def rollout(self, index: int, n_tokens: int) -> Bool:
        """Which rows of a rollout match, by position and teacher: [T, M]."""
        keep_TM = np.zeros((n_tokens, len(self.hits)), np.bool_)
        for m, hits in enumerate(self.hits):
            here_X = (hits.rollout_X < 0) | (hits.rollout_X == self.rows.get(index, len(self.rows)))
            positions = hits.position_X[here_X]
            keep_TM[positions[positions >= 0], m] = True
            keep_TM[:, m] |= bool((positions < 0).any())
        return keep_TM if len(self.hits) == self.n_teachers else np.repeat(keep_TM, self.n_teachers, axis=1)
