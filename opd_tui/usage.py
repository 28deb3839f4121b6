"""Words on the command line that do not go together, where that shows only behind the command itself."""

from __future__ import annotations

from store.errors import StoreError


class WrongUsage(StoreError):
    """One sentence that says which words are wrong, and what to type instead; the command ends with exit code 2."""
