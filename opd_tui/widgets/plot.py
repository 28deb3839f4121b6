"""Marks on a plot of `textual-plot`. Only numbers and our own signs go there: names stand in the list beside it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, isfinite
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Grid
from textual.strip import Strip
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, PlotWidget
from textual_plot.plot_widget import Legend

from opd_tui.palette import Palette

if TYPE_CHECKING:
    from opd_tui.charts import Mark

#: Lines of the plot that are no place for marks: margins and box.
FRAME = 4
#: Share of the range that stays free above and below.
ROOM = 0.06


class _Canvas(Canvas):
    """A canvas whose lines have a style even before it knows its size: Textual's filter for NO_COLOR asks every one for it."""

    def render_line(self, y: int) -> Strip:
        """Line `y`, blank where there is nothing yet."""
        strip = super().render_line(y)
        return strip if strip.cell_length else Strip.blank(self.size.width, self.rich_style)


class Plot(PlotWidget):  # type: ignore[misc]  # textual-plot is not followed
    """A plot that takes no keys and no mouse."""

    can_focus = False

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, allow_pan_and_zoom=False)
        for margin, cells in ((PlotWidget.margin_top, 1), (PlotWidget.margin_bottom, 1), (PlotWidget.margin_left, 6)):
            self.set_reactive(margin, cells)

    def compose(self) -> ComposeResult:
        """As in textual-plot, with canvases of our own."""
        with Grid():
            for part in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield _Canvas(1, 1, id=part)
        yield Legend(id="legend")


def draw(plot: Plot, marks: Sequence[Mark], current: int, palette: Palette, *, numbered: bool, shares: bool) -> None:
    """Draw `marks`, the one at `current` reversed. `numbered`: places along the axis are the list's numbers; `shares`: 0 to 1."""
    plot.clear()
    shown = [(place, mark) for place, mark in enumerate(marks) if isfinite(mark.mean) and isfinite(mark.x)]
    if not shown:
        return
    left, right = _across(marks, shares)
    ends = [end for _, mark in shown for end in (mark.low, mark.high, mark.mean) if isfinite(end)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = ROOM * ((high - low) or 1.0)
    plot.set_xlimits(left, right)
    plot.set_ylimits(low - room, high + room)
    plot.set_yticks(ticks(low - room, high + room, (plot.size.height - FRAME) // 2))
    plot.set_xticks([float(place) for place in range(1, round(right))] if numbered else None)
    plot.plot([left, right], [0.0, 0.0], line_style=palette.ink.faint, hires_mode=HiResMode.BRAILLE)
    together: dict[tuple[bool, str, str], list[Mark]] = {}
    for place, mark in sorted(shown, key=lambda pair: pair[0] == current):
        style = f"bold reverse {colour(mark, palette)}" if place == current else colour(mark, palette)
        together.setdefault((isfinite(mark.high - mark.low), mark.series.value, style), []).append(mark)
    for (has_interval, sign, style), alike in together.items():
        x, y = [mark.x for mark in alike], [mark.mean for mark in alike]
        if has_interval:
            halves = [(mark.high - mark.low) / 2.0 for mark in alike]
            plot.errorbar(x, y, yerr=halves, marker=sign, marker_style=style)
        else:
            plot.scatter(x, y, marker=sign, marker_style=style)


def ticks(low: float, high: float, at_most: int) -> list[float]:
    """Round numbers from `low` to `high`, zero among them if it lies between; at most so many, but one at least."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
        first, last = ceil(low / step), floor(high / step)
        if last - first < max(at_most, 1):
            break
    return [round(place * step, 2) for place in range(first, last + 1)]


def _across(marks: Sequence[Mark], shares: bool) -> tuple[float, float]:
    return (-0.03, 1.03) if shares else (0.4, max(round(mark.x) for mark in marks) + 0.6)


def colour(mark: Mark, palette: Palette) -> str:
    """The ink of a mark, by its series."""
    colours = palette.ink
    return {"✓": colours.good, "✗": colours.bad, "+": colours.dim, "n": colours.escape, "·": colours.text}.get(
        mark.series.value, colours.accent
    )
