"""Apps on made-up stores, driven by keys."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from time import monotonic

import pytest
from textual.pilot import Pilot

from opd_tui.app import OpdTui, Wish
from opd_tui.palette import Depth
from opd_tui.screens.browse import Browse

WIDE, NARROW = (120, 40), (80, 24)
#: What holds in the narrow terminal is asked for in the wide one, too, by `make test-full`.
SIZES = pytest.mark.parametrize("size", [pytest.param(WIDE, marks=pytest.mark.full), NARROW], ids=["120x40", "80x24"])
PATIENCE = 30.0  #: seconds until a test gives up waiting


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Let the app work until `condition` holds."""
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, "the app never got there"
        assert pilot.app.return_code in (None, 0), "the app is gone"
        await pilot.pause(0.005)


@asynccontextmanager
async def browsing(
    path: Path, size: tuple[int, int] = WIDE, *, wish: Wish | None = None, depth: Depth = Depth.TRUECOLOR
) -> AsyncIterator[tuple[Pilot[None], Browse]]:
    """An app on the store at `path`, with everything loaded."""
    async with opened(OpdTui(str(path), wish, depth=depth), size) as both:
        yield both


@asynccontextmanager
async def opened(app: OpdTui, size: tuple[int, int] = WIDE) -> AsyncIterator[tuple[Pilot[None], Browse]]:
    """`app`, with everything loaded."""
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Browse))
        screen = app.screen
        assert isinstance(screen, Browse)
        await until(pilot, lambda: screen.settled)
        await pilot.pause()
        yield pilot, screen


async def press(pilot: Pilot[None], screen: Browse, *keys: str) -> None:
    """Press keys, and wait for the pages that they ask for."""
    for key in keys:
        await pilot.press(key)
        await until(pilot, lambda: screen.settled)


def picture(pilot: Pilot[None]) -> str:
    """The screen as text."""
    svg = pilot.app.export_screenshot()
    rows: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text[^>]*\bx="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        rows.setdefault(float(y), []).append((float(x), unescape(text).replace("\xa0", " ")))
    lines = []
    for _, parts in sorted(rows.items()):
        line = ""
        for x, text in sorted(parts):
            line = line.ljust(round(x / 12.2)) + text
        lines.append(line)
    return "\n".join(lines)
