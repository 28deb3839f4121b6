"""Help: every key, and how to read the colours."""

from __future__ import annotations

from collections.abc import Sequence

from opd_tui.metrics import METRICS
from opd_tui.palette import NEUTRAL, STEPS, Palette, mark
from opd_tui.screens.reader import SheetScreen
from opd_tui.text import fold, paragraphs
from opd_tui.widgets.lines import Spans, ink, ljust, span

#: Keys as people write them, and what they do, in groups.
KEYS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("move", (
        ("← → ↑ ↓   h l k j", "by token and by line; in a list by row"),
        ("home end pgup pgdn", "to the ends, by a window"),
        ("n  N", "next, previous node"),
        ("]  [", "next worst, next best token of the metric"),
        ("w  W", "next, previous change of sign"),
        ("r  R", "next, previous rollout of the question"),
        ("tab  shift+tab", "next, previous pane; L opens or closes the lists"),
        ("enter", "open a row; on a child of a node: read its completions"),
    )),
    ("find", (
        ("/", "filter: an expression, or a text after a quote"),
        ("f  F", "next, previous match; esc ends the filter"),
        (":", "go to QUESTION/ROLLOUT/TOKEN, or a part"),
    )),
    ("colour", (
        ("m  M", "next, previous metric"),
        ("t  T", "next, previous teacher"),
        ("1 … 9", "objective"),
        ("u", "marks under the tokens"),
        ("v", "glyphs for whitespace"),
    )),
    ("compare", (
        ("c", "beside the nearest rollout of opposite outcome"),
        ("tab", "there: the other side"),
        ("r  R   e  E", "next, previous rollout on the right; on the left"),
        ("o", "the nearest of opposite outcome again"),
        ("L", "sides move by token, by node, or freely"),
        ("f", "both to the fork"),
        ("enter   esc", "open this place in Browse; go back"),
    )),
    ("charts", (
        ("g", "the whole study on plots"),
        ("g  G   tab   ← →", "there: next, previous chart"),
        ("↑ ↓", "along the marks"),
        ("enter", "the nodes behind a mark; on a node: its tokens"),
        ("esc", "from nodes to marks, from marks to Browse"),
    )),
    ("read", (
        ("p", "both prompts and the reference answer"),
        ("s", "sort by study order, success, alignment, name"),
        ("?", "this help"),
        ("ctrl+p", "all commands"),
        ("esc", "back"),
        ("q", "quit"),
    )),
)  # fmt: skip

READING = """\
A token is coloured where there is an estimate. No colour is no estimate, never a zero. Letters without a fill: the \
sign is uncertain, P(alignment > 0) lies between .05 and .95 (where the study is too small to say it, or not read \
yet: the gain lies within 1.96 standard errors of zero). Beside every colour stands a number, in the \
legend and in the node pane.

A node is a position where completions were launched for several tokens that might have come; › marks the one that \
did. P and T are its probability under student and teacher, p_succ the share of completions that end correct, n how \
many count. |S| children have enough of them, SR is the range of their p_succ, V the student's success from here, \
Adv what the teacher's choice among them would add.

Alignment is the cosine of the teacher's update with the gradient of success: a diagnostic of one position, not a \
forecast of a training run."""


class Help(SheetScreen):
    """The keys and the colours."""

    def __init__(self, palette: Palette) -> None:
        super().__init__("help", palette)

    def lines(self) -> Sequence[Spans]:
        """Keys in groups, then the scales, then the metrics."""
        colours = self.palette.ink
        head, text, dim = ink(colours.accent, bold=True), ink(colours.text), ink(colours.dim)
        found: list[Spans] = []
        for title, keys in KEYS:
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
        found += [[ljust(f"  {metric.label}", 22, text), span(metric.meaning, dim)] for metric in METRICS]
        return found
