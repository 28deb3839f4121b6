"""Reports as files: what data may not do in them, what they say, and what is refused. Browsers open them in tests/chromium."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

import store
from opd_tui.report.document import VERDICTS, document, write_report
from opd_tui.report.markdown import code_span, escaped
from store.errors import StoreError
from tests import synthetic
from tests.conftest import ROOT, run_opd

HOSTILE_TEACHER = 'x|"</script><img src=x onerror=alert(1)>$\\alpha$'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose texts are hostile, the name of a teacher's model as well."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        first = replace(synthetic.TEACHERS[1], description=f"</title>{HOSTILE_TEACHER}\x00\u202e", model="<b>&amp;")
        patch.setattr(synthetic, "TEACHERS", (synthetic.TEACHERS[0], first, synthetic.TEACHERS[2]))
        return synthetic.write_store(folder / "S <b>.zarr", n_questions=8, hostile=True, response_tokens=(20, 40))


@pytest.fixture(scope="module")
def files(made: Path) -> tuple[str, str]:
    """HTML and Markdown."""
    for ending in ("html", "md"):
        done = run_opd("report", made, "-o", made.parent / f"r.{ending}")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout == f"The report is in {made.parent / f'r.{ending}'}.\n"
    return tuple((made.parent / f"r.{ending}").read_text(encoding="utf-8") for ending in ("html", "md"))  # type: ignore[return-value]


def test_nothing_is_fetched_run_or_made_of_data(files: tuple[str, str]) -> None:
    html, _ = files
    assert "default-src 'none'" in html and "script-src" not in html
    names = set(re.findall(r"<([a-zA-Z][\w:-]*)", html))
    assert names <= {
        *("html", "head", "meta", "title", "link", "style", "body", "main", "h1", "h2", "p", "ul", "li", "table", "caption"),
        *("thead", "tbody", "tr", "th", "td", "section", "figure", "figcaption", "div", "code"),
        *("svg", "desc", "g", "path", "defs", "use", "text", "clipPath", "rect", "tspan", "image", "linearGradient", "stop"),
    }
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert not re.search(r"https?:", without_names)
    assert not re.search(r"<[^>]*\son\w+=", html)
    for text in files:
        assert not {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Cs")} - {"\n"}
    assert "&lt;/title&gt;x|&quot;&lt;/script&gt;" in html


def test_ids_are_used_once_and_pictures_have_names_and_text(files: tuple[str, str]) -> None:
    html, _ = files
    ids = Counter(re.findall(r'\sid="([^"]*)"', html))
    assert max(ids.values()) == 1
    for reference in re.findall(r'(?:href="#|url\(#)([^")]*)', html):
        assert reference in ids
    pictures = re.findall(r"<svg\b.*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) == 5
    for picture in pictures:
        assert re.search(r'role="img" aria-labelledby="([^"]*)" aria-describedby="([^"]*)"', picture)
        assert "<title" in picture and "<desc" in picture
        assert "ext-7b" in "".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture))
    assert "gain x 1000" in "".join(re.findall(r"<text[^>]*>([^<]*)</text>", pictures[0]))


def test_both_say_the_sentences_and_every_number_of_the_terminal(made: Path, files: tuple[str, str]) -> None:
    html, markdown = files
    said = document(str(made)).claims
    assert {one.verdict for one in said} <= set(VERDICTS) and len(said) > 5
    for one in said:
        plain = unescape(re.sub("</?code>", "`", html))
        assert f">{one.text}</li>" in plain and f"- {one.text}" in rendered(markdown)
    found: dict[str, Any] = json.loads(run_opd("report", made, "--json").stdout)
    for finding in found["findings"]:
        assert finding["title"] in html and finding["title"] in markdown
        for row in finding["rows"]:
            value = row["intervals"].get("gain") if finding["name"] != "within_path_correlation" else None
            if value is None or value["mean"] is None or value["low"] is None:
                continue
            text = f"{1000 * value['mean']:+.1f} [{1000 * value['low']:+.1f}, {1000 * value['high']:+.1f}]"
            assert text in html and escaped(text) in markdown


def rendered(markdown: str) -> str:
    """What a reader of the Markdown sees, items of lists on lines of their own, code between backticks."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    html = re.sub("<li>(<p>)?", "- ", re.sub("</?code>", "`", html))
    return unescape(re.sub("<[^>]*>", "", html))


HOSTILE = (
    *(HOSTILE_TEACHER, "*a* _b_ __c__ ~~d~~ `e`", "[a](http://b) ![c](d) [e]: f [1, 2](g)", "[+1.0, -2.0] of [x]"),
    *(
        "# a",
        "> a",
        "- a",
        "+ a",
        "1. a",
        "2) a",
        "====",
        "a_b_c",
        "<b>&amp;&lt;</b>",
        "a|b",
        "```",
        "`` ` ``",
        "\\\\_a\\",
        "$x$",
    ),
    "https://evil.example www.evil.example me@evil.example",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_becomes_markup_and_none_is_changed(text: str) -> None:
    for source in (f"- {escaped(text)}", f"| a |\n|---|\n| {escaped(text)} |", f"# {escaped(text)}"):
        html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source)
        assert set(re.findall(r"</?(\w+)", html)) <= {"ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td", "h1"}
        assert " ".join(text.split()) in " ".join(unescape(re.sub("<[^>]*>", "", html)).split())
    html = MarkdownIt("commonmark").render(f"a {code_span(text)} b")
    assert html == f"<p>a <code>{escape(text, quote=False).replace(chr(34), '&quot;')}</code> b</p>\n"


def test_what_is_no_markup_has_no_backslash(files: tuple[str, str]) -> None:
    assert escaped("the gain is +27.0 [+5.9, +48.1] for null_t0.7, p >= 0.5 & so on!") == (
        "the gain is +27.0 [+5.9, +48.1] for null_t0.7, p >= 0.5 & so on!"
    )
    assert code_span("alignment >= 0") == "`alignment >= 0`"
    claims = "\n".join(line for line in files[1].split("## What was run")[0].splitlines() if "ext" not in line)
    assert "`" not in re.sub(r"`[^`\\]+`", "", claims) and "\\`" not in claims


def test_what_was_run_is_said(files: tuple[str, str]) -> None:
    for text in files:
        plain = unescape(text).replace("\\", "")
        assert "synthetic-135m" in plain and "ext-7b" in plain and "name = synthetic" in plain
        assert re.search(r"questions\D+7 of 8|questions\D+8 of 8", re.sub("<[^>]*>", " ", plain))


def test_the_same_store_gives_the_same_file(made: Path, files: tuple[str, str], tmp_path: Path) -> None:
    write_report(str(made), str(tmp_path / "r.html"))
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == files[0]


def test_tables_of_markdown_have_one_width(files: tuple[str, str]) -> None:
    for block in re.split(r"\n\n+", files[1]):
        lines = [line for line in block.split("\n") if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 1, block


def test_what_cannot_be_written_is_one_sentence_and_no_file(made: Path, tmp_path: Path) -> None:
    for path, out, sentence, code in (
        (made, tmp_path / "r.pdf", "is written as .html or .md", 2),
        (made, tmp_path / "none" / "r.md", "cannot be written", 1),
        (tmp_path / "none.zarr", tmp_path / "r.html", "There is no store", 1),
    ):
        done = run_opd("report", path, "-o", out)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1) and sentence in done.stderr
    assert run_opd("report", made, "-o", tmp_path / "r.md", "--json").returncode == 2
    assert not list(tmp_path.iterdir())


def test_a_store_without_a_question_has_no_report(tmp_path: Path) -> None:
    from store.writer import create

    create(tmp_path / "empty.zarr", synthetic.root_attributes(4), synthetic.vocabulary(), range(3))
    with pytest.raises(StoreError, match="no finished question"):
        write_report(str(tmp_path / "empty.zarr"), str(tmp_path / "r.md"))
    assert store.open(tmp_path / "empty.zarr").counts().n_questions_done == 0


def test_a_tiny_study_says_that_it_is_too_small(tmp_path: Path) -> None:
    few = synthetic.write_store(tmp_path / "few.zarr", n_questions=3, response_tokens=(20, 30))
    write_report(str(few), str(tmp_path / "r.html"))
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "are too few for an interval" in html and "What the numbers support" not in html


def test_plots_without_their_extra_are_one_sentence_and_markdown_needs_none(made: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_opd("report", made, "-o", tmp_path / "r.html", env=environment)
    assert done.stderr == (
        "opd-tui: The plots need the extra [report]; install it: pip install 'opd-tui[report]'. A .md has none.\n"
    )
    assert run_opd("report", made, "-o", tmp_path / "r.md", env=environment).returncode == 0
