"""Looks for a text in rollouts: the bytes of all tokens of a rollout as one text, what is found mapped back to tokens."""

from __future__ import annotations

import re

import numpy as np
from msgspec import Struct

from opd_tui.search.evaluating import Bool
from opd_tui.search.scanner import NO_HITS, Hits
from store.reader import Store

#: Characters that are shown before and after what was found.
AROUND = 16


class Piece(Struct, frozen=True):
    """A place of a text in a rollout."""

    first: int  #: the token in which it begins
    last: int  #: the one in which it ends
    context: str  #: it, and what stands around it


def find(pieces: list[bytes], text: str, *, most_context: int | None = None) -> list[Piece]:
    """Every place of `text` in a rollout whose tokens are `pieces`, upper and lower case alike, places that overlap once.

    Context is made for the first `most_context` places. Bytes that are no UTF-8 match nothing.
    """
    whole = b"".join(pieces).decode("utf-8", "surrogateescape")
    if not text or (found := re.search(pattern := re.compile(re.escape(text), re.IGNORECASE), whole)) is None:
        return []
    end_T = np.cumsum([len(piece) for piece in pieces])
    places: list[Piece] = []
    read, at = 0, 0  # characters, and the bytes that they take
    while found is not None:
        first = at + _length(whole[read : found.start()])
        read, at = found.end(), first + _length(found[0])
        around = most_context is None or len(places) < most_context
        context = whole[max(found.start() - AROUND, 0) : found.end() + AROUND] if around else ""
        begins, ends = np.searchsorted(end_T, (first, at - 1), side="right").tolist()
        places.append(Piece(begins, ends, context))
        found = pattern.search(whole, found.end())
    return places


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


class TextSearch:
    """A text in all rollouts of a store, or in some. A `Search` of `opd_tui.search.scanning`. Raises StoreError."""

    def __init__(self, opened: Store, text: str, only: Bool | None = None) -> None:
        """`only`: rollouts (rows of the listing) to look at."""
        self.opened, self.text = opened, text
        self.listing = opened.listing()
        self._only = only

    def question(self, q: int, *, room: int = 0) -> Hits:
        """Every place of the text in the question's rollouts."""
        first, last = self.listing.rollout_start_Q1[q : q + 2].tolist()
        wanted = np.arange(first, last) if self._only is None else first + np.flatnonzero(self._only[first:last])
        if not len(wanted):
            return NO_HITS
        places = range(int(wanted[0]) - first, int(wanted[-1]) - first + 1)
        read, _ = self.opened.columns(self.listing.question_id_Q[q], places, ("token_id",))
        length_r = self.listing.n_tokens_R[first + places.start : first + places.stop].astype(np.int64)
        stop_r = np.cumsum(length_r).tolist()
        bytes_of = self.opened.vocab.bytes_of
        found: list[tuple[int, Piece]] = []
        for r in wanted.tolist():
            stop = stop_r[r - first - places.start]
            ids = read["token_id"][stop - int(self.listing.n_tokens_R[r]) : stop].tolist()
            pieces = [bytes_of(one) for one in ids]
            found += [(r, piece) for piece in find(pieces, self.text, most_context=max(room - len(found), 0))]
        return Hits(
            np.array([r for r, _ in found], np.int64),
            np.array([piece.first for _, piece in found], np.int64),
            np.full(len(found), np.nan),
            tuple(piece.context.encode("utf-8", "surrogateescape") for _, piece in found[:room]),
        )
