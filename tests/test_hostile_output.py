"""What commands print on a real terminal holds no control of a store's making."""

from __future__ import annotations

import os
import pty
import subprocess
import unicodedata

import pytest

from tests.conftest import OPD_TUI
from tests.synthetic import write_store


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("hostile") / "s.zarr", n_questions=3, hostile=True)


def on_terminal(*words) -> str:
    """What a command sends to its terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [OPD_TUI, *map(str, words)], stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "NO_COLOR": "1"}
    )
    os.close(slave)
    pieces = []
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(master)
    sent = b"".join(pieces)
    assert process.wait(timeout=60) == 0, sent[-500:]
    return sent.decode()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_exported_rows_send_no_control_to_a_terminal(hostile, form):
    shown = on_terminal("export", hostile, "-o", "-", "--format", form)
    assert len(shown.splitlines()) > 50
    odd = {character for character in set(shown) if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")} - {"\r", "\n"}
    assert not odd


def test_a_file_keeps_the_text_as_it_is(hostile, tmp_path):
    subprocess.run([OPD_TUI, "export", hostile, "-o", tmp_path / "x.jsonl"], check=True, capture_output=True)
    assert "\\u001b[2J" in (tmp_path / "x.jsonl").read_text()
