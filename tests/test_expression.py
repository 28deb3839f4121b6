"""Expressions: how they are read, and what is unknown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_tui.search.evaluating import Texts, evaluate
from opd_tui.search.expression import MAX_LENGTH, Expression, ExpressionError, Level, Literal, Node, Operation, parse
from opd_tui.search.names import BY_KEY, FUNCTIONS, NAMES

TEACHERS, OBJECTIVES = ("big", "self-1c"), ("reverse_kl", "jsd(0.5)")


def read(text: str) -> Expression:
    return parse(text, TEACHERS, OBJECTIVES)


def tree(text: str) -> str:
    def shown(node: Node) -> str:
        match node:
            case Operation(operator, operands):
                return f"({' '.join([operator, *map(shown, operands)])})"
            case Literal(value):
                return str(value)
            case reference:
                return str(reference)

    return shown(read(text).root)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("incorrect & align < -0.5 & n > 20", "(& (& incorrect (< align (negate 0.5))) (> n 20.0))"),
        ("correct | incorrect & truncated", "(| correct (& incorrect truncated))"),
        ("(correct | incorrect) & truncated", "(& (| correct incorrect) truncated)"),
        ("!correct & truncated", "(& (! correct) truncated)"),
        ("not align < 0 or null", "(| (! (< align 0.0)) null)"),
        ("n + 2 * js - 1 > 3", "(> (- (+ n (* 2.0 js)) 1.0) 3.0)"),
        ("8 / 4 / 2 == 1", "(== (/ (/ 8.0 4.0) 2.0) 1.0)"),
        ("-js * 2 < -(js - 1)", "(< (* (negate js) 2.0) (negate (- js 1.0)))"),
        ("-1 < align <= 0", "(& (< (negate 1.0) align) (<= align 0.0))"),
        ("abs(gain) ≥ .5 && known(align)", "(& (>= (abs gain) 0.5) (known align))"),
        ("rel > .5 & SR > V & Adv < 0", "(& (& (> reliability 0.5) (> success_range value)) (< advantage 0.0))"),
        ("ALIGN = 1e-3 || TRUE", "(| (== align 0.001) True)"),
        ('token ~ "a\\"\\n" and question != \'q\'', '(& (~ token a"\n) (!= question q))'),
        ("correct == truncated", "(== correct truncated)"),
        ("align[self-1c] < align[ big , jsd(0.5) ]", "(< align[self-1c] align[big, jsd(0.5)])"),
        ('align[jsd(0.5)] < align("big", "reverse_kl")', "(< align[jsd(0.5)] align[big, reverse_kl])"),
        ('align[, reverse_kl] > kl_st["big"]', "(> align[reverse_kl] kl_st[big])"),
    ],
)
def test_operators_bind_as_people_expect(text: str, expected: str) -> None:
    assert tree(text) == expected


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        ("", 1, "a condition is wanted, such as"),
        ("   ", 1, "a condition is wanted"),
        ("correct & aling < 0", 11, "no name 'aling'; did you mean 'align'?"),
        ("align", 1, "a number, not a condition; compare it, as in align < 0"),
        ("correct & align", 11, "a condition is wanted here, and this is a number"),
        ("token", 1, "a text, not a condition"),
        ("align <", 8, "not the end"),
        ("(correct", 9, "a ) is wanted here, not the end"),
        ("correct truncated", 9, "an operator such as &, | or < is wanted here, not 'truncated'"),
        ("correct < 1", 9, "a flag cannot be compared with a number"),
        ("correct < truncated", 9, "< compares numbers; a flag is compared with == or !="),
        ('token < "a"', 7, "< compares numbers; a text"),
        ("align ~ 3", 7, "~ looks for a text"),
        ("abs(correct) > 1", 5, "a number is wanted here, and this is a flag"),
        ("-token < 1", 2, "a number is wanted here"),
        ('token ~ "abc', 9, "this text does not end"),
        ("align # 3", 7, "'#' has no meaning here"),
        ("align[bog] < 0", 7, "no teacher 'bog'; did you mean 'big'?"),
        ("align[big, reverse] < 0", 12, "no objective 'reverse'; did you mean 'reverse_kl'?"),
        ("kl_st[big, reverse_kl] < 0", 12, "has a teacher but no objective"),
        ("logprob[big] < 0", 9, "leave the brackets out"),
        ("align(big) < 0", 7, "in quotes is wanted here"),
        ("align[big < 0", 14, "a ] is wanted here"),
        ("(" * 60 + "correct", 41, "nested more than 40 deep"),
    ],
)
def test_errors_say_where_and_what_is_allowed(text: str, position: int, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        read(text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"character {position}: ")


def test_length_is_bounded() -> None:
    for text, words in (
        ("correct" + "&tool" * 110, "504: .* at most 200 parts"),
        ("correct" + " " * MAX_LENGTH, "1001: .* 1000 char"),
    ):
        with pytest.raises(ExpressionError, match=words):
            read(text)


WORDS_TO_MIX = [
    *BY_KEY,
    *FUNCTIONS,
    *"&|!~()[]<>=+-*/,.\"'\\ ",
    "and ",
    "or ",
    "not ",
    "<=",
    "!=",
    "0.5",
    "1e9",
    '"a"',
    "big",
    "\n",
    "≤",
    "é",
    "\ud800",
]


@settings(max_examples=2000, deadline=None)
@given(st.one_of(st.lists(st.sampled_from(WORDS_TO_MIX), max_size=40).map("".join), st.text(max_size=60)))
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    try:
        expression = read(text)
    except ExpressionError:
        return
    columns = {
        reference: {
            "number": np.array([np.nan, -1.0, 0.0]),
            "flag": np.array([True, False, True]),
            "text": Texts(("a", "b"), np.array([0, 1, 0])),
        }[reference.kind]
        for reference in expression.references
    }
    truth = evaluate(expression, columns, 3)
    assert truth.yes.shape == truth.no.shape == (3,)
    assert not (truth.yes & truth.no).any()
    unread = evaluate(expression, {}, 3)  # what is not read can only take away certainty
    assert not (unread.yes & ~truth.yes).any() and not (unread.no & ~truth.no).any()


def test_the_longest_chains_are_evaluated() -> None:
    for text in ("1" + "+1" * 98 + ">0", "!" * 38 + "correct", "(" * 38 + "correct" + ")" * 38, "correct" + "|correct" * 98):
        expression = read(text)
        columns = dict.fromkeys(expression.references, np.array([True]))
        assert evaluate(expression, columns, 1).yes.all()


NAN, T, F = float("nan"), True, False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("align < 0", "u10"),
        ("!(align < 0)", "u01"),
        ("align == align", "u11"),
        ("align != align", "u00"),
        ("align < 0 | correct", "110"),
        ("align < 0 & correct", "u10"),
        ("align < 0 & !correct", "000"),
        ("!(align < 0 & correct)", "u01"),
        ("known(align)", "011"),
        ("!known(align)", "100"),
        ("align + 1 > 0.5", "u01"),
        ("abs(align) > 0.5", "u10"),
        ("(align - align) / (align - align) > 0", "uuu"),
        ("(align < 0) == correct", "u11"),
        ("(align < 0) != correct", "u00"),
    ],
)
def test_a_comparison_with_a_missing_number_is_unknown(text: str, expected: str) -> None:
    """Rows: align is missing, -1, 0.25; correct is true, true, false. 1 true, 0 false, u unknown."""
    expression = read(text)
    by_key = {"align": np.array([NAN, -1.0, 0.25]), "correct": np.array([T, T, F])}
    truth = evaluate(expression, {one: by_key[one.name.key] for one in expression.references}, 3)
    assert "".join("1" if yes else "0" if no else "u" for yes, no in zip(truth.yes, truth.no, strict=True)) == expected


def test_texts_are_compared_and_searched_without_case() -> None:
    texts = Texts((" Wait", "so", "WAIT!"), np.array([0, 1, 2, 0]))
    columns = dict.fromkeys(read('token == ""').references, texts)
    for text, expected in (('token ~ "wait"', [T, F, T, T]), ('token == "so"', [F, T, F, F]), ('!(token ~ "w")', [F, T, F, F])):
        assert evaluate(read(text), columns, 4).yes.tolist() == expected
    assert evaluate(read('"Wait, so" ~ token'), columns, 4).yes.tolist() == [F, T, F, F]


def test_levels_and_the_value_to_sort_by() -> None:
    for text, level, value in (
        ("success < .5", Level.QUESTION, "success"),
        ("!null", Level.QUESTION, None),
        ("correct & success < .5", Level.ROLLOUT, "success"),
        ('mean_align < 0 & token ~ "a"', Level.TOKEN, "mean_align"),
        ("n > 20 & align < 0", Level.NODE, "n"),
    ):
        expression = read(text)
        assert expression.level is level
        assert (str(expression.value) if expression.value else None) == value
    assert read("align < 0").needs_objective and not read("align[big, reverse_kl] < 0").needs_teacher
    assert read("align[big] < 0").needs_objective and not read("align[big] < 0").needs_teacher


def test_the_documentation_has_every_name_in_its_place() -> None:
    page = (Path(__file__).parents[1] / "docs" / "filtering.md").read_text()
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \| ([\w ,]*) \| (.+) \|$", page, re.MULTILINE)
    needs = {"nothing": "", "teacher": "teacher", "objective": "teacher, objective"}
    assert found == [(name.key, name.level.name.lower(), name.kind, needs[name.needs], name.meaning) for name in NAMES]
    assert all(f"`{name}(" in page for name in FUNCTIONS)
