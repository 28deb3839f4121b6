"""A report in a real browser, with the network off."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd_tui.report.document import VERDICTS, document, write_report
from tests.synthetic import write_store

pytestmark = pytest.mark.chromium
pytest.importorskip("playwright")

from tests.chromium.browser import browser_page, file_url  # noqa: E402


def test_a_report_opens_without_a_network_and_without_a_fault(tmp_path: Path) -> None:
    made = write_store(tmp_path / "S.zarr", n_questions=12, response_tokens=(30, 60))
    write_report(str(made), str(tmp_path / "r.html"))
    with browser_page(offline=True) as watched:
        page = watched.page
        page.goto(file_url(tmp_path / "r.html"))
        said = page.locator("li").all_inner_texts()
        claims = document(str(made)).claims
        plain = [one.text.replace("`", "") for verdict in VERDICTS for one in claims if one.verdict == verdict]
        assert said == plain  # what stands between backticks is code there
        assert page.get_by_role("img").count() == 5
        for picture in page.get_by_role("img").all():
            assert (picture.bounding_box() or {"height": 0.0})["height"] > 50
            assert "ext-7b" in (picture.text_content() or "")
        page.keyboard.press("Tab")  # tables that are broader than the page are reached with the keyboard
        assert page.evaluate("() => document.activeElement.getAttribute('role')") == "region"
        assert watched.faults() == []
        assert watched.complaints == []
        assert watched.asked == [file_url(tmp_path / "r.html")]
        watched.picture("report", full_page=True)
        page.set_viewport_size({"width": 360, "height": 640})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360, "a small screen scrolls sideways"
        page.emulate_media(media="print")
        assert len(page.pdf()) > 20_000
