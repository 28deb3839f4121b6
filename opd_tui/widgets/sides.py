"""The panes of Compare: tokens that show where two rollouts part, the line below them, and the fork itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

from rich.segment import Segment

from opd_tui.colouring import Colouring
from opd_tui.layout import Line
from opd_tui.metrics import Metric
from opd_tui.numbers import effective, interval, prob, signed
from opd_tui.pairing import Branch, Fork
from opd_tui.text import Safe, cells, fit
from opd_tui.widgets.lines import Panel, Spans, ink, ljust, rjust, span, width_of
from opd_tui.widgets.node_lines import SURE, prob_se
from opd_tui.widgets.strips import said as said_of
from opd_tui.widgets.tokens import GUTTER, TokenView

if TYPE_CHECKING:
    from opd_tui.facts import TeacherFacts
    from opd_tui.pages import RolloutPage

#: Below this width names and columns are narrower.
NARROW = 100


class SideTokens(TokenView):
    """The tokens of one side. In the gutter: `=` where the line is common to both, `»` where they part."""

    n_shared = 0

    def part_at(self, n_shared: int) -> None:
        """The rollouts share so many tokens."""
        self.n_shared = n_shared

    @property
    def cursor_row(self) -> int:
        """Line of the window on which the cursor stands."""
        return self._cursor_line - self.scroll_offset.y

    @property
    def _cursor_line(self) -> int:
        return self._top + self._layout.line_T[self.cursor] * self._stride if self.n_tokens else 0

    def put_cursor_on_row(self, row: int) -> None:
        """Scroll so that the cursor stands on this line of the window, as nearly as the text allows."""
        window = self.scrollable_size.height
        y = min(max(self._cursor_line - min(row, window - self._stride), 0), max(self.virtual_size.height - window, 0))
        if y != self.scroll_offset.y:
            self.scroll_to(y=y, animate=False)

    def _token_spans(self, line: Line) -> Spans:
        last = line.pieces[-1].last
        mark = "=" if last < self.n_shared else "»" if line.first <= self.n_shared else " "
        style = ink(self.palette.ink.accent, bold=True) if mark == "»" else ink(self.palette.ink.faint)
        first, *rest = super()._token_spans(line)
        begins = span(first.text[GUTTER:], first.style)  # text of the gutter's style goes on in its span
        return [span(f"{line.first:>{GUTTER - 2}}{mark} ", style), begins, *rest]


class Here(Panel):
    """The token under the cursor of one side: never colour alone."""

    def here(self, page: RolloutPage | None, token: int, colouring: Colouring, metric: Metric, active: bool) -> None:
        """Show the token at `token` of `page`, with its number."""
        if page is None or not page.n_tokens:
            self.show([])
            return
        colours = self.palette.ink
        dim, strong = ink(colours.dim), ink(colours.text, bold=True)
        value = colouring.values[token] if token < len(colouring.values) else float("nan")
        number = said_of(value, metric, colouring.scale)
        unsure = "?" if token in colouring.uncertain and isfinite(value) else ""
        label = page.label(int(page.rollout.token_id_T[token]))
        places = page.node_positions
        node = f"node {places.index(token) + 1}/{len(places)}" if token in page.row_of else f"{len(places)} nodes"
        left = [
            span("›" if active else " ", ink(colours.accent, bold=True)),
            span(f"{token}/{page.n_tokens} ", dim),
        ]
        right = [
            span(f" {number}{unsure}", strong),
            span(f"  {node} ", dim),
        ]
        room = max(self.scrollable_size.width - width_of(left) - width_of(right), 3)
        self.show([[*left, ljust(label, room, ink(colours.accent, bold=active)), *right]])


class ForkPane(Panel, can_focus=False):
    """Where the two part: both tokens, how they end, and what everybody says of them.

    What the columns mean is always there: where there is no room for all teachers, those around the current one are.
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._draw: Callable[[], None] = lambda: None

    def fork(self, fork: Fork | None, verdicts: Sequence[bool], teachers: Sequence[TeacherFacts], current: int) -> None:
        """Show `fork`; `verdicts`: whether the left and the right rollout are correct."""
        self._draw = partial(self._fork, fork, verdicts, teachers, current)
        self._draw()

    def on_resize(self) -> None:
        """There is other room for teachers."""
        self._draw()

    def _fork(self, fork: Fork | None, verdicts: Sequence[bool], teachers: Sequence[TeacherFacts], current: int) -> None:
        if fork is None:
            self.least = 0
            self.show([[span(" the two are the same to the end", ink(self.palette.ink.dim))]])
            return
        names = max((len(teacher.label) for teacher in teachers), default=7)
        narrow = self.scrollable_size.width < NARROW
        name = min(max(names, 9) + 1, 14 if narrow else 20)
        align = 7 if narrow else 9
        each = min(max((self.scrollable_size.width - name - align - 15) // 2, 16), 34)
        dim = ink(self.palette.ink.dim)
        branches = (fork.left, fork.right)
        head: list[Segment] = [ljust("", name, dim)]
        for branch, correct in zip(branches, verdicts, strict=True):
            head.append(self._token(branch, correct, each))
        below = any(cells(_counted(branch)) >= each for branch in branches)  # a count that is cut off would mislead
        rows: list[Spans] = [
            [ljust(" p_succ", name, dim), *(self._success(branch, each, counted=not below) for branch in branches)],
            *([[ljust(" n", name, dim), *(rjust(effective(branch.n), each, dim) for branch in branches)]] if below else []),
            [
                ljust(" student", name, dim),
                *(rjust(prob(branch.p_student), each, ink(self.palette.ink.text)) for branch in branches),
            ],
        ]
        everybody = list(enumerate(zip(teachers, fork.teachers, strict=False)))
        self.least = 1 + len(rows) + len(everybody)  # the pane stays as tall as the screen lets it be
        window = self.scrollable_size.height
        room = max(window - 1 - len(rows), 1) if window else len(everybody)
        first = min(max(current - room // 2, 0), max(len(everybody) - room, 0))
        if room < len(everybody):
            head[0] = ljust(f" {first + 1}–{first + room} of {len(everybody)}", name, dim)
        rows.insert(0, [*head, rjust("align", align, dim), rjust("gain ±se", 15, dim)])
        for m, (teacher, said) in everybody[first : first + room]:
            chosen = m == current
            style = ink(self.palette.ink.text, bold=chosen)
            unsure = "?" if isfinite(said.gain_se) and not abs(said.gain) >= SURE * said.gain_se else " "
            rows.append(
                [
                    span("›" if chosen else " ", ink(self.palette.ink.accent, bold=True)),
                    ljust(teacher.label, name - 1, style),
                    rjust(prob(said.left), each, style),
                    rjust(prob(said.right), each, style),
                    rjust(signed(said.alignment) + unsure, align, ink(self.palette.sign(said.alignment), bold=True)),
                    rjust(signed(said.gain, 3), 8, style),
                    span(" ±" if isfinite(said.gain_se) else "  ", dim),
                    ljust(prob_se(said.gain_se) if isfinite(said.gain_se) else "", 5, dim),
                ]
            )
        self.show(rows)

    def _token(self, branch: Branch, correct: bool, width: int) -> Segment:
        text = Safe(f"{'✓' if correct else '✗'} {branch.label or 'ends here'}")
        return rjust(fit(text, min(width - 2, cells(text))), width, ink(self._verdict(correct), bold=True))

    def _verdict(self, correct: bool) -> str:
        return self.palette.ink.good if correct else self.palette.ink.bad

    def _success(self, branch: Branch, width: int, *, counted: bool) -> Segment:
        dim = ink(self.palette.ink.dim)
        if not isfinite(branch.p_succ):
            return rjust("no estimate", width, dim)
        text = _counted(branch) if counted else _share(branch)
        return rjust(text, width, ink(self.palette.ink.text, bold=True) if branch.kept else dim)


def _share(branch: Branch) -> str:
    return f"{prob(branch.p_succ)} {interval(branch.low, branch.high)}"


def _counted(branch: Branch) -> str:
    """With how many completions that is known from."""
    return f"{_share(branch)} n {effective(branch.n)}" if isfinite(branch.p_succ) else ""
