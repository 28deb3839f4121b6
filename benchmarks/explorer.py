"""The explorer in a real terminal, against a bare Textual app behind a typer command: start, memory, bytes and time of keys.

`python -m benchmarks.explorer [--repeats 7] [--keep FOLDER] [--json]`. Every program runs in a pty at 120x40. Stores of 2,000
and 20,000 rollouts of about 600 tokens, and of rollouts of 1,000 and 8,000 tokens, are written first (`--keep`: once).
Milliseconds hang on the machine and on its day; so each time is also had as a share of the bare app's first paint.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import store
from benchmarks import big_store
from benchmarks.measure import as_installed, close

SIZE = (120, 40)
PATIENCE = 60.0
#: A key is done when nothing came for so long; panes that follow a held key do so within half of it.
QUIET = 0.25
HOLD_SECONDS, REPEAT_RATE = 5.0, 30
ROOT = Path(__file__).resolve().parents[1]

BARE = """
import typer
app = typer.Typer(add_completion=False)
@app.command()
def browse(path: str) -> None:
    from textual.app import App
    from textual.widgets import Static
    class Bare(App):
        BINDINGS = [("q", "quit", "quit")]
        def compose(self):
            yield Static("a bare application")
    Bare().run()
app()
"""
OURS = "from opd_tui.entry import main; main()"
#: The explorer with a clock that ticks in its event loop and writes down the longest wait between two ticks, at the end.
CLOCKED = """
import asyncio, sys, time
note = sys.argv.pop(1)
from opd_tui.imports import uncollected
with uncollected():
    import opd_tui.app as app, opd_tui.entry as entry
class Clocked(app.OpdTui):
    def on_ready(self):
        self.longest, self.last = 0.0, time.monotonic()
        self.tick()
    def tick(self):
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now
        asyncio.get_running_loop().call_later(0.002, self.tick)
    def exit(self, *given, **named):
        with open(note, "w") as file:
            file.write(str(self.longest - 0.002))
        super().exit(*given, **named)
app.OpdTui = Clocked
entry.main()
"""


class Terminal:
    """A program in a pty: what it sent, and when."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        environment = {name: value for name, value in as_installed().items() if name != "NO_COLOR"}
        self.started = monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
            env=environment | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )  # fmt: skip
        os.close(slave)
        self.sent = b""

    def pump(self, wait: float) -> int:
        """Take in what came within `wait` seconds: how many bytes."""
        if not select.select([self.master], [], [], wait)[0]:
            return 0
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:
            return 0
        self.sent += data
        return len(data)

    def until(self, *marks: bytes) -> float:
        """Seconds from the start until all `marks` were sent."""
        while not all(mark in self.sent for mark in marks):
            if monotonic() - self.started > PATIENCE:
                raise RuntimeError(f"never sent: {marks!r}; the end of what was: {self.sent[-400:]!r}")
            self.pump(0.05)
        return monotonic() - self.started

    def settle(self, quiet: float = 1.0) -> None:
        """Wait until nothing came for `quiet` seconds."""
        while self.pump(quiet):
            pass

    def press(self, key: str) -> tuple[int, float]:
        """Send a key: bytes that came in answer, and seconds to the last of them."""
        begun = last = monotonic()
        n = 0
        os.write(self.master, key.encode())
        while monotonic() - last < QUIET:
            came = self.pump(QUIET)
            if came:
                n, last = n + came, monotonic()
        return n, last - begun

    def peak_mb(self) -> float:
        """The largest resident memory of the program so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    def close(self) -> None:
        """End the program."""
        os.write(self.master, b"q")
        for _ in range(40):
            self.pump(0.05)
            if self.process.poll() is not None:
                break
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@contextmanager
def program(code: str, *arguments: str) -> Iterator[Terminal]:
    shown = Terminal(code, *arguments)
    try:
        yield shown
    finally:
        shown.close()


def first_tokens(path: Path) -> tuple[bytes, ...]:
    """Texts that stand on the first page only once its tokens are there."""
    opened = store.open(path)
    ids = opened.rollout(opened.questions()[0].id, 0).token_id_T[:3].tolist()
    return tuple(opened.vocab.bytes_of(one) for one in ids)


def starts(path: Path | None) -> tuple[float, float]:
    """Seconds to the first paint, and to the first rollout's tokens. Without a path: of the bare app."""
    if path is None:
        with program(BARE, "somewhere") as shown:
            first = shown.until(b"a bare application")
            return first, first
    marks = first_tokens(path)
    with program(OURS, "browse", str(path), "--fresh") as shown:
        return shown.until(b"opening"), shown.until(*marks)


def keys(path: Path, presses: Sequence[str], at: str) -> tuple[float, float]:
    """Median bytes and seconds of a key, over `presses` one after the other."""
    with program(OURS, "browse", str(path), "--at", at, "--fresh") as shown:
        shown.until(*first_tokens_at(path, at))
        shown.settle()
        shown.press(presses[0])
        found = [shown.press(key) for key in presses]
    return statistics.median(n for n, _ in found), statistics.median(seconds for _, seconds in found)


def first_tokens_at(path: Path, at: str) -> tuple[bytes, ...]:
    """The text of the token under the cursor."""
    question, rollout, token = at.split("/")
    opened = store.open(path)
    return (opened.vocab.bytes_of(int(opened.rollout(question, int(rollout)).token_id_T[int(token)])),)


def held(path: Path, at: str) -> tuple[float, float]:
    """Hold a key: seconds from the last press to the last byte, and the longest pause without a paint meanwhile."""
    with program(OURS, "browse", str(path), "--at", at, "--fresh") as shown:
        shown.until(*first_tokens_at(path, at))
        shown.settle()
        begun = painted = monotonic()
        pause = 0.0
        for number in range(int(HOLD_SECONDS * REPEAT_RATE)):
            os.write(shown.master, b"l")
            while (left := begun + (number + 1) / REPEAT_RATE - monotonic()) > 0:
                if shown.pump(left):
                    pause, painted = max(pause, monotonic() - painted), monotonic()
        released = last = monotonic()
        while shown.pump(QUIET):
            last = monotonic()
        return last - released, pause


def memory(path: Path) -> float:
    """Peak memory in MB after the whole study was looked at and some rollouts were read."""
    with program(OURS, "browse", str(path), "--fresh") as shown:
        shown.until(*first_tokens(path))
        shown.settle(3.0)
        for key in "rnnmtrR":
            shown.press(key)
        return shown.peak_mb()


def longest_block(path: Path, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> float:
    """Longest wait of the event loop, in seconds, while the study is looked at and a few keys are pressed."""
    with tempfile.NamedTemporaryFile() as note:
        with program(CLOCKED, note.name, "browse", str(path), "--fresh") as shown:
            shown.until(b"opening")
            end = monotonic() + seconds
            while monotonic() < end:
                meanwhile()
                for key in "lnjr":
                    shown.press(key)
        return float(Path(note.name).read_text())


def made(folder: Path, name: str, rollouts: int, tokens: int) -> Path:
    path = folder / f"{name}.zarr"
    if not path.exists():
        big_store.write(path, n_questions=max(rollouts // 2, 1), n_tokens=tokens)
    return path


#: What was measured, with its unit in its name, and the same as ratios to the bare app.
Found = tuple[dict[str, float], dict[str, float]]


def of_starts(small: Path, large: Path, repeats: int) -> Found:
    """First paint and first tokens, the three programs in turn."""
    sides: dict[str, Path | None] = {"bare": None, "2000": small, "20000": large}
    rounds = [{name: starts(path) for name, path in sides.items()} for _ in range(repeats + 1)][1:]
    paint, tokens = ({name: statistics.median(one[name][which] for one in rounds) for name in sides} for which in (0, 1))
    measured = {f"first paint, {name}, ms": 1000 * value for name, value in paint.items()}
    measured |= {f"first tokens, {name}, ms": 1000 * value for name, value in tokens.items() if name != "bare"}
    figures = {"first_tokens_20000_vs_2000": tokens["20000"] / tokens["2000"]}
    for name in ("2000", "20000"):
        figures[f"first_paint_{name}_vs_bare"] = paint[name] / paint["bare"]
        figures[f"first_tokens_{name}_vs_bare"] = tokens[name] / paint["bare"]
    return measured, figures


def of_memory(small: Path, large: Path) -> Found:
    """Peaks."""
    with program(BARE, "somewhere") as shown:
        shown.until(b"a bare application")
        measured = {"memory, bare, MB": shown.peak_mb()}
    measured |= {"memory, 2000, MB": memory(small), "memory, 20000, MB": memory(large)}
    bare = measured["memory, bare, MB"]
    return measured, {f"memory_{name}_vs_bare": measured[f"memory, {name}, MB"] / bare for name in ("2000", "20000")}


def of_keys(long: dict[int, Path]) -> Found:
    """Bytes and time of keys; the bare app is started between them, since a machine is not equally fast all the time."""
    kinds = {
        "cursor": "lhlhlhlh",
        "line": "jkjkjkjk",
        "node": "nNnNnN",
        "metric": "mMmMmM",
        "teacher": "tTtTtT",
        "rollout": "rRrRrR",
    }
    measured, bare = {}, []
    for length, path in long.items():
        at = f"q000003/0/{length // 2}"
        for name, presses in kinds.items():
            bare.append(starts(None)[0])
            n, seconds = keys(path, presses, at)
            measured[f"{name} key, {length} tokens, bytes"] = n
            measured[f"{name} key, {length} tokens, ms"] = 1000 * seconds
        late, pause = held(path, at)
        measured[f"held key, {length} tokens, longest pause, ms"] = 1000 * pause
        measured[f"held key, {length} tokens, after release, ms"] = 1000 * late
    return _against(bare, measured)


def of_blocks(large: Path, folder: Path) -> Found:
    """The longest waits of the event loop."""
    bare = [starts(None)[0] for _ in range(3)]
    measured = {"longest block, 20000 rollouts, ms": 1000 * longest_block(large, 15.0)}
    live = big_store.Growing(folder / "live.zarr", planned=10_000)
    live.grow()
    measured["longest block, beside a writer, ms"] = 1000 * longest_block(live.path, 10.0, live.grow)
    return _against(bare + [starts(None)[0] for _ in range(3)], measured)


def _against(bare: list[float], measured: dict[str, float]) -> Found:
    """Milliseconds as shares of the bare app's first paint."""
    paint = 1000 * statistics.median(bare)
    shares = {f"{name.removesuffix(', ms')}, of a bare paint": ms / paint for name, ms in measured.items() if name.endswith("ms")}
    return measured | {"bare paint meanwhile, ms": paint}, shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="Folder for the stores, which are written where they are missing.")
    parser.add_argument("--only", choices=("start", "memory", "keys", "blocks"), help="A section alone.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        small, large = made(folder, "rollouts2000", 2000, 600), made(folder, "rollouts20000", 20_000, 600)
        long = {1000: made(folder, "tokens1000", 16, 1000), 8000: made(folder, "tokens8000", 16, 8000)}
        sections: dict[str, Callable[[], Found]] = {
            "start": lambda: of_starts(small, large, options.repeats),
            "memory": lambda: of_memory(small, large),
            "keys": lambda: of_keys(long),
            "blocks": lambda: of_blocks(large, Path(scratch)),
        }
        figures: dict[str, float] = {}
        for name, section in sections.items():
            if options.only not in (None, name):
                continue
            measured, ratios = section()
            if not options.json:
                for what, value in measured.items():
                    print(f"{what:56} {value:10.1f}")
                for what, value in ratios.items():
                    print(f"{what:56} {value:10.3f} x")
            figures |= ratios | measured
        close("explorer", figures)


if __name__ == "__main__":
    main()
