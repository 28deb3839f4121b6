"""Every screen as it was last looked at: in wide and narrow terminals, with 16 colours and with none.

`UPDATE_SNAPSHOTS=1 pytest tests/terminal/test_snapshots.py` writes them anew; look at what changed before committing it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from driving import NARROW, WIDE, browsing, picture, until
from textual.pilot import Pilot

from opd_tui.app import Wish
from opd_tui.palette import Depth
from opd_tui.screens.browse import Browse
from tests.conftest import CHAIN_SUMS, FULL

FOLDER = Path(__file__).parent / "snapshots"
VARIANTS = {
    "120x40": (WIDE, Depth.TRUECOLOR),
    "80x24": (NARROW, Depth.TRUECOLOR),
    "16-colours": (NARROW, Depth.STANDARD),
    "no-color": (NARROW, Depth.NONE),
}
#: Keys that lead from Browse to a screen; escapes lead back.
SCREENS: dict[str, Sequence[str]] = {
    "browse": (),
    "browse-marks": ("u",),
    "browse-lists": ("u", "L"),
    "help": ("question_mark",),
    "prompts": ("p",),
    "compare": ("c",),
    "charts-outcome": ("g",),
    "charts-matrix": ("g", "g", "g"),
    "charts-nodes": ("g", "enter"),
    "filter": ("slash", *"incorrect", "space", "less_than_sign"),
    "goto": ("colon", *"q000/9"),
    "teachers": ("i",),
    "objective": ("o",),
    "bookmarks": ("b", "apostrophe"),
    "export": ("x",),
}


@pytest.mark.parametrize("variant", VARIANTS if FULL else list(VARIANTS)[:2])
async def test_screens_look_as_they_did(variant: str) -> None:
    size, depth = VARIANTS[variant]
    changed = []
    async with browsing(CHAIN_SUMS / "chain_sums.zarr", size, wish=Wish("q000/1/1"), depth=depth) as (pilot, screen):
        for name, keys in SCREENS.items():
            for key in keys:
                await pilot.press(key)
                await quiet(pilot)
            path = FOLDER / f"{name}-{variant}.txt"
            shown = described(pilot)
            if os.environ.get("UPDATE_SNAPSHOTS"):
                path.parent.mkdir(exist_ok=True)
                path.write_text(shown, encoding="utf-8")
            elif path.read_text(encoding="utf-8") != shown:
                changed.append(f"{name}\n{shown}")
            for _ in range(4):
                if not isinstance(pilot.app.screen, Browse) or not screen.tokens.has_focus:
                    await pilot.press("escape")
                    await quiet(pilot)
    assert not changed, "\n\n".join(changed)


async def quiet(pilot: Pilot[None]) -> None:
    """Until the screen has all that it asked for."""
    await until(pilot, lambda: getattr(pilot.app.screen, "settled", True))
    await pilot.pause()


def described(pilot: Pilot[None]) -> str:
    """The screen as text, and which colours are on it."""
    colours = sorted(set(re.findall(r"#[0-9a-f]{6}", pilot.app.export_screenshot().partition("</style>")[0])))
    lines = [line.rstrip() for line in picture(pilot).splitlines()]
    return "\n".join(filter(None, lines)) + f"\n\n{' '.join(colours)}\n"
