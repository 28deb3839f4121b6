"""Where every token of a rollout stands: a pure function of runs and width, tested without an app."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from opd_tui.text import Kind, Run, Safe, cells, cut

#: Widths whose lines are kept: Browse has one, Compare another.
KEPT_WIDTHS = 2


class Piece(NamedTuple):
    """A run, or a part of one, at its place in a line. `first` to `last` are the tokens it belongs to."""

    x: int
    text: Safe
    width: int
    kind: Kind
    first: int
    last: int


class Line(NamedTuple):
    """One line of cells. No piece overlaps another; together they cover the line from 0 on without a hole."""

    pieces: tuple[Piece, ...]

    @property
    def first(self) -> int:
        """The first token on the line."""
        return self.pieces[0].first

    @property
    def width(self) -> int:
        """Cells in use."""
        return self.pieces[-1].x + self.pieces[-1].width


class Span(NamedTuple):
    """Cells of one token in one line."""

    y: int
    x: int
    width: int


class Layout(Struct, frozen=True):
    """All lines of a rollout at one width."""

    width: int
    lines: tuple[Line, ...]
    first_L: tuple[int, ...]  #: first token of each line
    line_T: tuple[int, ...]  #: the line on which each token begins

    def spans(self, token: int) -> list[Span]:
        """Every stretch of cells that belongs to `token`, at least one."""
        found: list[Span] = []
        for y in range(self.line_T[token], len(self.lines)):
            pieces = [piece for piece in self.lines[y].pieces if piece.first <= token <= piece.last]
            if not pieces:
                break
            found.append(Span(y, pieces[0].x, pieces[-1].x + pieces[-1].width - pieces[0].x))
        return found

    def token_at(self, x: int, y: int) -> int | None:
        """The token whose cell this is; right of a line's end, its last token."""
        if not self.lines:
            return None
        pieces = self.lines[min(max(y, 0), len(self.lines) - 1)].pieces
        return pieces[max(bisect_right([piece.x for piece in pieces], x) - 1, 0)].last

    def column(self, token: int) -> int:
        """The middle of the first stretch of cells of `token`."""
        _, x, width = self.spans(token)[0]
        return x + (width - 1) // 2

    def above(self, token: int, lines: int, column: int) -> int:
        """The token `lines` lines above (below, where negative), as nearly as it can be in `column`."""
        y = self.line_T[token]
        target = min(max(y - lines, 0), len(self.lines) - 1)
        found = self.token_at(column, target)
        return token if target == y or found is None else found


class Flow:
    """The runs of a rollout, and their lines at the widths they were last shown at: made by whoever asks first, in any thread."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self._at: dict[int, Layout] = {}

    def at(self, width: int) -> Layout:
        """The lines at `width` cells."""
        found = self._at.get(width)
        if found is None:
            found = layout(self.runs, width)
            if len(self._at) >= KEPT_WIDTHS:
                self._at = {}  # another window: nobody asks for the lines of the old one
            self._at[width] = found
        return found

    def prepare(self, width: int) -> None:
        """Have the lines at `width` cells at hand; before a screen is laid out there are none, and nothing is done."""
        if width > 0:
            self.at(width)


def layout(tokens: Sequence[Run], width: int) -> Layout:
    """Break `tokens` into lines of at most `width` cells.

    Lines end after a line end in the text, or before a word that does not fit: words begin at whitespace, or
    at any token where a script has no spaces. What is wider than a line is cut between characters. The last
    column is kept free for the glyph of a line end.
    """
    limit = max(width, 3) - 1
    lines: list[Line] = []
    pieces: list[Piece] = []
    used = 0

    def close() -> None:
        nonlocal pieces, used
        if pieces:
            lines.append(Line(tuple(pieces)))
        pieces, used = [], 0

    for word in _words(tokens):
        if word[0].kind is Kind.NEWLINE:
            pieces.append(Piece(used, *word[0]))
            close()
            continue
        size = sum(run.width for run in word)
        if used + size > limit and (size <= limit or used > limit // 2):
            close()
        for run in word:
            text, left, kind, first, last = run
            while used + left > limit:
                head, tail = cut(text, limit - used)
                if head:
                    taken = cells(head)
                    pieces.append(Piece(used, head, taken, kind, first, last))
                    text, left = tail, left - taken
                close()
            if left:
                pieces.append(Piece(used, text, left, kind, first, last))
                used += left
    close()
    return _indexed(lines, max(width, 3))


def _words(tokens: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs that stay on one line if they can."""
    word: list[Run] = []
    for run in tokens:
        if word and (run.kind is Kind.NEWLINE or _may_break(word[-1], run)):
            yield word
            word = []
        word.append(run)
        if run.kind is Kind.NEWLINE:
            yield word
            word = []
    if word:
        yield word


def _may_break(left: Run, right: Run) -> bool:
    if right.kind is Kind.SPACE:
        return left.kind is not Kind.SPACE
    if Kind.SPECIAL in (left.kind, right.kind):
        return True
    return left.last != right.first and (left.width > len(left.text) or right.width > len(right.text))


def _indexed(lines: list[Line], width: int) -> Layout:
    n_tokens = max((piece.last for line in lines for piece in line.pieces), default=-1) + 1
    line_T = [-1] * n_tokens
    for y, line in enumerate(lines):
        for piece in line.pieces:
            for token in range(piece.first, piece.last + 1):
                if line_T[token] < 0:
                    line_T[token] = y
    return Layout(width, tuple(lines), tuple(line.first for line in lines), tuple(line_T))
