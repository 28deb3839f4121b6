"""Where the cursor goes next: to nodes, to the worst and best of a metric, to changes of sign. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import isfinite

from opd_tui.colouring import Colouring


def next_of(places: Sequence[int], token: int, step: int) -> int | None:
    """The next of the rising `places` after `token` (before it, where `step` is negative)."""
    if step > 0:
        place = bisect_right(places, token)
        return places[place] if place < len(places) else None
    place = bisect_left(places, token) - 1
    return places[place] if place >= 0 else None


def ranked(colouring: Colouring, worst_is_low: bool) -> list[int]:
    """Tokens that have a value, from the worst to the best."""
    if colouring.scale.names:  # names have no order
        return []
    there = [token for token, value in enumerate(colouring.values) if isfinite(value)]
    return sorted(there, key=lambda token: (colouring.values[token] if worst_is_low else -colouring.values[token], token))


def next_ranked(order: Sequence[int], walking_at: int | None, step: int, here: int | None = None) -> int | None:
    """The next one in the order from worst to best.

    A walk begins at its end: at the worst, or at the best for a step back; who is `here` already goes on from there.
    """
    if not order:
        return None
    if walking_at is None or walking_at not in order:
        end = order[0] if step > 0 else order[-1]
        if end != here:
            return end
        walking_at = end
    place = order.index(walking_at) + step
    return order[place] if 0 <= place < len(order) else None


def end_of_ranking(colouring: Colouring, step: int, noun: str) -> str:
    """Why there is no further step, in a sentence."""
    if not any(map(isfinite, colouring.values)):
        return f"no {noun} here has an estimate to be ranked by"
    if colouring.scale.names:
        return "names have no order: there is no worst and no best"
    most, more = ("best", "better") if step > 0 else ("worst", "worse")
    return f"the {most} {noun} of this rollout: none is {more}; / searches all rollouts"


def sign_flips(colouring: Colouring) -> list[int]:
    """Tokens whose value has another sign than the value before, values of uncertain sign left out."""
    flips: list[int] = []
    before = 0.0
    for token, value in enumerate(colouring.values):
        sign = value - colouring.scale.middle if isfinite(value) else 0.0
        if sign == 0 or token in colouring.uncertain:
            continue
        if before * sign < 0:
            flips.append(token)
        before = sign
    return flips
