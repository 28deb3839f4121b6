"""Completions to be read: which come first, and what stands above each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import store
from opd_tui.after_child import after_child
from opd_tui.app import OpdTui
from opd_tui.facts import Passage
from opd_tui.reading import Library
from opd_tui.screens.reader import Reader, Sheet
from opd_tui.text import safe
from store.schema import ABSENT_TOKEN, REST_TOKEN
from tests.conftest import CHAIN_SUMS
from tests.terminal.driving import browsing, until


@pytest.fixture
def passages(calm_store: Path) -> tuple[Passage, ...]:
    """The completions of the child that most were kept of."""
    opened, library = store.open(calm_store), Library(str(calm_store))
    exits = [(one.exit_node, one.exit_token) for one in opened.completions("q000")]
    return library.completions("q000", *max(exits, key=exits.count))


def test_above_them_stands_what_they_are(passages: tuple[Passage, ...]) -> None:
    word, *others = passages
    assert re.fullmatch(r"after .+: p_succ \.\d\d \[.+\]", word.heading)
    right = sum(passage.verdict is True for passage in others)
    assert f"{len(others)} completions that came this way, {right} of them correct" in word.body[0]


def test_right_ones_come_first_and_the_shortest_of_each(passages: tuple[Passage, ...]) -> None:
    assert len(passages) > 2
    order = []
    for passage in passages[1:]:
        found = re.fullmatch(
            r"(correct|incorrect), (\d+) tokens?, (ended by the student|cut off at the length limit), sample \d+"
            r"(, launched at token \d+)?",
            passage.heading,
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
        assert len(headings) == len(passages) - 1
        for heading in headings:
            assert heading.style is not None and heading.style.color is not None
            assert heading.style.color.name == (good if heading.text.startswith("✓") else bad)


def test_what_was_launched_elsewhere_and_came_this_way_counts_too() -> None:
    """Every completion of the built-in study is after one child at each node it passed, and nowhere else."""
    opened = store.open(CHAIN_SUMS / "chain_sums.zarr")
    question = "q005"
    nodes, completions = opened.nodes(question), opened.completions(question)
    rollouts = [opened.rollout(question, row.index, ()) for row in opened.line(question).rollouts]
    root = int(nodes.position_N.argmin())
    assert nodes.position_N[root] == 0
    children = [token for token in nodes.token_NK[root].tolist() if token != ABSENT_TOKEN]
    after = {token: after_child(nodes, rollouts, completions, root, token) for token in children}
    assert sum(map(len, after.values())) == len(completions)  # the node before the first token: all came by one of its children
    assert any(one.completion.launch_node != root for found in after.values() for one in found)
    for token, found in after.items():
        for one in found:
            if one.completion.launch_node == root and one.completion.position == 0:
                own = one.completion.token_ids.tolist()
                assert one.token_ids.tolist() == (own if token == REST_TOKEN else own[1:])


async def test_who_opens_a_long_text_is_not_held_up_by_it(calm_store: Path) -> None:
    passage = Passage("long", (safe("漢字é " * 100_000),))
    async with browsing(calm_store) as (pilot, browse):
        app = pilot.app
        assert isinstance(app, OpdTui)
        await app.push_screen(Reader("completions", app.palette, [passage]))
        sheet = app.screen.query_one(Sheet)
        await until(pilot, lambda: len(sheet._lines) > sheet.size.height)  # the first window is there ...
        assert len(sheet._lines) < 400_000 // 80
        await pilot.press("escape")  # ... and one can leave before the rest is
        await until(pilot, lambda: app.screen is browse)
