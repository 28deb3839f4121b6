"""Where in a study one is: what `--at QUESTION/ROLLOUT/TOKEN` says."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct


class Place(Struct, frozen=True):
    """A question, and perhaps a rollout and a token of it."""

    question_id: str
    rollout: int | None = None
    token: int | None = None

    def __str__(self) -> str:
        parts = (self.question_id, self.rollout, self.token)
        return "/".join(str(part) for part in parts if part is not None)


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
