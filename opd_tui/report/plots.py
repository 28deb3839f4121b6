"""Plots of a report as SVG elements whose text is text. Takes matplotlib, the extra [report]."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from compute.findings import FLIPPED, Finding, FindingRow
from compute.statistics import Interval
from opd_tui.text import safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colours that most colour-blind people tell apart (Okabe and Ito), with a marker each; nulls are grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a6761d", "#000000")
MARKERS = "osD^vP"
NULL = "#767676"
WIDTH_IN = 7.0


class Plot(Struct, frozen=True):
    """One picture: an SVG element with a title and a description for who does not see it."""

    finding: str
    title: str
    svg: str


def plots(found: Sequence[Finding], objective: str) -> list[Plot]:
    """All plots of the findings, under one objective but for the plot of all of them."""
    by_name = {finding.name: finding for finding in found}

    def rows(name: str) -> list[FindingRow]:
        return [row for row in by_name[name].rows if row.objective == objective and row.teacher]

    ranking = rows("teacher_ranking")
    whole = [row for row in rows("correct_incorrect") if row.group == "whole paths"]
    own = [row for row in ranking if not row.null]
    made = [
        _plot("teacher_ranking", "Gain of every teacher", _described(ranking, "gain"), _ranking(ranking), len(ranking)),
        _plot(
            "teacher_ranking",
            "Agreement of both halves of the completions",
            "Cosine between the gradients of both halves; below 0.5 single scores are mostly noise. "
            + _described(own, "reliability", 1.0),
            _reliability(own),
            len(own),
        ),
        _plot(
            "correct_incorrect",
            "Gain on correct and on incorrect rollouts",
            f"Correct: {_described(whole, 'gain_correct')} Incorrect: {_described(whole, 'gain_incorrect')}",
            _outcomes(whole),
            2 * len(whole),
        ),
        _plot(
            "depth_profile",
            "Gain along the response",
            "Means in five bins of depth; the table below has the numbers.",
            _depth(rows("depth_profile")),
            12,
        ),
    ]
    every = [row for row in by_name["teacher_ranking"].rows if row.group != FLIPPED]
    if len({row.objective for row in every}) > 1:
        made.append(
            _plot("teacher_ranking", "Gain of every teacher under every objective", "The tables below have the numbers.",
                  _grid(every), len({row.teacher for row in every}))
        )  # fmt: skip
    return made


def _described(rows: Sequence[FindingRow], key: str, scale: float = 1000.0) -> str:
    return "; ".join(f"{_name(row)} {_said(row.intervals[key], scale)}" for row in rows) + "."


def _said(value: Interval, scale: float) -> str:
    if math.isnan(value.mean):
        return "no value"
    ends = "" if math.isnan(value.low) else f" from {scale * value.low:+.2f} to {scale * value.high:+.2f}"
    return f"{scale * value.mean:+.2f}{ends}"


def _name(row: FindingRow) -> str:
    name = f"flipped {row.teacher}" if row.group == FLIPPED else f"{row.teacher} (null)" if row.null else row.teacher
    return safe(name)


def _plot(finding: str, title: str, described: str, draw: Callable[[Axes], None], n_lines: int) -> Plot:
    import matplotlib
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "opd-tui", "text.parse_math": False, "font.size": 9.0}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters of names that matplotlib has no font for: the browser has one
        figure = Figure(figsize=(WIDTH_IN, 0.9 + 0.26 * max(n_lines, 2)), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(finding, title, _element(file.getvalue(), title, described))


def _element(svg: str, title: str, described: str) -> str:
    """The SVG as an element of a page: with names, and with ids that no other plot of the page has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    key = re.sub(r"\W+", "-", title.lower()) + "-"
    svg = re.sub(r'\bid="', f'id="{key}', svg)
    svg = re.sub(r'href="#', f'href="#{key}', svg)
    svg = re.sub(r"url\(#", f"url(#{key}", svg)
    names = f'<title id="{key}title">{escape(title)}</title><desc id="{key}desc">{escape(described)}</desc>'
    svg = re.sub(r"<svg\b", f'<svg role="img" aria-labelledby="{key}title" aria-describedby="{key}desc"', svg, count=1)
    return re.sub(r"(<svg\b[^>]*>)", lambda found: found[1] + names, svg, count=1)


# what is drawn


def _bar(
    axes: Axes,
    value: Interval,
    place: float,
    scale: float,
    colour: str,
    *,
    marker: str = "o",
    hollow: bool = False,
    label: str = "",
) -> None:
    """A mean with its interval, across."""
    if math.isnan(value.mean):
        return
    more: dict[str, Any] = (
        {}
        if math.isnan(value.low)
        else {"xerr": [[scale * max(value.mean - value.low, 0.0)], [scale * max(value.high - value.mean, 0.0)]]}
    )
    face = "white" if hollow else colour
    axes.errorbar(
        [scale * value.mean],
        [place],
        color=colour,
        marker=marker,
        markerfacecolor=face,
        capsize=2,
        ls="",
        label=label or None,
        **more,
    )


def _lines(axes: Axes, names: Sequence[str], xlabel: str, at: float = 0.0) -> None:
    axes.axvline(at, color="#555555", lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(xlabel)


def _ranking(rows: Sequence[FindingRow]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            _bar(axes, row.intervals["gain"], place, 1000.0, NULL if row.null else COLOURS[0], hollow=row.null)
        _lines(axes, [_name(row) for row in rows], "gain x 1000 (hollow: nulls)")

    return draw


def _reliability(rows: Sequence[FindingRow]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            _bar(axes, row.intervals["reliability"], place, 1.0, COLOURS[0])
        _lines(axes, [_name(row) for row in rows], "cosine between both halves", at=0.5)

    return draw


def _outcomes(rows: Sequence[FindingRow]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            first = place == 0
            _bar(axes, row.intervals["gain_correct"], place - 0.15, 1000.0, COLOURS[0], label="correct" if first else "")
            _bar(axes, row.intervals["gain_incorrect"], place + 0.15, 1000.0, COLOURS[1], marker="s", hollow=True,
                 label="incorrect" if first else "")  # fmt: skip
        _lines(axes, [_name(row) for row in rows], "gain x 1000")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return draw


def _depth(rows: Sequence[FindingRow]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        bins = list(dict.fromkeys(row.group for row in rows))
        for m, (teacher, of) in enumerate(_by_teacher(rows)):
            null = of[0].null
            shift = 0.06 * (m - 2)
            means = [row.intervals["gain"] for row in of]
            ends = [[1000 * (0.0 if math.isnan(one.low) else one.mean - one.low) for one in means],
                    [1000 * (0.0 if math.isnan(one.high) else one.high - one.mean) for one in means]]  # fmt: skip
            axes.errorbar(
                [bins.index(row.group) + shift for row in of], [1000 * one.mean for one in means], yerr=ends, capsize=2, lw=1.0,
                color=NULL if null else COLOURS[m % len(COLOURS)], marker=MARKERS[m % len(MARKERS)], ls=":" if null else "-",
                markerfacecolor="white" if null else None, label=teacher,
            )  # fmt: skip
        axes.axhline(0.0, color="#555555", lw=0.8)
        axes.set_xticks(range(len(bins)), bins)
        axes.set_xlabel("depth: position over length")
        axes.set_ylabel("gain x 1000")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return draw


def _by_teacher(rows: Sequence[FindingRow]) -> Iterator[tuple[str, list[FindingRow]]]:
    for teacher in dict.fromkeys(row.teacher for row in rows):
        of = [row for row in rows if row.teacher == teacher]
        yield _name(of[0]), of


def _grid(rows: Sequence[FindingRow]) -> Callable[[Axes], None]:
    """Teachers by objectives: the mean gain in figures on a colour, bold where its interval leaves zero out."""

    def draw(axes: Axes) -> None:
        names = list(dict.fromkeys(_name(row) for row in rows))
        objectives = list(dict.fromkeys(row.objective for row in rows))
        table = [[math.nan] * len(objectives) for _ in names]
        for row in rows:
            at = names.index(_name(row)), objectives.index(row.objective)
            value = row.intervals["gain"]
            table[at[0]][at[1]] = 1000 * value.mean
            sure = value.low > 0.0 or value.high < 0.0
            axes.text(at[1], at[0], f"{1000 * value.mean:+.1f}", ha="center", va="center", weight="bold" if sure else "normal",
                      color="black")  # fmt: skip
        # within an objective: updates of different objectives have no common unit
        most_O = [
            max((abs(one) for one in column if not math.isnan(one)), default=0.0) or 1.0 for column in zip(*table, strict=True)
        ]
        shares = [[value / most for value, most in zip(line, most_O, strict=True)] for line in table]
        columns, lines = range(len(objectives)), range(len(names))
        axes.pcolormesh(columns, lines, shares, shading="nearest", cmap=_pale(), vmin=-1, vmax=1, edgecolors="white", lw=1)
        axes.set_xticks(columns, [safe(one) for one in objectives])
        axes.set_yticks(lines, names)
        axes.invert_yaxis()

    return draw


def _pale() -> Any:
    """Orange over white to blue, on all of which black is legible."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pale", ["#f0b276", "#ffffff", "#92c0ee"])
