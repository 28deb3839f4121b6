"""Numbers as people read them in narrow columns: no leading zero, a true minus, a dash where there is none."""

from __future__ import annotations

from math import isfinite

NONE = "–"


def signed(value: float, digits: int = 2) -> str:
    """`+.31`, `−.62`, `+1.0`, `.00`: as many cells for any value within ±10, two more than digits."""
    if not isfinite(value):
        return NONE
    text = _short(abs(value), digits)
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def prob(value: float) -> str:
    """`.41`, `1.0`, `<.01`: a share between 0 and 1."""
    if not isfinite(value):
        return NONE
    if 0 < value < 0.005:
        return "<.01"
    return _short(value, 2)


def plain(value: float, digits: int = 2) -> str:
    """A number that may be of any size."""
    if not isfinite(value):
        return NONE
    size = abs(value)
    if size >= 10_000 or 0 < size < 0.5 * 10**-digits:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"{value:.{max(digits - (size >= 10) - (size >= 100), 0)}f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """`[.57,.93]`, nothing where there is none."""
    return f"[{_short(low, 2)},{_short(high, 2)}]" if isfinite(low) and isfinite(high) else ""


def signed_interval(low: float, high: float) -> str:
    """`[+.05,+.19]`, nothing where there is none."""
    return f"[{signed(low)},{signed(high)}]" if isfinite(low) and isfinite(high) else ""


def count(value: int) -> str:
    """`12 345` as `12,345`."""
    return f"{value:,}"


def effective(n: float) -> str:
    """An effective count in at most four cells: `40`, `1.2k`, `12k`, `>1M`; `∞` where the outcome is exact."""
    if not isfinite(n):
        return "∞" if n > 0 else ""
    if n < 999.5:
        return f"{n:.0f}"
    thousands = n / 1000.0
    return f"{thousands:.1f}k" if thousands < 9.95 else f"{thousands:.0f}k" if thousands < 999.5 else ">1M"


def _short(size: float, digits: int) -> str:
    """`.41` and, in as many cells, `1.0`: a digit in front of the point costs one behind it."""
    text = f"{size:.{digits}f}"
    return text[1:] if text.startswith("0.") else f"{size:.{max(digits - len(text.split('.', maxsplit=1)[0]), 0)}f}"
