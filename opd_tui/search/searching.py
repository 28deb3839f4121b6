"""Runs a query over an open store. Imported after the first paint, as `opd_tui.reading`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from opd_tui.search.columns import Chosen
from opd_tui.search.expression import ExpressionError, parse
from opd_tui.search.matches import Found
from opd_tui.search.query import Query
from opd_tui.search.scanner import Scanner
from opd_tui.search.scanning import scan
from opd_tui.search.texts import TextSearch
from store.errors import StoreError
from store.reader import Store


def search(opened: Store, query: Query) -> Iterator[Found]:
    """What matches, in blocks (`opd_tui.search.scanning.scan`). Raises StoreError, also for an expression that cannot be read."""
    listing = opened.listing()
    only, questions = None, None
    if query.within is not None:
        question, index = query.within
        rows = [listing.question_id_Q.index(question)] if question in listing.question_id_Q else []
        question_R = np.repeat(np.arange(len(listing)), np.diff(listing.rollout_start_Q1))
        only, questions = np.isin(question_R, rows) & (listing.index_R == index), rows
    if query.is_text:
        yield from scan(TextSearch(opened, query.wanted, only), questions)
        return
    try:
        expression = parse(query.text, [teacher.id for teacher in opened.teachers], opened.attributes.objectives)
    except ExpressionError as error:
        raise StoreError(str(error)) from None
    yield from scan(Scanner(opened, expression, Chosen(query.teacher, query.objective), prior=query.prior, only=only), questions)
