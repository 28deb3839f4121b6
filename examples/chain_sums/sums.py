"""Chain sums: the questions, the ways to answer them, what may stand beside a question, and the grader.

Question `3+5+4?`, worked response `3+5=8;8+4=12.`: every character is one token, and the answer is the number after the last `=`.
"""

import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

CHARACTERS = "0123456789+=;.?|"
MAX_RESPONSE_TOKENS = 24  # the longest right response with its end token: `9+9=18;9+18=27;9+27=36.`
HELD_OUT_ONE_IN = 5


@dataclass(frozen=True)
class Question:
    """Terms to be added, all positive."""

    terms: tuple[int, ...]

    @property
    def text(self) -> str:
        """`3+5+4?`"""
        return "+".join(map(str, self.terms)) + "?"

    @property
    def answer(self) -> str:
        """`12`"""
        return str(sum(self.terms))

    @property
    def held_out(self) -> bool:
        """Never seen in training. Decided by the text alone, so that it needs no list and no seed."""
        return zlib.crc32(self.text.encode()) % HELD_OUT_ONE_IN == 0


def draw_question(rng: random.Random, held_out: bool) -> Question:
    """Half the questions have four terms 1..9, half have three, of which each reaches up to 30 three times in ten."""
    while True:
        if rng.random() < 0.5:
            terms = tuple(rng.randint(1, 9) for _ in range(4))
        else:
            terms = tuple(rng.randint(10, 30) if rng.random() < 0.3 else rng.randint(1, 9) for _ in range(3))
        question = Question(terms)
        if question.held_out == held_out:
            return question


def draw_fresh_questions(count: int, seed: int) -> list[Question]:
    """Distinct questions that no model was trained on."""
    rng = random.Random(seed)
    questions: dict[Question, None] = {}
    while len(questions) < count:
        questions.setdefault(draw_question(rng, held_out=True))
    return list(questions)


def from_the_left(question: Question) -> str:
    """`3+5=8;8+4=12.`"""
    total, *rest = question.terms
    steps = []
    for term in rest:
        steps.append(f"{total}+{term}={total + term}")
        total += term
    return ";".join(steps) + "."


def from_the_right(question: Question) -> str:
    """`5+4=9;3+9=12.`"""
    *rest, total = question.terms
    steps = []
    for term in reversed(rest):
        steps.append(f"{term}+{total}={term + total}")
        total += term
    return ";".join(steps) + "."


def at_once(question: Question) -> str:
    """`=12.`"""
    return f"={question.answer}."


STYLES: dict[str, Callable[[Question], str]] = {"left": from_the_left, "right": from_the_right, "direct": at_once}


@dataclass(frozen=True)
class StyleMix:
    """How often a training response is written in each style."""

    left: float
    right: float
    direct: float

    def draw(self, rng: random.Random) -> str:
        """The name of one style."""
        return rng.choices(list(STYLES), weights=[self.left, self.right, self.direct])[0]


CONTEXTS = ("none", "answer", "demonstration", "other_answer", "other_demonstration")


def with_context(question: Question, context: str, rng: random.Random) -> str:
    """The user message: the question, then, after a bar, what it carries (nothing, or the right thing, or another question's)."""
    if context == "none":
        return question.text
    source = question
    while context.startswith("other_") and source.answer == question.answer:
        source = draw_question(rng, question.held_out)
    if context.endswith("answer"):
        return f"{question.text}|{source.answer}"
    return f"{question.text}|{STYLES[rng.choice(list(STYLES))](source)}"


def style_of(response: str, question: Question) -> str:
    """The style a response begins in, told by its first operands; `unclear` where left and right begin alike or neither fits."""
    if response.startswith("="):
        return "direct"
    fitting = [style for style in ("left", "right") if response.startswith(STYLES[style](question).split("=")[0] + "=")]
    return fitting[0] if len(fitting) == 1 else "unclear"


def is_correct(response: str, answer: str) -> bool:
    """The number after the last `=` is the answer, and the response is finished by a `.`."""
    found = re.search(r"=(\d+)\.$", response)
    return found is not None and found.group(1) == answer
