"""Screens that Browse opens over itself and that come back to it: Compare and Charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from opd_tui.loader import Answer, Loader
from opd_tui.palette import Palette
from opd_tui.place import Place
from opd_tui.screens.groups import READ
from opd_tui.session import Session
from opd_tui.text import Safe, safe
from opd_tui.widgets.lines import Lines
from opd_tui.widgets.strips import Bar, Hint, Keys

NOTHING = Safe("")


class Guest(Screen[Place | None]):
    """A screen with a header and a line of keys, around the session of Browse. Its result: where Browse is to go."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "help", group=READ),
        Binding("escape", "back", "back to Browse", group=READ),
        Binding("q", "app.quit", "quit", group=READ),
    ]

    def __init__(self, loader: Loader, palette: Palette, session: Session) -> None:
        super().__init__()
        self.loader, self.palette, self.session = loader, palette, session
        self.header, self.keys = Bar(id="header"), Keys(id="keys")

    @property
    def settled(self) -> bool:
        """Whether everything that was asked for is there. For pictures and tests."""
        return True

    @property
    def hints(self) -> Sequence[Hint]:
        """The keys that matter here."""
        raise NotImplementedError  # as in `Lines.spans`

    def receive(self, answer: Answer) -> None:
        """Take in what the loader found; what is for others is left alone."""
        raise NotImplementedError  # as in `Lines.spans`

    def draw(self) -> None:
        """Show everything."""
        raise NotImplementedError  # as in `Lines.spans`

    def use(self, palette: Palette) -> None:
        """Draw everything in another palette."""
        self.palette = palette
        for widget in self.query(Lines):
            widget.use(palette)
        self.keys.hints(self.hints)
        self.draw()

    def say(self, sentence: str) -> None:
        """Tell something in the last line, until the next key."""
        self.keys.say(safe(sentence))

    def on_mount(self) -> None:
        """The picture before anything is there."""
        self.use(self.palette)

    def heard(self) -> None:
        """A key was pressed: what was said has been read."""
        if self.keys.sentence is not None:
            self.keys.hints(self.hints)

    def action_help(self) -> None:
        """All keys."""
        from opd_tui.screens.help import help_of

        panes = [pane for pane in self.query(Lines) if pane.can_focus]
        self.app.push_screen(help_of(self.app, self, panes, self.palette))

    def action_back(self) -> None:
        """To where Browse was."""
        self.dismiss(None)

    def commands(self) -> Iterable[SystemCommand]:
        """What the command palette offers."""
        for binding in type(self).BINDINGS:
            if isinstance(binding, Binding) and "objective" not in binding.action:
                yield SystemCommand(
                    binding.description, f"key {binding.key}", lambda action=binding.action: self.run_action(action)
                )


def entitle(widget: Widget, title: Safe, subtitle: Safe = NOTHING) -> None:
    """Put titles, which are no markup, on the border of `widget`; new ones draw all of it again."""
    if widget.border_title != Content(title).markup:
        widget.border_title = Content(title)
    if (widget.border_subtitle or "") != Content(subtitle).markup:
        widget.border_subtitle = Content(subtitle)
