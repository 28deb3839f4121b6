"""What is copied also lies in a file: a terminal may not pass it on (OSC 52), and never says so."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from opd_tui.folders import cache_folder

#: A token's text; or its row of an export: all numbers of the token and of its node.
Copying = Literal["text", "row"]


def keep(name: str, text: str) -> Path:
    """Write `text` into the user's cache, whole or not at all, and say where. Raises OSError."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / name
    write_whole(target, text.encode("utf-8", "surrogatepass"))
    return target


def write_whole(target: Path, data: bytes) -> None:
    """`target` holds `data`, or what it held before. Only its owner can read it. Raises OSError."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        with suppress(OSError):
            unfinished.unlink()
