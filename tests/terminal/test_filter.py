"""What is found, and how one walks through it, at both sizes."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Event

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

import store
from opd_tui.app import Wish
from opd_tui.loader import Answer, Loader, Opened, Searched
from opd_tui.screens.browse import Browse
from opd_tui.screens.filter import Filter, Names, NameSuggester
from opd_tui.screens.goto import Goto
from opd_tui.search.columns import Chosen
from opd_tui.search.expression import parse
from opd_tui.search.matches import Found, Match, Matches
from opd_tui.search.query import Query
from opd_tui.search.scanner import Scanner
from opd_tui.search.scanning import scan
from opd_tui.text import Safe
from opd_tui.widgets.match_list import MatchList
from tests.synthetic import question_record
from tests.terminal.driving import NARROW, PATIENCE, SIZES, browsing, picture, press, until

NODES = "incorrect & align < -0.3"


def matches(path: Path, text: str, teacher: str = "ext-7b", objective: str = "reverse_kl") -> list[tuple[str, int, int]]:
    opened = store.open(path)
    found = scan(
        Scanner(
            opened, parse(text, [one.id for one in opened.teachers], opened.attributes.objectives), Chosen(teacher, objective)
        )
    )
    return [(one.question, one.rollout, one.position) for block in found for one in block.matches]


def here(screen: Browse) -> tuple[str | None, int | None, int]:
    return screen.session.question_id, screen.session.rollout, screen.session.token


async def ask(pilot: Pilot[None], text: str) -> Filter:
    """Open the filter, type, and wait until the store is scanned."""
    await pilot.press("slash")
    await until(pilot, lambda: isinstance(pilot.app.screen, Filter))
    modal = pilot.app.screen
    assert isinstance(modal, Filter)
    await until(pilot, lambda: modal.settled)
    modal.query_one(Input).value = text
    await pilot.pause()
    await until(pilot, lambda: modal.settled)
    return modal


def note(modal: Filter) -> str:
    return modal.query_one("#filter-note").text.strip()  # type: ignore[attr-defined,no-any-return]


async def back(pilot: Pilot[None], screen: Browse) -> None:
    await until(pilot, lambda: pilot.app.screen is screen and screen.settled)
    await pilot.pause()


@SIZES
async def test_an_expression_lists_what_matches_and_enter_goes_there(calm_store: Path, size: tuple[int, int]) -> None:
    expected = matches(calm_store, NODES)
    async with browsing(calm_store, size) as (pilot, screen):
        modal = await ask(pilot, NODES)
        assert note(modal).startswith(f"{len(expected)} nodes in ")
        assert "under ext-7b · reverse_kl" in note(modal)
        shown = picture(pilot)
        assert "rollout" in shown and "align" in shown and "text" in shown
        assert max(map(len, shown.splitlines())) <= size[0]
        await pilot.press("down", "down", "down", "enter")
        await back(pilot, screen)
        assert here(screen) == expected[2]
        assert f"/3 of {len(expected)} inc" in picture(pilot)
        await press(pilot, screen, "f")
        assert here(screen) == expected[3]
        await press(pilot, screen, "F", "F", "F")
        assert here(screen) == expected[0]
        await press(pilot, screen, "F")
        assert here(screen) == expected[0]
        assert "no further match" in picture(pilot)
        for _ in expected[1:]:
            await press(pilot, screen, "f")
        assert here(screen) == expected[-1]


async def test_next_is_seen_from_the_cursor_in_study_order(calm_store: Path) -> None:
    expected = matches(calm_store, NODES)
    async with browsing(calm_store, wish=Wish("/".join(map(str, expected[4])))) as (pilot, screen):
        await ask(pilot, NODES)
        await pilot.press("escape")
        await back(pilot, screen)
        assert here(screen) == expected[4]
        await press(pilot, screen, "f")
        assert here(screen) == expected[5]
        await press(pilot, screen, "left", "F")
        assert here(screen) == expected[4]


async def test_keys_that_come_faster_than_pages_walk_on(calm_store: Path) -> None:
    expected = matches(calm_store, "depth == 0 & incorrect")
    async with browsing(calm_store) as (pilot, screen):
        await ask(pilot, "depth == 0 & incorrect")
        await pilot.press("enter")
        await pilot.press("f", "f", "f", "F")
        await back(pilot, screen)
        assert here(screen) == expected[2]


async def test_the_lists_show_what_matches_and_escape_shows_all(calm_store: Path) -> None:
    expected = matches(calm_store, "incorrect & align < -0.8")
    questions = {question for question, _, _ in expected}
    assert 0 < len(questions) < 6
    async with browsing(calm_store) as (pilot, screen):
        await ask(pilot, "incorrect & align < -0.8")
        await pilot.press("enter")
        await back(pilot, screen)
        assert {question.id for question in screen.questions.questions} == questions
        assert f"questions {len(questions)} of 6" in picture(pilot)
        rollouts = {rollout for question, rollout, _ in expected if question == expected[0][0]}
        assert {rollout.index for rollout in screen.rollouts.rollouts} == rollouts
        assert f"{len(rollouts)} of 4 rollouts" in picture(pilot)
        await press(pilot, screen, "s")
        assert {question.id for question in screen.questions.questions} == questions
        await press(pilot, screen, "L", "escape")  # from the list to the tokens
        assert len(screen.questions.questions) == len(questions)
        await press(pilot, screen, "escape")
        assert len(screen.questions.questions) == 6 and len(screen.rollouts.rollouts) == 4
        assert "the filter is off" in picture(pilot)
        await press(pilot, screen, "f")
        assert "there is no filter" in picture(pilot)


@SIZES
async def test_where_one_stands_is_listed_dim_if_it_does_not_match(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size, wish=Wish("q000/1")) as (pilot, screen):
        await ask(pilot, "number >= 2 & rollout > 1")
        await pilot.press("escape")
        await back(pilot, screen)
        assert screen.note.startswith("/8, none here ")
        assert [one.id for one in screen.questions.questions] == ["q000", "q002", "q003", "q004", "q005"]
        assert [one.index for one in screen.rollouts.rollouts] == [1]
        dim = screen.palette.ink.dim
        for rows in (screen.questions, screen.rollouts):
            assert rows.cursor == 0
            row = rows.cells(0)
            assert {cell.color for cell in row} == {dim} and [cell.text for cell in row[2:]] == ["no", "match"]
        await press(pilot, screen, "L")
        shown = picture(pilot)
        assert "questions 4 of 6" in shown and "0 of 4 rollouts" in shown and shown.count("no match") == 2
        await press(pilot, screen, "escape", "r")
        assert here(screen)[:2] == ("q000", 1) and "f and F go to matches" in picture(pilot)
        await press(pilot, screen, "L", "down")
        assert here(screen)[0] == "q002" and screen.session.rollout in (2, 3)
        assert [one.id for one in screen.questions.questions] == ["q002", "q003", "q004", "q005"]
        assert [one.index for one in screen.rollouts.rollouts] == [2, 3]
        assert "none here" not in screen.note and "no match" not in picture(pilot)


async def test_next_and_previous_go_from_what_does_not_match_to_a_match(calm_store: Path) -> None:
    async with browsing(calm_store, wish=Wish("q002/1")) as (pilot, screen):
        await ask(pilot, "number >= 1 & (rollout == 0 | rollout == 3)")
        await pilot.press("escape")
        await back(pilot, screen)
        assert [one.index for one in screen.rollouts.rollouts] == [0, 1, 3]
        assert "2 of 4 rollouts" in picture(pilot)
        await press(pilot, screen, "r")
        assert here(screen)[:2] == ("q002", 3)
        await press(pilot, screen, "R")
        assert here(screen)[:2] == ("q002", 0)
        await press(pilot, screen, "F")
        assert here(screen)[:2] == ("q001", 3)
        place = screen.place
        assert place is not None
        screen.go_to("q002/1")
        await until(pilot, lambda: screen.settled)
        await press(pilot, screen, "f")
        assert here(screen)[:2] == ("q002", 3)
        order = screen.order("everything in the list", "all teachers", "jsonl", "x")
        assert order.questions == ("q001", "q002", "q003", "q004", "q005")


@pytest.mark.parametrize(
    ("typed", "goes_on"),
    [
        ("n > 20a", None),
        ("n > 20an", None),
        ("n > 2.a", None),
        ("known(align)a", None),
        ("n > 20 a", "n > 20 align"),
        ("!inc", "!incorrect"),
        ("(inc", "(incorrect"),
    ],
)
async def test_a_completion_is_never_glued_to_a_number(typed: str, goes_on: str | None) -> None:
    found = await NameSuggester().get_suggestion(typed)
    assert found == goes_on or (goes_on is not None and found is not None and found.startswith(typed))


async def test_an_empty_line_takes_the_filter_away(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await ask(pilot, "number == 3")
        await pilot.press("enter")
        await back(pilot, screen)
        assert [one.id for one in screen.questions.questions] == ["q003"] and screen.session.question_id == "q003"
        await ask(pilot, "")
        await pilot.press("enter")
        await back(pilot, screen)
        assert len(screen.questions.questions) == 6


@SIZES
async def test_what_cannot_be_read_says_where_and_changes_nothing(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        await ask(pilot, "number == 3")
        await pilot.press("enter")
        await back(pilot, screen)
        modal = await ask(pilot, "correct & aling < 0")
        assert note(modal).replace("\n", " ") == "character 11: there is no name 'aling'; did you mean 'align'?"
        await pilot.press("enter")
        await pilot.pause()
        assert pilot.app.screen is modal
        await pilot.press("escape")
        await back(pilot, screen)
        assert [one.id for one in screen.questions.questions] == ["q003"]


async def test_a_text_is_found_in_the_store_or_in_this_rollout(calm_store: Path) -> None:
    async with browsing(calm_store, NARROW, wish=Wish("q001/2")) as (pilot, screen):
        page = screen.session.page
        assert page is not None
        opened = store.open(calm_store)
        word = opened.vocab.bytes_of(int(page.rollout.token_id_T[4])).decode("utf-8", "replace").strip()
        modal = await ask(pilot, f'"{word}')
        places = note(modal)
        assert " places in " in places
        await pilot.press("ctrl+r")
        await until(
            pilot, lambda: "find in this rollout" in picture(pilot) and "place" in note(modal) and "scanned" not in note(modal)
        )
        found = [(one.question, one.rollout) for one in modal.query_one(MatchList).matches.matches]
        assert found and set(found) == {("q001", 2)} and note(modal) != places
        await pilot.press("enter")
        await back(pilot, screen)
        await press(pilot, screen, "f")
        assert screen.session.rollout == 2 and len(screen.questions.questions) == 6


async def test_the_list_is_sorted_by_any_column_and_walked_in_that_order(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        modal = await ask(pilot, NODES)
        rows = modal.query_one(MatchList)
        await pilot.press("tab", "s")
        values = [one.value for one in rows.matches.matches]
        assert values == sorted(values) and "by align" in picture(pilot)
        await pilot.press("S")
        assert [one.value for one in rows.matches.matches] == values[::-1] and "reversed" in picture(pilot)
        for name in ("question", "rollout", "token", "text", "study order"):
            await pilot.press("s")
            assert f"by {name}" in picture(pilot)
        await pilot.press("s", "enter")
        await back(pilot, screen)
        await press(pilot, screen, "right", "f", "left", "f")
        assert here(screen) == next((one.question, one.rollout, one.position) for one in rows.matches.matches[2:])


async def test_matches_are_those_of_the_teacher_that_was_chosen(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await press(pilot, screen, "t", "2")
        modal = await ask(pilot, "align < -0.3")
        assert "under self-1c · forward_kl" in note(modal)
        found = [(one.question, one.rollout, one.position) for one in modal.query_one(MatchList).matches.matches]
        assert found == matches(calm_store, "align < -0.3", "self-1c", "forward_kl") != matches(calm_store, "align < -0.3")
        await pilot.press("enter")
        await back(pilot, screen)
        assert " under " not in screen.note
        await press(pilot, screen, "T")
        assert " under self-1c · forward_kl align" in screen.note
        assert "under self-1c" in picture(pilot)
        modal = await ask(pilot, "align < -0.3")
        assert "under ext-7b · forward_kl" in note(modal)


async def test_names_are_explained_and_completed(calm_store: Path) -> None:
    async with browsing(calm_store, NARROW) as (pilot, _):
        await ask(pilot, "")
        await pilot.press(*"correct & succ")
        await until(pilot, lambda: pilot.app.screen.query_one(Input)._suggestion.endswith("success"))
        await pilot.press("right")
        assert pilot.app.screen.query_one(Input).value == "correct & success"
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(pilot.app.screen, Names) and "share of the initial rollouts" in picture(pilot))


async def test_hostile_text_reaches_no_terminal(hostile_store: Path) -> None:
    async with browsing(hostile_store, NARROW) as (pilot, screen):
        for text in ('question ~ "[/b]" & position >= 0', '"[/b]', "token ~ '[red]x\x1b[2J' | correct"):
            await ask(pilot, text)
            assert not set("\x1b\u202e\x9b") & set(picture(pilot))
        line = pilot.app.screen.query_one(Input)
        line.post_message(events.Paste(" & correct\x1b]0;x\x07\u202e"))
        await pilot.pause()
        assert " & correct]0;x" in line.value
        line.value = "correct"
        await pilot.press("enter")
        await back(pilot, screen)
        assert not set("\x1b\u202e\x9b") & set(picture(pilot))
        await pilot.press("colon")
        await until(pilot, lambda: isinstance(pilot.app.screen, Goto))
        pilot.app.screen.query_one(Input).value = "no[b]where"
        await pilot.press("enter")
        await pilot.pause()
        assert "there is no question 'no[b]where'" in picture(pilot)


async def test_a_filter_goes_on_as_the_store_grows(empty_store: Path) -> None:
    from store.writer import publish

    publish(empty_store, "p-a", question_record(1))
    async with browsing(empty_store) as (pilot, screen):
        await ask(pilot, "correct")
        await pilot.press("enter")
        await back(pilot, screen)
        before = screen.filtering.applied
        assert before is not None and before.matches.n == len(matches(empty_store, "correct"))
        publish(empty_store, "p-b", question_record(2))
        expected = len(matches(empty_store, "correct"))
        await until(pilot, lambda: screen.filtering.applied is not None and screen.filtering.applied.matches.n == expected)
        assert expected > before.matches.n
        assert [one.id for one in screen.questions.questions] == ["q001", "q002"]
        assert screen.filtering.applied is not None and screen.filtering.applied.matches.at == before.matches.at


async def test_what_is_damaged_is_said_and_nothing_is_lost(calm_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "S.zarr"
    shutil.copytree(calm_store, path)
    for chunk in path.glob("teacher/hot/*/entropy/c/*"):
        chunk.unlink()
    async with browsing(path) as (pilot, screen):
        await ask(pilot, "number < 2")
        await pilot.press("enter")
        await back(pilot, screen)
        modal = await ask(pilot, "teacher_entropy[hot] > 0")
        assert "entropy" in note(modal) and "is missing" in note(modal)
        await pilot.press("enter")
        await pilot.pause()
        assert pilot.app.screen is modal
        modal.query_one(Input).value = "teacher_entropy[hot] > 0.1"
        await pilot.press("escape")  # before that is known
        await back(pilot, screen)
        await until(pilot, lambda: "is missing" in " ".join(picture(pilot).split()))  # wherever its line is broken
        assert len(screen.questions.questions) == 2
        assert screen.note.endswith("number < 2")


def test_a_newer_search_stops_the_one_before(calm_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scan.__kwdefaults__, "every", 0.0)
    done, blocks = Event(), []

    def deliver(answer: Answer) -> None:
        if isinstance(answer, Opened):
            loader.search(Query("js > 0", "hot", ""))
        elif isinstance(answer, Searched):
            blocks.append(answer)
            if len(blocks) == 2:  # in the midst of the first
                loader.search(Query('"so', "", ""))
            if blocks[-1].search == 2 and answer.found.n_done == answer.found.n_questions:
                done.set()

    loader = Loader(str(calm_store), deliver)
    loader.start()
    assert done.wait(PATIENCE)
    loader.stop()
    assert [block.search for block in blocks] == [1, 1, *[2] * 7]


@SIZES
async def test_goto_takes_any_part_of_a_place(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        for typed, place in (
            ("q002/1/7", ("q002", 1, 7)),
            ("//3", ("q002", 1, 3)),
            ("/2/5", ("q002", 2, 5)),
            ("9", ("q002", 2, 9)),
            ("03/0/1", ("q003", 0, 1)),
        ):
            await pilot.press("colon")
            await until(pilot, lambda: isinstance(pilot.app.screen, Goto))
            await pilot.press(*(("slash" if char == "/" else char) for char in typed), "enter")
            await back(pilot, screen)
            assert here(screen) == place
        await pilot.press("colon")
        await until(pilot, lambda: isinstance(pilot.app.screen, Goto))
        for typed, sentence in (
            ("q009", "did you mean"),
            ("/7", "q003 has no rollout 7 in this store; it has 0, 1, 2, 3"),
            ("//9999", "has no token 9999"),
            ("q00", "6 questions have 'q00' in their names"),
            ("", "QUESTION/ROLLOUT/TOKEN is wanted"),
            ("/x", "'/x' is no place"),
        ):
            pilot.app.screen.query_one(Input).value = typed
            await pilot.press("enter")
            await pilot.pause()
            assert sentence in " ".join(picture(pilot).split())
        await pilot.press("escape")
        await back(pilot, screen)
        assert here(screen) == ("q003", 0, 1)


def match(number: int, rollout: int = -1, position: int = -1, value: float = 0.0) -> Match:
    return Match(f"q{number}", Safe(f"q{number}"), number, rollout, position, value, Safe(""))


def test_walking_and_sorting_matches() -> None:
    found = Matches()
    assert found.step(1, (0, 0, 0)) is None and not found.complete
    some = (match(1, 0, 5, 3.0), match(1, 2, 1, float("nan")), match(3, 0, 0, -1.0))
    found.add(Found(some, 3, frozenset({("q1", 0)}), 4, 4))
    assert found.complete
    assert found.step(1, (1, 0, 9)) is some[1]
    assert found.step(1, None) is some[2]
    assert found.step(1, (3, 0, 0)) is None and found.at == 2
    found.sort("value")
    assert found.matches == [some[2], some[0], some[1]] and found.at == 0
    assert found.step(1, (9, 9, 9)) is some[0]
    found.sort("value", descending=True)
    assert found.matches == [some[0], some[2], some[1]] and found.at == 0
    questions = Matches()
    questions.add(Found((match(2), match(4)), 2, frozenset(), 1, 2))
    assert questions.step(-1, (4, 3, 2)) == match(2)
    assert questions.step(1, (2, 1, 30)) == match(4)
