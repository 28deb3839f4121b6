"""What is installed only with an extra."""

from __future__ import annotations

import importlib.util

from store.errors import StoreError


def require(module: str, extra: str, subject: str, *, besides: str = "") -> None:
    """Raise StoreError, naming the extra, where `module` is not installed. Nothing is imported.

    `subject` begins the sentence ("PNG needs"), `besides` says what can be had without.
    """
    try:
        there = importlib.util.find_spec(module) is not None
    except ImportError:
        there = False
    if not there:
        more = f" {besides}" if besides else ""
        raise StoreError(f"{subject} the extra [{extra}]; install it: pip install 'opd-tui[{extra}]'.{more}")
