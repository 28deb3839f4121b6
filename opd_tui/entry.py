"""The entry of the console script: what was typed goes to the explorer or to `opd_tui.cli`; what fails becomes one sentence.

`opd-tui browse S.zarr` is read here, because somebody waits for its paint: Typer, and Pydantic, of which it makes a validator
for every argument, take two fifths of the processor time that Textual takes to import, and 12 MB. Whatever needs more than a
look, `--help`, `--web` and every mistake among it, is Typer's to read.

Exit codes: 0 done, 1 failed (one sentence on stderr; --debug shows the traceback), 2 wrong usage,
130 interrupted and resumable. Errors are caught here, and nowhere below.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NamedTuple

from opd_tui.guard import ForeignModule, check_packages

#: Whether --debug was given; the edge below asks after the command is over.
DEBUG: list[bool] = []


class Failure(Exception):
    """A failure of the command itself, in one sentence."""


class Browsing(NamedTuple):
    """What `opd-tui browse` is given."""

    path: str
    at: str | None = None
    teacher: str | None = None
    metric: str | None = None
    fresh: bool = False


class _Stopped(BaseException):
    """Ctrl-C outside of a computation, where nothing needs to be put away first."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def main() -> None:
    """Do what was typed: every known failure becomes one sentence and an exit code."""
    DEBUG.clear()
    signal.signal(signal.SIGINT, _stop)
    try:
        check_packages()
        browsing = plain_browse(sys.argv[1:])
        if browsing is not None:
            sys.exit(explore(browsing))
        from opd_tui.cli import app

        app()
    except _Stopped:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sys.exit(_failed(error))


def plain_browse(typed: Sequence[str]) -> Browsing | None:
    """`browse`, a path and some of its options, understood; None where `typed` is, or may be, anything else."""
    if typed[:1] != ["browse"] or os.name == "nt":  # there it is Typer that looks which files a pattern means
        return None
    words = iter(typed[1:])
    given: dict[str, Any] = {}
    for word in words:
        name, value = (word[2:], next(words, "-")) if word in ("--at", "--teacher", "--metric") else ("path", word)
        if word == "--fresh":
            given["fresh"] = True
        elif name in given or value.startswith("-"):
            return None
        else:
            given[name] = value
    return Browsing(**given) if "path" in given and _is_metric(given.get("metric")) else None


def _is_metric(wanted: str | None) -> bool:
    from opd_tui.metrics import BY_KEY

    return wanted is None or wanted in BY_KEY


def explore(browsing: Browsing) -> int:
    """Show the explorer until the user leaves; its exit code."""
    from opd_tui.imports import asyncio_without_tls, uncollected

    with uncollected():
        asyncio_without_tls()
        from opd_tui.app import browse
        from opd_tui.settings import SettingsError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("The explorer needs a terminal; `opd-tui info` and `opd-tui export` do without.")
    if os.environ.get("TERM", "dumb") in ("", "dumb") and os.name == "posix":
        raise Failure(
            "The explorer needs a terminal that can place its cursor, and TERM names none; set it, for example to "
            "TERM=xterm-256color, or use `opd-tui info` and `opd-tui export`."
        )
    try:
        return browse(browsing.path, at=browsing.at, teacher=browsing.teacher, metric=browsing.metric, fresh=browsing.fresh)
    except SettingsError as error:
        raise Failure(str(error)) from None


def _failed(error: Exception) -> int:
    """Say a known failure in one sentence; let an unknown one show itself."""
    if isinstance(error, ForeignModule):  # nothing of ours can be imported then
        print(f"opd-tui: {error}", file=sys.stderr)
        return 1
    from compute.errors import ComputeError, Interrupted
    from opd_tui.text import safe
    from opd_tui.usage import WrongUsage
    from store.errors import StoreError

    if DEBUG and DEBUG[0]:
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            print(safe(line), file=sys.stderr)
    if isinstance(error, Interrupted):
        print(safe(str(error)), file=sys.stderr)
        return 130
    if isinstance(error, ComputeError | StoreError | Failure):
        sentence = str(error)
        first = sentence.partition(" ")[0]
        if first.isalpha() and first not in sys.argv:  # a path stays as it is
            sentence = sentence[:1].upper() + sentence[1:]
        print(f"opd-tui: {safe(sentence)}", file=sys.stderr)
        return 2 if isinstance(error, WrongUsage) else 1
    print(
        f"opd-tui: Unexpected {type(error).__name__}: {safe(str(error))} (--debug shows where; please report it)",
        file=sys.stderr,
    )
    return 1
