"""Scans a store for matches, in blocks: a person sees what there is so far, and can stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import numpy as np

from opd_tui.place import NOWHERE
from opd_tui.search.matches import MOST_LISTED, Found, Match
from opd_tui.search.scanner import Hits
from opd_tui.text import safe, token
from store.tables import Listing

#: Seconds between two blocks of a scan.
EVERY = 0.1


class Search(Protocol):
    """What can be asked for the matches of one question after the other."""

    @property
    def listing(self) -> Listing:
        """The lists of the store, as they were when the search began."""

    def question(self, q: int, *, room: int = 0) -> Hits:
        """Matches in the question in row `q` of the listing, the text of the first `room` with them."""


def scan(
    search: Search, questions: Sequence[int] | None = None, *, most: int = MOST_LISTED, every: float = EVERY
) -> Iterator[Found]:
    """All matches in study order, in blocks: one every `every` seconds, matches in it or not, and one at the end.

    `questions`: rows of the listing to look at, in place of all. The first `most` matches are listed, the others counted. Whoever
    stops asking for blocks stops the scan.
    """
    listing = search.listing
    rows = range(len(listing)) if questions is None else questions
    block = _Block(search, most)
    shown = monotonic()
    for done, q in enumerate(rows):
        if monotonic() - shown >= every:
            yield block.found(done, len(rows))
            shown = monotonic()
        block.add(q, search.question(q, room=block.room))
    yield block.found(len(rows), len(rows))


@dataclass
class _Block:
    """Matches since the last block."""

    search: Search
    room: int
    matches: list[Match] = field(default_factory=list)
    n: int = 0
    where: set[tuple[str, int]] = field(default_factory=set)

    def add(self, q: int, hits: Hits) -> None:
        if not len(hits):
            return
        listing = self.search.listing
        name, number = listing.question_id_Q[q], int(listing.number_Q[q])
        index_X = np.where(hits.rollout_X < 0, NOWHERE, listing.index_R[hits.rollout_X])
        self.n += len(hits)
        self.where.update((name, index) for index in np.unique(index_X).tolist())
        shown = slice(min(self.room, len(hits)))
        self.room -= shown.stop
        label = safe(name)
        columns = (index_X[shown].tolist(), hits.position_X[shown].tolist(), hits.value_X[shown].tolist())
        for i, (index, position, value) in enumerate(zip(*columns, strict=True)):
            text = token(hits.text[i]) if i < len(hits.text) else safe("")
            self.matches.append(Match(name, label, number, index, position, value, text))

    def found(self, n_done: int, n_questions: int) -> Found:
        block = Found(tuple(self.matches), self.n, frozenset(self.where), n_done, n_questions)
        self.matches, self.n, self.where = [], 0, set()
        return block
