"""Colours, and what stands in for them.

A value becomes one of seven steps, so that neighbours merge into one stretch of colour. Diverging scales go from
orange (harms) over grey to blue (helps), which most colour-blind people tell apart; sequential ones from dark to
bright violet. A token without an estimate has no step and no background: grey is never a coloured zero. Every
step has a mark as well, so that 16 colours, NO_COLOR and print lose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from math import isfinite

from msgspec import Struct
from rich.style import Style

STEPS = 7
NEUTRAL = STEPS // 2


class Depth(Enum):
    """How many colours the terminal has."""

    TRUECOLOR = "truecolor"
    EIGHT_BIT = "256"
    STANDARD = "standard"
    NONE = "none"


class Scale(Struct, frozen=True):
    """The range of a metric. Diverging scales are symmetric around their middle step, which is zero but for probabilities."""

    low: float
    high: float
    diverging: bool
    names: Sequence[str] = ()  #: of categories, as safe text: values are their places, and so are steps

    @property
    def middle(self) -> float:
        """Between what harms and what helps."""
        return (self.low + self.high) / 2.0

    def step(self, value: float) -> int | None:
        """The step of `value`, 0 to 6; None where there is no value. Beyond the ends: the end."""
        if not isfinite(value) or self.high <= self.low:
            return None
        if self.names:
            return int(value)
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return min(int(share * STEPS), STEPS - 1)


def mark(step: int | None, diverging: bool) -> str:
    """The step as one character: `+`, `−` or `·`, or a bar as high as the value."""
    if step is None:
        return " "
    if diverging:
        return "·" if step == NEUTRAL else "+" if step > NEUTRAL else "−"
    return "▁▂▃▄▅▆▇"[step]


#: Marks of categories: the number of a teacher in the lists, letters beyond nine.
_NUMBERS = "123456789abcdefghijklmnopqrstuvwxyz"


def number(place: int) -> str:
    """The mark of a category, one character."""
    return _NUMBERS[place] if 0 <= place < len(_NUMBERS) else "*"


def marks(step: int | None, diverging: bool, width: int) -> str:
    """`mark` as often as the step is strong (one to three signs), in `width` cells."""
    strength = abs((step if step is not None else NEUTRAL) - NEUTRAL) if diverging else 1
    return (mark(step, diverging) * min(max(strength, 1), width)).ljust(width)


# Orange to blue, and dark to bright. White is legible on the dark ones and black on the light ones (tested: 4.5 to 1).
_DIVERGING = {
    (Depth.TRUECOLOR, True): ("#b8540a", "#8f4a18", "#63452f", "#484b52", "#2f4f70", "#235c98", "#1b6ac4"),
    (Depth.TRUECOLOR, False): ("#e08a3c", "#f0b276", "#f7d9b8", "#e3e3e6", "#cadff5", "#92c0ee", "#5b9fe0"),
    (Depth.EIGHT_BIT, True): ("#af5f00", "#875f00", "#5f5f00", "#4e4e4e", "#005f87", "#005faf", "#005fd7"),
    (Depth.EIGHT_BIT, False): ("#ff8700", "#ffaf5f", "#ffd7af", "#dadada", "#afd7ff", "#87afff", "#5f87ff"),
}
_SEQUENTIAL = {
    (Depth.TRUECOLOR, True): ("#2b2b3b", "#393463", "#48408a", "#5a4ca8", "#6d57c2", "#8061d8", "#8f6ae8"),
    (Depth.TRUECOLOR, False): ("#f1eff9", "#e2dcf5", "#d0c6f0", "#beb0ea", "#ac9ae4", "#9a86dd", "#8b74d4"),
    (Depth.EIGHT_BIT, True): ("#262626", "#3a3a3a", "#4e4e4e", "#5f5f87", "#5f5faf", "#875fd7", "#af87ff"),
    (Depth.EIGHT_BIT, False): ("#eeeeee", "#d7d7ff", "#d7afff", "#afafff", "#af87ff", "#8787ff", "#875fff"),
}
# The sixteen colours as Rich's table has them, so that nothing is rounded to another of them.
_STANDARD_DIVERGING = ("#aa5500", "#aa5500", "#555555", "#555555", "#555555", "#0000aa", "#0000aa")
_STANDARD_SEQUENTIAL = ("#000000", "#000000", "#555555", "#555555", "#aa00aa", "#aa00aa", "#aa00aa")
#: Categories: eight colours that colour-blind people tell apart (Okabe and Ito); beyond eight they come again, numbers do not.
_CATEGORIES = {
    Depth.TRUECOLOR: ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d9650a", "#f0e442", "#999999"),
    Depth.EIGHT_BIT: ("#005faf", "#d7af00", "#00af87", "#d787af", "#5fafff", "#d7875f", "#ffff5f", "#9e9e9e"),
    Depth.STANDARD: ("#0000aa", "#aa5500", "#00aa00", "#aa00aa", "#00aaaa", "#aa0000", "#aaaaaa", "#555555"),
}
#: Ink of a hollow token: the sign is uncertain, so the colour is on the letters and not behind them.
_HOLLOW = {True: ("#e09a5c", "#9aa0a8", "#7fb2ea"), False: ("#9c4f0c", "#6b6f76", "#1f5fa8")}


class Ink(Struct, frozen=True):
    """Colours of everything that is not a value."""

    text: str
    dim: str
    faint: str
    accent: str
    good: str
    bad: str
    escape: str
    cursor_text: str
    cursor: str
    selected: str


_INK = {
    True: Ink("#d9dce1", "#8a9099", "#5c626b", "#8ab4f0", "#7fb2ea", "#e09a5c", "#c58af0", "#101216", "#f2f4f7", "#2a3442"),
    False: Ink("#1d2025", "#646a73", "#9aa0a8", "#1f5fa8", "#1f5fa8", "#9c4f0c", "#7a34b0", "#f7f8fa", "#14161a", "#dbe6f3"),
}


class Palette(Struct, frozen=True):
    """All styles of one look: what the terminal can show, on a dark or a light ground."""

    depth: Depth
    dark: bool

    @property
    def ink(self) -> Ink:
        """Colours of everything that is not a value."""
        return _INK[self.dark]

    @property
    def needs_marks(self) -> bool:
        """Whether colours alone cannot tell the seven steps apart here."""
        return self.depth in (Depth.STANDARD, Depth.NONE)

    def fills(self, diverging: bool) -> tuple[str, ...]:
        """Background colours of the seven steps; none where there is no colour."""
        if self.depth is Depth.NONE:
            return ()
        if self.depth is Depth.STANDARD:
            return _STANDARD_DIVERGING if diverging else _STANDARD_SEQUENTIAL
        return (_DIVERGING if diverging else _SEQUENTIAL)[self.depth, self.dark]

    def value(self, step: int | None, diverging: bool, hollow: bool = False) -> Style:
        """How a token with this step is drawn. `hollow`: its sign is uncertain."""
        return _value_style(self.depth, self.dark, step, diverging, hollow)

    def line(self, step: int, diverging: bool) -> str:
        """Ink of a bar with this step, on the pane's own ground."""
        if self.depth is Depth.NONE:
            return self.ink.text
        if not diverging:
            return self.ink.escape
        return _HOLLOW[self.dark][(step > NEUTRAL) - (step < NEUTRAL) + 1]

    def category(self, place: int) -> Style:
        """How a token of this category is drawn; without colours only its mark tells."""
        return _category_style(self.depth, self.dark, place)

    def category_line(self, place: int) -> str:
        """Ink of this category's mark on the pane's own ground: plain where there is no room for legible colours."""
        if self.needs_marks or not self.dark:
            return self.ink.text
        found = _CATEGORIES[self.depth][place % 8]
        return found if contrast(found, "#101216") >= 4.5 else self.ink.accent

    def sign(self, value: float) -> str:
        """Ink for a number that helps or harms."""
        if not isfinite(value) or self.depth is Depth.NONE:
            return self.ink.dim
        return self.ink.good if value > 0 else self.ink.bad if value < 0 else self.ink.text


@lru_cache(maxsize=256)
def _value_style(depth: Depth, dark: bool, step: int | None, diverging: bool, hollow: bool) -> Style:
    ink = _INK[dark]
    if step is None:
        return Style(color=ink.dim)
    if depth is Depth.NONE:
        return Style(color=ink.text, underline=hollow, bold=not hollow)
    if hollow and diverging:
        return Style(color=_HOLLOW[dark][(step > NEUTRAL) - (step < NEUTRAL) + 1], underline=True)
    fill = Palette(depth, dark).fills(diverging)[step]
    return Style(color=letters_on(fill), bgcolor=fill)


@lru_cache(maxsize=128)
def _category_style(depth: Depth, dark: bool, place: int) -> Style:
    if depth is Depth.NONE:
        return Style(color=_INK[dark].text, bold=True)
    fill = _CATEGORIES[depth][place % 8]
    return Style(color=letters_on(fill), bgcolor=fill)


def letters_on(fill: str) -> str:
    """Black or white, whichever is more legible on `fill`."""
    return "#ffffff" if contrast("#ffffff", fill) >= contrast("#101216", fill) else "#101216"


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two colours."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def depth_of(color_system: str | None, no_color: bool) -> Depth:
    """The depth of a Rich console's `color_system`."""
    if no_color or color_system is None:
        return Depth.NONE
    return {"truecolor": Depth.TRUECOLOR, "256": Depth.EIGHT_BIT}.get(color_system, Depth.STANDARD)
