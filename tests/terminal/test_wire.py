"""What a terminal shows after the thrifty stream is what it would show after the whole one."""

from __future__ import annotations

import random

import pyte
import pytest
from rich.cells import cell_len

from opd_tui.wire import Wire

WIDTH, HEIGHT = 40, 6
COLOURS = ("", "38;2;1;2;3", "38;5;200", "31", "39", "48;2;9;9;9", "49", "44", "1", "4", "7", "1;38;2;4;5;6;48;2;7;8;9", "3;32")
WORDS = ("a", "word", "   ", "same same", "<|tok|>", "0.35", "über", "漢字", "e\u0301", "👩\u200d🚀")


def shown(data: str, screen: pyte.Screen) -> None:
    pyte.Stream(screen).feed(data.replace("\x1b[?2026h", "").replace("\x1b[?2026l", ""))


def cells(screen: pyte.Screen) -> list[list[object]]:
    return [[screen.buffer[y][x] for x in range(WIDTH)] for y in range(HEIGHT)]


def frame(rng: random.Random, words: tuple[str, ...]) -> str:
    """As Textual makes them: stretches with their place or after another one, in a style that is ended again; a line of wide
    characters is drawn whole."""
    parts = ["\x1b[?2026h"]
    for _ in range(rng.randint(1, 12)):
        row, column = rng.randint(1, HEIGHT - 1), rng.randint(1, WIDTH // 4)
        chosen = rng.choices(words, k=rng.randint(1, 3))
        if words is WORDS:
            column = 1
            chosen.append(" " * (WIDTH - sum(map(cell_len, chosen))))
        parts.append(f"\x1b[{row};{column}H")
        parts += [f"\x1b[{rng.choice(COLOURS)}m{word}\x1b[0m" for word in chosen]
        parts.append(rng.choice(("", "\n")))
    return "".join([*parts, f"\x1b[{rng.randint(1, HEIGHT)};{rng.randint(1, WIDTH)}H", "\x1b[?2026l"])


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("words", [WORDS[:7], WORDS], ids=["narrow", "wide"])
def test_the_same_picture_with_fewer_bytes(seed: int, words: tuple[str, ...]) -> None:
    rng = random.Random(seed)
    wire, whole, thrifty = Wire(), pyte.Screen(WIDTH, HEIGHT), pyte.Screen(WIDTH, HEIGHT)
    n_whole = n_sent = 0
    for _ in range(30):
        data = frame(rng, words)
        sent = wire.thrifty(data)
        n_whole, n_sent = n_whole + len(data), n_sent + len(sent)
        shown(data, whole)
        shown(sent, thrifty)
        assert cells(whole) == cells(thrifty)
        assert (whole.cursor.x, whole.cursor.y) == (thrifty.cursor.x, thrifty.cursor.y)
    assert n_sent < n_whole


def test_what_is_there_is_not_sent_again() -> None:
    wire = Wire()
    data = "\x1b[2;3H\x1b[1;31mhello\x1b[0m world\x1b[1;1H"
    assert "hello" in wire.thrifty(data)
    assert wire.thrifty(data) == ""
    assert wire.thrifty(data.replace("world", "wOrld")).count("O") == 1
    assert "hello" not in wire.thrifty(data)


def test_everything_is_drawn_anew_once_the_terminal_may_show_something_else() -> None:
    data = "\x1b[2;3H\x1b[31mhello\x1b[0m\x1b[1;1H"
    for other in ("\x1b[2J", "\x1b[?1049h", "\x1b]0;title\x07"):
        wire = Wire()
        wire.thrifty(data)
        assert wire.thrifty(other).endswith(other)
        assert "hello" in wire.thrifty(data)
    wire = Wire()
    wire.thrifty(data)
    wire.forget()
    assert "hello" in wire.thrifty(data)


def test_a_program_leaves_the_terminal_in_its_own_style() -> None:
    wire = Wire()
    wire.thrifty("\x1b[1;1H\x1b[1;31mbold\x1b[0m")
    assert wire.thrifty("\x1b[?1049l").startswith("\x1b[m")
