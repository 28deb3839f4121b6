"""The built-in graders: what each takes for the answer in a response, and when that is the reference answer.

A response is prose; its answer is where it says so last and most plainly. What none of the rules finds is no answer,
which is wrong, and never an error.
"""

from __future__ import annotations

import functools
import logging
import re
import string
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A grader in two steps, so that feedback can say what was read. Called, it gives the reward: 1 or 0."""

    read: Callable[[str, Fields], str | None]  #: the answer of a response, or None
    reference: Callable[[str, Fields], str | None]  #: the same of the reference answer, which may be written otherwise
    wants: str  #: what a reference answer must be
    same: Callable[[str, str], bool] = str.__eq__  #: of two answers as read
    #: Whether feedback on a question with these fields may quote a wrong answer: of two, the other would be the right one.
    quotes: Callable[[Fields], bool] = lambda fields: True

    def __call__(self, response: str, answer: str, fields: Fields) -> float:
        """1 where the response's answer is the reference answer."""
        given, wanted = self.read(response, fields), self.reference(answer, fields)
        return float(given is not None and wanted is not None and self.same(given, wanted))


# exact


def _whole(text: str, fields: Fields) -> str | None:
    return text.strip().casefold() or None


# number: 1,234  -3.5  .5  2e-3  3/4; a minus after a digit or a letter is a hyphen or a subtraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?<![\w.)])[-+]?(?:{_DIGITS})(?:[eE][-+]?\d{{1,3}})?(?![\d])(?:\s*/\s*(?:{_DIGITS}))?|(?:{_DIGITS})")


def _last_number(text: str, fields: Fields) -> str | None:
    found = _NUMBER.findall(text.replace("−", "-").replace("{,}", ","))
    return found[-1].replace(",", "") if found else None


def _value(text: str) -> Fraction | None:
    above, _, below = text.partition("/")
    divisor = Fraction(Decimal(below or 1))
    return Fraction(Decimal(above)) / divisor if divisor else None


def _same_number(given: str, wanted: str) -> bool:
    value = _value(given)
    return value is not None and value == _value(wanted)


# boolean

_TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_WORD = r"\b(not\s+(?:true|false)|yes|no|true|false)\b"
_SAID = re.compile(rf"\banswer\b(?:\s+(?:is|would\s+be|must\s+be))?\W*{_WORD}", re.IGNORECASE)
_FREE = re.compile(_WORD, re.IGNORECASE)
#: "no evidence" is no answer, "no, ..." and "no." are.
_DETERMINER = re.compile(r"\s+(?!because|since|as|it|they|he|she|there|this|that|the)[a-z]", re.IGNORECASE)


def _truth(word: str) -> str:
    negated, last = word.casefold().startswith("not"), _TRUTH[word.casefold().split()[-1]]
    return {"yes": "no", "no": "yes"}[last] if negated else last


def _last_truth(text: str, fields: Fields) -> str | None:
    said = _SAID.findall(text)
    if said:
        return _truth(said[-1])
    found = list(_FREE.finditer(text))
    plain = [one for one in found if one[1].casefold() != "no" or not _DETERMINER.match(text, one.end())]
    return _truth((plain or found)[-1][1]) if found else None


def _reference_truth(text: str, fields: Fields) -> str | None:
    return {**_TRUTH, "1": "yes", "0": "no"}.get(text.strip().casefold())


# choice: letters by how plainly they are meant as an answer, the last of the plainest

_LETTER = r"([A-J])(?![\w'’-])"
_FILLER = r"(?i:\b(?:is|would|must|should|be|the|option|choice|letter|correct|clearly|therefore|most|likely)\b)"
_BOXED = rf"\\boxed\{{\W*(?:(?:text|mathbf|mathrm)\{{)?{_LETTER}"
_ANSWER = re.compile(rf"(?i:\banswer\b)(?:\W|{_FILLER})*?(?<!\w){_LETTER}|{_BOXED}")
_SMALL = re.compile(r"\banswer\b(?:\s+is)?[\s:(*]*([a-j])[).*\]]*\s*$", re.IGNORECASE | re.MULTILINE)
_MARKED = re.compile(
    rf"\(([A-J])\)|\*\*\(?([A-J])[).:]?\*\*|\[([A-J])\]|(?i:\b(?:option|choice)\s+)\(?{_LETTER}"
    r"|^\s*\(?([A-J])[).:](?=\s|$)|(?<!\w)([A-J])[).](?=\s*$)",
    re.MULTILINE,
)
_BARE = re.compile(rf"(?<![\w'’-]){_LETTER}")
#: What may follow a letter that is an answer, and does not follow the article or the pronoun.
_GOES_ON = re.compile(r"\s+(?!(?:because|since|as|and|or|for|by|due|based|but|while|which)\b)[a-z]")


def _letters(choices: Sequence[str]) -> str:
    return string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase[:10]


def _choices(fields: Fields) -> list[str]:
    found = fields.get("choices")
    return [str(one) for one in found] if isinstance(found, list | tuple) else []


def _last_choice(text: str, fields: Fields) -> str | None:
    choices = _choices(fields)
    letters = _letters(choices)
    for pattern in (_ANSWER, _SMALL, _MARKED, _BARE):
        for one in reversed(list(pattern.finditer(text))):
            letter = next(group for group in one.groups() if group)
            word = letter in "AI" and _GOES_ON.match(text, one.end(one.lastindex or 0))
            if letter.upper() in letters and not word:
                return letter.upper()
    folded = text.casefold()
    named = [
        letter
        for letter, choice in zip(letters, choices, strict=False)
        if choice.strip() and re.search(rf"(?<!\w){re.escape(choice.strip().casefold())}(?!\w)", folded)
    ]
    return named[0] if len(named) == 1 else None


def _reference_choice(text: str, fields: Fields) -> str | None:
    """A letter, else an index from 0, else a choice's text: an answer 2 among the choices 1, 2, 3, 4 is the third."""
    choices = _choices(fields)
    letters, bare = _letters(choices), text.strip().strip("()[].: ").upper()
    if len(bare) == 1 and bare in letters:
        return bare
    if bare.isdecimal() and int(bare) < len(letters):
        return letters[int(bare)]
    equal = [letter for letter, one in zip(letters, choices, strict=False) if one.strip().casefold() == text.strip().casefold()]
    return equal[0] if len(equal) == 1 else None


# math: math-verify reads and compares; numbers, LaTeX, sets, intervals

_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin")


@functools.lru_cache(maxsize=4096)  # read once to see whether there is one, and again to compare
def _expressions(text: str) -> tuple[Any, ...]:
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    if "\\" in text and not _DELIMITED.search(text):
        text = f"${text}$"
    return tuple(math_verify.parse(text, parsing_timeout=_seconds()))


def _seconds() -> int | None:
    """math-verify's time limit is an alarm, which only the main thread may set; elsewhere there is none."""
    return 5 if threading.current_thread() is threading.main_thread() else None


def _last_expression(text: str, fields: Fields) -> str | None:
    return text if _expressions(text) else None


def _reference_expression(text: str) -> tuple[Any, ...]:
    return _expressions(text if _DELIMITED.search(text) else f"${text.strip()}$")


def _same_expression(given: str, wanted: str) -> bool:
    import math_verify

    found, reference = _expressions(given), _reference_expression(wanted)
    return bool(math_verify.verify(list(reference), list(found), timeout_seconds=_seconds()))


GRADERS: dict[str, BuiltIn] = {
    "exact": BuiltIn(_whole, lambda text, fields: text.strip().casefold(), "a text"),
    "number": BuiltIn(_last_number, _last_number, "a number", _same_number),
    "math": BuiltIn(
        _last_expression,
        lambda text, fields: text if _reference_expression(text) else None,
        "a mathematical expression",
        _same_expression,
        quotes=lambda fields: False,
    ),
    "boolean": BuiltIn(_last_truth, _reference_truth, "yes, no, true or false", quotes=lambda fields: False),
    "choice": BuiltIn(
        _last_choice,
        _reference_choice,
        "a choice: its letter, its index from 0, or its text",
        quotes=lambda fields: len(_choices(fields)) != 2,
    ),
}
