"""What stands in a window that is too small for anything else."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

#: Columns and lines below which the panes would only be in each other's way.
LEAST = Size(40, 10)


class TooSmall(ModalScreen[None]):
    """One sentence over whatever is there; it goes when the window grows."""

    def compose(self) -> ComposeResult:
        """The sentence."""
        yield Static(
            Content(f"opd-tui needs a window of {LEAST.width} columns and {LEAST.height} lines, or more."), id="too-small"
        )


def is_too_small(size: Size) -> bool:
    """Whether a window of this size shows the sentence."""
    return size.width < LEAST.width or size.height < LEAST.height
