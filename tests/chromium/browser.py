"""A headless Chromium that writes down all it asks for and all it complains of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.conftest import ROOT

#: Where `make test-chromium` puts axe-core.
AXE = ROOT / os.environ.get("OPD_TUI_AXE", "out/axe/node_modules/axe-core/axe.min.js")
#: Pictures to look at.
PICTURES = ROOT / "out" / "pictures"


class Watched:
    """A page, the addresses it asked for, and its complaints."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.frames: list[bytes] = []  #: what web sockets sent
        page.context.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("websocket", self._listen)

    def _listen(self, found: Any) -> None:
        self.asked.append(found.url)
        found.on("framereceived", lambda data: self.frames.append(data if isinstance(data, bytes) else data.encode()))

    def picture(self, name: str, **more: Any) -> bytes:
        PICTURES.mkdir(parents=True, exist_ok=True)
        taken: bytes = self.page.screenshot(path=PICTURES / f"{name}.png", **more)
        return taken

    def faults(self) -> list[str]:
        """What axe-core calls serious or critical."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("() => axe.run()")
        return [
            f"{one['id']}: {one['help']} ({one['nodes'][0]['html'][:150]})"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]


@contextmanager
def browser_page(*, offline: bool = False, dark: bool = False, width: int = 1280, height: int = 900) -> Iterator[Watched]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium",
            # what Chromium itself asks its maker for is none of the page's
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--use-gl=swiftshader"],
        )
        context = chromium.new_context(
            offline=offline,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            bypass_csp=False,
        )
        yield Watched(context.new_page())
        chromium.close()


def file_url(path: Path) -> str:
    return path.resolve().as_uri()
