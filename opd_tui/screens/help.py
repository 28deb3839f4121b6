"""Help: every key of the screen and of its panes, made from their bindings; and how to read the colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.dom import DOMNode

from opd_tui.metrics import METRICS
from opd_tui.palette import NEUTRAL, STEPS, Palette, mark
from opd_tui.screens.groups import HEADINGS
from opd_tui.screens.reader import SheetScreen
from opd_tui.text import Safe, fold, paragraphs
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

A node is a position where completions were launched for several tokens that might have come, its children; › marks \
the one that did.

Alignment is the cosine of the teacher's update with the gradient of success: a diagnostic of one position, not a \
forecast of a training run."""

#: Every abbreviation on the screens, and what is behind it.
WORDS = (
    ("P, T", "probability of a token under the student, and under the teacher that is looked through"),
    ("p_succ", "share of the student's completions that end correct after this child"),
    ("95%", "the interval that p_succ lies in with this probability; behind rel or align: that the alignment lies in"),
    (
        "backed up",
        "The child that the rollout took has the success of the next node: the sum of P times p_succ over the children there, "
        "and so on down the path. So completions launched later count for it, each with the probability of getting there, and "
        "its interval is as wide as that sum is uncertain.",
    ),
    (
        "n",
        "completions that count here, by their weights: fewer than were drawn where they weigh unequally, more where later ones "
        "are backed up; ∞ where the outcome is certain. It decides which children are supported, and knows nothing of outcomes. "
        "The interval does: backed up through children that almost always, or never, end correct, it is narrower or wider than n "
        "by itself would say. Go by the interval.",
    ),
    ("the rest", "all tokens that are no candidates, as one child; its completions draw the token from P among them"),
    ("|S|", "size of the support: children with enough completions to be scored; a node needs two of them"),
    (
        "|S| 2",
        "With two children one can only be raised against the other, so both gradients point along one line: the cosine is "
        "+1 or −1 (nearly, where other tokens take part) and tells the direction, not how much it matters. That is in "
        "SR, Adv and gain.",
    ),
    ("SR", "success-rate range: largest p_succ in the support less the smallest; 0 is no decision point"),
    ("V", "the student's probability of success at this node: the sum of P times p_succ over all children"),
    ("Adv", "advantage: success that choosing by T and not by P among the supported children would add"),
    ("align", "alignment, from −1 (harms) to +1 (helps); ? behind it: the sign is uncertain"),
    ("gain ±se", "first-order gain in success per unit of the update, and its standard error; noise does not bias it"),
    ("P(+)", "P(alignment > 0), by what the study as a whole teaches of its nodes"),
    ("rel", "reliability: the cosine to expect between the gradient as estimated and the true one"),
    ("ideal", "the gradient of success: P times (p_succ − V) for every child; beside it the teacher's update"),
    ("log T/P", "how much likelier the teacher holds the token that was taken, in nat"),
    ("KL, JS", "divergences of P and T over the whole vocabulary: KL(P‖T), KL(T‖P), Jensen-Shannon"),
    ("overlap", "share of the student's likeliest tokens that are among the teacher's"),
    ("ΔH", "entropy of the teacher less that of the student: below 0 the teacher is the more decided one"),
    ("pass", "rollouts of the question that were correct, of all that were sampled"),
    ("worst", "lowest alignment of a node of the question"),
    ("mean", "over questions, with its 95 % interval (none below six questions); ✓ ✗ over correct, incorrect rollouts"),
    ("null", "a teacher that knows nothing of the answer: what it earns, noise or sharpening earns"),
    ("late", "a teacher added later, judged only where others nominated"),
    ("points", "decision points: the nodes that have a score, with two supported children or more and SR above 0"),
    ("q", "questions that a mark of a chart rests on"),
    ("412+", "tokens of a rollout that was cut off at the length limit, and counts as a failure"),
    (
        "support",
        "S: how tokens outside of the support take part. sliced: P, T and V over the whole vocabulary, both gradients cut to "
        "the support; renormalised: P and T made to sum to one there; lumped: sliced, and one coordinate more for all others",
    ),
)

#: Panes that are called otherwise than in code.
PANES = {"left-tokens": "tokens of a side", "right-tokens": "tokens of a side", "node": "node pane", "sheet": "text"}

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
            found.append((f"in the {PANES.get(pane.id or '', pane.id or type(pane).__name__.lower())}", lines))
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

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark", "dismiss", "back")]

    def __init__(self, palette: Palette, keys: Sequence[Section]) -> None:
        super().__init__("help: keys, colours, words, metrics", palette)
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
        found += self._table("words and signs", WORDS, 12)
        return [*found, *self._table("metrics", [(metric.label, metric.meaning) for metric in METRICS], 26)]

    def _table(self, title: str, rows: Sequence[tuple[str, str]], width: int) -> Iterator[Spans]:
        """Names of `width` cells, and what is to be said of each beside it."""
        colours = self.palette.ink
        head, text, dim = ink(colours.accent, bold=True), ink(colours.text), ink(colours.dim)
        yield []
        yield [span(title, head)]
        for name, meaning in rows:
            first, *others = fold(Safe(meaning), self.width - width - 1)
            yield [ljust(f"  {name}", width, text), span(first, dim)]
            yield from ([span(" " * width), span(line, dim)] for line in others)


def help_of(app: App[None], screen: DOMNode, panes: Iterable[DOMNode], palette: Palette) -> Help:
    """The help of a screen with its panes; the keys of the app are the screen's as well."""
    found = sections(screen, panes)
    more = (*_lines(_own_bindings(app)), ("ctrl+p", "all commands"))
    headings = [title for title, _ in found if title in HEADINGS]
    if HEADINGS[-1] in headings:
        place = headings.index(HEADINGS[-1])
        found[place] = (HEADINGS[-1], (*found[place][1], *more))
    else:
        found.insert(len(headings), (HEADINGS[-1], more))
    return Help(palette, found)
