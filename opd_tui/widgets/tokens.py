"""The rollout, token by token, coloured by a metric. A cursor move redraws the cells of two tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region

from opd_tui.colouring import NO_COLOURING, Colouring
from opd_tui.layout import Flow, Line, Piece
from opd_tui.palette import Palette, marks, number
from opd_tui.text import Kind, Safe, fold
from opd_tui.widgets.lines import Lines, Spans, ink, span

#: Cells left of the tokens: the number of the first token of a line.
GUTTER = 6
#: Lines of the prompt above the tokens, at most.
ASKED_LINES = 4
NO_NOTE = Safe("")
NO_TEXT = Flow(())


class TokenView(Lines, can_focus=True):
    """Tokens with a cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", "token left", show=False),
        Binding("right,l", "step(1)", "token right", show=False),
        Binding("up,k", "line(1)", "line up", show=False),
        Binding("down,j", "line(-1)", "line down", show=False),
        Binding("pageup", "page(1)", "page up", show=False),
        Binding("pagedown", "page(-1)", "page down", show=False),
        Binding("home", "to(0)", "first token", show=False),
        Binding("end", "to(-1)", "last token", show=False),
    ]

    def __init__(self, follow: Callable[[int], None] = lambda _token: None, *, id: str | None = None) -> None:
        """`follow` is told where the cursor goes: at once, since what follows a message is painted a frame later."""
        super().__init__(id=id)
        self._follow = follow
        self.cursor = 0
        self._column: int | None = None  #: where moves by line began, so that they come back to it
        self.marks = False
        self.whitespace = True
        self._flags: frozenset[int] = frozenset()  #: tokens with a bookmark
        self._flow = NO_TEXT
        self._layout = NO_TEXT.at(80)
        self._asked: Sequence[Safe] = ()
        self._note = NO_NOTE
        self._preface: list[tuple[Safe, bool]] = []  #: lines above the tokens, and which of them are the note
        self._colouring = NO_COLOURING
        self._steps: list[int | None] = []

    # what is shown

    def show(self, flow: Flow, colouring: Colouring, cursor: int, asked: Sequence[Safe] = (), note: Safe = NO_NOTE) -> None:
        """Show another rollout. Above it stand the end of what was `asked`, and a `note` on why there is nothing more."""
        self._flow = flow
        self._asked, self._note = asked, note
        self.cursor = cursor
        self._set_colouring(colouring)
        self._arrange()
        self.scroll_to(y=0, animate=False)
        self._reveal_cursor()

    def colour(self, colouring: Colouring) -> None:
        """Colour the same tokens by something else."""
        self._set_colouring(colouring)
        self.redraw_changed()

    def flag(self, tokens: frozenset[int]) -> None:
        """These have a bookmark: a sign stands beside their lines."""
        if tokens != self._flags:
            self._flags = tokens
            self.redraw_changed()

    def set_marks(self, on: bool) -> None:
        """Marks under the tokens, or not."""
        self.marks = on
        self._arrange()
        self._reveal_cursor()

    def set_whitespace(self, on: bool) -> None:
        """Glyphs for whitespace, or blanks."""
        self.whitespace = on
        self.refresh()

    @property
    def text_width(self) -> int:
        """Cells from the gutter to the end of the line."""
        return self.scrollable_size.width - GUTTER

    @property
    def n_tokens(self) -> int:
        """Tokens of the rollout."""
        return len(self._layout.line_T)

    def _set_colouring(self, colouring: Colouring) -> None:
        self._colouring = colouring
        self._steps = [colouring.scale.step(value) for value in colouring.values]

    def _arrange(self) -> None:
        width = self.text_width
        self._layout = self._flow.at(width)
        asked = [(line, False) for paragraph in self._asked for line in fold(paragraph, width)]
        note = [(line, True) for line in fold(self._note, width)] if self._note else []
        self._preface = asked[-ASKED_LINES:] + note
        self.set_height(self._top + len(self._layout.lines) * self._stride)
        self.draw_anew()

    def on_resize(self) -> None:
        """Break the lines anew."""
        if self._layout.width != self.text_width:
            self._arrange()
            self._reveal_cursor()

    @property
    def _stride(self) -> int:
        return 2 if self.marks else 1

    @property
    def _top(self) -> int:
        return len(self._preface) + 1 if self._preface else 0

    # the cursor

    def action_step(self, by: int) -> None:
        """To the token `by` to the right."""
        self.move(self.cursor + by)

    def action_line(self, by: int) -> None:
        """Up by lines."""
        if self.n_tokens:
            column = self._column if self._column is not None else self._layout.column(self.cursor)
            self.move(self._layout.above(self.cursor, by, column))
            self._column = column

    def action_page(self, by: int) -> None:
        """Up by a window."""
        self.action_line(by * max(self.scrollable_size.height // self._stride - 1, 1))

    def action_to(self, token: int) -> None:
        """To a token, counted from the end where negative."""
        self.move(token % self.n_tokens if self.n_tokens else 0)

    def move(self, token: int, *, tell: bool = True) -> None:
        """Put the cursor on `token`, as nearly as there is one."""
        token = min(max(token, 0), max(self.n_tokens - 1, 0))
        if token == self.cursor or not self.n_tokens:
            return
        before, self.cursor, self._column = self.cursor, token, None
        self._redraw_token(before)
        self._redraw_token(token)
        self._reveal_cursor()
        if tell:
            self._follow(token)

    def _redraw_token(self, token: int) -> None:
        top = self._top - self.scroll_offset.y
        self.refresh(*(Region(x + GUTTER, y * self._stride + top, width, 1) for y, x, width in self._layout.spans(token)))

    def _reveal_cursor(self) -> None:
        if not self.n_tokens:
            return
        y = self._layout.line_T[self.cursor]
        if y:
            self.reveal(self._top + y * self._stride, self._stride)
        elif self.scroll_offset.y:
            self.scroll_to(y=0, animate=False)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse points."""
        offset = event.get_content_offset(self)
        if offset is None or not self.n_tokens:
            return
        y = (offset.y + self.scroll_offset.y - self._top) // self._stride
        token = self._layout.token_at(offset.x - GUTTER, y)
        if token is not None and y >= 0:
            self.move(token)

    # drawing

    def spans(self, y: int) -> Spans:
        """A line of the preface, of tokens, or of marks."""
        if y < self._top:
            if y >= len(self._preface):
                return ()
            text, is_note = self._preface[y]
            return [span(" " * GUTTER), span(text, ink(self.palette.ink.text if is_note else self.palette.ink.dim, bold=is_note))]
        row, is_marks = divmod(y - self._top, self._stride)
        if row >= len(self._layout.lines):
            return ()
        line = self._layout.lines[row]
        return self._mark_spans(line) if is_marks else self._token_spans(line)

    def _token_spans(self, line: Line) -> Spans:
        flagged = any(line.first <= token <= line.pieces[-1].last for token in self._flags)
        spans = [span(f"{line.first:>{GUTTER - 1}}{'◆' if flagged else ' '}", ink(self.palette.ink.faint))]
        for piece in line.pieces:
            text = piece.text
            if piece.kind in (Kind.SPACE, Kind.NEWLINE) and not self.whitespace:
                text = Safe(" " * piece.width)
            style = self._style(piece)
            if spans[-1].style == style:
                spans[-1] = span(spans[-1].text + text, style)
            else:
                spans.append(span(text, style))
        return spans

    def _style(self, piece: Piece) -> Style:
        colours = self.palette.ink
        if piece.first <= self.cursor <= piece.last:
            return ink(colours.cursor_text, colours.cursor, bold=True)
        step, token = self._step(piece)
        if step is not None and self._colouring.scale.names:
            return self.palette.category(step)
        if step is not None:
            return self.palette.value(step, self._colouring.scale.diverging, token in self._colouring.uncertain)
        if piece.kind is Kind.ESCAPE:
            return ink(colours.escape)
        if piece.kind is Kind.TEXT:
            return ink(colours.text if self._colouring.values else colours.dim)
        return ink(colours.faint)

    def _mark_spans(self, line: Line) -> Spans:
        """Under each token its sign, as often as it is strong; a question mark where the sign is uncertain."""
        spans: list[Segment] = [span(" " * GUTTER)]
        diverging, uncertain = self._colouring.scale.diverging, self._colouring.uncertain
        for (step, token), pieces in groupby(line.pieces, self._step):
            width = sum(piece.width for piece in pieces)
            if step is not None and self._colouring.scale.names:
                text = number(step).ljust(width)
            else:
                text = "?".ljust(width) if step is not None and token in uncertain else marks(step, diverging, width)
            spans.append(span(text, ink(self.palette.ink.text)))
        return spans

    def _step(self, piece: Piece) -> tuple[int | None, int]:
        """The step of the first token of `piece` that has one."""
        for token in range(piece.first, min(piece.last + 1, len(self._steps))):
            if self._steps[token] is not None:
                return self._steps[token], token
        return None, piece.first

    def use(self, palette: Palette) -> None:
        """Draw in another palette; marks come with one that needs them."""
        super().use(palette)
        if palette.needs_marks and not self.marks:
            self.set_marks(True)
