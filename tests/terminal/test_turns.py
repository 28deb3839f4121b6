"""Threads give way to the loop that draws, and are not starved by it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from opd_tui import turns as subject
from opd_tui.turns import Turns


def stepping(turns: Turns) -> threading.Event:
    """Set as soon as a thread was given its turn."""
    had = threading.Event()

    def step() -> None:
        turns.give_way()
        had.set()

    threading.Thread(target=step).start()
    return had


def test_a_thread_waits_while_the_loop_is_at_work_and_goes_on_while_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_PATIENCE", 30.0)
    turns = Turns()

    async def draw() -> None:
        await asyncio.sleep(0.01)  # at the latest from here on the loop is known
        had = stepping(turns)
        time.sleep(0.1)
        assert not had.is_set()
        await asyncio.sleep(0)  # the loop has more to do at once: it does not wait
        time.sleep(0.1)
        assert not had.is_set()
        while not had.is_set():
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=turns.loop) as runner:
        runner.run(asyncio.wait_for(draw(), 10.0))


def test_a_loop_that_never_waits_starves_nobody() -> None:
    turns = Turns()

    async def draw() -> bool:
        return stepping(turns).wait(10.0)

    with asyncio.Runner(loop_factory=turns.loop) as runner:
        assert runner.run(draw())


def test_without_a_loop_it_is_always_a_threads_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_PATIENCE", 30.0)
    assert stepping(Turns()).wait(10.0)
