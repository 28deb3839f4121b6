"""Counts in sentences, for whoever says some."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """So many of something: "1 row", "2,000 rows"."""
    return f"{n:,} {noun}{'s' if n != 1 else ''}"


def are(n: int) -> str:
    """The verb that goes with so many."""
    return "are" if n != 1 else "is"
