"""A made-up S3 for the tests: moto behind a proxy that counts, delays and refuses; and a web server for what is only read."""

from __future__ import annotations

import http.client
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BUCKET = "study"
#: What a client has to know; the keys are moto's own.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "host", "server", "date"}


@dataclass
class Seen:
    """One request that passed."""

    method: str
    path: str
    headers: dict[str, str]
    status: int
    began: float
    ended: float


@dataclass
class Proxy:
    """Stands before the real server. Set `delay` (s) and `refuse` (statuses for the next requests) at any time."""

    target: tuple[str, int]
    delay: float = 0.0
    refuse: list[int] = field(default_factory=list)
    refuse_every: int = 0  #: every so many requests one 503, two of three times followed by a 500
    seen: list[Seen] = field(default_factory=list)
    address: str = ""
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def status(self) -> int:
        """The status to refuse the next request with, or 0."""
        with self._lock:
            self._count += 1
            if self.refuse:
                return self.refuse.pop(0)
            if self.refuse_every and self._count % self.refuse_every == 0:
                return 503 if self._count % (2 * self.refuse_every) else 500
            return 0

    def waves(self) -> int:
        """Round trips one after the other among what was seen: how many requests could not begin before others ended."""
        n, end = 0, -1.0
        for one in sorted(self.seen, key=lambda request: request.began):
            if one.began >= end:
                n, end = n + 1, one.ended
            else:
                end = min(end, one.ended)
        return n


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            began = time.monotonic()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if proxy.delay:
                time.sleep(proxy.delay)
            status, headers, content = proxy.status(), {}, b""
            if status:
                code = "SlowDown" if status == 503 else "InternalError"
                content = f"<Error><Code>{code}</Code><Message>Please reduce your request rate.</Message></Error>".encode()
            else:
                connection = http.client.HTTPConnection(*proxy.target, timeout=60)
                sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP} | {
                    "Host": self.headers["Host"]
                }
                connection.request(self.command, self.path, body, sent)
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
                length = answer.getheader("Content-Length")
                connection.close()
                if self.command == "HEAD" and length:
                    headers["Content-Length"] = length
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            proxy.seen.append(Seen(self.command, self.path, dict(self.headers), status, began, time.monotonic()))

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

        def log_message(self, format: str, *args: object) -> None:
            """Tests are read, not servers."""

    return Handler


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server with this handler."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def object_store() -> Iterator[Proxy]:
    """moto with an empty bucket, behind a proxy; the environment names it until the end."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    proxy = Proxy((host, port))
    try:
        with serve(_handler(proxy)) as proxy.address:
            connection = http.client.HTTPConnection(host, port)
            connection.request("PUT", f"/{BUCKET}")
            assert connection.getresponse().status == 200
            connection.close()
            with environment({**ENVIRONMENT, "AWS_ENDPOINT_URL": proxy.address}):
                yield proxy
    finally:
        moto.stop()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """The process' environment with these values for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def range_handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    """Serves a folder as plain files, pieces of them too, without any listing."""

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            path = folder / self.path.split("?", maxsplit=1)[0].lstrip("/")
            content, status, reach = (path.read_bytes(), 200, "") if path.is_file() else (b"", 404, "")
            asked = self.headers.get("Range", "")
            if status == 200 and asked.startswith("bytes="):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start = int(first) if first else max(0, len(content) - int(last))
                stop = min(int(last) + 1, len(content)) if first and last else len(content)
                status, reach, content = 206, f"bytes {start}-{stop - 1}/{len(content)}", content[start:stop]
            self.send_response(status)
            if reach:
                self.send_header("Content-Range", reach)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                with suppress(ConnectionError):
                    self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Tests are read, not servers."""

    return Handler
