"""What is on the screen until the store is open."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from opd_tui.text import safe


class Opening(Screen[None]):
    """One line, so that the first paint waits for nothing."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        """Which store."""
        yield Static(Content(f" opening {safe(self._path)} …"))
