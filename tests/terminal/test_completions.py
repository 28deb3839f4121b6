"""Completions to be read: which come first, and what stands above each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import store
from opd_tui.app import OpdTui
from opd_tui.facts import Passage
from opd_tui.reading import Library
from opd_tui.screens.reader import Reader, Sheet
from tests.terminal.driving import browsing, until


@pytest.fixture
def passages(calm_store: Path) -> tuple[Passage, ...]:
    """The completions of the child that most were kept of."""
    opened, library = store.open(calm_store), Library(str(calm_store))
    exits = [(one.exit_node, one.exit_token) for one in opened.completions("q000")]
    return library.completions("q000", *max(exits, key=exits.count))


def test_right_ones_come_first_and_the_shortest_of_each(passages: tuple[Passage, ...]) -> None:
    assert len(passages) > 1
    order = []
    for passage in passages:
        found = re.fullmatch(
            r"(correct|incorrect), (\d+) tokens, (ended by the student|cut off at the length limit), sample \d+", passage.heading
        )
        assert found is not None, passage.heading
        assert passage.verdict is (found[1] == "correct")
        order.append((found[1] != "correct", int(found[2])))
    assert order == sorted(order)


async def test_they_have_the_colour_of_their_outcome(calm_store: Path, passages: tuple[Passage, ...]) -> None:
    async with browsing(calm_store) as (pilot, _):
        app = pilot.app
        assert isinstance(app, OpdTui)
        await app.push_screen(Reader("completions", app.palette, passages))
        await until(pilot, lambda: bool(app.screen.query_one(Sheet).text))
        good, bad = app.palette.ink.good, app.palette.ink.bad
        headings = [line[0] for line in app.screen.query_one(Sheet)._lines if line and line[0].text[:2] in ("✓ ", "✗ ")]
        assert len(headings) == len(passages)
        for heading in headings:
            assert heading.style is not None and heading.style.color is not None
            assert heading.style.color.name == (good if heading.text.startswith("✓") else bad)
