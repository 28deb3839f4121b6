"""JSON over HTTP to a model server: retries, bounded concurrency, answers of bounded size.

The key comes from an environment variable and is sent in one header. What a server says is shown and stored only after
`Client.scrub`, which takes the key out of it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from compute.errors import ComputeError, StudyError

#: Answers after which the same request may go well: too many requests, and faults of the server or of one before it.
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_POLL_SECONDS = 0.2


class ServerError(ComputeError):
    """A server refused, or its answer is not what was asked for."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status  #: of HTTP, 0 where the fault is another


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request is tried. Waits double from `first` to `longest` seconds, each cut by up to half at random."""

    timeout: float = 300.0  #: seconds without a byte
    connect: float = 10.0  #: seconds until a connection stands, for each address of the host
    first: float = 0.5
    longest: float = 30.0
    total: float = 900.0  #: seconds from the first try, after which the last fault is raised

    def delay(self, attempt: int, asked: float) -> float:
        """Seconds to wait after try `attempt` (0 the first) failed; the server may have `asked` for more."""
        waiting = min(self.longest, self.first * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)
        return max(waiting, asked)


@dataclass(frozen=True, slots=True)
class Request:
    """One call: a body to post, or none to get; `most_bytes` bounds the answer."""

    path: str
    body: Any = None
    most_bytes: int = 1 << 20


def read_key(variable: str, who: str) -> str:
    """The key in the environment variable `variable`; empty where none is named.

    Raises `StudyError` where it is not set, or cannot stand in a header.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise StudyError(f"{who}: the environment variable {variable} named by `key_env` is not set; put the key there.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise StudyError(f"{who}: the environment variable {variable} holds something that cannot be a key.")
    return key


class Client:
    """Calls to one server. Threads of its own, at most `concurrency` calls at a time."""

    def __init__(self, url: str, *, key: str = "", concurrency: int = 8, patience: Patience | None = None) -> None:
        parts = urlsplit(url)
        self.host, self.port, self._base = parts.hostname or "", parts.port, parts.path.rstrip("/")
        self._secure = parts.scheme == "https"
        self._key = key
        self._key_forms = _forms(key) if key else None
        self._patience = patience or Patience()
        self._pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="served")
        self._stopped = threading.Event()
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._busy: set[http.client.HTTPConnection] = set()
        self._closed = False

    @property
    def name(self) -> str:
        """The server, for people."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def call(self, request: Request) -> Any:
        """The answer to one request, decoded. Raises `ServerError`."""
        (answer,) = self.calls([request])
        return answer

    def calls(self, requests: Sequence[Request], tick: Callable[[int], None] | None = None) -> list[Any]:
        """The answers, in the order of `requests`. Raises the first `ServerError`; `tick` may raise to stop."""
        stopped = self._stopped
        futures: list[Future[Any]] = [self._pool.submit(self._persist, request, stopped) for request in requests]
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if tick is not None:
                    tick(0)
        except BaseException:
            for future in futures:
                future.cancel()
            self._interrupt()
            raise
        return [future.result() for future in futures]

    def scrub(self, text: str, most: int = 100) -> str:
        """What the server said, fit for an error, a line or the store: no key, no control characters, `most` characters.

        The key goes before anything is cut, so that no part of it stays.
        """
        if self._key_forms is not None:
            text = self._key_forms.sub("***", text)
        text = text[: 16 * most]
        text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
        return text if len(text) <= most else text[:most] + "..."

    def close(self) -> None:
        """Let go of threads and connections: at once where they rest, else when their call has ended."""
        with self._lock:
            self._closed = True
            resting = self._open - self._busy
        self._interrupt()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for connection in resting:
            connection.close()

    def _interrupt(self) -> None:
        """End the calls under way: threads that wait wake up, sockets that are read close. Later calls work again."""
        self._stopped.set()
        with self._lock:
            for connection in self._open:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):  # closed already
                        connection.sock.shutdown(socket.SHUT_RDWR)
        self._stopped = threading.Event()

    def _persist(self, request: Request, stopped: threading.Event) -> Any:
        """One call, tried until it goes well, may not be tried again, patience is at its end, or it is stopped."""
        patience = self._patience
        started = time.monotonic()
        attempt = 0
        while True:
            try:
                status, asked, data = self._once(request, stopped)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                fault, asked, status = _describe(error), 0.0, 0
                if isinstance(error, ssl.SSLCertVerificationError):
                    why = self.scrub(error.verify_message)
                    raise ServerError(f"{self.name} shows no certificate that can be trusted: {why}.") from None
            else:
                if status == 200:
                    return self._decode(data)
                fault = f"answered {status}: {self._quote(data)}"
                if status not in _TRY_AGAIN:
                    raise ServerError(f"{self.name} {fault}", status)
            if stopped.is_set():
                raise ServerError(f"The call to {self.name} was stopped.")
            attempt += 1
            delay = patience.delay(attempt - 1, asked)
            if time.monotonic() - started + delay > patience.total:
                raise ServerError(
                    f"{self.name} {fault} ({attempt} tries in {time.monotonic() - started:.0f} seconds); "
                    "see that it runs, then run the same command again.",
                    status,
                )
            stopped.wait(delay)

    def _once(self, request: Request, stopped: threading.Event) -> tuple[int, float, bytes]:
        """Status, seconds that the server asks to wait, and the body. No redirection is followed: the key goes nowhere else."""
        with self._taken() as connection:
            if connection.sock is None:
                self._connect(connection)
            if stopped.is_set():  # from here on `_interrupt` finds a socket that it can close
                raise ConnectionAbortedError
            headers = {"Accept": "application/json"}
            body = None
            if request.body is not None:
                headers["Content-Type"] = "application/json"
                body = msgspec.json.encode(request.body)
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connection.request("POST" if body is not None else "GET", self._base + request.path, body=body, headers=headers)
            response = connection.getresponse()
            data = response.read(request.most_bytes + 1)
            if len(data) > request.most_bytes:
                self._drop()
                raise ServerError(f"{self.name} sent more than {request.most_bytes:,} bytes, more than any answer to this takes.")
            if response.length:  # what Content-Length still promised; http.client does not mind
                raise http.client.IncompleteRead(data, response.length)
            if response.will_close:
                self._drop()
            return response.status, _seconds(response.getheader("Retry-After")), data

    @contextlib.contextmanager
    def _taken(self) -> Iterator[http.client.HTTPConnection]:
        """This thread's connection for one call. It stays open for the next, unless the client was closed meanwhile."""
        connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = self._mine.connection = kind(self.host, self.port, timeout=self._patience.connect)
        with self._lock:
            self._open.add(connection)
            self._busy.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._busy.discard(connection)
                closed = self._closed
            if closed:
                connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        """A server that does not even take connections is given up much sooner than one that thinks."""
        connection.connect()
        connection.sock.settimeout(self._patience.timeout)

    def _drop(self) -> None:
        """Close this thread's connection; the next call opens another."""
        found: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if found is not None:
            found.close()
            self._mine.connection = None
            with self._lock:
                self._open.discard(found)

    def _decode(self, data: bytes) -> Any:
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ServerError(f"{self.name} answered with something that is no JSON: {self._quote(data)}") from None

    def _quote(self, data: bytes) -> str:
        """The start of an answer, fit for a sentence."""
        return self.scrub(data.decode("utf-8", "replace"), 300) or "nothing"


def _forms(key: str) -> re.Pattern[str]:
    """The key as it is and as JSON may write it, inside other JSON as well: any character escaped, in either way."""
    one = r"(?:\\{{0,7}}{}|\\{{1,7}}u{:04x})"
    return re.compile("".join(one.format(re.escape(char), ord(char)) for char in key), re.IGNORECASE)


def _describe(error: Exception) -> str:
    """What went wrong with a connection."""
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections"
    if isinstance(error, socket.gaierror):
        return "is no host that can be found"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected | ConnectionError):
        return "broke the connection off"
    return f"cannot be reached ({type(error).__name__})"


def _seconds(header: str | None) -> float:
    """A Retry-After in seconds; 0 for none, for a date, and for what is no number."""
    try:
        asked = float(header or 0.0)
    except ValueError:
        return 0.0
    return asked if 0.0 <= asked < 1e6 else 0.0
