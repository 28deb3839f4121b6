"""Folders of the user for settings, state and copies (the XDG base directories)."""

from __future__ import annotations

import os
from pathlib import Path


def config_folder() -> Path:
    """For what people write."""
    return _folder("XDG_CONFIG_HOME", ".config")


def state_folder() -> Path:
    """For what is remembered from one run to the next."""
    return _folder("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """For what may be thrown away."""
    return _folder("XDG_CACHE_HOME", ".cache")


def _folder(variable: str, beside: str) -> Path:
    named = os.environ.get(variable, "")
    home = Path(named) if os.path.isabs(named) else Path.home() / beside  # a relative one is to be ignored, says XDG
    return home / "opd-tui"
