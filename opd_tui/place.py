"""Where in a study one is: what `--at QUESTION/ROLLOUT/TOKEN` says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from opd_tui.facts import RolloutFacts
    from opd_tui.questions import Questions

#: In place of a rollout's index or a token's position where there is none.
NOWHERE = -1
#: Rollouts that a sentence names one by one.
MOST_NAMED = 12


class Place(Struct, frozen=True):
    """A question, and perhaps a rollout and a token of it."""

    question_id: str
    rollout: int | None = None
    token: int | None = None

    def __str__(self) -> str:
        parts = (self.question_id, self.rollout, self.token)
        return "/".join(str(part) for part in parts if part is not None)


def first_place(questions: Questions, at: str | None) -> tuple[Place | None, str]:
    """The place that `at` names, or the nearest one to it that is there; and in one sentence what is not there, or "".

    Without `at` the first question that was scored; with the rollout to begin with, where there is one. None where there
    is no question.
    """
    if not questions:
        return None, ""
    first = questions[questions.first_scored()]
    here = Place(first.id, first.first_rollout)
    if at is None:
        return here, ""
    try:
        wanted = parse_place(at, questions.ids)
    except ValueError as error:
        named = next((one for one in map(questions.get, _heads(at)) if one is not None), first)
        here = Place(named.id, named.first_rollout)
        return here, f"{error}: this is {here}"
    question = questions.get(wanted.question_id)
    if question is None or not question.rollouts:
        return wanted, ""
    if wanted.rollout is None:
        return Place(wanted.question_id, question.first_rollout), ""
    rollout = min(question.rollouts, key=lambda one: (abs(one.index - (wanted.rollout or 0)), one.index))
    if rollout.index != wanted.rollout:
        nearest = Place(wanted.question_id, rollout.index)
        return nearest, f"{no_rollout(wanted, question.rollouts)}: this is rollout {rollout.index}"
    if wanted.token is not None and wanted.token >= rollout.n_tokens:
        last = Place(wanted.question_id, rollout.index, rollout.n_tokens - 1)
        return last, f"rollout {rollout.index} has no token {wanted.token}: this is its last one, {last.token}"
    return wanted, ""


def _heads(text: str) -> list[str]:
    """All that may be the question of a place that is none, the longest first."""
    parts = text.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def no_rollout(place: Place, rollouts: Sequence[RolloutFacts]) -> str:
    """That a question has no such rollout, and which it has."""
    indices = [str(one.index) for one in rollouts]
    there = ", ".join(indices) if len(indices) <= MOST_NAMED else f"{', '.join(indices[:MOST_NAMED])}, ... {indices[-1]}"
    return f"{place.question_id} has no rollout {place.rollout} in this store; it has {there or 'none'}"


def no_token(place: Place, rollout: RolloutFacts) -> str:
    """That a rollout has no such token, and which is its last one."""
    return f"rollout {rollout.index} has no token {place.token}; its last one is {rollout.n_tokens - 1}"


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
        f"there is no place {text!r} in this store (QUESTION/ROLLOUT/TOKEN is wanted, with a question that is finished)"
    )


def parse_goto(text: str, questions: Collection[str], here: Place | None) -> Place:
    """Where a person wants to go, who may leave out what stays the same.

    QUESTION/ROLLOUT/TOKEN as `parse_place`; /ROLLOUT, /ROLLOUT/TOKEN and //TOKEN within the question and rollout that is
    `here`; a number by itself is a token of it, unless it is a question; a part of a name is that question's where no other
    has it.
    Raises ValueError, in one sentence.
    """
    text = text.strip()
    if not text:
        raise ValueError("QUESTION/ROLLOUT/TOKEN is wanted, or a part of it: q007, q007/1, /1/40, //40")
    try:
        return parse_place(text, questions)
    except ValueError:
        pass
    if text.isdecimal() and here is not None:
        return Place(here.question_id, here.rollout, int(text))
    if text.startswith("/"):
        if here is None:
            raise ValueError("no question is open: its name is wanted in front")
        rollout, _, token = text[1:].partition("/")
        if not (rollout or token) or any(part and not part.isdecimal() for part in (rollout, token)):
            raise ValueError(
                f"{text!r} is no place: /ROLLOUT, /ROLLOUT/TOKEN or //TOKEN with numbers are places of this question"
            )
        index = int(rollout) if rollout else here.rollout
        return Place(here.question_id, index, int(token) if token else None)
    return _by_part(text, questions)


def _by_part(text: str, questions: Collection[str]) -> Place:
    name, *numbers = text.split("/")
    found = [question for question in questions if name.casefold() in question.casefold()]
    if len(found) == 1 and len(numbers) <= 2 and all(part.isdecimal() for part in numbers):
        return Place(found[0], *(int(part) for part in numbers))
    if len(found) == 1:
        raise ValueError(f"{text!r} is no place: rollout and token are numbers, as in {found[0]}/1/40")
    if found:
        raise ValueError(f"{len(found)} questions have {name!r} in their names, such as {found[0]} and {found[1]}")
    import difflib

    close = difflib.get_close_matches(name, questions, n=1, cutoff=0.5)
    raise ValueError(f"there is no question {name!r}" + (f"; did you mean {close[0]!r}?" if close else " in this store"))
