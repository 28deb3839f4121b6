"""A store on a web server that knows nothing of ranges: said in one sentence, and never called damaged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import store
from store.errors import StoreError
from tests.synthetic import write_store


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A store with more than 2,048 tokens in its part, so that token arrays have more than one chunk in their shard."""
    path = write_store(tmp_path / "S.zarr", n_questions=18, questions_per_part=18, response_tokens=(60, 70))
    assert store.open(path).counts().n_tokens > 2048
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/S.zarr"
        server.shutdown()


def test_a_server_without_ranges_is_named_as_the_cause(address: str) -> None:
    opened = store.open(address)
    assert len(opened.questions()) == 18
    with pytest.raises(StoreError, match="its server does not send the last bytes of a file; use one that does"):
        opened.rollout("q000", opened.questions()[0].rollouts[0].index)
