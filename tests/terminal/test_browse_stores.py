"""What Browse makes of stores that are empty, grow, lack something or are damaged; and of answers that nobody waits for."""

from __future__ import annotations

import asyncio
import shutil
from math import isfinite
from pathlib import Path

import numpy as np

from opd_tui.app import OpdTui, Wish
from opd_tui.loader import Polled
from opd_tui.metrics import BY_KEY, METRICS
from tests.synthetic import question_record
from tests.terminal.driving import SIZES, browsing, picture, press, until


async def test_a_question_left_out_says_why(calm_store: Path) -> None:
    async with browsing(calm_store, wish=Wish("q005")) as (pilot, screen):
        shown = picture(pilot)
        assert "left out: no initial rollout was correct" in shown
        assert "no node" in shown
        await press(pilot, screen, "n", "]", "w")
        assert screen.session.token == 0


async def test_an_empty_store_says_that_it_waits_and_fills_when_it_grows(empty_store: Path) -> None:
    from store.writer import publish

    async with browsing(empty_store) as (pilot, screen):
        assert "no question is finished yet" in picture(pilot)
        assert "0 of 4 questions" in picture(pilot)
        assert "live" in picture(pilot)
        await press(pilot, screen, "n", "]", "m", "t", "r", "s", "down", "p", "u", "v")
        publish(empty_store, "p-first", question_record(1))
        await until(pilot, lambda: screen.session.page is not None and screen.settled)
        assert "1 of 4 questions" in picture(pilot)


async def test_new_questions_append_and_the_cursor_stays(empty_store: Path) -> None:
    from store.writer import publish

    publish(empty_store, "p-b", question_record(1))
    async with browsing(empty_store) as (pilot, screen):
        await press(pilot, screen, "n", "right")
        before = screen.session.question_id, screen.session.rollout, screen.session.token
        publish(empty_store, "p-a", question_record(0))
        await until(pilot, lambda: "2 of 4 questions" in picture(pilot))
        await until(pilot, lambda: screen.settled)
        assert (screen.session.question_id, screen.session.rollout, screen.session.token) == before
        assert screen.questions.questions[screen.questions.cursor].id == "q001"


async def test_a_late_answer_is_dropped(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        screen.open(1)
        screen.open(2)
        screen.open(3)
        await until(pilot, lambda: screen.settled)
        assert screen.session.page is not None and screen.session.page.index == 3


async def test_answers_that_come_while_it_ends_are_dropped(calm_store: Path) -> None:
    """Its panes go one after the other, and the threads that read do not know."""
    async with browsing(calm_store) as (pilot, screen):
        app, catalogue = pilot.app, screen.session.catalogue
        assert isinstance(app, OpdTui) and catalogue is not None

        async def keep_telling() -> None:
            while True:
                app.post_message(OpdTui.Delivered(Polled(catalogue)))
                await asyncio.sleep(0)

        telling = asyncio.create_task(keep_telling())
    telling.cancel()
    assert not app.is_running and app.return_code in (None, 0)


async def test_a_damaged_page_shows_one_sentence_and_the_rest_still_works(calm_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.zarr"
    shutil.copytree(calm_store, path)
    for shard in path.glob("teacher/ext-7b/*/logprob/c/*"):
        shard.write_bytes(b"\x00" * 10)
    async with browsing(path) as (pilot, screen):
        assert screen.session.page is None
        assert screen.keys.sentence is not None and "logprob" in screen.keys.sentence
        assert "".join(screen.keys.sentence.split()) == "".join(screen.keys.text.split())
        await press(pilot, screen, "tab", "n", "r")


async def test_a_store_that_is_none_ends_the_app_with_a_sentence(tmp_path: Path) -> None:
    app = OpdTui(str(tmp_path / "nothing.zarr"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.failure is not None)
    assert "there is no store at" in str(app.failure)
    assert app.return_code == 1


@SIZES
async def test_a_teacher_without_numbers_shows_dashes_and_no_colour(empty_store: Path, size: tuple[int, int]) -> None:
    from store.writer import PartArrays, publish

    whole = question_record(1)
    silent = {
        name: np.full_like(column, np.nan) if column.dtype.kind == "f" else column
        for name, column in whole.teachers["self-1c"].items()
    }
    publish(empty_store, "p-1", PartArrays(whole.student, {**whole.teachers, "self-1c": silent}))
    async with browsing(empty_store, size, wish=Wish(None, "self-1c")) as (pilot, screen):
        assert screen.session.teacher_label == "self-1c"
        assert not any(isfinite(value) for value in screen.session.colouring.values)
        assert "no estimate" in picture(pilot)
        for _ in METRICS:
            await press(pilot, screen, "m", "n", "]", "w")


async def test_a_rollout_without_nodes_says_so(empty_store: Path) -> None:
    from store.writer import publish

    publish(empty_store, "p-1", question_record(1, n_rollouts=6))
    async with browsing(empty_store, wish=Wish("q001/5", None, BY_KEY["advantage"])) as (pilot, screen):
        assert screen.session.page is not None and not screen.session.page.node_positions
        assert "it has no nodes" in picture(pilot)
        await press(pilot, screen, "m", "]", "n", "w", "tab", "down", "enter")
        assert isfinite(screen.session.colouring.values[screen.session.token])


async def test_nodes_that_are_no_decision_points_say_why(calm_store: Path) -> None:
    from opd_tui.reading import Library

    library = Library(str(calm_store))
    places = [
        (place, page.index, facts.reason)
        for page in (library.rollout("q000", index) for index in range(4))
        for place in page.node_positions
        if (facts := page.node(place, 0, 0)) is not None and facts.reason
    ]
    assert places
    place, index, reason = places[0]
    async with browsing(calm_store, wish=Wish(f"q000/{index}/{place}")) as (pilot, _):
        assert "no decision point" in picture(pilot)
        assert reason.split(":")[0] in picture(pilot)


async def test_a_teacher_that_is_added_meanwhile_appears(empty_store: Path) -> None:
    from store.tables import TeacherInfo
    from store.writer import add_teacher, publish, publish_teacher

    whole = question_record(1)
    publish(empty_store, "p-1", whole)
    async with browsing(empty_store) as (pilot, screen):
        await press(pilot, screen, "n", "right")
        before = screen.session.token
        add_teacher(empty_store, TeacherInfo("late", "external", "", "late-7b", False, "came later"))
        publish_teacher(empty_store, "p-1", "late", whole.teachers["ext-7b"])
        await until(pilot, lambda: screen.session.n_teachers == 4 and screen.settled)
        assert screen.session.token == before
        await press(pilot, screen, "T")
        assert screen.session.teacher_label == "late"
        assert "late" in picture(pilot)
