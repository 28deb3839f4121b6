"""Bars and sparklines from block characters, for signed and unsigned numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

LEVELS = "▁▂▃▄▅▆▇█"
AXIS = "│"
NO_VALUE = "·"


def diverging_bar(value: float, limit: float, half: int) -> str:
    """A bar from an axis in the middle: to the right where positive, else to the left. 2 half + 1 cells, in half cells."""
    if not isfinite(value) or limit <= 0:
        return " " * half + AXIS + " " * half
    halves = min(round(abs(value) / limit * half * 2), half * 2)
    whole, rest = divmod(halves, 2)
    if value >= 0:
        return " " * half + AXIS + ("█" * whole + "▌" * rest).ljust(half)
    return ("▐" * rest + "█" * whole).rjust(half) + AXIS + " " * half


def level(value: float, low: float, high: float) -> str:
    """One value as a bar of one cell; a dot where there is none."""
    if not isfinite(value) or high <= low:
        return NO_VALUE
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return LEVELS[min(int(share * len(LEVELS)), len(LEVELS) - 1)]


def bins(values: Sequence[float], width: int) -> list[list[int]]:
    """Which of `values` (those that are numbers) fall in each of `width` equal stretches."""
    found: list[list[int]] = [[] for _ in range(width)]
    for place, value in enumerate(values):
        if isfinite(value):
            found[min(place * width // len(values), width - 1)].append(place)
    return found
