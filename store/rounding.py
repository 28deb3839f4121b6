"""Fewer bits of a number where they are not needed, so that it packs better."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rounded(values: NDArray[np.floating[Any]], bits: int) -> NDArray[np.floating[Any]]:
    """Values rounded to `bits` stored bits of mantissa, half to even: a relative error of at most 2^-(bits + 1).

    Type and shape stay. Zero, infinity and NaN stay what they are; what rounds above the largest finite number becomes
    infinite. Subnormal numbers keep as many bits behind their point as the least normal one does.
    """
    values = np.ascontiguousarray(values)
    info = np.finfo(values.dtype)
    spare = info.nmant - bits
    if spare <= 0:
        return values
    whole = values.view(f"u{values.dtype.itemsize}")
    one = whole.dtype.type(1)
    last = whole >> whole.dtype.type(spare) & one
    # Adding carries into the exponent where the mantissa is full, which is the next power of two: what rounding means.
    up = (whole + (one << whole.dtype.type(spare - 1)) - one + last) >> whole.dtype.type(spare) << whole.dtype.type(spare)
    return np.where(np.isfinite(values), up.view(values.dtype), values)


def next_lower(values: NDArray[np.floating[Any]], bits: int) -> NDArray[np.floating[Any]]:
    """The next lower number of `bits` stored bits of mantissa below each of `values`, which are rounded to as many."""
    values = np.ascontiguousarray(values)
    whole = values.view(f"u{values.dtype.itemsize}")
    step = whole.dtype.type(1 << np.finfo(values.dtype).nmant - bits)
    least = np.copysign(step.view(values.dtype), -1)  # below zero, whichever sign that has
    lower: NDArray[np.floating[Any]] = np.where(np.signbit(values), whole + step, whole - step).view(values.dtype)
    return np.where(values == 0, least, lower)
