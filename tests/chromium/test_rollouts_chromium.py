"""The exported page of rollouts in a real browser, with the network off."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import store
from opd_tui.export.html import write_html
from opd_tui.export.rows import Selection
from opd_tui.text import Kind, runs
from tests.synthetic import write_store

pytestmark = pytest.mark.chromium
pytest.importorskip("playwright")

from tests.chromium.browser import browser_page, file_url  # noqa: E402


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("html")
    made = write_store(folder / "S.zarr", n_questions=3, hostile=True, response_tokens=(40, 60))
    assert write_html(str(made), Selection(), str(folder / "x.html")) == 12
    return made, folder / "x.html"


@pytest.mark.parametrize("dark", [False, True])
def test_every_token_is_there_nothing_is_asked_for_and_no_fault_is_found(hostile: tuple[Path, Path], dark: bool) -> None:
    made, file = hostile
    opened = store.open(made)
    with browser_page(offline=True, dark=dark) as watched:
        watched.page.goto(file_url(file))
        sections = watched.page.locator(".tokens").all()
        at = 0
        for question in opened.questions():
            for line in question.rollouts:
                rollout = opened.rollout(question.id, line.index)
                shown = sections[at].text_content() or ""
                drawn = runs([opened.vocab.bytes_of(one) for one in rollout.token_id_T.tolist()])
                expected = "".join(" " * run.width if run.kind is Kind.SPACE else run.text for run in drawn)
                assert shown.replace("\n", "") == expected
                at += 1
        assert at == len(sections) == 12
        assert watched.asked == [file_url(file)]
        assert watched.faults() == []
        assert watched.complaints == []
        watched.page.locator(".n[data-t]").nth(1).click()
        assert watched.faults() == []
        watched.picture(f"rollouts_{'dark' if dark else 'light'}")


def test_arrow_keys_go_from_node_to_node_enter_reads_and_escape_comes_back(hostile: tuple[Path, Path]) -> None:
    with browser_page(offline=True) as watched:
        page = watched.page
        page.goto(file_url(hostile[1]))
        for _ in range(4):  # three selects, then the nodes
            page.keyboard.press("Tab")
        focused = "() => document.activeElement.getAttribute('aria-label')"
        first = page.evaluate(focused)
        assert re.search(r", node 1 of \d+, ", first)
        details = page.locator("#details")
        assert "p_succ" in details.inner_text() and "under ext-7b" in details.inner_text()
        page.keyboard.press("ArrowRight")
        assert re.search(r", node 2 of \d+, ", page.evaluate(focused))
        said = details.inner_text()
        assert "node 2:" in said
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.activeElement.id") == "details"
        page.locator(".t").last.hover()
        assert details.inner_text() == said, "a pointer took away what is being read"
        page.keyboard.press("Escape")
        assert re.search(r", node 2 of \d+, ", page.evaluate(focused))
        page.keyboard.press("End")
        assert page.evaluate("() => document.activeElement === [...document.querySelectorAll('.n[data-t]')].at(-1)")
        assert page.locator(".n[tabindex='0']").count() == 1
        assert watched.complaints == []


def test_colours_follow_the_choice_and_the_first_one_needs_no_script(hostile: tuple[Path, Path]) -> None:
    with browser_page(offline=True) as watched:
        page = watched.page
        page.goto(file_url(hostile[1]))
        classes = "() => [...document.querySelectorAll('.t')].map(one => one.className.replace('  ', ' ')).join()"
        static = ",".join(re.findall(r'<span class="(t[^"]*)" data-t', hostile[1].read_text(encoding="utf-8")))
        assert page.evaluate(classes) == static
        seen = {static}
        for name, value in (("teacher", "1"), ("objective", "1"), ("metric", "js"), ("metric", "p-succ")):
            page.select_option(f"#{name}", value)
            seen.add(page.evaluate(classes))
        assert len(seen) == 5
        page.locator(".n[data-t]").first.hover()
        page.select_option("#teacher", "2")
        assert "under hot" in page.locator("#details").inner_text()
        page.emulate_media(media="print")
        assert not page.locator("form").is_visible() and page.locator(".tokens").first.is_visible()
        watched.picture("rollouts_print", full_page=False)
