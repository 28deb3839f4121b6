"""The narrow panes: header, legend, node track, teachers, keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message

from opd_tui.bars import NO_VALUE, bins, level
from opd_tui.colouring import Colouring
from opd_tui.metrics import Metric
from opd_tui.numbers import plain, prob, signed, signed_interval
from opd_tui.palette import STEPS, Scale, mark, number
from opd_tui.text import Safe, cells, fit, fold
from opd_tui.widgets.lines import Lines, Panel, Spans, ink, ljust, rjust, span, width_of
from store.words import counted

if TYPE_CHECKING:
    from opd_tui.facts import Mean, TeacherLine
    from opd_tui.session import Session

#: Cells that teacher and objective have in the legend at least, where they need them.
LEAST_CHOICE = 24
#: From these widths on, teachers have their gain and intervals, and words where signs stood.
BROAD, WORDY = 100, 130


class Bar(Panel):
    """One line: parts from the left, in order of importance, and one on the right."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left: Sequence[Segment] = ()
        self._right: Sequence[Segment] = ()

    def set(self, left: Sequence[Segment], right: Sequence[Segment] = ()) -> None:
        """What the line says. Parts on the left that find no room are left out."""
        self._left, self._right = left, right
        room = self.scrollable_size.width - width_of(right) - 1
        shown: list[Segment] = []
        for part in left:
            size = width_of([part])
            if size > room:
                break
            shown.append(part)
            room -= size
        self.show([[*shown, span(" " * (room + 1)), *right]])

    def settle(self) -> None:
        """Choose anew what finds room."""
        self.set(self._left, self._right)

    def on_resize(self) -> None:
        """At the new width."""
        self.settle()


class Hint(NamedTuple):
    """A key and what it does."""

    keys: str
    text: str


class Keys(Bar):
    """The keys that matter here; or a sentence, in as many lines as it needs."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sentence: Safe | None = None

    def hints(self, hints: Sequence[Hint]) -> None:
        """Show as many of `hints` as find room."""
        self.sentence = None
        self.set([Segment(f" {keys} {text} ", ink(self.palette.ink.dim)) for keys, text in hints])

    def say(self, sentence: Safe) -> None:
        """Show a sentence in place of the keys."""
        self.sentence = sentence
        style = ink(self.palette.ink.bad, bold=True)
        self.show([[span(f" {line}", style)] for line in fold(sentence, self.scrollable_size.width - 2)])

    def settle(self) -> None:
        """Break the sentence anew, or choose anew what finds room."""
        if self.sentence is not None:
            self.say(self.sentence)
        else:
            super().settle()


class Legend(Panel):
    """What the colours mean, and the number under the cursor: never colour alone. Two lines, or one where it is broad."""

    def legend(self, session: Session, colouring: Colouring, token: int) -> None:
        """What `session` has chosen, along a page that is coloured so."""
        dim, strong = ink(self.palette.ink.dim), ink(self.palette.ink.text, bold=True)
        metric, scale = session.metric, colouring.scale
        diverging = metric.diverging
        amount = signed if diverging and scale.low < 0 else plain
        value = colouring.values[token] if token < len(colouring.values) else float("nan")
        here: list[Segment] = [span("here ", dim), span(said(value, metric, scale), strong)]
        unsure = isfinite(value) and token in colouring.uncertain
        title, width = span(f" {metric.label} ", strong), self.scrollable_size.width
        support = f" · {session.support}" if session.support else ""
        if scale.names:
            self._categories([title, span(f"{session.choice}{support}", dim)], here, scale.names)
            return
        swatch = [span(mark(step, diverging), self.palette.value(step, diverging)) for step in range(STEPS)]
        ends = (span(f"{amount(scale.low)} ", dim), span(f" {amount(scale.high)}", dim))
        doubt = (span("? sign uncertain", dim), span("?", dim)) if unsure else (span(""), span(""))
        gap = span("   ")
        #: From the longest to the shortest.
        forms: list[Spans] = [[ends[0], *swatch, ends[1], gap, *here, one] for one in doubt]
        forms.append([*swatch, gap, *here, doubt[1]])
        if not colouring.values:
            forms = [here]
        if self.scrollable_size.height > 1:
            self.show([[title, *self._about(session.choice, support, width - width_of([title]))], [span(" "), *forms[0]]])
            return
        least = width_of([title]) + 2 + min(len(session.choice), LEAST_CHOICE) + len(support)
        form = next((one for one in forms if least + width_of(one) <= width), forms[-1])
        room = max(width - width_of([title, *form]) - 2, 0)
        self.show([[title, *self._about(session.choice, support, room), span("  "), *form]])

    def _about(self, choice: Safe, support: str, room: int) -> list[Segment]:
        """Teacher and objective, as far as the name of the support leaves them room, in exactly `room` cells."""
        dim = ink(self.palette.ink.dim)
        names = fit(choice, min(cells(choice), max(room - len(support), 0)))
        return [ljust(f"{names}{support}", room, dim)]

    def _categories(self, title: list[Segment], here: list[Segment], names: Sequence[str]) -> None:
        """Every category with its mark, as many as there is room for; all of them stand in the list of teachers."""
        lines = [title, [span(" "), *here]] if self.scrollable_size.height > 1 else [[title[0], *here]]
        for place, name in enumerate(names):
            width = len(name) + 5
            line = next((one for one in reversed(lines) if width_of(one) + width <= self.scrollable_size.width), None)
            if line is not None:
                line += [
                    span("  "),
                    span(number(place), self.palette.category(place)),
                    span(f" {name}", ink(self.palette.ink.dim)),
                ]
        self.show(lines)


def said(value: float, metric: Metric, scale: Scale) -> str:
    """The value of a token, in words where it is a category."""
    if not isfinite(value):
        return "no estimate"
    if scale.names:
        return f"{number(int(value))} {scale.names[int(value)]}" if int(value) < len(scale.names) else "no estimate"
    if metric.probability:
        return prob(value)
    amount = (signed if scale.diverging and scale.low < 0 else plain)(value, 3)
    return f"{amount} {metric.unit}" if metric.unit else amount


class Track(Lines):
    """The whole rollout in one line: the worst value in each stretch, and where the cursor is. A click goes there."""

    class Pointed(Message):
        """A token was pointed at."""

        def __init__(self, track: Track, token: int) -> None:
            super().__init__()
            self.track = track
            self.token = token

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._colouring: Colouring | None = None
        self._worst_is_low = True
        self._n_nodes = 0
        self._cursor = 0
        self._cells: list[tuple[str, int | None]] = []

    def track(self, colouring: Colouring, worst_is_low: bool, n_nodes: int, cursor: int) -> None:
        """Show another rollout or metric."""
        self._colouring, self._worst_is_low, self._n_nodes, self._cursor = colouring, worst_is_low, n_nodes, cursor
        self._bin()
        self.refresh()

    def point(self, cursor: int) -> None:
        """The cursor is on another token."""
        before, self._cursor = self._place(self._cursor), cursor
        after = self._place(cursor)
        if before != after:
            self.refresh(Region(before, 0, 1, 1), Region(after, 0, 1, 1))

    @property
    def _tail(self) -> str:
        n = len(self._colouring.values) if self._colouring else 0
        return f"▏{counted(self._n_nodes, 'node')}, {counted(n, 'token')} "

    @property
    def _room(self) -> int:
        return max(self.scrollable_size.width - 1 - len(self._tail), 1)

    def _bin(self) -> None:
        if self._colouring is None or not self._colouring.values:
            self._cells = []
            return
        values, scale = self._colouring.values, self._colouring.scale
        pick = min if self._worst_is_low else max
        self._cells = []
        for places in bins(values, self._room):
            if scale.names and places:
                common = int(Counter(values[place] for place in places).most_common(1)[0][0])
                self._cells.append((number(common), common))
                continue
            worst = pick((values[place] for place in places), default=float("nan"))
            self._cells.append((level(worst, scale.low, scale.high), scale.step(worst)))

    def _place(self, token: int) -> int:
        n = len(self._colouring.values) if self._colouring else 0
        return 1 + (min(token * self._room // n, self._room - 1) if n else 0)

    def spans(self, y: int) -> Spans:
        """The one line."""
        if y or not self._cells or self._colouring is None:
            return ()
        colours = self.palette.ink
        spans = [span("▕", ink(colours.faint))]
        diverging = self._colouring.scale.diverging
        cursor = self._place(self._cursor)
        for x, (text, step) in enumerate(self._cells, 1):
            if x == cursor:
                spans.append(span(text, ink(colours.cursor_text, colours.cursor)))
            elif step is None:
                spans.append(span(NO_VALUE, ink(colours.faint)))
            else:
                named = bool(self._colouring.scale.names)
                colour = self.palette.category_line(step) if named else self.palette.line(step, diverging)
                spans.append(span(text, ink(colour)))
        return [*spans, span(self._tail, ink(colours.dim))]

    def on_resize(self) -> None:
        """Cut the rollout into other stretches."""
        self._bin()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Go where the mouse points."""
        offset = event.get_content_offset(self)
        n = len(self._colouring.values) if self._colouring else 0
        if offset is not None and n:
            self.post_message(self.Pointed(self, min(max((offset.x - 1) * n // self._room, 0), n - 1)))


class TeacherStrip(Panel, can_focus=True):
    """Every teacher at this token, along the rollout and over the study."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", "teacher up", show=False),
        Binding("down,j", "step(1)", "teacher down", show=False),
    ]

    class Chosen(Message):
        """Another teacher is to be shown."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._given: tuple[object, ...] = ()

    def action_step(self, by: int) -> None:
        """Another teacher."""
        self.post_message(self.Chosen(by))

    def teachers(self, lines: Sequence[TeacherLine], means: Sequence[Mean | None], current: int) -> None:
        """Show `lines`, the current one marked."""
        width = self.scrollable_size.width
        given = lines, means, current, width, self.palette
        if given == self._given:  # as between two nodes, where no teacher has a score
            return
        self._given = given
        room = max((cells(line.teacher.label) for line in lines), default=0)
        room = min(room, 18 if width >= BROAD else 12)
        shown = [self._line(*pair, place == current, room, width) for place, pair in enumerate(zip(lines, means, strict=True))]
        self.show(shown)
        if shown:
            self.reveal(current)

    def _line(self, line: TeacherLine, mean: Mean | None, current: bool, room: int, width: int) -> Spans:
        colours = self.palette.ink
        dim, text = ink(colours.dim), ink(colours.text)
        spans: list[Segment] = [
            span("›" if current else " ", ink(colours.accent, bold=True)),
            ljust(line.teacher.label, room, ink(colours.text, bold=current)),
            span(" align ", dim),
            rjust(signed(line.alignment), 4, ink(self.palette.sign(line.alignment), bold=True)),
        ]
        if width >= BROAD:
            spans += [span(" gain ", dim), rjust(signed(line.gain, 3), 5, text)]
        tail = self._means(mean, width, " null" if line.teacher.null else " late" if line.teacher.late else "     ")
        trace = self._trace(line, width - width_of([*spans, *tail]) - 4)
        return [*spans, span("  "), *trace, span("  "), *tail]

    def _means(self, mean: Mean | None, width: int, mark: str) -> list[Segment]:
        dim = ink(self.palette.ink.dim)
        nan = float("nan")
        overall, low, high, gain = (mean.mean, mean.low, mean.high, mean.gain) if mean else (nan, nan, nan, nan)
        correct, incorrect = (mean.correct, mean.incorrect) if mean else (nan, nan)
        spans = [span("mean ", dim), rjust(signed(overall), 4, ink(self.palette.sign(overall), bold=True))]
        if width >= BROAD:
            spans.append(ljust(" " + signed_interval(low, high), 13, dim))
        spans += [span(" gain ", dim), rjust(signed(gain, 3), 5, ink(self.palette.sign(gain)))]
        words = width >= WORDY
        for name, value in (("correct" if words else "✓", correct), ("incorrect" if words else "✗", incorrect)):
            spans += [span(f" {name} ", dim), rjust(signed(value), 4, ink(self.palette.sign(value)))]
        return [*spans, span(mark, dim)]

    def _trace(self, line: TeacherLine, width: int) -> list[Segment]:
        width = max(width, 4)
        trace = line.trace
        groups: Sequence[Sequence[int]] = [[place] for place in range(len(trace))] if len(trace) <= width else bins(trace, width)
        spans = []
        for places in groups:
            worst = min((trace[place] for place in places if isfinite(trace[place])), default=float("nan"))
            here = line.here is not None and (line.here in places)
            colour = self.palette.sign(worst) if isfinite(worst) else self.palette.ink.faint
            spans.append(span(level(worst, -1.0, 1.0), ink(colour, reverse=here)))
        return [*spans, span(" " * max(width - len(groups), 0))]
