"""What the node pane says, as lines. Pure: facts and a width in, spans out."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isfinite
from typing import TYPE_CHECKING

from rich.segment import Segment

from opd_tui.bars import diverging_bar
from opd_tui.numbers import effective, interval, plain, prob, signed, signed_interval
from opd_tui.palette import Palette
from opd_tui.text import Safe, cells
from opd_tui.widgets.lines import Spans, ink, ljust, rjust, span, width_of

if TYPE_CHECKING:
    from opd_tui.facts import Candidate, ChildFacts, NodeFacts, ObjectiveFacts, TokenFacts

#: From this width on, children and their gradients stand in one line.
BROAD = 66
#: Cells on either side of a bar's axis.
HALF = 4
SURE = 1.96


class NodeLines:
    """Draws a token, and the node before it if there is one, in `width` cells."""

    def __init__(self, palette: Palette, width: int, teacher: Safe) -> None:
        self.palette = palette
        self.width = width
        self.teacher = teacher
        colours = palette.ink
        self.text = ink(colours.text)
        self.strong = ink(colours.text, bold=True)
        self.dim = ink(colours.dim)
        self.accent = ink(colours.accent, bold=True)
        self.first_child = 0  #: line of the first child, once a node was drawn

    @property
    def broad(self) -> bool:
        """Whether there is room for everything side by side."""
        return self.width >= BROAD

    # the token

    def token(self, facts: TokenFacts, *, short: bool = False) -> list[Segment]:
        """Which token this is."""
        place = f" token {facts.position} of {facts.n_tokens}  "
        tail = "" if short else f"  id {facts.token_id}" + ("  written by a tool" if facts.tool else "")
        room = self.width // 4 if short else max(self.width - len(place) - len(tail) - 1, 4)
        label = ljust(facts.label, min(cells(facts.label), room), self.accent)
        return [span(place, self.dim), label, span(tail, self.dim)]

    def between(self, facts: TokenFacts) -> list[Spans]:
        """A token that is no node: what both models say of it."""
        lines: list[Spans] = [self.token(facts)]
        rows = (
            ("log-prob", plain(facts.logprob), plain(facts.teacher_logprob)),
            ("probability", prob(_exp(facts.logprob)), prob(_exp(facts.teacher_logprob))),
            ("entropy", plain(facts.entropy), plain(facts.teacher_entropy)),
        )
        if not self.broad:
            lines.append([span(" no node here: n and N go to one", self.dim)])
            lines.append([])
            lines.append([ljust("", 13), rjust("student", 10, self.dim), span(" "), rjust(self.teacher, 14, self.dim)])
            lines += [
                [ljust(f" {name}", 13, self.dim), rjust(a, 10, self.text), span(" "), rjust(b, 14, self.text)]
                for name, a, b in rows
            ]
            lines.append([])
            lines += [self._divergences(facts), self._overlap(facts)]
        else:
            lines[0] = [*lines[0], span("  no node here: n and N go to one", self.dim)]
            lines.append([part for name, a, b in rows for part in (span(f" {name} ", self.dim), span(f"{a} | {b} ", self.text))])
            lines.append(
                [*self._divergences(facts), *self._overlap(facts), span("  student | ", self.dim), span(self.teacher, self.dim)]
            )
            return [*lines, *self._tops(facts)]
        return [*lines, [], *self._tops(facts)]

    def _divergences(self, facts: TokenFacts) -> list[Segment]:
        found = []
        for name, value in (("KL(P‖T)", facts.kl_student_teacher), ("KL(T‖P)", facts.kl_teacher_student), ("JS", facts.js)):
            found += [span(f" {name} ", self.dim), span(plain(value), self.text)]
        return found

    def _overlap(self, facts: TokenFacts, *, short: bool = False) -> list[Segment]:
        difference = signed(facts.teacher_entropy - facts.entropy)
        return [
            *(span(" overlap " if short else " top-K overlap ", self.dim), span(prob(facts.overlap), self.text)),
            *(span(" ΔH " if short else "  entropy T − P ", self.dim), span(difference, self.text)),
        ]

    def _tops(self, facts: TokenFacts) -> list[Spans]:
        each = (self.width - 3) // 2
        lines: list[Spans] = [
            [span(" "), *self._top_heading("student's top", each), span("  "), *self._top_heading("teacher's top", each)]
        ]
        for place in range(max(len(facts.student_top), len(facts.teacher_top))):
            left = self._candidate(facts.student_top, place, each)
            lines.append([span(" "), *left, span("  "), *self._candidate(facts.teacher_top, place, each)])
        tails = (rjust(f"elsewhere {prob(tail)}", each, self.dim) for tail in (facts.student_tail, facts.teacher_tail))
        lines.append([span(" "), next(tails), span("  "), next(tails)])
        return lines

    def _top_heading(self, title: str, width: int) -> list[Segment]:
        title = title if len(title) <= width - 10 else title.split("'", maxsplit=1)[0]
        return [ljust(title, width - 10, self.dim), rjust("P", 5, self.dim), rjust("T", 5, self.dim)]

    def _candidate(self, candidates: Sequence[Candidate], place: int, width: int) -> list[Segment]:
        if place >= len(candidates):
            return [span(" " * width)]
        one = candidates[place]
        style = self.accent if one.taken else self.text
        return [ljust(one.label, width - 10, style), rjust(prob(one.p_student), 5, style), rjust(prob(one.p_teacher), 5, style)]

    # the node

    def node(self, facts: NodeFacts, token: TokenFacts, objective: int, child: int | None) -> list[Spans]:
        """A node: how it was measured, what every objective is worth, its children and both gradients."""
        measured = self._measured(facts)
        lines: list[Spans] = (
            [self._whole([*self.token(token, short=True), span(" ")], self._number(facts), self._sureness(facts), *measured)]
            if self.broad
            else [self.token(token), self._whole(*measured)]
        )
        if facts.reason:
            lines.append([span(" no decision point: ", self.dim), span(facts.reason, self.text)])
        elif facts.judged_only:
            lines.append([span(" nominated by another teacher", self.dim)])
        if self.broad:
            lines.append(self._objectives_in_line(facts, objective))
            self.first_child = len(lines) + 1
            return [*lines, *self._children_broad(facts, objective, child)]
        divergence = [span(" log T/P ", self.dim), span(signed(token.teacher_logprob - token.logprob), self.text)]
        lines += [[*self._number(facts), *divergence, *self._divergences(token)[:2]]]
        lines += [self._overlap(token, short=True), [*self._sureness(facts), *self._interval(facts)], []]
        lines += self._objectives(facts.objectives, objective)
        self.first_child = len(lines) + 2
        return [*lines, [], *self._children(facts.children, child), [], *self._gradients(facts, objective, child)]

    def _whole(self, *parts: list[Segment]) -> list[Segment]:
        """As many of `parts` as have room: half a number says something else."""
        line: list[Segment] = []
        for part in parts:
            blank = part[-1].text.isspace()
            if width_of(line) + width_of(part[:-1] if blank else part) > self.width:
                break
            line += part
        return line

    def _measured(self, facts: NodeFacts) -> list[list[Segment]]:
        values = (
            ("|S| ", str(facts.n_kept)),
            ("SR ", prob(facts.success_range)),
            ("V ", prob(facts.value)),
            ("Adv ", signed(facts.advantage)),
        )
        return [[span(f" {name}", self.dim), span(value, self.strong), span(" ")] for name, value in values]

    def _number(self, facts: NodeFacts) -> list[Segment]:
        return [span(f" node {facts.number}/{facts.n_nodes} ", self.dim)]

    def _sureness(self, facts: NodeFacts) -> list[Segment]:
        return [
            *(span(" P(+) ", self.dim), span(prob(facts.p_positive), self.strong)),
            *(span(" rel ", self.dim), span(prob(facts.reliability), self.strong)),
        ]

    def _interval(self, facts: NodeFacts) -> list[Segment]:
        """The interval of the alignment under the current objective, where there is one."""
        text = signed_interval(facts.low, facts.high)
        name = " align 95% " if self.width >= 40 else " in "
        return [span(name, self.dim), span(text, self.text)] if text else []

    def _objectives(self, objectives: Sequence[ObjectiveFacts], current: int) -> list[Spans]:
        room = self.width - 24
        lines: list[Spans] = [
            [ljust("   objective", room + 3, self.dim), rjust("align", 6, self.dim), rjust("gain ±se", 14, self.dim)]
        ]
        for place, one in enumerate(objectives):
            chosen = place == current
            lines.append(
                [
                    span("›" if chosen else " ", self.accent),
                    span(f"{place + 1 if place < 9 else ' '} ", self.dim),
                    ljust(one.label, room, self.strong if chosen else self.text),
                    rjust(self._alignment(one), 6, ink(self.palette.sign(one.alignment), bold=chosen)),
                    rjust(signed(one.gain, 3), 7, self.text),
                    span(" ±" if isfinite(one.gain_se) else "  ", self.dim),
                    ljust(prob_se(one.gain_se), 5, self.dim),
                ]
            )
        return lines

    def _objectives_in_line(self, facts: NodeFacts, current: int) -> Spans:
        spans: list[Segment] = []
        for place, one in enumerate(facts.objectives):
            chosen = place == current
            spans += [
                span(" ›" if chosen else "  ", self.accent),
                span(f"{place + 1} ", self.dim),
                span(f"{one.label} ", self.strong if chosen else self.dim),
                span(self._alignment(one), ink(self.palette.sign(one.alignment), bold=chosen)),
            ]
            if chosen:
                spans.append(span(signed_interval(facts.low, facts.high), self.dim))
                gain = f" gain {signed(one.gain, 3)}" + (f" ±{prob_se(one.gain_se)}" if isfinite(one.gain_se) else "")
                spans.append(span(gain, self.dim))
        return spans

    def _alignment(self, one: ObjectiveFacts) -> str:
        unsure = isfinite(one.gain_se) and not abs(one.gain) >= SURE * one.gain_se
        return signed(one.alignment) + ("?" if unsure else " ")

    def _children(self, children: Sequence[ChildFacts], current: int | None) -> list[Spans]:
        room = self.width - 31
        return [
            self._children_heading(room),
            *(self._child(child, room, place == current) for place, child in enumerate(children)),
        ]

    def _children_heading(self, room: int) -> list[Segment]:
        head = [ljust(" child", room + 1, self.dim), rjust("P", 5, self.dim), rjust("T", 5, self.dim)]
        return [*head, rjust("p_succ", 7, self.dim), ljust(" 95%", 8, self.dim), rjust("n", 5, self.dim)]

    def _child(self, child: ChildFacts, room: int, current: bool) -> list[Segment]:
        colours = self.palette.ink
        fill = colours.selected if current else None
        plain_ink = ink(colours.text if child.kept else colours.dim, fill)
        label = ink(colours.dim if child.kind == "rest" or not child.kept else colours.text, fill, bold=child.taken)
        return [
            span("›", ink(colours.accent, fill, bold=True)) if child.taken else span(" ", label),
            ljust(child.label, room, label),
            rjust(prob(child.p_student), 5, plain_ink),
            rjust(prob(child.p_teacher), 5, plain_ink),
            rjust(prob(child.p_succ), 5, ink(colours.text if child.kept else colours.dim, fill, bold=child.kept)),
            rjust(interval(child.low, child.high), 10, ink(colours.dim, fill)),
            rjust(effective(child.n), 5, plain_ink),
        ]

    def _gradients(self, facts: NodeFacts, objective: int, current: int | None) -> list[Spans]:
        room = self.width - 2 * (2 * HALF + 1 + 6) - 1
        name = facts.objectives[objective].label if objective < len(facts.objectives) else Safe("")
        column = 2 * HALF + 1 + 6
        lines: list[Spans] = [
            [ljust(" gradient", room + 1, self.dim), ljust("  ideal", column, self.dim), ljust(f"  {name}", column, self.dim)]
        ]
        limits = _limits(facts.children)
        for place, child in enumerate(facts.children):
            if not child.kept:
                continue
            fill = self.palette.ink.selected if place == current else None
            label = ink(self.palette.ink.text, fill, bold=child.taken)
            lines.append(
                [span(" ", label), ljust(child.label, room, label), *self._bars(child, limits, HALF, fill, numbers=True)]
            )
        return lines

    def _bars(
        self, child: ChildFacts, limits: tuple[float, float], half: int, fill: str | None, *, numbers: bool
    ) -> list[Segment]:
        spans: list[Segment] = []
        for value, limit in zip((child.ideal, child.update), limits, strict=True):
            shown = value if child.kept else float("nan")
            number = f"{signed(value):>5}" if numbers else ""
            spans.append(span(f"{diverging_bar(shown, limit, half)}{number} ", ink(self.palette.sign(shown), fill)))
        return spans

    def _children_broad(self, facts: NodeFacts, objective: int, current: int | None) -> list[Spans]:
        room = min(self.width - 31 - 2 * (2 * HALF + 2) - 2, 18)
        half = min((self.width - 31 - room - 6) // 4, 10)
        name = facts.objectives[objective].label if objective < len(facts.objectives) else Safe("")
        titles = [ljust("  ideal", 2 * half + 4, self.dim), ljust(name, 2 * half + 2, self.dim)]
        lines: list[Spans] = [[*self._children_heading(room), *titles]]
        limits = _limits(facts.children)
        for place, child in enumerate(facts.children):
            fill = self.palette.ink.selected if place == current else None
            bars = self._bars(child, limits, half, fill, numbers=False)
            lines.append([*self._child(child, room, place == current), span("  ", ink(fill=fill)), *bars])
        return lines


def tallest(width: int, n_objectives: int, n_children: int, n_candidates: int) -> int:
    """Lines that a node or a token may need at most."""
    if width >= BROAD:
        return max(4 + n_children, 6 + n_candidates)
    return max(10 + n_objectives + 2 * n_children, 12 + n_candidates)


def _limits(children: Sequence[ChildFacts]) -> tuple[float, float]:
    """The longest bar of either gradient: directions are compared, not lengths."""
    kept = [child for child in children if child.kept]
    ideal = max((abs(child.ideal) for child in kept if isfinite(child.ideal)), default=0.0)
    return ideal, max((abs(child.update) for child in kept if isfinite(child.update)), default=0.0)


def prob_se(value: float) -> str:
    """A standard error, three digits."""
    return signed(value, 3).lstrip("+")


def _exp(logprob: float) -> float:
    return exp(logprob) if isfinite(logprob) else float("nan")
