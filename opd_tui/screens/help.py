"""Help: every key of the screen and of its panes, made from their bindings; and how to read the colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode

from opd_tui.metrics import METRICS
from opd_tui.palette import NEUTRAL, STEPS, Palette, mark
from opd_tui.screens.groups import HEADINGS
from opd_tui.screens.reader import SheetScreen
from opd_tui.text import fold, paragraphs
from opd_tui.widgets.lines import Spans, ink, ljust, span

#: Keys as people write them.
NAMES = {
    "right_square_bracket": "]", "left_square_bracket": "[", "question_mark": "?", "apostrophe": "'", "slash": "/", "colon": ":",
    "left": "←", "right": "→", "up": "↑", "down": "↓", "escape": "esc",
}  # fmt: skip
#: A key of a list that is too long to be told one by one.
OBJECTIVES = "objective("

READING = """\
A token is coloured where there is an estimate. No colour is no estimate, never a zero. Letters without a fill: the \
sign is uncertain, P(alignment > 0) lies between .05 and .95 (where the study is too small to say it, or not read \
yet: the gain lies within 1.96 standard errors of zero). Beside every colour stands a number, in the \
legend and in the node pane.

A node is a position where completions were launched for several tokens that might have come; › marks the one that \
did. P and T are its probability under student and teacher, p_succ the share of completions that end correct, n how \
many count. |S| children have enough of them, SR is the range of their p_succ, V the student's success from here, \
Adv what the teacher's choice among them would add. P(+) is P(alignment > 0), rel the reliability \
of the gradient, ΔH the teacher's entropy minus the student's.

Alignment is the cosine of the teacher's update with the gradient of success: a diagnostic of one position, not a \
forecast of a training run. The support (S) says how tokens that are no kept children take part: sliced, renormalised or \
lumped; all that is derived from alignment follows."""

Section = tuple[str, tuple[tuple[str, str], ...]]


def key_name(key: str) -> str:
    """`right_square_bracket` as `]`."""
    return "+".join(NAMES.get(part, part) for part in key.split("+")) if len(key) > 1 else key


def sections(screen: DOMNode, panes: Iterable[DOMNode]) -> list[Section]:
    """Every key of `screen` under its heading, then those of each pane. Keys that do the same share a line."""
    found: list[Section] = []
    own = _own_bindings(screen)
    for heading in HEADINGS:
        there = [one for one in own if (one.group.description if one.group else HEADINGS[-1]) == heading]
        if there:
            found.append((heading, _lines(there)))
    seen: set[tuple[tuple[str, str], ...]] = set()
    for pane in panes:
        lines = _lines(_own_bindings(pane))
        if lines and lines not in seen:
            seen.add(lines)
            found.append((f"in {pane.id or type(pane).__name__.lower()}", lines))
    return found


def _own_bindings(node: DOMNode) -> list[Binding]:
    """Bindings that our own classes declare; of a key the one that holds, which is that of the most special class."""
    holds: dict[str, Binding] = {}
    for kind in type(node).__mro__:
        if kind.__module__.startswith("opd_tui."):
            for one in Binding.make_bindings(vars(kind).get("BINDINGS", ())):
                holds.setdefault(one.key, one)
    return list(holds.values())


def _lines(bindings: Sequence[Binding]) -> tuple[tuple[str, str], ...]:
    keys: dict[tuple[str, str], list[str]] = {}
    for one in bindings:
        what = (OBJECTIVES, "objective of that number") if one.action.startswith(OBJECTIVES) else (one.action, one.description)
        keys.setdefault(what, []).append(key_name(one.key))
    return tuple((" ".join(names), does) for (_, does), names in keys.items())


class Help(SheetScreen):
    """The keys and the colours."""

    def __init__(self, palette: Palette, keys: Sequence[Section]) -> None:
        super().__init__("help", palette)
        self.keys = keys

    def lines(self) -> Sequence[Spans]:
        """Keys in groups, then the scales, then the metrics."""
        colours = self.palette.ink
        head, text, dim = ink(colours.accent, bold=True), ink(colours.text), ink(colours.dim)
        found: list[Spans] = []
        for title, keys in self.keys:
            found.append([span(title, head)])
            found += [[ljust(f"  {key}", 22, text), span(does, dim)] for key, does in keys]
            found.append([])
        found.append([span("how to read it", head)])
        for diverging, low, high in ((True, "harms", "helps"), (False, "low", "high")):
            steps = [span(f" {mark(step, diverging)} ", self.palette.value(step, diverging)) for step in range(STEPS)]
            found.append([span(f"  {low} ", dim), *steps, span(f" {high}", dim)])
        hollow = [
            span(name, self.palette.value(step, diverging=True, hollow=True))
            for name, step in (("harms", 0), ("helps", STEPS - 1))
        ]
        none = span("no estimate", self.palette.value(None, diverging=True))
        neutral = span(" near zero ", self.palette.value(NEUTRAL, diverging=True))
        found.append([span("  "), hollow[0], span(" "), hollow[1], span(" sign uncertain   ", dim), neutral, span("  "), none])
        found += [[span(f"  {line}", dim)] for text_line in paragraphs(READING) for line in fold(text_line, self.width - 3)]
        found.append([])
        found.append([span("metrics", head)])
        for metric in METRICS:
            first, *others = fold(metric.meaning, self.width - 26)  # type: ignore[arg-type]
            found.append([ljust(f"  {metric.label}", 26, text), span(first, dim)])
            found += [[span(" " * 26), span(line, dim)] for line in others]
        return found


def help_of(app: App[None], screen: DOMNode, panes: Iterable[DOMNode], palette: Palette) -> Help:
    """The help of a screen with its panes; the keys of the app are the screen's as well."""
    found = sections(screen, panes)
    more = (*_lines(_own_bindings(app)), ("ctrl+p", "all commands"))
    if found and found[-1][0] == HEADINGS[-1]:
        found[-1] = (HEADINGS[-1], (*found[-1][1], *more))
    else:
        headings = sum(title in HEADINGS for title, _ in found)
        found.insert(headings, (HEADINGS[-1], more))
    return Help(palette, found)
