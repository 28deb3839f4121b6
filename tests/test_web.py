"""The explorer for a browser: who gets in, what is run, and what is left when it ends. Real servers, real requests."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pyte
import pytest

from tests.conftest import run_opd
from tests.synthetic import write_store
from tests.web_serving import PATIENCE, Served, explorers, served, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="served on Linux and macOS")
SIZE = (120, 40)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("web") / "S.zarr", n_questions=2, response_tokens=(20, 30))


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[Served]:
    with served(made) as found:
        yield found


def status(server: Served, path: str, *, token: str | None = None, **headers: str) -> int:
    """What the server answers; `token` as its cookie."""

    async def ask() -> int:
        port = server.host.partition(":")[2]
        if token is not None:
            headers["Cookie"] = f"opd_tui_{port}={token}"
        async with aiohttp.ClientSession() as session, session.get(server.address + path, headers=headers) as response:
            return response.status

    return asyncio.run(ask())


async def open_socket(session: aiohttp.ClientSession, server: Served, **more: str) -> aiohttp.ClientWebSocketResponse:
    width, height = SIZE
    return await session.ws_connect(f"ws://{server.host}/ws?width={width}&height={height}", headers=more)


async def screen_until(server: Served, wanted: str, then: str = "") -> str:
    """Open the page and its web socket as a browser does, and read the screen until `wanted` is on it."""
    screen = pyte.Screen(*SIZE)
    stream = pyte.ByteStream(screen)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(server.url) as page:
            assert page.status == 200
        socket_ = await open_socket(session, server, Origin=server.address)
        async with asyncio.timeout(PATIENCE):
            async for message in socket_:
                if message.type == aiohttp.WSMsgType.BINARY:
                    stream.feed(re.sub(rb"\x1b\[[<=>][0-?]*[@-~]", b"", message.data))
                if wanted in "\n".join(screen.display):
                    break
        if then:
            await socket_.send_json(["stdin", then])
            async with asyncio.timeout(PATIENCE):
                async for _ in socket_:
                    pass
        await socket_.close()
    return "\n".join(screen.display)


PLACES = ("/", "/page/page.js", "/static/js/textual.js", "/static/css/xterm.css", "/download/x", "/ws", "/nowhere")


def test_with_the_token_everything_is_there_and_without_it_nothing(server: Served) -> None:
    for path in PLACES:
        assert status(server, path) == 403, path
        for wrong in ("", "x", server.token[:-1], server.token + "x"):
            assert status(server, path, token=wrong) == 403, path
        there = {"/nowhere": 404, "/download/x": 404, "/ws": 400}.get(path, 200)  # a web socket wants an upgrade
        assert status(server, path, token=server.token) == there, path
    assert status(server, f"/?token={server.token}") == 200
    assert status(server, "/?token=wrong") == 403
    assert status(server, f"/static/js/textual.js?token={server.token}") == 403, "the address alone opens the page only"


@pytest.mark.parametrize("path", PLACES)
def test_another_page_or_a_name_that_points_here_is_refused(server: Served, path: str) -> None:
    port = server.host.partition(":")[2]
    for headers in (
        {"Host": f"evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ):
        assert status(server, path, token=server.token, **headers) == 403, headers


def test_the_page_is_for_this_server_alone(server: Served) -> None:
    async def ask() -> tuple[str, aiohttp.ClientResponse]:
        async with aiohttp.ClientSession() as session, session.get(server.url) as response:
            return await response.text(), response

    text, response = asyncio.run(ask())
    assert re.findall(r"(?:https?|wss?)://[^/\"' ]*", text) == [f"ws://{server.host}"]
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and server.token in cookie
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_a_web_socket_without_the_cookie_or_from_another_page_starts_nothing(server: Served) -> None:
    async def refused(**headers: str) -> int:
        async with aiohttp.ClientSession() as session:
            try:
                await open_socket(session, server, **headers)
            except aiohttp.WSServerHandshakeError as error:
                return error.status
            raise AssertionError("it was let in")

    before = explorers(server.process.pid)
    cookie = f"opd_tui_{server.host.partition(':')[2]}="
    assert asyncio.run(refused()) == 403
    assert asyncio.run(refused(Cookie=cookie + "wrong")) == 403
    assert asyncio.run(refused(Cookie=cookie + server.token, Origin="https://evil.example")) == 403
    assert explorers(server.process.pid) == before


def test_a_page_shows_a_rollout_and_closing_it_ends_its_explorer(server: Served) -> None:
    shown = asyncio.run(screen_until(server, "p_succ"))
    assert "synthetic-135m" in shown
    wait_until(lambda: not explorers(server.process.pid))


def test_a_page_begins_where_the_last_one_was_left_unless_it_is_to_be_fresh(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with served(made) as server:
        asyncio.run(screen_until(server, "p_succ", then="mq"))
        assert "gain ext" in asyncio.run(screen_until(server, "p_succ"))
    with served(made, "--fresh") as server:
        assert "alignment ext" in asyncio.run(screen_until(server, "p_succ"))


def test_the_server_is_on_no_other_address(server: Served) -> None:
    port = int(server.host.partition(":")[2])
    with socket.socket() as other:
        other.settimeout(2)
        with pytest.raises(OSError, match=r"refused|timed out"):
            other.connect(("127.0.0.2", port))  # on 0.0.0.0 it would answer


def test_a_path_is_no_command_and_ctrl_c_ends_what_was_started(tmp_path: Path) -> None:
    """A path that a shell would take apart; a `store.py` beside it that must not be imported."""
    folder = tmp_path / "a'b\"; touch pwned; $(touch pwned) `touch pwned` #"
    path = write_store(folder / "S &|\n.zarr", n_questions=1, response_tokens=(20, 30))
    (tmp_path / "store.py").write_text("open('pwned', 'w')")

    async def shown(server: Served) -> list[int]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(server.url):
                pass
            socket_ = await open_socket(session, server)
            seen = b""
            async with asyncio.timeout(PATIENCE):
                while b"p_succ" not in seen:
                    seen += await socket_.receive_bytes()
            running = explorers(server.process.pid)
            server.process.send_signal(2)
            async with asyncio.timeout(PATIENCE):
                while not socket_.closed:
                    await socket_.receive()
            return running

    with served(path, cwd=tmp_path) as server:
        running = asyncio.run(shown(server))
        assert running
        assert server.process.wait(10) == 0
    wait_until(lambda: not any(_alive(one) for one in running))
    assert not list(tmp_path.rglob("pwned"))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2][:3] if sys.platform == "linux" else True


def test_what_cannot_be_served_is_one_sentence(made: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = run_opd("browse", made, "--web", "--port", str(port))
        assert found.returncode == 1
        sentence = "cannot be served on 127.0.0.1: address already in use; name another with --port."
        assert found.stderr == f"opd-tui: Port {port} {sentence}\n"
    found = run_opd("browse", tmp_path / "none.zarr", "--web")
    assert (found.returncode, found.stderr.count("\n")) == (1, 1) and "There is no store" in found.stderr
    found = run_opd("browse", made, "--web", "--metric", "x")
    assert found.returncode == 2 and "there is no metric 'x'" in found.stderr
    found = run_opd("browse", made, "--port", "8000")
    assert found.returncode == 2 and "--port goes with --web" in found.stderr


def test_without_the_extra_it_is_one_sentence(made: Path, tmp_path: Path) -> None:
    """A folder in front of the path in which textual-serve is not there."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['textual_serve'] = None")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}"}
    found = run_opd("browse", made, "--web", env=environment)
    assert found.returncode == 1
    assert found.stderr == "opd-tui: A browser needs the extra [web]; install it: pip install 'opd-tui[web]'.\n"
