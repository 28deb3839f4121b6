"""Dialogs, copies, bookmarks and files, by their keys, at both sizes."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from textual.widgets import Input

from opd_tui.app import OpdTui, Wish
from opd_tui.export.job import ENDINGS, FORMATS, WHATS, Format, What
from opd_tui.export.rows import Selection, rows
from opd_tui.metrics import BY_KEY
from opd_tui.palette import Depth
from opd_tui.screens.dialog import Dialog
from opd_tui.screens.export_dialog import ExportDialog
from opd_tui.screens.guest import Guest
from opd_tui.screens.help import NAMES, Help, key_name
from opd_tui.screens.objectives import Objectives
from opd_tui.screens.teachers import Teachers
from opd_tui.screens.too_small import TooSmall
from opd_tui.settings import Settings
from store import open as open_store
from tests.conftest import run_opd
from tests.terminal.driving import NARROW, SIZES, WIDE, browsing, picture, press, until


def copy_file(name: str) -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "opd-tui" / name


@SIZES
async def test_teachers_are_compared_and_chosen(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        await pilot.press("i")
        await until(pilot, lambda: isinstance(pilot.app.screen, Teachers))
        await pilot.pause()
        shown = picture(pilot)
        assert all(word in shown for word in ("ext-7b", "self-1c", "hot", "external", "gain"))
        await pilot.press("down", "enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert screen.session.teacher_label == "self-1c"
        assert "self-1c" in screen.legend.text


@SIZES
async def test_a_second_teacher_is_held_against_the_current_one(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        assert screen.session.second == 1
        await pilot.press("i", "end", "d")
        await until(pilot, lambda: pilot.app.screen is screen)
        session = screen.session
        assert session.metric is BY_KEY["alignment-difference"] and session.second == 2
        assert session.choice.startswith("ext-7b − hot")
        await press(pilot, screen, "T")
        assert session.teacher == 2 and session.second == 0  # never a teacher against itself
        await pilot.press("i", "d")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert screen.keys.sentence is not None and "against itself" in screen.keys.sentence


@pytest.mark.parametrize("depth", Depth)
async def test_the_best_teacher_is_named_and_marked(calm_store: Path, depth: Depth) -> None:
    async with browsing(calm_store, depth=depth) as (pilot, screen):
        screen.colour_by(BY_KEY["best-teacher"])
        await pilot.pause()
        assert all(f"{place} {name}" in screen.legend.text for place, name in enumerate(("ext-7b", "self-1c", "hot"), 1))
        best = screen.session.colouring.values[screen.session.token]
        assert f"here {int(best) + 1} " in screen.legend.text
        await press(pilot, screen, "]", "w")
        if depth in (Depth.STANDARD, Depth.NONE):
            under = screen.tokens._mark_spans(screen.tokens._layout.lines[0])
            assert str(int(best) + 1) in "".join(part.text for part in under)


@SIZES
async def test_any_objective_is_scored_live(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        before = screen.session.token
        await pilot.press("o")
        await until(pilot, lambda: isinstance(pilot.app.screen, Objectives))
        await pilot.press("down", "down")
        assert pilot.app.screen.query_one(Input).value == "jsd(0.5)"
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen and screen.settled)
        session = screen.session
        assert session.n_objectives == 3 and session.objective == 2 and session.token == before
        assert "jsd(0.5)" in session.choice
        assert session.overview is not None and session.overview.view == session.view
        await press(pilot, screen, "1", "3")
        assert session.objective == 2
        await pilot.press("o")
        await until(pilot, lambda: isinstance(pilot.app.screen, Objectives))
        pilot.app.screen.query_one(Input).value = "nonsense"
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(pilot.app.screen, Objectives) and "Unknown objective" in picture(pilot)
        pilot.app.screen.query_one(Input).value = "top_k_reverse_kl(5000)"
        await pilot.press("enter")
        await until(pilot, lambda: "not 5000." in picture(pilot))
        assert pilot.app.screen.query_one(Input).value.startswith("top_k_reverse_kl(5000")  # to be mended
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen and screen.settled)
        assert session.n_objectives == 3 and session.page is not None


@SIZES
async def test_supports_go_round_and_are_named(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        first = screen.session.overview
        assert "sliced" not in screen.legend.text
        for support in ("renormalised", "lumped", "sliced"):
            await press(pilot, screen, "S")
            page = screen.session.page
            assert page is not None and page.scores.support == support
            assert (support in screen.legend.text) == (support != "sliced")
        assert screen.session.overview is not None and screen.session.overview is not first


async def test_a_page_that_is_asked_for_meanwhile_comes_under_the_new_support(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await pilot.press("S", "r", "S", "r")
        await until(pilot, lambda: screen.settled)
        page = screen.session.page
        assert page is not None and (page.index, page.scores.support) == (2, screen.session.view.support)


async def test_a_token_is_copied_as_text_as_json_and_as_a_place(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        opened, place = open_store(calm_store), screen.place
        assert place is not None and place.rollout is not None and place.token is not None
        selection = Selection(("q000",), (place.rollout,), ("ext-7b",), (place.token, place.token + 1))
        (expected,) = rows(opened, selection)
        await pilot.press("y")
        await until(pilot, lambda: copy_file("token.txt").exists() and screen.keys.sentence is not None)
        assert copy_file("token.txt").read_text() == expected["token"] == pilot.app.clipboard
        assert screen.keys.sentence is not None and "token.txt" in screen.keys.sentence
        await pilot.press("Y")
        await until(pilot, lambda: copy_file("token.json").exists() and pilot.app.clipboard.startswith("{"))
        found = json.loads(copy_file("token.json").read_text())
        assert found.keys() == expected.keys() and found["children"] == expected["children"]
        assert found["alignment"] == expected["alignment"] and found["gain"] == expected["gain"]
        await pilot.press("ctrl+y")
        await pilot.pause()
        assert pilot.app.clipboard == str(place) == copy_file("place.txt").read_text()
        assert copy_file("place.txt").stat().st_mode & 0o077 == 0


async def test_what_goes_to_the_clipboard_is_base64(hostile_store: Path) -> None:
    async with browsing(hostile_store) as (pilot, _):
        sent: list[str] = []
        assert pilot.app._driver is not None
        pilot.app._driver.write = sent.append  # type: ignore[method-assign]
        for _ in range(6):
            await pilot.press("right", "y")
            await pilot.pause(0.05)
        await until(pilot, lambda: any("]52;" in data for data in sent))
        for data in sent:
            if "]52;c;" in data:
                base64.b64decode(data.partition("]52;c;")[2].rstrip("\x07"), validate=True)


async def test_a_copy_that_cannot_be_kept_is_said(calm_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    async with browsing(calm_store) as (pilot, screen):
        await pilot.press("ctrl+y")
        await pilot.pause()
        assert screen.keys.sentence is not None and "no file could be written" in screen.keys.sentence


@SIZES
async def test_bookmarks_are_set_listed_gone_to_and_removed(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        await press(pilot, screen, "n", "b")
        first = screen.place
        assert "◆" in picture(pilot)
        await press(pilot, screen, "r")
        assert "◆" not in picture(pilot)
        await press(pilot, screen, "b")
        await pilot.press("apostrophe")
        await pilot.pause()
        assert "q000" in picture(pilot) and "bookmarks" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen and screen.settled)
        assert screen.place == first
        await pilot.press("apostrophe", "d", "escape")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert len(screen.bookmarks.all) == 1 and "◆" not in picture(pilot)
        await press(pilot, screen, "b", "b")
        assert len(screen.bookmarks.all) == 1


@SIZES
async def test_rows_are_exported_to_a_file(calm_store: Path, size: tuple[int, int], tmp_path: Path) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        await pilot.pause()
        assert "3 rows" in picture(pilot)
        await pilot.press("right", "down", "right", "down", "right")
        await pilot.pause()
        page = screen.session.page
        assert page is not None
        assert f"{page.n_tokens} rows" in picture(pilot) and "export.csv" in picture(pilot)
        await pilot.press("left")
        out = tmp_path / "rows.jsonl"
        pilot.app.screen.query_one(Input).value = str(out)
        await pilot.press("enter", "enter")  # on to the file, and written
        await until(pilot, lambda: pilot.app.screen is screen)
        assert screen.keys.sentence is not None and f"{page.n_tokens} rows are in" in screen.keys.sentence
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(lines) == page.n_tokens and {line["teacher"] for line in lines} == {"ext-7b"}
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".jsonl"] == ["rows.jsonl"]


async def test_a_file_that_is_there_is_asked_about_and_one_that_cannot_be_is_said(calm_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.jsonl"
    out.write_text("mine")
    async with browsing(calm_store) as (pilot, screen):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        field = pilot.app.screen.query_one(Input)
        field.value = str(tmp_path / "nowhere" / "a.jsonl")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "cannot be written" in picture(pilot))
        field.value = str(out)
        await pilot.press("enter")
        await until(pilot, lambda: "once more replaces it" in picture(pilot))
        assert out.read_text() == "mine"
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert len(out.read_text().splitlines()) == 3


async def test_everything_in_the_list_is_everything(calm_store: Path, tmp_path: Path) -> None:
    async with browsing(calm_store) as (_, screen):
        order = screen.order("everything in the list", "all teachers", "jsonl", str(tmp_path / "all.jsonl"))
        assert order.n_rows == sum(1 for _ in rows(open_store(calm_store), Selection()))
        assert order.questions == ()


@SIZES
@pytest.mark.parametrize("key", ["x", "i", "o", "apostrophe"])
async def test_everything_of_a_dialog_stands_in_its_frame(calm_store: Path, size: tuple[int, int], key: str) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, Dialog) and pilot.app.screen is not screen)
        await pilot.pause()
        dialog = pilot.app.screen
        assert isinstance(dialog, Dialog)
        await until(pilot, lambda: bool(dialog.line.text.strip()))
        await pilot.pause()
        frame = dialog.query_one("#dialog")
        inside = frame.region.shrink(frame.gutter)
        assert inside in pilot.app.screen.region
        panes = list(frame.children)
        assert dialog.line in panes and len(panes) == (3 if dialog.query(Input) else 2)
        for pane in panes:
            assert pane.region.height and pane.region in inside
        assert sum(pane.region.height for pane in panes) == inside.height


PAGES = [("html", "this rollout"), ("svg", "this token"), ("npz", "this question"), ("zarr", "this question")]


@pytest.mark.parametrize(("format", "what"), PAGES, ids=[one for one, _ in PAGES])
async def test_the_dialog_writes_what_the_command_writes(calm_store: Path, tmp_path: Path, format: Format, what: What) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        await pilot.press(*["right"] * WHATS.index(what), "down", "down", *["right"] * FORMATS.index(format))
        field = pilot.app.screen.query_one(Input)
        assert field.value == f"export.{ENDINGS[format]}"
        out = tmp_path / field.value
        field.value = str(out)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert screen.keys.sentence is not None and str(out) in screen.keys.sentence
        place = screen.place
        assert place is not None
    words = ["--question", place.question_id]
    words += ["--rollout", str(place.rollout)] if what in ("this token", "this rollout") else []
    words += ["--tokens", f"{place.token}:"] if what == "this token" else []
    there = tmp_path / f"command.{ENDINGS[format]}"
    done = run_opd("export", calm_store, "--format", format, *words, "-o", there)
    assert done.returncode == 0, done.stderr
    if format in ("html", "svg"):
        assert out.read_text() == there.read_text()
    elif format == "zarr":
        assert open_store(out).question(place.question_id).id == place.question_id
    else:
        assert out.stat().st_size == there.stat().st_size


async def test_what_a_format_cannot_hold_is_said_and_not_written(calm_store: Path, tmp_path: Path) -> None:
    async with browsing(calm_store, NARROW) as (pilot, screen):
        for what, kind, why in (
            ("this token", "html", "whole rollouts"),
            ("this question", "svg", "one place"),
            ("everything in the list", "png", "one place"),
            ("this rollout", "zarr", "whole questions"),
        ):
            assert why in screen.order(what, "all teachers", kind, str(tmp_path / "x")).refusal  # type: ignore[arg-type]
        named_otherwise = screen.order("this rollout", "all teachers", "jsonl", str(tmp_path / "x.csv"))
        assert named_otherwise.refusal == ".csv is the ending of csv, not of jsonl"
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        await pilot.press("down", "down", *["right"] * FORMATS.index("html"))
        await pilot.pause()
        assert "a page holds whole rollouts" in picture(pilot)
        pilot.app.screen.query_one(Input).value = str(tmp_path / "x.html")
        await pilot.press("tab", "enter")
        await pilot.pause()
        assert isinstance(pilot.app.screen, ExportDialog) and not list(tmp_path.glob("x*"))


async def test_help_has_every_key_and_nothing_else(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        panes = (screen.tokens, screen.node, screen.teachers, screen.questions, screen.rollouts)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Help))
        on_top = pilot.app.screen
        assert isinstance(on_top, Help)
        shown = {word for _, lines in on_top.keys for keys, _ in lines for word in keys.split(" ")}
        kinds = {kind for node in (pilot.app, screen, *panes) for kind in type(node).__mro__ if kind.__module__[:7] == "opd_tui"}
        bound = {
            key_name(key.strip())
            for kind in kinds
            for binding in vars(kind).get("BINDINGS", ())
            for key in binding.key.split(",")
        }
        assert shown == bound | {"ctrl+p"}
        assert all(does for _, lines in on_top.keys for _, does in lines)
        assert [title for title, _ in on_top.keys][:5] == ["move", "find", "colour", "read", "keep"]
        assert NAMES["apostrophe"] in shown


@pytest.mark.parametrize("key", ["c", "g"])
async def test_a_heading_of_the_help_is_there_once(calm_store: Path, key: str) -> None:
    async with browsing(calm_store, wish=Wish("q000/0")) as (pilot, _):
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, Guest) and pilot.app.screen.settled)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Help))
        on_top = pilot.app.screen
        assert isinstance(on_top, Help)
        titles = [title for title, _ in on_top.keys]
        assert len(set(titles)) == len(titles)
        assert dict(on_top.keys)["more"] == (("ctrl+l", "draw everything anew"), ("ctrl+p", "all commands"))


@SIZES
async def test_the_help_explains_every_abbreviation(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, _):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Help))
        await pilot.pause()
        on_top = pilot.app.screen
        assert isinstance(on_top, Help)
        lines = ["".join(part.text for part in line).rstrip() for line in on_top.lines()]
        assert max(map(len, lines)) <= on_top.width <= 80
        begin = lines.index("words and signs")
        words = {line[2:12].strip() for line in lines[begin + 1 : lines.index("metrics")]}
        assert {"|S|", "SR", "V", "Adv", "P(+)", "rel", "ΔH", "n", "p_succ", "backed up", "gain ±se", "overlap", "late"} <= words
        text = " ".join(" ".join(lines[begin:]).split())
        assert "success-rate range" in text and "size of the support" in text and "entropy of the teacher less" in text
        assert "so both gradients point along one line: the cosine is +1 or −1" in text
        sheet = on_top.query_one("#sheet")
        seen = set()
        for _ in range(40):
            seen |= set(picture(pilot).splitlines())
            await pilot.press("pagedown")
            await pilot.pause()
        assert sheet.scroll_offset.y == sheet.max_scroll_y > 0
        assert any("less that of the student" in line for line in seen)


async def test_a_window_that_is_too_small_is_one_sentence(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        for size in ((39, 20), (60, 9), (1, 1)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: isinstance(pilot.app.screen, TooSmall))
        await pilot.resize_terminal(40, 10)
        await until(pilot, lambda: pilot.app.screen is screen)
    app = OpdTui(str(calm_store), settings=Settings())
    async with app.run_test(size=(30, 8)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, TooSmall))
        await pilot.pause(0.5)
        assert "columns and 10 lines" in picture(pilot)
        await pilot.resize_terminal(*WIDE)
        await until(pilot, lambda: "p_succ" in picture(pilot))


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_place_its_cursor_is_told_so(
    calm_store: Path, term: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from opd_tui import entry

    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys, "argv", ["opd-tui", "browse", str(calm_store)])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
