"""The base of every pane: lines of spans, drawn on demand, redrawn only where they changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from opd_tui.palette import Depth, Palette
from opd_tui.text import Safe, cells, fit

#: One line: stretches of text with a style each. Text from data must be `Safe`.
Spans = Sequence[Segment]


@lru_cache(maxsize=512)
def ink(
    color: str | None = None, fill: str | None = None, *, bold: bool = False, underline: bool = False, reverse: bool = False
) -> Style:
    """A style, made once."""
    return Style(color=color, bgcolor=fill, bold=bold or None, underline=underline or None, reverse=reverse or None)


def span(text: str, style: Style | None = None) -> Segment:
    """A stretch of `text`: a literal of ours or `Safe` text."""
    return Segment(text, style)


def width_of(spans: Spans) -> int:
    """Cells that `spans` take."""
    return sum([cells(text) for text, _, _ in spans])


def ljust(text: str, width: int, style: Style | None = None) -> Segment:
    """`text` in exactly `width` cells, left-aligned, cut with an ellipsis."""
    return Segment(fit(Safe(text), width), style)


def rjust(text: str, width: int, style: Style | None = None) -> Segment:
    """`text` in exactly `width` cells, right-aligned."""
    missing = width - cells(text)
    return Segment(" " * missing + text if missing >= 0 else fit(Safe(text), width), style)


def _has_no_ground(style: Style | None) -> bool:
    """Whether a blank in this style shows nothing."""
    return style is None or not (style.bgcolor or style.underline or style.reverse)


class Lines(ScrollView):
    """A pane that draws line `y` by `spans(y)`."""

    #: No pane looks at keys but by bindings: the app need not send them through the queues of all that are around it.
    binds_every_key = True
    palette = Palette(Depth.TRUECOLOR, dark=True)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._drawn: dict[int, tuple[Spans, Strip]] = {}  #: lines of the window as they were last drawn
        self._made: dict[int, tuple[Spans, Strip]] = {}  #: lines of the content that are to be drawn next
        self._rendered: tuple[Region, list[Strip]] | None = None  #: what Textual asked for last, while nothing changes
        self._ground: Style | None = None
        #: styles on it, and whether a blank in them shows nothing
        self._grounded: dict[Style | None, tuple[Style, bool]] = {}
        self._width = 0  #: cells of a line, while lines are being made

    def use(self, palette: Palette) -> None:
        """Draw in another palette from now on."""
        self.palette = palette
        self.refresh()

    def spans(self, y: int) -> Spans:
        """Line `y` of the content, counted from its first one."""
        raise NotImplementedError  # every widget draws its own; Textual's metaclass leaves no room for an abstract class

    def render_lines(self, crop: Region) -> list[Strip]:
        """What Textual asks for: some lines of the window. It asks every pane where one has changed."""
        if self._rendered is None or self._rendered[0] != crop:
            self._width = self.scrollable_size.width
            self._rendered = crop, super().render_lines(crop)
        return self._rendered[1]

    def render_line(self, y: int) -> Strip:
        """What Textual asks for: line `y` of the window."""
        y_content = y + self.scroll_offset.y
        drawn = self._made.pop(y_content, None)
        if drawn is None:
            spans = self.spans(y_content)
            drawn = spans, self.strip(spans)
        self._drawn[y] = drawn
        return drawn[1]

    def _set_dirty(self, *regions: Region) -> None:
        """Where Textual notes what is to be drawn anew, whatever the reason: nothing that was made before counts any more."""
        self._made.clear()
        self._rendered = None
        super()._set_dirty(*regions)

    def set_height(self, n: int) -> None:
        """The content has `n` lines. The screen is laid out anew only where that moves something on it: it draws all of it."""
        if n == self.virtual_size.height:
            return
        size, window = Size(self.scrollable_size.width, n), self.container_size.height
        has_bar, needs_bar = self.show_vertical_scrollbar, self.styles.overflow_y == "auto" and n > window
        if not window or self.styles.is_auto_height or has_bar != needs_bar:
            self.virtual_size = size
            return
        self.set_reactive(Lines.virtual_size, size)
        if has_bar:
            self.vertical_scrollbar.window_virtual_size = n
        self.scroll_y = self.validate_scroll_y(self.scroll_y)

    def draw_anew(self) -> None:
        """Draw everything again: nothing of what was drawn is shown any more."""
        self._drawn.clear()
        self.refresh()

    def redraw_changed(self) -> None:
        """Draw those lines of the window again that look otherwise than when they were last drawn."""
        self._made.clear()
        if not self._drawn:
            self.refresh()
            return
        (self._width, height), top = self.scrollable_size, self.scroll_offset.y
        made: dict[int, tuple[Spans, Strip]] = {}
        for y in range(height):
            spans, before = self.spans(y + top), self._drawn.get(y)
            if before is None or before[0] != spans:
                strip = self.strip(spans)
                if before is None or before[1] != strip:
                    made[y + top] = spans, strip
        if made:  # nothing named would mean all of it
            self.refresh(*(Region(0, y - top, self._width, 1) for y in made))
            self._made = made

    def strip(self, spans: Spans) -> Strip:
        """`spans` on the pane's ground, cut or filled to `_width`, with few changes of style.

        A change of style costs more bytes than a word, and every one of them goes over the wire. So blanks on the ground, which
        have no ink, take that of what stands before.
        """
        if self._ground is None:
            self._ground = self.rich_style
            self._grounded = {}
        base, styles = self._ground, self._grounded
        line: list[Segment] = []
        last, last_style, plain, missing = "", base, False, self._width
        for text, style, _ in spans:
            if not text:
                continue
            missing -= cells(text)
            on_ground = styles.get(style)
            if on_ground is None:
                on_ground = styles[style] = base + style, _has_no_ground(style)
            full, is_plain = on_ground
            if last and (full is last_style or full == last_style or (plain and is_plain and text.isspace())):
                last += text
                continue
            if last:
                line.append(Segment(last, last_style))
            last, last_style, plain = text, full, is_plain
        if missing > 0 and last and last_style == base:
            last, missing = last + " " * missing, 0
        if last:
            line.append(Segment(last, last_style))
        if missing > 0:
            line.append(Segment(" " * missing, base))
        elif missing < 0:
            line = Segment.adjust_line_length(line, self._width)
        return Strip(line, self._width)

    def notify_style_update(self) -> None:
        """The ground may be another one."""
        super().notify_style_update()
        self._ground = None

    def reveal(self, y: int, height: int = 1) -> None:
        """Scroll so that line `y` is in the window, with room to go on in the same direction."""
        window = self.scrollable_size.height
        top = self.scroll_offset.y
        room = min(window // 4, max(window - height, 0) // 2)
        if y < top:
            self.scroll_to(y=max(y - room, 0), animate=False)
        elif y + height > top + window:
            self.scroll_to(y=y + height - window + room, animate=False)


class Panel(Lines):
    """A pane whose lines are made in one go. `show` redraws only those that differ."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.least = 0  #: lines that there are at least, empty ones if need be
        self._lines: list[list[Segment]] = []

    def spans(self, y: int) -> Spans:
        """Line `y`, empty below the last one."""
        return self._lines[y] if y < len(self._lines) else ()

    def show(self, lines: Sequence[Spans]) -> None:
        """Show `lines` from now on."""
        before, self._lines = self._lines, [list(line) for line in lines]
        height = max(len(self._lines), self.least)
        self.set_height(height)
        top = self.scroll_offset.y
        changed = [y for y, (old, new) in enumerate(zip_longest(before, self._lines, fillvalue=())) if old != new]
        if changed:
            width = self.scrollable_size.width
            self.refresh(*(Region(0, y - top, width, 1) for y in changed))

    def extend(self, lines: Sequence[Spans]) -> None:
        """Show these below what is there already."""
        self._lines += [list(line) for line in lines]
        self.set_height(max(len(self._lines), self.least))
        self.refresh()

    @property
    def text(self) -> str:
        """What is shown, as plain text."""
        return "\n".join("".join(segment.text for segment in line) for line in self._lines)
