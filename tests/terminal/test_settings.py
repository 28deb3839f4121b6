"""The settings file, its faults, and its page in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import fields

from opd_tui.app import OpdTui
from opd_tui.metrics import METRICS
from opd_tui.palette import Depth
from opd_tui.settings import DEFAULTS, MEANINGS, Settings, SettingsError, allowed, load_settings, settings_file
from opd_tui.widgets.lists import ORDERS
from tests.terminal.driving import opened

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explorer.md"


def written(text: str) -> Path:
    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_is_the_defaults() -> None:
    assert load_settings() == DEFAULTS


def test_a_file_changes_what_it_names() -> None:
    written('theme = "light"\ncolours = "16"\nmetric = "js"\nmouse = false\n')
    found = load_settings()
    assert found == Settings(theme="light", colours="16", metric="js", mouse=False)
    assert found.depth is Depth.STANDARD and DEFAULTS.depth is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('theme = "dark"\n\ncolors = "16"\n', ("line 3", "`colors`", "colours")),
        ('theme = "pink"', ("line 1", "'pink'", "dark, light")),
        ('marks = "yes"', ("line 1", "'yes'", "true, false")),
        ('metric = "nonsense"', ("line 1", "'nonsense'", "alignment, gain")),
        ("[theme]\na = 1", ("line 1", "`theme`", "dark, light")),
        ("theme = dark\n", ("no TOML", "line 1")),
    ],
)
def test_a_fault_is_one_sentence_with_line_field_and_what_is_allowed(text: str, parts: tuple[str, ...]) -> None:
    path = written(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and "\n" not in sentence
    assert all(part in sentence for part in parts), sentence


def test_bytes_that_are_no_text_are_a_sentence() -> None:
    written("").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings()


def test_the_page_lists_every_setting_with_default_and_what_is_allowed() -> None:
    section = PAGE.read_text().partition("## Settings")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    shown = {name: (default, options, meaning) for name, default, options, meaning in rows}
    expected = {}
    for one in fields(Settings):
        default = str(one.default).lower() if isinstance(one.default, bool) else f'"{one.default}"'
        options = "any metric" if one.name == "metric" else allowed(one.name)
        expected[one.name] = (default, options, MEANINGS[one.name])
    assert shown == expected


def test_the_page_lists_every_metric() -> None:
    section = PAGE.read_text().partition("## What colours the tokens")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| `([\w-]+)` \| (.+?) \| (\w+) \|$", section, re.MULTILINE)
    assert shown == [(one.key, one.meaning, "nodes" if one.at_nodes else "tokens") for one in METRICS]


def test_the_orders_are_those_of_the_list() -> None:
    assert allowed("order") == ", ".join(ORDERS)


async def test_settings_are_heeded(calm_store: Path) -> None:
    settings = Settings(theme="light", colours="256", marks=True, whitespace=False, metric="gain", order="name")
    async with opened(OpdTui(str(calm_store), settings=settings)) as (pilot, screen):
        assert pilot.app.theme == "opd-light"
        assert (screen.palette.depth, screen.palette.dark) == (Depth.EIGHT_BIT, False)
        assert screen.tokens.marks and not screen.tokens.whitespace
        assert (screen.session.metric.key, screen.questions.order) == ("gain", "name")
