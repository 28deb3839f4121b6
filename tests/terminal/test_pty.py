"""The explorer in a real terminal: bytes on the wire, sizes, kinds of terminal, hostile data."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pyte
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from opd_tui.app import browse; sys.exit(browse(sys.argv[1], at=sys.argv[2]))"
PATIENCE = 40.0
TAB, ESCAPE = "\t", "\x1b"

#: Everything that Textual itself sends, by ECMA-48's own grammar: CSI, and the few private and string sequences it uses.
CSI = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
OTHER = re.compile(rb"\x1b[78=>]|\x1b\([A-Z0-9]|\x1bP[^\x1b]*\x1b\\|\x1b_[^\x1b]*\x1b\\|\x1b\]22;[a-z-]*\x07")
HOSTILE_KEYS = (
    *"nn]mtvur2p",
    ESCAPE,
    TAB,
    "\r",
    ESCAPE,
    *(TAB * 3),
    *"jk?",
    ESCAPE,
    *"c]tL",
    ESCAPE,
    *"g\r",
    ESCAPE,
    ESCAPE,
    TAB,
)


class Terminal:
    """A program in a pty, its output as bytes and as a screen."""

    def __init__(self, master: int, process: subprocess.Popen[bytes], size: tuple[int, int]) -> None:
        self.master = master
        self.process = process
        self.sent = b""
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)

    def pump(self, wait: float = 0.02) -> bool:
        """Take in what the program sent; False where it sent nothing."""
        ready, _, _ = select.select([self.master], [], [], wait)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.sent += data
        # pyte knows no private CSI with "<", "=" or ">" and would print their ends.
        self._stream.feed(re.sub(rb"\x1b\[[<=>][0-?]*[@-~]", b"", data))
        return bool(data)

    def until(self, condition: Callable[[], bool]) -> None:
        """Take in output until `condition` holds."""
        deadline = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, f"never: {self.text}"
            assert self.process.poll() is None or condition(), self.text
            self.pump()

    def press(self, keys: str, quiet: float = 0.08) -> int:
        """Send keys, and give back how many bytes came in answer, until it is quiet for so many seconds."""
        before = len(self.sent)
        os.write(self.master, keys.encode())
        self.pump(1.0)
        while self.pump(quiet):
            pass
        return len(self.sent) - before

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.screen.display)

    def resize(self, columns: int, lines: int) -> None:
        """As a window manager does it."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)
        self.process.send_signal(signal.SIGWINCH)


@contextmanager
def terminal(store: Path, size: tuple[int, int] = (120, 40), at: str = "q000", **environment: str) -> Iterator[Terminal]:
    """The explorer on `store` in a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM", "TERM", "COLUMNS", "LINES")
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store), at],
        stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
        env=inherited | {"TERM": "xterm-256color"} | environment,
    )  # fmt: skip
    os.close(slave)
    shown = Terminal(master, process, size)
    try:
        yield shown
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


def node_positions(path: Path) -> tuple[int, ...]:
    """Where the nodes of the first rollout are."""
    from opd_tui.reading import Library

    return Library(str(path)).rollout("q000", 0).node_positions


def quit_with_q(shown: Terminal) -> None:
    os.write(shown.master, b"q")
    deadline = monotonic() + PATIENCE
    while shown.process.poll() is None:
        assert monotonic() < deadline
        shown.pump()
    assert shown.process.returncode == 0


def escapes_of(sent: bytes) -> bytes:
    """What is left of the stream after taking away what Textual sends by itself."""
    return OTHER.sub(b"", CSI.sub(b"", sent))


def assert_aligned(shown: Terminal, token: int) -> None:
    """The borders of panes stand in the columns where they stand in the panes' first line."""
    lines = shown.text.splitlines()
    top = next(number for number, line in enumerate(lines) if line.startswith("╭"))
    bottom = next(number for number, line in enumerate(lines) if line.startswith("╰") and number > top)
    corners = [column for column, char in enumerate(lines[top]) if char in "╭╮"]
    for row in range(top + 1, bottom):
        assert all(shown.screen.buffer[row][column].data in "│╰╭╯╮" for column in corners), (token, lines[row])


def test_hostile_data_sends_nothing_that_a_terminal_obeys(hostile_store: Path) -> None:
    with terminal(hostile_store, COLORTERM="truecolor") as shown:
        shown.until(lambda: "3 of 3 questions" in shown.text and "p_succ" in shown.text)
        for keys in HOSTILE_KEYS:
            shown.press(keys)
        shown.press(ESCAPE)
        assert "Traceback" not in shown.text
        for token in range(0, 40, 3):  # over every piece, the longest one last
            shown.press("l" * 3)
            assert_aligned(shown, token)
        quit_with_q(shown)
    left = escapes_of(shown.sent)
    assert b"\x1b" not in left, left[max(left.index(b"\x1b") - 20, 0) :][:60]
    drawn = left.decode("utf-8")  # whatever came from data is valid UTF-8 by now
    controls = {char for char in drawn if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0}
    assert controls <= {"\r", "\n"}
    assert not {char for char in drawn if char in "\u202e\u200f\u200d\u2066\u2028"}
    # sequences that stand in the data, and that no part of Textual sends
    for pwned in (b"\x1b]0;", b"\x1b[2J", b"\x1b[31m", b"\xc2\x9b"):
        assert pwned not in shown.sent


def test_keys_cost_little_on_the_wire(calm_store: Path) -> None:
    """At 120x40: the cursor, with the pane that follows it; a node; another metric; another rollout."""
    nodes = set(node_positions(calm_store))
    quiet = next(token for token in range(60) if not {token, token + 1} & nodes)
    with terminal(calm_store, at=f"q000/0/{quiet}", COLORTERM="truecolor") as shown:
        shown.until(lambda: "no node here" in shown.text and re.search("mean [+−.]", shown.text) is not None)
        shown.press("v")
        moves = [shown.press(key) for key in "lhlh"]
        jumps = [shown.press(key) for key in "nnN"]
        metrics = [shown.press(key) for key in "mM"]
        rollouts = [shown.press(key, quiet=0.3) for key in "rR"]  # painted in two steps
        quit_with_q(shown)
    assert min(moves) > 0 and max(moves) < 4_000, moves
    assert max(jumps) < 14_000, jumps
    assert max(metrics) < 20_000, metrics
    assert max(rollouts) < 36_000, rollouts


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "tmux-256color"}, {"TERM": "screen"}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "linux"}],
    ids=["tmux", "screen", "no-color", "linux"],
)
def test_every_kind_of_terminal_shows_the_same_numbers(calm_store: Path, environment: dict[str, str]) -> None:
    with terminal(calm_store, (80, 24), **environment) as shown:
        shown.until(lambda: "p_succ" in shown.text and "q000/0 ✓" in shown.text)
        shown.press("n")
        assert "alignment" in shown.text
        quit_with_q(shown)
    if environment["TERM"] in ("linux",) or "NO_COLOR" in environment:
        assert not re.search(rb"38;2;\d+;\d+;\d+m", shown.sent) or "NO_COLOR" in environment


def test_a_resized_window_is_filled_anew(calm_store: Path) -> None:
    with terminal(calm_store) as shown:
        shown.until(lambda: "p_succ" in shown.text)
        shown.resize(80, 24)
        shown.until(lambda: "teachers" in shown.text and "questions 6" not in shown.text and "? help" in shown.text)
        shown.resize(140, 45)
        shown.until(lambda: "questions 6" in shown.text and "? help" in shown.text)
        shown.resize(30, 8)
        shown.press("n")
        shown.resize(120, 40)
        shown.until(lambda: "questions 6" in shown.text)
        quit_with_q(shown)


def test_no_store_is_one_sentence_for_the_command_line(tmp_path: Path) -> None:
    tried = "\ntry: browse(sys.argv[1])\nexcept Exception as error: print(repr(error))"
    program = PROGRAM.replace("sys.exit(browse(sys.argv[1], at=sys.argv[2]))", tried)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "none.zarr")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert "StoreError('there is no store at" in done.stdout
    assert "Traceback" not in done.stderr


def test_keys_after_the_one_that_leaves_are_not_ours(calm_store: Path) -> None:
    with terminal(calm_store) as shown:
        shown.until(lambda: "p_succ" in shown.text)
        os.write(shown.master, b"q?/:cgx")
        deadline = monotonic() + PATIENCE
        while shown.process.poll() is None:
            assert monotonic() < deadline
            shown.pump()
        assert shown.process.returncode == 0
        assert b"Traceback" not in shown.sent
