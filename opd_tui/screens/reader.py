"""Texts to be read: prompts, completions of a child."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import ModalScreen

from opd_tui.palette import Palette
from opd_tui.text import folded
from opd_tui.widgets.lines import Panel, Spans, ink, span

if TYPE_CHECKING:
    from opd_tui.facts import Passage

#: Seconds for which a sheet is filled, and then others have their turn.
SLICE = 0.01


class Sheet(Panel, can_focus=True):
    """Lines to scroll through."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "line up", show=False),
        Binding("down,j", "scroll_down", "line down", show=False),
        Binding("pageup", "page_up", "page up", show=False),
        Binding("pagedown,space", "page_down", "page down", show=False),
    ]

    class Sized(Message):
        """The sheet has another width."""

    def on_resize(self) -> None:
        """Tell the screen."""
        self.post_message(self.Sized())


class SheetScreen(ModalScreen[None]):
    """A sheet over whatever was there. Esc goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss", "back")]

    def __init__(self, title: str, palette: Palette) -> None:
        super().__init__()
        self._heading = title
        self.palette = palette
        self._rest: Iterator[Spans] = iter(())  #: lines that are not on the sheet yet

    def compose(self) -> ComposeResult:
        """One sheet."""
        sheet = Sheet(id="sheet")
        sheet.border_title = self._heading
        sheet.border_subtitle = "esc goes back"
        yield sheet

    def on_mount(self) -> None:
        """The keys go to the sheet."""
        sheet = self.query_one(Sheet)
        sheet.palette = self.palette
        sheet.focus()

    @on(Sheet.Sized)
    def fill(self) -> None:
        """Fill the sheet at its width: what is long in slices, between which keys and resizes get their turn."""
        self.query_one(Sheet).show([])
        self._rest = iter(self.lines())
        self._fill_on(self._rest)

    def _fill_on(self, rest: Iterator[Spans]) -> None:
        if rest is not self._rest:
            return  # at another width by now
        end = monotonic() + SLICE
        lines = []
        for line in rest:
            lines.append(line)
            if monotonic() > end:
                self.set_timer(SLICE, lambda: self._fill_on(rest))
                break
        self.query_one(Sheet).extend(lines)

    @property
    def width(self) -> int:
        """Cells of a line."""
        return self.query_one(Sheet).scrollable_size.width

    def lines(self) -> Iterable[Spans]:
        """What is on the sheet."""
        raise NotImplementedError  # as in `Lines.spans`


class Reader(SheetScreen):
    """Passages, one below the other."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark", "help", "help")]

    def __init__(self, title: str, palette: Palette, passages: Sequence[Passage]) -> None:
        super().__init__(title, palette)
        self.passages = passages

    def action_help(self) -> None:
        """All keys."""
        from opd_tui.screens.help import help_of

        self.app.push_screen(help_of(self.app, self, (self.query_one(Sheet),), self.palette))

    def lines(self) -> Iterator[Spans]:
        """Heading and body of every passage."""
        colours, width = self.palette.ink, self.width
        for passage in self.passages:
            mark = {True: "✓ ", False: "✗ ", None: ""}[passage.verdict]
            color = {True: colours.good, False: colours.bad, None: colours.accent}[passage.verdict]
            yield [span(mark + passage.heading, ink(color, bold=True))]
            for paragraph in passage.body:
                yield from ([span(line, ink(colours.text))] for line in folded(paragraph, width))
            yield []
