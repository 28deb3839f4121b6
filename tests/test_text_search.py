"""A text is found wherever tokens part it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import store
from opd_tui.search.expression import ExpressionError
from opd_tui.search.query import Query, check
from opd_tui.search.scanning import scan
from opd_tui.search.texts import TextSearch, find
from tests.synthetic import write_store


def spans(pieces: list[bytes], text: str) -> list[tuple[int, int]]:
    return [(piece.first, piece.last) for piece in find(pieces, text)]


def test_matches_are_mapped_back_to_tokens() -> None:
    pieces = [b"So", b" wa", b"it", b"", b", WAIT", b"", b"."]
    assert spans(pieces, "wait") == [(1, 2), (4, 4)]
    assert spans(pieces, "so wait, w") == [(0, 4)]
    assert spans(pieces, "T.") == [(4, 6)]
    assert spans(pieces, "nothing") == spans(pieces, "") == spans([], "a") == []
    assert spans([b"a[x](", b"b"], "[X](b") == [(0, 1)]  # no pattern, just a text


def test_characters_over_several_tokens_and_broken_bytes() -> None:
    smile = "😀".encode()
    assert spans([b"a" + smile[:2], smile[2:], b"b"], "😀b") == [(0, 2)]
    assert spans([b"\xff", b"ok\xfe", b"\xf0\x9f"], "ok") == [(1, 1)]
    assert spans(["İ".encode(), b"stanbul ", b"STRASSE"], "strasse") == [(2, 2)]


@given(st.lists(st.text("ab\u00e9😀", max_size=3), max_size=12), st.text("ab\u00e9😀", min_size=1, max_size=3), st.integers(0, 9))
def test_every_place_is_found(texts: list[str], wanted: str, cut: int) -> None:
    """Tokens are cut anywhere, even within a character."""
    data = "".join(texts).encode()
    pieces = [data[i : i + cut + 1] for i in range(0, len(data), cut + 1)]
    expected, at = [], data.find(wanted.encode())
    while at >= 0:
        expected.append((at // (cut + 1), (at + len(wanted.encode()) - 1) // (cut + 1)))
        at = data.find(wanted.encode(), at + len(wanted.encode()))
    assert spans(pieces, wanted) == expected


@pytest.mark.parametrize("hostile", [False, True])
def test_a_store_is_searched(tmp_path: Path, hostile: bool) -> None:
    opened = store.open(write_store(tmp_path / "S.zarr", n_questions=4, hostile=hostile, response_tokens=(20, 40)))
    text = "[/b]" if hostile else "so"
    blocks = list(scan(TextSearch(opened, text), every=0.0))
    matches = [one for block in blocks for one in block.matches]
    expected = []
    for question in opened.questions():
        for line in question.rollouts:
            ids = opened.rollout(question.id, line.index).token_id_T.tolist()
            pieces = [opened.vocab.bytes_of(one) for one in ids]
            expected += [(question.id, line.index, first) for first, _ in spans(pieces, text)]
    assert expected and [(one.question, one.rollout, one.position) for one in matches] == expected
    assert all(text in one.text.replace("·", " ").lower() or hostile for one in matches)
    assert not any("\x1b" in one.text or "\u202e" in one.text for one in matches)
    only = np.zeros(len(opened.listing().index_R), bool)
    only[5] = True
    here = [one for block in scan(TextSearch(opened, text, only)) for one in block.matches]
    assert [(one.question, one.rollout, one.position) for one in here] == [
        one for one in expected if one[:2] == ("q001", 1) or (hostile and one[:2] == ("q001[/b]\u202e", 1))
    ]


def test_a_line_that_begins_with_a_quote_is_a_text() -> None:
    for line, wanted in (
        ('"so', "so"),
        ('  "so it"', "so it"),
        ('"a \\"b\\"', 'a "b"'),
        ('"a\\"', 'a"'),
        ('"a\\\\"', "a\\"),
        ('"a\\nb', "a\nb"),
        ('" so ', " so "),
    ):
        query = Query(line, "", "")
        assert query.is_text and query.wanted == wanted
    assert not Query("correct", "", "").is_text
    for line in ('"', '""', '  "'):
        with pytest.raises(ExpressionError, match="a text is wanted"):
            check(Query(line, "", ""), (), ())
