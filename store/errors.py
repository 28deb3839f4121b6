"""What can go wrong with a store."""

from __future__ import annotations


class StoreError(Exception):
    """One sentence that says what is wrong with a store, where, and what to do about it."""


class Unreachable(StoreError):
    """A place does not answer or may not be read: that says nothing of whether the store is damaged."""


class IsThere(StoreError):
    """What was to be published is there already: another process was first, or a name was used twice."""
