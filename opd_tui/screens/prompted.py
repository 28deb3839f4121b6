"""Modals with one line to type in."""

from __future__ import annotations

import re
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input

from opd_tui.palette import Palette
from opd_tui.widgets.lines import Lines

#: What a line may not hold, however it comes there: what a terminal obeys, and what cannot be seen.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class Line(Input):
    """A line to type in; its text is never read as markup."""

    def __init__(self, value: str, placeholder: str, suggester: Suggester | None = None, *, id: str | None = None) -> None:
        super().__init__(value, placeholder, suggester=suggester, id=id)

    def validate_value(self, value: str) -> str:
        """What is left of a text that is typed, pasted or set."""
        return _FORBIDDEN.sub("", value)


class Prompted(ModalScreen[None]):
    """A modal over Browse. Esc goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back")]

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self.palette = palette

    def on_mount(self) -> None:
        """The keys go to the line."""
        for widget in self.query(Lines):
            widget.use(self.palette)
        self.query_one(Line).focus()

    def action_leave(self) -> None:
        """Back to where one was."""
        self.dismiss()
