"""The explorer in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic

import pyte
import pytest

from tests.synthetic import write_store
from tests.web_serving import PATIENCE, explorers, served, wait_until

pytestmark = pytest.mark.chromium
pytest.importorskip("playwright")

from tests.chromium.browser import Watched, browser_page  # noqa: E402


def screen_of(watched: Watched) -> str:
    size = re.search(r"width=(\d+)&height=(\d+)", next(one for one in watched.asked if one.startswith("ws:")))
    assert size is not None
    screen = pyte.Screen(int(size[1]), int(size[2]))
    pyte.ByteStream(screen).feed(re.sub(rb"\x1b\[[<=>][0-?]*[@-~]", b"", b"".join(watched.frames)))
    return "\n".join(screen.display)


def test_the_page_shows_a_rollout_and_asks_nobody_else_for_anything(tmp_path: Path) -> None:
    made = write_store(tmp_path / "S.zarr", n_questions=2, response_tokens=(20, 30))
    with served(made) as server, browser_page() as watched:
        page = watched.page
        page.goto(server.url)
        deadline = monotonic() + PATIENCE
        while "p_succ" not in (screen_of(watched) if watched.frames else "") and monotonic() < deadline:
            page.wait_for_timeout(100)
        shown = screen_of(watched)
        assert "q000 rollout 0" in shown and "·three6·so·total" in re.sub(r"[│\s]", "", shown), shown
        page.wait_for_timeout(500)
        before = watched.picture("web")
        assert page.evaluate("() => document.body.classList.contains('-first-byte')")
        assert page.evaluate("() => location.href") == server.address + "/", "the token is still in the address"
        assert page.evaluate("() => document.cookie") == "", "a script can read the token"
        page.keyboard.press("Tab")
        page.locator(".xterm-helper-textarea").focus()
        page.keyboard.press("n")
        page.wait_for_timeout(500)
        assert watched.picture("web_next_node") != before
        assert all(re.match(rf"(http|ws)://{re.escape(server.host)}/", one) for one in watched.asked), watched.asked
        assert not [one for one in watched.complaints if "GL Driver" not in one and "WebGL" not in one], watched.complaints
        page.reload()
        wait_until(lambda: len(explorers(server.process.pid)) == 1)


def test_without_the_token_there_is_no_page_and_no_web_socket(tmp_path: Path) -> None:
    made = write_store(tmp_path / "S.zarr", n_questions=1, response_tokens=(20, 30))
    with served(made) as server, browser_page() as watched:
        for address in (server.address, server.address + "/?token=wrong", server.address + "/static/js/textual.js"):
            answer = watched.page.goto(address)
            assert answer is not None and answer.status == 403
        outcome = watched.page.evaluate(
            "address => new Promise(done => { const it = new WebSocket(address); it.onopen = () => done('open');"
            " it.onerror = () => done('refused'); })",
            f"ws://{server.host}/ws?width=80&height=24",
        )
        assert outcome == "refused"
        assert not explorers(server.process.pid)
