"""What keys do, at both sizes."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import pytest
from textual import events

from opd_tui.app import Wish
from opd_tui.metrics import BY_KEY, METRICS
from opd_tui.numbers import signed_interval
from opd_tui.palette import Depth
from opd_tui.screens.browse import Browse
from opd_tui.screens.help import Help
from opd_tui.screens.reader import Reader
from opd_tui.walk import ranked
from tests.conftest import CHAIN_SUMS
from tests.terminal.driving import NARROW, SIZES, WIDE, browsing, picture, press, until

SHIPPED = CHAIN_SUMS / "chain_sums.zarr"


@SIZES
async def test_it_opens_on_the_first_node_of_a_scored_question(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        assert screen.session.question_id == "q000"
        assert screen.session.page is not None
        assert screen.session.token == screen.session.page.node_positions[0]
        shown = picture(pilot)
        assert "q000" in shown
        assert "6 of 6 questions" in shown
        assert "p_succ 95%" in shown


@SIZES
async def test_nodes_are_walked_forth_and_back(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        assert screen.session.page is not None
        positions = screen.session.page.node_positions
        await press(pilot, screen, "n", "n")
        assert screen.session.token == positions[2]
        await press(pilot, screen, "N")
        assert screen.session.token == positions[1]
        assert f"node 2/{len(positions)}" in picture(pilot)


async def test_the_worst_and_the_best_are_walked_in_order(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        seen = []
        for _ in range(3):
            await press(pilot, screen, "]")
            seen.append(screen.session.colouring.values[screen.session.token])
        finite = sorted(value for value in screen.session.colouring.values if isfinite(value))
        assert seen == finite[:3]
        await press(pilot, screen, "[")
        assert screen.session.colouring.values[screen.session.token] == finite[1]
        await press(pilot, screen, "m", "[")
        gains = [value for value in screen.session.colouring.values if isfinite(value)]
        assert screen.session.colouring.values[screen.session.token] == max(gains)


async def test_questions_can_be_listed_by_their_worst_node(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        while screen.questions.order != "worst":
            await press(pilot, screen, "s")
        assert screen.questions.questions is not None
        scores = [screen.session.score_of_question(question) for question in screen.questions.questions]
        worst = [score.worst for score in scores if score is not None and isfinite(score.worst)]
        assert len(worst) > 1 and worst == sorted(worst)


async def test_a_place_that_is_none_opens_the_question_it_begins_with(calm_store: Path) -> None:
    async with browsing(calm_store, wish=Wish("q002/1/1/1")) as (_, screen):
        assert screen.session.question_id == "q002"
        assert screen.keys.sentence is not None and "'q002/1/1/1'" in screen.keys.sentence


async def test_a_node_says_between_what_its_alignment_lies() -> None:
    async with browsing(SHIPPED, wish=Wish("q011/2/2")) as (_, screen):
        facts = screen.session.node_facts
        assert facts is not None and facts.low < 0 < facts.high and 0.05 < facts.p_positive < 0.95
        assert signed_interval(facts.low, facts.high) in screen.node.text


async def test_sign_flips_are_flips(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await press(pilot, screen, "home", "w")
        values, uncertain = screen.session.colouring.values, screen.session.colouring.uncertain
        token = screen.session.token
        before = [value for place, value in enumerate(values[:token]) if isfinite(value) and place not in uncertain]
        assert before[-1] * values[token] < 0


@SIZES
async def test_every_metric_has_a_legend_with_a_number(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        for metric in METRICS:
            assert screen.session.metric is metric
            assert metric.label in screen.legend.text
            assert "here" in screen.legend.text
            await press(pilot, screen, "m")
        assert screen.session.metric is METRICS[0]
        await press(pilot, screen, "M")
        assert screen.session.metric is METRICS[-1]


async def test_teacher_and_objective_change_the_numbers(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        first = screen.legend.text
        await press(pilot, screen, "t")
        assert "self-1c" in screen.legend.text
        assert screen.legend.text != first
        await press(pilot, screen, "T", "2")
        assert "forward_kl" in screen.legend.text
        await press(pilot, screen, "9")
        assert "there is no objective 9" in picture(pilot)
        await press(pilot, screen, "1")
        assert screen.legend.text == first


async def test_rollouts_are_walked_and_end(calm_store: Path) -> None:
    async with browsing(calm_store, NARROW) as (pilot, screen):
        await press(pilot, screen, "r", "r")
        assert screen.session.page is not None and screen.session.page.index == 2
        await press(pilot, screen, "R", "R", "R")
        assert screen.session.page.index == 0
        assert "no further rollout" in picture(pilot)


async def test_arrows_and_letters_move_by_token_and_by_line(calm_store: Path) -> None:
    async with browsing(calm_store, wish=Wish("q001/0/0")) as (pilot, screen):
        for forth, back in (("right", "left"), ("l", "h"), ("down", "up"), ("j", "k")):
            await press(pilot, screen, forth)
            assert screen.session.token > 0
            await press(pilot, screen, back)
            assert screen.session.token == 0
        await press(pilot, screen, "end")
        assert screen.session.page is not None
        assert screen.session.token == screen.session.page.n_tokens - 1


async def test_a_cursor_move_asks_for_two_tokens_only(calm_store: Path) -> None:
    async with browsing(calm_store, wish=Wish("q001/0/0")) as (pilot, screen):
        drawn: list[int] = []
        real = screen.tokens.render_line
        screen.tokens.render_line = lambda y: (drawn.append(y), real(y))[1]  # type: ignore[method-assign,func-returns-value]
        await pilot.press("right")
        await pilot.pause()
        assert len(set(drawn)) == 1


@SIZES
async def test_tab_goes_round_the_panes_and_escape_home(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        seen = []
        for _ in range(5):
            await press(pilot, screen, "tab")
            assert screen.focused is not None
            seen.append(screen.focused.id)
            assert screen.focused.region.area > 0
        assert seen == ["node", "teachers", "questions", "rollouts", "tokens"]
        await press(pilot, screen, "L", "escape")
        assert screen.focused is screen.tokens


async def test_in_a_narrow_terminal_the_lists_come_over_the_tokens(calm_store: Path) -> None:
    async with browsing(calm_store, NARROW) as (pilot, screen):
        assert not screen.questions.region.area
        await press(pilot, screen, "L")
        assert screen.questions.region.area
        assert "questions 6" in picture(pilot)
        await press(pilot, screen, "down", "enter")
        assert screen.session.question_id == "q001"
        assert not screen.questions.region.area
        await pilot.resize_terminal(*WIDE)
        await until(pilot, lambda: screen.questions.region.area > 0)
        assert "q001 rollout" in picture(pilot)


async def test_questions_are_sorted(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await press(pilot, screen, "s")
        rates = [question.success_rate for question in screen.questions.questions]
        assert rates == sorted(rates)
        await press(pilot, screen, "s")
        scored = [question for question in screen.questions.questions if not question.left_out]
        scores = [screen.session.score_of_question(question) for question in scored]
        means = [score.mean for score in scores if score is not None]
        assert len(means) == len(scored) and means == sorted(means)
        assert "by alignment" in picture(pilot)
        await press(pilot, screen, "s", "s")
        assert [question.id for question in screen.questions.questions] == [f"q00{number}" for number in range(6)]


async def test_children_are_chosen_and_their_completions_read(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await press(pilot, screen, "tab", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Reader) or "no completion" in picture(pilot))
        assert "sample" in picture(pilot) or "no completion" in picture(pilot)
        if isinstance(pilot.app.screen, Reader):
            await pilot.press("escape")
        assert pilot.app.screen is screen


async def test_prompts_are_read(calm_store: Path) -> None:
    async with browsing(calm_store, NARROW) as (pilot, screen):
        await pilot.press("p")
        await until(pilot, lambda: isinstance(pilot.app.screen, Reader))
        await until(pilot, lambda: "reference answer" in picture(pilot))
        assert "the student's prompt" in picture(pilot)
        await pilot.press("escape")
        assert pilot.app.screen is screen


@SIZES
async def test_help_lists_the_keys(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        await pilot.press("question_mark")
        await until(pilot, lambda: "next node" in picture(pilot))
        on_top = pilot.app.screen
        assert isinstance(on_top, Help)
        await pilot.press("q")
        await until(pilot, lambda: pilot.app.screen is screen)


async def test_the_command_palette_has_the_metrics(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        await pilot.press("ctrl+p", *"byjs", "enter")
        await until(pilot, lambda: pilot.app.screen is screen and screen.session.metric is BY_KEY["js"])


async def test_places_teachers_and_metrics_can_be_asked_for(calm_store: Path) -> None:
    wish = Wish("q002/1/4", "self-1c", BY_KEY["log-ratio"])
    async with browsing(calm_store, wish=wish) as (pilot, screen):
        session = screen.session
        assert (session.question_id, session.rollout, session.token) == ("q002", 1, 4)
        assert session.teacher_label == "self-1c"
        assert "log T/P" in picture(pilot)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [(Wish("nowhere/1"), "there is no place 'nowhere/1'"), (Wish(None, "nobody"), "there is no teacher 'nobody'")],
)
async def test_what_is_not_there_is_said_in_a_sentence(calm_store: Path, wish: Wish, sentence: str) -> None:
    async with browsing(calm_store, wish=wish) as (pilot, screen):
        assert sentence in picture(pilot)
        assert screen.session.question_id == "q000"


@SIZES
@pytest.mark.parametrize(
    ("at", "there", "sentence"),
    [
        ("q099/8/40", ("q000", 0, None), "there is no place 'q099/8/40' in this store"),
        ("q001/77/5", ("q001", 3, None), "q001 has no rollout 77 in this store; it has 0, 1, 2, 3: this is rollout 3"),
        ("q001/1/9999", ("q001", 1, -1), "rollout 1 has no token 9999: this is its last one"),
    ],
)
async def test_a_place_of_a_larger_store_opens_at_the_nearest_one_and_says_so(
    calm_store: Path, size: tuple[int, int], at: str, there: tuple[str, int, int | None], sentence: str
) -> None:
    async with browsing(calm_store, size, wish=Wish(at)) as (pilot, screen):
        session = screen.session
        assert screen.keys.sentence is not None and sentence in screen.keys.sentence
        assert (session.question_id, session.rollout) == there[:2]
        assert session.page is not None and (session.page.question_id, session.page.index) == there[:2]
        first = session.page.node_positions[0]
        assert session.token == (first if there[2] is None else session.page.n_tokens - 1)
        await press(pilot, screen, "tab", "down")


async def test_keys_that_come_together_act_in_the_order_in_which_they_were_pressed(calm_store: Path) -> None:
    keys = ["n", "l", "l", "n", "h", "m", "tab", "j", "tab", "shift+tab", "k", "N", "t", "n", "h", "r"]
    found = []
    for together in (False, True):
        async with browsing(calm_store) as (pilot, screen):
            for key in keys:
                if together:
                    screen.app.post_message(events.Key(key, key if len(key) == 1 else None))
                else:
                    await press(pilot, screen, key)
            await until(pilot, lambda: screen.settled)
            await pilot.pause(0.3)
            session = screen.session
            focused = screen.focused.id if screen.focused else None
            found.append((session.question_id, session.rollout, session.token, session.metric, session.teacher, focused))
    assert found[0] == found[1]


@pytest.mark.parametrize("key", ["h", "n", "up", "z"])
async def test_what_was_said_goes_with_the_next_key_whatever_it_does(calm_store: Path, key: str) -> None:
    async with browsing(calm_store, wish=Wish("q000/0/0")) as (pilot, screen):
        await press(pilot, screen, "N")
        assert "no node before" in picture(pilot)
        await press(pilot, screen, key)
        assert screen.keys.sentence is None
        assert "no node before" not in picture(pilot)


@SIZES
async def test_the_ends_of_the_ranking_are_said(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        order = ranked(screen.session.colouring, True)
        assert len(order) > 2
        screen.tokens.move(order[0])
        await press(pilot, screen, "]")
        assert screen.session.token == order[1]  # who stands at the worst already goes on
        for _ in order[2:]:
            await press(pilot, screen, "]")
        assert screen.session.token == order[-1] and screen.keys.sentence is None
        await press(pilot, screen, "]")
        assert "the best node of this rollout" in picture(pilot)
        for _ in order[1:]:
            await press(pilot, screen, "[")
        assert screen.session.token == order[0]
        await press(pilot, screen, "[")
        assert "the worst node of this rollout" in picture(pilot)
        screen.colour_by(BY_KEY["log-ratio"])
        screen.tokens.move(ranked(screen.session.colouring, True)[-1])
        await press(pilot, screen, "[", "]", "]")
        assert "the best token of this rollout" in picture(pilot)
        screen.colour_by(BY_KEY["best-teacher"])
        await press(pilot, screen, "]")
        assert "no order" in picture(pilot)


@pytest.mark.parametrize("support", ["renormalised", "lumped"])
@pytest.mark.parametrize("metric", ["alignment", "alignment-difference", "p-positive"])
async def test_the_legend_keeps_the_name_of_the_support(calm_store: Path, support: str, metric: str) -> None:
    async with browsing(calm_store, NARROW, wish=Wish(None, "self-1c", BY_KEY[metric])) as (pilot, screen):
        await press(pilot, screen, *["S"] * ("renormalised", "lumped").index(support), "S")
        page = screen.session.page
        assert page is not None
        for token in range(page.n_tokens):
            screen.tokens.move(token)
            await pilot.pause()
            line = screen.legend.text
            assert f"· {support} " in line and "here " in line and len(line.rstrip()) <= NARROW[0]
            colouring = screen.session.colouring
            assert ("?" in line) == (token in colouring.uncertain and isfinite(colouring.values[token]))


@pytest.mark.parametrize(("depth", "size"), zip(Depth, (WIDE, NARROW, WIDE, NARROW), strict=True))
async def test_every_depth_of_colour_can_be_read(calm_store: Path, depth: Depth, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size, depth=depth) as (pilot, screen):
        marked = depth in (Depth.STANDARD, Depth.NONE)
        assert screen.tokens.marks is marked
        await press(pilot, screen, "u", "v", "n")
        assert screen.tokens.marks is not marked
        assert not screen.tokens.whitespace


async def test_the_light_theme_changes_every_pane(calm_store: Path) -> None:
    async with browsing(calm_store) as (pilot, screen):
        pilot.app.theme = "opd-light"
        await until(pilot, lambda: not screen.tokens.palette.dark)
        assert not any(pane.palette.dark for pane in (screen.questions, screen.node, screen.teachers, screen.legend))


@SIZES
async def test_a_click_goes_where_it_points(calm_store: Path, size: tuple[int, int]) -> None:
    async with browsing(calm_store, size) as (pilot, screen):
        await pilot.click(screen.track, offset=(40, 0))
        assert screen.session.token > 0
        span = screen.tokens._layout.spans(3)[0]
        await pilot.click(screen.tokens, offset=(span.x + 6, span.y + screen.tokens._top - screen.tokens.scroll_offset.y))
        assert screen.session.token == 3
        assert isinstance(screen, Browse)


@pytest.mark.parametrize("size", [(50, 14), (40, 10)])
async def test_in_few_lines_a_pane_stands_in_place_of_others(size: tuple[int, int]) -> None:
    async with browsing(SHIPPED, size, wish=Wish("q005/1/1")) as (pilot, screen):
        assert "q005/1" in picture(pilot)  # where one is, whatever else there is no room for
        assert not screen.node.display and not screen.teachers.display
        await press(pilot, screen, "tab")
        await until(pilot, lambda: screen.focused is screen.node)
        assert screen.node.size.height > size[1] // 2 and "|S| 2" in picture(pilot)
        await press(pilot, screen, "tab")
        await until(pilot, lambda: screen.focused is screen.teachers)
        assert screen.teachers.size.height > size[1] // 2 and "null-t1.3" in picture(pilot)
        await press(pilot, screen, "escape")
        await until(pilot, lambda: screen.focused is screen.tokens)
        assert "<end>" in picture(pilot)
