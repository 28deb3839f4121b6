"""What is read without Typer is read as Typer reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from opd_tui import cli
from opd_tui.entry import Browsing, plain_browse

ROOT = Path(__file__).resolve().parents[2]
WORDS = (
    "S.zarr",
    "--at",
    "--teacher",
    "--metric",
    "--fresh",
    "kl-student-teacher",
    "q1/0/3",
    "--web",
    "--at=q1",
    "--help",
    "-",
    "--",
    "",
)


def by_typer(typed: list[str], monkeypatch: pytest.MonkeyPatch) -> Browsing | None:
    """What Typer has the explorer opened with; None where it ends otherwise."""
    opened: list[Browsing] = []

    def explore(browsing: Browsing) -> int:
        opened.append(browsing)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(cli, "explore", explore)
        CliRunner().invoke(cli.app, typed)
    return opened[0] if opened else None


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=6))
def test_a_command_that_is_read_plainly_means_what_typer_says(words: list[str]) -> None:
    browsing = plain_browse(["browse", *words])
    if browsing is not None:
        with pytest.MonkeyPatch.context() as patch:
            assert browsing == by_typer(["browse", *words], patch)


def test_every_option_of_a_place_is_read_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["browse", "--at", "q1/0/3", "S.zarr", "--fresh", "--metric", "gain", "--teacher", "big"]
    assert plain_browse(typed) == Browsing("S.zarr", "q1/0/3", "big", "gain", True) == by_typer(typed, monkeypatch)


@pytest.mark.parametrize(
    "typed", ["", "demo", "info S.zarr", "browse", "browse S.zarr T.zarr", "browse S.zarr --metric none", "browse S.zarr --at"]
)
def test_what_is_no_plain_browse_is_left_to_typer(typed: str) -> None:
    assert plain_browse(typed.split()) is None


def test_opening_the_explorer_takes_neither_typer_nor_pydantic() -> None:
    program = "import sys, opd_tui.entry, opd_tui.app; print({'typer', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    assert done.stdout == "set()\n"
