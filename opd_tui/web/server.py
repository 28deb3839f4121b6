"""What answers the browser for `opd-tui browse --web`: textual-serve's server, behind a token, and with a page of our own.

textual-serve alone lets in whoever reaches the port, and its page fetches a font from elsewhere. Here the page, its
files and the web socket are for the holder of a token; nothing is asked of another server.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import textual_serve
from aiohttp import web
from textual_serve.server import Server

PAGE = Path(__file__).with_name("page")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """The explorer for browsers of this machine. `command` is run by a shell for every page."""

    def __init__(self, command: str, port: int, token: str, title: str, *, font_size: int = 14) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.token = token
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self._cookie = f"opd_tui_{port}"  # cookies do not know ports: two servers must not take each other's
        self._server = Server(command, host="127.0.0.1", port=port, title=title, public_url=self.address)
        self._title = title
        self._font_size = font_size

    def application(self) -> web.Application:
        """Everything that is answered: the page, its files, the web socket, and files that the explorer hands out."""
        app = web.Application(middlewares=[self._guarded])
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/ws", self._web_socket),
                web.get("/download/{key}", self._server.handle_download),
                web.static("/page", PAGE),
                web.static("/static", Path(textual_serve.__file__).with_name("static")),
            ]
        )
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let through who holds the token and comes from our own page; refuse everybody else, whatever they ask for."""
        if not (self._is_ours(request) and self._holds_token(request)):
            return web.Response(status=403, text="Open the address that `opd-tui browse --web` printed.\n")
        return await handler(request)

    def _is_ours(self, request: web.Request) -> bool:
        """Whether the browser thinks it speaks with this machine, and no other page sent it.

        A name that someone else's server has pointed at 127.0.0.1 stands in Host; another page's address in Origin. A
        web socket always says its origin, so one without is no browser's; it needs the token like any other.
        """
        origin = request.headers.get("Origin")
        return request.host in self._hosts and (origin is None or origin in [f"http://{host}" for host in self._hosts])

    def _holds_token(self, request: web.Request) -> bool:
        given = [request.cookies.get(self._cookie, "")]
        if request.path == "/":
            given.append(request.query.get("token", ""))
        return any(secrets.compare_digest(one.encode("utf-8", "replace"), self.token.encode()) for one in given)

    async def _web_socket(self, request: web.Request) -> web.StreamResponse:
        """The explorer behind a page; textual-serve has no answer for who asks for no web socket."""
        if not web.WebSocketResponse().can_prepare(request):
            return web.Response(status=400, text="This is a web socket.\n")
        return await self._server.handle_websocket(request)

    async def _index(self, request: web.Request) -> web.Response:
        """The page. Whoever came with the token in the address gets the cookie that everything else asks for."""
        host = urlsplit(f"//{request.host}").netloc  # 127.0.0.1 or localhost: the cookie is the one's or the other's
        page = Template((PAGE / "index.html").read_text(encoding="utf-8")).substitute(
            title=escape(self._title), websocket=f"ws://{host}/ws", font_size=self._font_size
        )
        response = web.Response(text=page, content_type="text/html")
        response.headers.update(
            {
                # xterm.js writes style elements; scripts come from our files alone
                "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
                f"img-src 'self' data:; font-src 'self'; connect-src ws://{host}; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cache-Control": "no-store",
            }
        )
        response.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict", path="/")
        return response
