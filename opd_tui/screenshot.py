"""Pictures of the explorer, made without a terminal: for the README, the documentation and `export --format svg`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from opd_tui.app import OpdTui, Wish
from opd_tui.metrics import metric
from opd_tui.palette import Depth
from opd_tui.screens.browse import Browse
from opd_tui.screens.guest import Guest

#: What every machine has; the picture asks no server for a font.
FONTS = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace"


def screenshot(
    path: str,
    *,
    size: tuple[int, int] = (120, 40),
    at: str | None = None,
    teacher: str | None = None,
    metric_key: str | None = None,
    keys: Sequence[str] = (),
    depth: Depth = Depth.TRUECOLOR,
    light: bool = False,
    title: str = "opd-tui",
) -> str:
    """The explorer on the store at `path` as an SVG, after `keys` were pressed at a place.

    Raises StoreError where the store cannot be opened, ValueError for an unknown metric.
    """
    wish = Wish(at, teacher, None if metric_key is None else metric(metric_key))
    app = OpdTui(path, wish, depth=depth)
    return without_remote_fonts(asyncio.run(_picture(app, size, keys, light, title)))


async def _picture(app: OpdTui, size: tuple[int, int], keys: Sequence[str], light: bool, title: str) -> str:
    async with app.run_test(size=size) as pilot:
        if light:
            app.theme = "opd-light"
        while not (isinstance(app.screen, Browse) and app.screen.settled):
            await pilot.pause(0.01)
            if app.failure is not None:
                raise app.failure
        for key in keys:
            await pilot.press(key)
            while isinstance(app.screen, Browse | Guest) and not app.screen.settled:
                await pilot.pause(0.01)
        await pilot.pause()
        return app.export_screenshot(title=title, simplify=True)


def without_remote_fonts(svg: str) -> str:
    """`svg` in fonts of the reader's machine, without the links to a server that Rich puts in.

    Spaces become real ones that are to be kept: some renderers drop leading no-break spaces.
    """
    svg = svg.replace("&#160;", " ").replace("<text ", '<text xml:space="preserve" ')
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"font-family:\s*Fira Code[^;]*;", f"font-family: {FONTS};", svg)
