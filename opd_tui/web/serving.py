"""`opd-tui browse --web`: the explorer in a browser of this machine, by way of textual-serve. Takes the extra [web].

Every page that is opened is a process of its own, which `show` runs. It ends with its page, and with the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import store
from opd_tui.extras import require
from opd_tui.metrics import metric as metric_named
from opd_tui.text import safe
from store.errors import StoreError

if TYPE_CHECKING:
    from opd_tui.web.server import WebServer

#: Who else is on the network has no business here.
HOST = "127.0.0.1"
#: Seconds that explorers get to end by themselves; what is left then is killed by the end of this process.
PATIENCE_S = 3.0


def serve(
    path: str,
    *,
    port: int = 0,
    at: str | None = None,
    teacher: str | None = None,
    metric: str | None = None,
    fresh: bool = False,
    size: int = 14,
) -> None:
    """Serve the explorer on the store at `path` until Ctrl-C; port 0 is any that is free. Prints the address to open.

    `size` is that of the font in pixels; the rest as `opd_tui.app.browse`. Raises StoreError where the extra is missing,
    the store cannot be opened, or the port cannot be had.
    """
    if os.name != "posix":
        raise StoreError("The explorer is served to a browser on Linux and macOS only; `opd-tui browse` needs no browser.")
    require("textual_serve", "web", "A browser needs")
    title = store.open(path).attributes.student  # a store that cannot be opened is said here, and not to a browser
    if metric is not None:
        try:
            metric_named(metric)
        except ValueError as error:
            raise StoreError(str(error)) from None
    listening = _listen(port)
    from opd_tui.web.server import WebServer

    token = secrets.token_urlsafe(24)
    server = WebServer(
        _command(path, at, teacher, metric, fresh), listening.getsockname()[1], token, f"opd-tui: {safe(title)}", font_size=size
    )
    asyncio.run(_until_stopped(server, listening, path))


def _listen(port: int) -> socket.socket:
    """A socket that only this machine reaches."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "there is no such port"
        raise StoreError(f"Port {port} cannot be served on {HOST}: {why}; name another with --port.") from None
    return listening


def _command(path: str, at: str | None, teacher: str | None, metric: str | None, fresh: bool) -> str:
    """What textual-serve hands to a shell for every page. A path stays one word; `exec` leaves no shell behind."""
    wish = json.dumps([path, at, teacher, metric, fresh])
    # -P: a file beside the store must not take the place of one of our modules.
    code = "import sys; from opd_tui.web.serving import show; show(*sys.argv[1:])"
    words = [sys.executable, "-P", "-c", code, str(os.getpid()), wish]
    return "exec " + shlex.join(words)


def show(server: str, wish: str) -> None:
    """Run one explorer for the page of a browser: the process that the server with this number starts. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its explorers
    from compute.watch import end_with_parent

    end_with_parent(int(server))
    from opd_tui.app import browse

    path, at, teacher, metric, fresh = json.loads(wish)
    try:
        code = browse(path, at=at, teacher=teacher, metric=metric, fresh=fresh)
    except (StoreError, ValueError) as error:
        print(f"opd-tui: {safe(str(error))}", file=sys.stderr)
        code = 1
    sys.exit(code)


async def _until_stopped(server: WebServer, listening: socket.socket, path: str) -> None:
    from aiohttp import web

    runner = web.AppRunner(server.application(), handle_signals=False, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(f"{safe(path)} is at {server.address}/?token={server.token} until Ctrl-C. The address is a key: keep it to yourself.")
    sys.stdout.flush()
    await stopped.wait()
    with suppress(TimeoutError):
        await asyncio.wait_for(runner.cleanup(), PATIENCE_S)
