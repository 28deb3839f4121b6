"""Where somebody left off: written whole, and ignored where it cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from opd_tui.app import OpdTui, Wish
from opd_tui.bookmarks import Bookmark, Bookmarks
from opd_tui.metrics import BY_KEY
from opd_tui.state import SCHEMA, Kept, absolute, recall, remember
from opd_tui.view import View
from tests.terminal.driving import WIDE, press, until
from tests.terminal.driving import opened as opened_app

BOOKMARK = Bookmark("q001", 2, 7, "\x1b[31mred")


def kept(path: Path, **more: object) -> Kept:
    return Kept(schema=SCHEMA, study_hash="h", store=str(path), question="q001", rollout=2, token=5, **more)  # type: ignore[arg-type]


def state_file() -> Path:
    (found,) = (Path(os.environ["XDG_STATE_HOME"]) / "opd-tui" / "stores").glob("*.json")
    return found


def test_what_is_remembered_is_recalled_for_the_same_store_and_study(tmp_path: Path) -> None:
    one = kept(tmp_path / "s.zarr", bookmarks=(BOOKMARK,), objectives=("jsd(0.3)",), support="lumped")
    remember(one)
    assert recall(str(tmp_path / "s.zarr"), "h") == one
    assert recall(str(tmp_path / "." / "s.zarr"), "h") == one
    assert recall(str(tmp_path / "s.zarr"), "another study") is None
    assert recall(str(tmp_path / "other.zarr"), "h") is None
    assert one.view == View(("jsd(0.3)",), "lumped")
    assert one.at({"q001"}) == "q001/2/5"
    assert one.at({"q000"}) is None
    assert state_file().stat().st_mode & 0o077 == 0
    assert state_file().name.startswith("s.zarr-")


def test_two_stores_are_never_taken_for_each_other(tmp_path: Path) -> None:
    remember(kept(tmp_path / "s.zarr"))
    state_file().write_bytes(msgspec.json.encode(kept(tmp_path / "another.zarr")))  # as if their checksums were the same
    assert recall(str(tmp_path / "s.zarr"), "h") is None


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff\xfe.zarr"), "..", "a b/../c;d'\n.zarr", "名.zarr", "x" * 250])
def test_any_folder_can_be_remembered(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    one = msgspec.structs.replace(kept(tmp_path), store=absolute(path))
    remember(one)
    assert recall(path, "h") == one
    assert state_file().parent == Path(os.environ["XDG_STATE_HOME"]) / "opd-tui" / "stores"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": "opd-tui/state/1"}',
        b'{"schema": "opd-tui/state/9", "study_hash": "h", "store": "s"}',
        b'{"schema": "opd-tui/state/1", "study_hash": "other", "store": "s"}',
        b'{"schema": "opd-tui/state/1", "study_hash": "h", "store": "s", "token": "seven"}',
        b'{"schema": "opd-tui/state/1", "study_hash": "h", "store": "s", "support": "nothing"}',
    ],
)
def test_a_file_that_cannot_be_used_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    remember(kept(tmp_path / "s.zarr"))
    state_file().write_bytes(damage)
    assert recall(str(tmp_path / "s.zarr"), "h") is None


def test_a_bookmark_is_set_and_taken_away() -> None:
    bookmarks = Bookmarks()
    assert bookmarks.toggle(BOOKMARK)
    assert bookmarks.along("q001", 2) == {7}
    assert not bookmarks.along("q001", 1) and not bookmarks.along(None, None)
    assert not bookmarks.toggle(Bookmark("q001", 2, 7, "other text"))
    assert not bookmarks.all


async def test_the_next_run_begins_where_the_last_one_ended(calm_store: Path) -> None:
    async with opened_app(OpdTui(str(calm_store), remember=True)) as (pilot, screen):
        await press(pilot, screen, "r", "n", "n", "b", "t", "2", "s", "u", "v", "S")
        screen.colour_by(BY_KEY["gain"])
        place, view = screen.place, screen.session.view
    assert view.support == "renormalised"
    async with opened_app(OpdTui(str(calm_store), restore=True)) as (_, screen):
        session = screen.session
        assert (screen.place, session.view) == (place, view)
        assert (session.metric.key, session.teacher_label, session.objective) == ("gain", "self-1c", 1)
        assert screen.questions.order == "success"
        assert screen.tokens.marks and not screen.tokens.whitespace
        assert [one.place for one in screen.bookmarks.all] == [place]
        assert session.page is not None and session.page.scores.support == "renormalised"
    async with opened_app(OpdTui(str(calm_store))) as (_, screen):
        assert screen.session.metric.key == "alignment" and not screen.bookmarks.all
    async with opened_app(OpdTui(str(calm_store), restore=True, fresh=True)) as (_, screen):  # nothing that was made is lost
        assert (screen.session.metric.key, screen.session.view, screen.questions.order) == ("alignment", View(), "study order")
        assert [one.place for one in screen.bookmarks.all] == [place] != [screen.place]
    wish = Wish("q002/0/1", "hot", BY_KEY["js"])
    async with opened_app(OpdTui(str(calm_store), wish, restore=True)) as (_, screen):
        assert str(screen.place) == "q002/0/1"
        assert (screen.session.metric.key, screen.session.teacher_label) == ("js", "hot")
        assert len(screen.bookmarks.all) == 1


async def test_names_that_a_store_does_not_have_any_more_are_left_out(calm_store: Path) -> None:
    async with opened_app(OpdTui(str(calm_store), remember=True)):
        pass
    found = msgspec.json.decode(state_file().read_bytes())
    found |= {"question": "gone", "teacher": "gone", "metric": "gone", "objective": "gone", "objectives": ["gone"]}
    found |= {"order": "gone", "second_teacher": "gone", "bookmarks": [{"question_id": "gone\x1b[2J", "rollout": 0, "token": 0}]}
    state_file().write_bytes(msgspec.json.encode(found))
    async with opened_app(OpdTui(str(calm_store), restore=True)) as (pilot, screen):
        assert str(screen.place).startswith("q000/")
        assert (screen.session.metric.key, screen.session.teacher) == ("alignment", 0)
        assert screen.session.view == View()
        await press(pilot, screen, "apostrophe")
        await until(pilot, lambda: pilot.app.screen is not screen)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert screen.keys.sentence is not None and "not in this store" in screen.keys.sentence
        assert "\x1b" not in screen.keys.sentence
    assert WIDE
