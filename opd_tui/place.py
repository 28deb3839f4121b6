"""Where in a study one is: what `--at QUESTION/ROLLOUT/TOKEN` says."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from opd_tui.questions import Questions


class Place(Struct, frozen=True):
    """A question, and perhaps a rollout and a token of it."""

    question_id: str
    rollout: int | None = None
    token: int | None = None

    def __str__(self) -> str:
        parts = (self.question_id, self.rollout, self.token)
        return "/".join(str(part) for part in parts if part is not None)


def first_place(questions: Questions, at: str | None) -> Place | None:
    """The place that `at` names, or the first question that was scored; with the rollout to begin with, where there is one.

    None where there is no question. Raises ValueError as `parse_place`.
    """
    if not questions:
        return None
    place = Place(questions[questions.first_scored()].id) if at is None else parse_place(at, questions.ids)
    question = questions.get(place.question_id)
    if place.rollout is not None or question is None:
        return place
    return Place(place.question_id, question.first_rollout)


def parse_place(text: str, questions: Collection[str]) -> Place:
    """The place that `text` names among `questions`, whose names may contain slashes.

    Raises ValueError where there is no such question, or where rollout and token are no numbers.
    """
    parts = text.split("/")
    for n_numbers in range(min(2, len(parts) - 1) + 1):
        name = "/".join(parts[: len(parts) - n_numbers])
        numbers = parts[len(parts) - n_numbers :]
        if name in questions and all(part.isdecimal() for part in numbers):
            return Place(name, *(int(part) for part in numbers))
    raise ValueError(
        f"there is no place {text!r} in this store: QUESTION/ROLLOUT/TOKEN is wanted, with a question that is finished"
    )
