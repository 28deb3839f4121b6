"""A file of coloured rollouts: what data may not do in it, and what is refused. Browsers open it in tests/chromium."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from opd_tui.export.html import write_html
from opd_tui.export.rows import Selection
from opd_tui.markup import data
from store.errors import StoreError
from store.writer import create
from tests.conftest import run_opd
from tests.synthetic import root_attributes, vocabulary, write_store

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--",
    "<img src=x onerror=alert(1)>",
    "a\u2028b",
    "\x00",
    "\u202e",
    '"><b>',
    "&lt;",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("html") / "S.zarr", n_questions=3, hostile=True, response_tokens=(30, 40))


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    out = made.parent / "x.html"
    assert write_html(str(made), Selection(), str(out)) == 12
    return out.read_bytes().decode("utf-8")  # it is UTF-8, whatever the tokens are


class Elements(HTMLParser):
    """Names and attributes of all elements, and the texts of script elements."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[int, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = True

    def handle_data(self, text: str) -> None:
        if self.lasttag in ("script", "style") and self._open:
            self.texts[len(self.found) - 1] = self.texts.get(len(self.found) - 1, "") + text

    def handle_endtag(self, tag: str) -> None:
        self._open = False


def test_hostile_text_in_data_is_no_markup() -> None:
    found = data({text: [text, float("nan"), 0.123456789] for text in HOSTILE})
    assert not set(found) & set("<>&\u2028\u2029\x00\u202e")
    assert json.loads(found) == {text: [text, None, 0.1235] for text in HOSTILE}


def test_hostile_tokens_make_no_element_and_no_control(made: Path, page: str) -> None:
    elements = Elements(page)
    known = {"html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "p", "form", "label", "select"}
    known |= {"option", "span", "br", "script", "main", "section", "div", "aside"}
    assert {name for name, _ in elements.found} == known
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on") or name == "style"]
    assert not {one for one in page if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Cs")} - {"\n"}
    assert "⟨202E⟩" in page and "⟨xFF⟩" in page


def test_only_its_own_script_and_style_are_let_run_and_nothing_is_fetched(page: str) -> None:
    elements = Elements(page)
    policy = next(one["content"] for _, one in elements.found if one.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'")

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = [elements.texts[at] for at, (name, one) in enumerate(elements.found) if name == "script" and "type" not in one]
    styles = [elements.texts[at] for at, (name, _) in enumerate(elements.found) if name == "style"]
    assert len(scripts) == len(styles) == 1
    assert hashed(scripts[0]) in policy and hashed(styles[0]) in policy
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    assert [one["href"] for _, one in elements.found if "href" in one] == ["data:,"]


def test_the_data_are_those_of_the_store(made: Path, page: str) -> None:
    elements = Elements(page)
    blocks: list[dict[str, Any]] = [
        json.loads(elements.texts[at]) for at, (name, one) in enumerate(elements.found) if one.get("class") == "data"
    ]
    found = run_opd("export", made, "-o", "-").stdout
    rows = [json.loads(line) for line in found.split("\n") if line]
    first = [row for row in rows if (row["question_id"], row["rollout_index"]) == ("q000", 0)]
    for row in first:
        m = ("ext-7b", "self-1c", "hot").index(row["teacher"])
        position = row["position"]
        assert blocks[0]["values"]["js"][m][0]["v"][position] == pytest.approx(row["js"], rel=1e-3, abs=1e-6)
        if "alignment" in row:
            node = blocks[0]["nodes"][str(position)]
            scores = node["teachers"][m]["scores"][0]
            assert scores[0] == pytest.approx(row["alignment"]["reverse_kl"], rel=1e-3)
            assert scores[3] == pytest.approx(row["p_positive"]["reverse_kl"], abs=0.05)
            assert {child[4] for child in node["children"]} == {
                child["p_succ"] if child["p_succ"] is None else float(f"{child['p_succ']:.4g}") for child in row["children"]
            }


def test_a_slice_holds_what_was_asked_for(made: Path, tmp_path: Path) -> None:
    words = ("--question", "q000", "--rollout", "1", "--teacher", "self-1c", "--objective", "forward_kl")
    done = run_opd("export", made, "--format", "html", "-o", tmp_path / "x.html", *words)
    assert (done.returncode, done.stdout) == (0, f"1 rollout is in {tmp_path / 'x.html'}.\n")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert page.count("<section") == 1 and "ext-7b" not in page and "reverse_kl" not in page
    assert run_opd("export", made, "--format", "html", "-o", "-", *words).stdout == page


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(questions=("x",)), "no question 'x'"),
        (Selection(rollouts=(99,)), "rollout 99"),
        (Selection(teachers=("x",)), "no teacher 'x'; there is ext-7b, self-1c, hot"),
        (Selection(objectives=("jsd(0.3)",)), "no objective 'jsd(0.3)'"),
    ],
)
def test_what_is_not_there_is_one_sentence_and_no_file(made: Path, tmp_path: Path, selection: Selection, sentence: str) -> None:
    with pytest.raises(StoreError, match=re.escape(sentence)):
        write_html(str(made), selection, str(tmp_path / "x.html"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("--where", "incorrect"), ("--tokens", "1:2")])
def test_what_chooses_rows_does_not_go_with_a_page(made: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_opd("export", made, "--format", "html", "-o", tmp_path / "x.html", *words)
    assert done.returncode == 2 and "choose with --question" in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_store_without_a_rollout_is_one_sentence(tmp_path: Path) -> None:
    create(tmp_path / "empty.zarr", root_attributes(4), vocabulary(), range(3))
    with pytest.raises(StoreError, match="There is no rollout to show"):
        write_html(str(tmp_path / "empty.zarr"), Selection(), str(tmp_path / "x.html"))


def test_a_file_that_cannot_be_written_leaves_nothing(made: Path, tmp_path: Path) -> None:
    (tmp_path / "x.html").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_html(str(made), Selection(), str(tmp_path / "x.html"))
    assert [one.name for one in tmp_path.iterdir()] == ["x.html"]


def test_more_rollouts_than_a_browser_shows_are_refused(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opd_tui.export.html.MOST_ROLLOUTS", 11)
    with pytest.raises(StoreError, match="holds 11 rollouts, and 12 are chosen; choose with --question and --rollout"):
        write_html(str(made), Selection(), str(tmp_path / "x.html"))
