"""What a search finds, as a list that grows and is walked. Plain Python: screens hold it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan
from typing import NamedTuple

from msgspec import Struct

from opd_tui.place import NOWHERE
from opd_tui.text import Safe

#: Matches that are listed; more are counted.
MOST_LISTED = 50_000


class Match(NamedTuple):
    """One match. -1 for a rollout or position that it does not have: then all of the question or rollout matches."""

    question: str  #: as stored; never drawn
    label: Safe
    number: int  #: of the question in the study
    rollout: int
    position: int
    value: float  #: of the first number in the expression
    text: Safe  #: the token, or what stands around a text that was found

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it is in the study."""
        return self.number, self.rollout, self.position


class Found(Struct, frozen=True):
    """What came since the last block of a scan, and how far it is."""

    matches: tuple[Match, ...]  #: those that are listed
    n: int  #: all of them
    where: frozenset[tuple[str, int]]  #: question and rollout of each
    n_done: int
    n_questions: int


#: Columns that the list can be sorted by, in the order in which `s` goes through them.
ORDERS = ("study order", "value", "question", "rollout", "token", "text")


@dataclass
class Matches:
    """All that was found so far, in an order, and which of them a person is at."""

    matches: list[Match] = field(default_factory=list)
    order: str = ORDERS[0]
    descending: bool = False
    n: int = 0
    n_done: int = 0
    n_questions: int = -1  #: to look at; -1: not known yet
    where: set[tuple[str, int]] = field(default_factory=set)
    at: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every question was looked at."""
        return self.n_done >= self.n_questions >= 0

    @property
    def questions(self) -> set[str]:
        """Ids of the questions that have a match."""
        return {question for question, _ in self.where}

    def add(self, found: Found) -> None:
        """Take in a block."""
        self.matches += found.matches
        self.n += found.n
        self.n_done, self.n_questions = found.n_done, found.n_questions
        self.where |= found.where
        if (self.order != ORDERS[0] or self.descending) and found.matches:
            self.sort(self.order, self.descending)

    def sort(self, order: str, descending: bool = False) -> None:
        """In another order; whoever is at a match stays there. What has no value comes last."""
        here = self.matches[self.at] if self.at is not None else None
        self.order, self.descending = order, descending
        self._sort()
        if descending:
            known = sum(not isnan(one.value) for one in self.matches) if order == "value" else len(self.matches)
            self.matches[:known] = self.matches[:known][::-1]
        self.at = self.matches.index(here) if here is not None else None

    def _sort(self) -> None:
        match self.order:
            case "value":
                self.matches.sort(key=lambda one: (isnan(one.value), 0.0 if isnan(one.value) else one.value, one.place))
            case "question":
                self.matches.sort(key=lambda one: (one.question, one.place))
            case "rollout":
                self.matches.sort(key=lambda one: (one.rollout, one.place))
            case "token":
                self.matches.sort(key=lambda one: (one.position, one.place))
            case "text":
                self.matches.sort(key=lambda one: (one.text.casefold(), one.place))
            case _:
                self.matches.sort(key=lambda one: one.place)

    def step(self, by: int, here: tuple[int, int, int] | None) -> Match | None:
        """The next match (`by` 1) or the one before (-1).

        In study order that is seen from `here` (number, rollout, position; None: still on the way to the match before); in any
        other it is seen from the match before.
        """
        in_order = self.order == ORDERS[0] and not self.descending
        if self.at is None or (in_order and here is not None and not _covers(self.matches[self.at], here)):
            target = self._from(by, here) if in_order and here is not None else 0 if by > 0 else len(self.matches) - 1
        else:
            target = self.at + by
        if not 0 <= target < len(self.matches):
            return None
        self.at = target
        return self.matches[target]

    def _from(self, by: int, here: tuple[int, int, int]) -> int:
        after = next((i for i, one in enumerate(self.matches) if one.place > here), len(self.matches))
        if by > 0:
            return after
        return next((i for i in range(after - 1, -1, -1) if not _covers(self.matches[i], here)), -1)


def _covers(match: Match, here: tuple[int, int, int]) -> bool:
    """Whether `here` lies in what matches."""
    return all(part in (NOWHERE, there) for part, there in zip(match.place, here, strict=True))
