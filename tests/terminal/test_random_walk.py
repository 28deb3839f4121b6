"""Random keys on a real store: no exception, and always a way back."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from driving import until
from textual.binding import Binding
from textual.screen import Screen

from opd_tui.app import OpdTui
from opd_tui.screens.browse import Browse
from tests.conftest import CHAIN_SUMS, FULL

N_KEYS, SEEDS = (2000, (1, 2, 3)) if FULL else (60, (1,))
#: Keys that leave the app, or write files.
NEVER = {"q", "ctrl+q", "ctrl+c", "ctrl+d", "x", "y", "Y", "ctrl+y"}
#: What every screen understands; the rest is asked of the screens themselves.
COMMON = ("up", "down", "left", "right", "pageup", "pagedown", "home", "end", "enter", "tab", "shift+tab", "escape", "a", "5")


def keys_of(screen: Screen[object]) -> list[str]:
    """Keys that do something on this screen, or in what has the focus."""
    tables: Iterable[Iterable[object]] = (screen.BINDINGS, screen.focused.BINDINGS if screen.focused else ())
    found = [binding for table in tables for binding in table if isinstance(binding, Binding)]
    keys = {key.strip() for binding in found for key in binding.key.split(",")}
    return sorted((keys | set(COMMON)) - NEVER)


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_keys_never_lead_astray(seed: int) -> None:
    rng = random.Random(seed)
    app = OpdTui(str(CHAIN_SUMS / "chain_sums.zarr"))
    pressed: list[str] = []
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Browse) and app.screen.settled)
        for number in range(N_KEYS):
            keys = keys_of(app.screen)
            # Most of the time Browse: a walk that opens a dialog soon leaves it.
            key = "escape" if not isinstance(app.screen, Browse) and rng.random() < 0.15 else rng.choice(keys)
            pressed.append(key)
            await pilot.press(key)
            assert app.return_code is None, pressed[-20:]
            if number % 97 == 96:
                await pilot.resize_terminal(rng.randint(20, 140), rng.randint(5, 50))
        await pilot.resize_terminal(120, 40)
        for _ in range(12):
            await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, Browse) and app.screen.settled)
        screen = app.screen
        assert isinstance(screen, Browse)
        await pilot.press("home", "right")
        await until(pilot, lambda: screen.settled)
        assert screen.session.token == 1, pressed[-20:]
