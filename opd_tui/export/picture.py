"""`opd-tui export --format svg` and `png`: the explorer's screen at one place, as a picture."""

from __future__ import annotations

import sys
from typing import Literal

import store
from opd_tui.export.rows import Selection
from opd_tui.extras import require
from opd_tui.place import Place
from opd_tui.usage import WrongUsage
from opd_tui.whole_file import check_apart, whole_file
from store.errors import StoreError

#: A PNG has so many pixels for one of the SVG.
ZOOM = 2


def write_picture(path: str, selection: Selection, format: Literal["svg", "png"], out: str) -> None:
    """Write the screen at the selection's first question, rollout and position, under its first teacher.

    Raises WrongUsage where more than one of them is named; StoreError where the store has none of that name, where the file
    cannot be written, and where PNG lacks its extra.
    """
    if format == "png":
        require("resvg_py", "png", "PNG needs")
    for name, given in (("question", selection.questions), ("rollout", selection.rollouts), ("teacher", selection.teachers)):
        if len(given) > 1:
            raise WrongUsage(f"A picture shows one {name}; name one with --{name}.")
    if selection.objectives:
        raise WrongUsage("A picture shows the study's objectives; leave --objective out.")
    place = _place(selection)
    _check(path, selection)  # the explorer itself would open at another place, and say so
    from opd_tui.screenshot import screenshot

    svg = screenshot(path, at=place, teacher=selection.teachers[0] if selection.teachers else None)
    if out == "-":
        sys.stdout.write(svg + "\n")
        return
    check_apart(path, out)
    with whole_file(out) as unfinished:
        if format == "svg":
            unfinished.write_text(svg, encoding="utf-8")
        else:
            unfinished.write_bytes(png_of(svg))


def _place(selection: Selection) -> str | None:
    if not selection.questions:
        if selection.rollouts or selection.positions:
            raise WrongUsage("A picture of a rollout or of tokens takes the question as well: name it with --question.")
        return None
    if selection.positions and not selection.rollouts:
        raise WrongUsage("A picture at a token takes the rollout as well: name it with --rollout.")
    rollout = selection.rollouts[0] if selection.rollouts else None
    return str(Place(selection.questions[0], rollout, selection.positions[0] if selection.positions else None))


def _check(path: str, selection: Selection) -> None:
    opened = store.open(path)
    for name in selection.questions:
        opened.question(name)
        for index in selection.rollouts:
            n_tokens = len(opened.rollout(name, index, ()))
            if selection.positions and selection.positions[0] >= n_tokens:
                raise StoreError(f"Rollout {index} of {name!r} has {n_tokens:,} tokens, and none at {selection.positions[0]:,}.")
    there = [one.id for one in opened.teachers]
    for name in selection.teachers:
        if name not in there:
            raise StoreError(f"The study has no teacher {name!r}; there is {', '.join(there)}.")


def png_of(svg: str) -> bytes:
    """`svg` as PNG, drawn with the fonts of this machine."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=ZOOM))
