"""What is imported when: in a real process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEVER = {"torch", "transformers", "zarr"}
OPENSSL = {"ssl", "_ssl", "_hashlib"}
LATER = {"numpy", "tensorstore", "store.reader", "store.tables", "compute.scores", "opd_tui.pages", "opd_tui.facts"}

PROGRAM = """
import sys
from opd_tui.imports import asyncio_without_tls
asyncio_without_tls()
import asyncio
from opd_tui.app import OpdTui

async def main():
    app = OpdTui(sys.argv[1])
    seen = {}
    start = app.loader.start
    def first_paint():
        seen["first paint"] = set(sys.modules)
        start()
    app.loader.start = first_paint
    async with app.run_test(size=(120, 40)) as pilot:
        while not getattr(app.screen, "settled", False):
            await pilot.pause(0.005)
        for key in ("n", "m", "r", "p", "escape", "t"):
            await pilot.press(key)
        while not getattr(app.screen, "settled", False):
            await pilot.pause(0.005)
    seen["the end"] = set(sys.modules)
    import ssl
    for name, modules in seen.items():
        print(name, *sorted(modules), sep="|")
    print("context", type(ssl.create_default_context()).__module__, sep="|")

asyncio.run(main())
"""


def test_nothing_heavy_before_the_first_paint_and_no_models_ever(calm_store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(calm_store)], capture_output=True, text=True, cwd=ROOT, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    seen = {name: set(modules) for name, *modules in (line.split("|") for line in done.stdout.splitlines())}
    assert not seen["first paint"] & (NEVER | LATER)
    assert not seen["the end"] & (NEVER | OPENSSL)
    assert seen["context"] == {"ssl"}  # whoever wants it gets it
    assert seen["the end"] >= LATER
    assert not seen["the end"] & {"textual_plot", "opd_tui.charts", "opd_tui.screens.compare"}  # each with its own key


def test_the_command_line_loads_no_numbers_to_start_browsing() -> None:
    program = "import sys, opd_tui.app; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    assert not set(done.stdout.split()) & (NEVER | LATER)
