"""A model server for tests: the tiny teacher behind vLLM's, SGLang's and OpenAI's ways of asking, in a process of its own.

    python -m tests.served_teacher MODEL_FOLDER

prints the port it listens on. The first word of a path says how the server behaves:

    all             gives log-probabilities of the whole vocabulary
    top20, top5     gives so many, and refuses to give more
    chosen5         top5, and chosen tokens as well
    drift           answers differently each time
    turns           turns into another model after 40 answers
    other           has another tokenizer
    flaky           fails every third call, in one of several ways
    broken          always answers 503
    lies            answers with what no model can say; the second word says what
    key             wants the key `sesame`, and shows a wrong one in its answer
    bos             reads a token that was not sent
    leaks           works, and calls its model by the key that it was sent, with controls of a terminal
    refuses         says in a refusal which key it was sent; the second word says how it is written
    tokens, texts   as `leaks`, with the key in place of log-probabilities, or of the texts of tokens
"""

from __future__ import annotations

import collections
import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from compute import models, scoring

LIES = {
    "nan": lambda row: row | {next(iter(row)): float("nan")},
    "positive": lambda row: row | {next(iter(row)): 0.7},
    "text": lambda row: row | {next(iter(row)): "-0.5"},
    "mass": lambda row: dict.fromkeys(row, -0.1),
    "lacks": lambda row: {},
}


class Fault(Exception):
    """A refusal with a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    model: models.Model
    lock = threading.Lock()
    calls: ClassVar[collections.Counter[str]] = collections.Counter()

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: Any) -> None:
        _, self.manner, *rest = self.path.split("/")
        try:
            with self.lock:  # one model, one thread
                self.calls[self.manner] += 1
                self.number = self.calls[self.manner]
                if self._misbehaves():
                    return
                self._send(200, self._respond("/".join(rest), body))
        except Fault as fault:
            self._send(fault.status, {"error": {"message": str(fault)}})

    def _misbehaves(self) -> bool:
        """Send something wrong, or break the connection off. True where that was the answer."""
        if self.manner == "key" and self.headers["Authorization"] != "Bearer sesame":
            raise Fault(401, f"not with {self.headers['Authorization']}")
        if self.manner == "refuses":
            self._send_bytes(403, self._written(self.path.split("/")[2]))
            return True
        if self.manner == "broken":
            raise Fault(503, "out of order")
        if self.manner == "flaky" and self.number % 3 == 0:
            match self.number // 3 % 4:
                case 0:
                    self._send(429, {"error": "slower"}, {"Retry-After": "0.05"})
                case 1:
                    self.close_connection = True
                case 2:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                    self.close_connection = True
                case _:
                    raise Fault(503, "busy")
            return True
        return False

    @property
    def key(self) -> str:
        return self.headers["Authorization"].removeprefix("Bearer ")

    def _written(self, how: str) -> bytes:
        """A refusal that holds the key."""
        match how:
            case "json":
                text = json.dumps({"error": self.key}).replace("/", "\\/")
            case "unicode":
                text = '{"error": "' + "".join(f"\\u{ord(one):04X}" for one in self.key) + '"}'
            case "twice":
                text = json.dumps(json.dumps({"error": self.key}).replace("/", "\\/")).replace("/", "\\/")
            case "far":  # half of it would be seen by whoever cuts at 4096 bytes, and all spaces but one be taken out
                text = " " * (4096 - len(self.key) // 2) + self.key
            case "cut":
                text = "x" * (300 - len(self.key) // 2) + self.key
            case _:
                text = f"\x1b]0;{self.key}\x07\x1b[2J"
        return text.encode()

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(answer).encode(), headers)

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    @property
    def most(self) -> int:
        return {"top20": 20, "top5": 5, "chosen5": 5}.get(self.manner, 1000)

    def _respond(self, path: str, body: Any) -> Any:
        lie = path.split("/", maxsplit=1)[0] if self.manner == "lies" else ""
        path = path.removeprefix(lie + "/") if lie else path
        match path:
            case "v1/models":
                return {"data": [{"id": self._name, "max_model_len": 128}]}
            case "get_model_info":
                return {"model_path": self._name}
            case "v1/completions" if body.get("prompt_logprobs") is not None:
                return self._vllm(body, lie)
            case "v1/completions" if body.get("echo"):
                return self._openai(body)
            case "v1/completions" if body.get("logprob_token_ids"):
                return self._vllm_chosen(body)
            case "generate":
                return self._sglang(body)
        raise Fault(404, f"no such path: {path}")

    @property
    def _name(self) -> str:
        return f"\x1b[2J{'m' * 90}{self.key}" if self.manner == "leaks" else "tiny"

    def _distributions(self, ids: list[int]) -> np.ndarray:
        """Log-probabilities of every token after each prefix: row i predicts token i + 1."""
        logits = self.model.logits(scoring.states(self.model, ids[:1], ids[1:])).double()
        if self.manner == "drift":
            logits = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(self.number)).double()
        if self.manner == "turns" and self.number > 40:
            logits = logits * 1.5
        return torch.log_softmax(logits, -1).float().numpy().astype(float)

    def _row(self, logprobs_V: np.ndarray, k: int, taken: int) -> dict[int, float]:
        """The k most likely tokens and the one taken."""
        top = [int(token) for token in np.argsort(-logprobs_V, kind="stable")[:k]]
        return {token: float(logprobs_V[token]) for token in dict.fromkeys([*top, taken])}

    def _text(self, token: int) -> str:
        if self.manner == "texts":
            return f"\x1b[2J{'t' * 90}{self.key}"
        pieces = self.model.tokens.token_bytes
        return pieces[(token + 1) % len(pieces) if self.manner == "other" else token].decode()

    def _allow(self, k: int) -> None:
        if k > self.most:
            raise Fault(400, f"at most {self.most} log-probabilities")

    def _completion(self, ids: list[int], choice: dict[str, Any]) -> Any:
        return {"choices": [choice], "usage": {"prompt_tokens": len(ids) + (self.manner == "bos")}}

    def _vllm(self, body: Any, lie: str) -> Any:
        self._allow(body["prompt_logprobs"])
        ids = body["prompt"]
        rows: list[Any] = [None]
        for taken, logprobs_V in zip(ids[1:], self._distributions(ids), strict=False):
            row = self._row(logprobs_V, body["prompt_logprobs"], taken)
            row = LIES[lie](row) if lie in LIES else row
            row = row | {taken: f"\x1b[2J{'l' * 90}{self.key}"} if self.manner == "tokens" else row
            rows.append({str(one): {"logprob": value, "rank": 1, "decoded_token": self._text(one)} for one, value in row.items()})
        return self._completion(ids, {"prompt_logprobs": rows[: -1 if lie == "short" else None]})

    def _vllm_chosen(self, body: Any) -> Any:
        if self.manner.startswith("top"):
            raise Fault(400, "no chosen tokens here")
        last = self._distributions(body["prompt"])[-1]
        tops = {f"token_id:{one}": float(last[one]) for one in body["logprob_token_ids"]}
        return self._completion(body["prompt"], {"logprobs": {"top_logprobs": [tops]}})

    def _openai(self, body: Any) -> Any:
        self._allow(body["logprobs"])
        ids = body["prompt"]
        distributions = self._distributions(ids)
        tokens, taken, tops = [self._text(ids[0])], [None], [None]
        for token, logprobs_V in zip([*ids[1:], 0], distributions, strict=True):
            tokens.append(self._text(token))
            taken.append(float(logprobs_V[token]))
            tops.append({self._text(one): value for one, value in self._row(logprobs_V, body["logprobs"], token).items()})
        return self._completion(ids, {"logprobs": {"tokens": tokens, "token_logprobs": taken, "top_logprobs": tops}})

    def _sglang(self, body: Any) -> Any:
        self._allow(body["top_logprobs_num"])
        ids, start, k = body["input_ids"], body["logprob_start_len"], body["top_logprobs_num"]
        chosen = body.get("token_ids_logprob")
        if chosen and self.manner.startswith("top"):
            raise Fault(400, "no chosen tokens here")
        taken: list[Any] = [[None, ids[start], None]]
        tops: list[Any] = [None]
        extras: list[Any] = [None]
        for token, logprobs_V in zip(ids[start + 1 :], self._distributions(ids)[start:], strict=False):
            own = [f"\x1b[2J{self.key}"] if self.manner == "tokens" else float(logprobs_V[token])
            taken.append([own, token, self._text(token)])
            tops.append([[float(logprobs_V[one]), int(one), None] for one in np.argsort(-logprobs_V, kind="stable")[:k]])
            extras.append([[float(logprobs_V[one]), one, None] for one in chosen or []])
        meta: dict[str, Any] = {"prompt_tokens": len(ids), "input_token_logprobs": taken}
        meta |= {"input_top_logprobs": tops} if k else {}
        meta |= {"input_token_ids_logprobs": extras} if chosen else {}
        return {"text": "", "meta_info": meta}


@contextlib.contextmanager
def full() -> Iterator[tuple[str, socket.socket]]:
    """An address where connections are neither accepted nor refused, and its socket: accept, and they stand."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # Linux lets one more wait than the backlog says
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


@contextlib.contextmanager
def running(model: Path) -> Iterator[str]:
    """The server in a process of its own: its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.served_teacher", str(model)],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.stdin.close()
            server.wait(10)


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    Handler.model = models.load(sys.argv[1])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        print(server.server_address[1], flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends with its parent
        server.serve_forever()


if __name__ == "__main__":
    main()
