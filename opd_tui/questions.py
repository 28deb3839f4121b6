"""The questions of a store as the lists show them: columns, of which a line is made when it is looked at.

Imported in the loader's thread, after the first paint (it needs numpy); the lists get it in messages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from opd_tui.facts import QuestionFacts, RolloutFacts
from opd_tui.text import safe
from store.schema import FinishReason, PathKind, QuestionStatus
from store.tables import Listing

WHY_LEFT_OUT: dict[int, str] = {
    QuestionStatus.SCORED: "",
    QuestionStatus.NO_SUCCESS: "left out: no initial rollout was correct",
    QuestionStatus.NO_DEMONSTRATION: "left out: no demonstration, summary or hint for a teacher's context",
    QuestionStatus.NO_NODE: "left out: no position had two children to compare",
    QuestionStatus.NOT_SELECTED: "left out: not as difficult as the study asks for",
}

Places = NDArray[np.integer[Any]]


class Questions(Sequence[QuestionFacts]):
    """Lines of the list of questions, in some order. However many there are, one costs as much as it shows."""

    def __init__(self, listing: Listing, places: Places | None = None, place_of: dict[str, int] | None = None) -> None:
        """The questions of `listing` at `places`, in this order; without places all of them, in the order of the study."""
        self.listing = listing
        self.places: Places = np.arange(len(listing.question_id_Q)) if places is None else places
        self._place_of = place_of or {one: place for place, one in enumerate(listing.question_id_Q)}
        self._row_of: Places | None = None

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, row: int) -> QuestionFacts: ...
    @overload
    def __getitem__(self, row: slice) -> Questions: ...
    def __getitem__(self, row: int | slice) -> QuestionFacts | Questions:
        if isinstance(row, slice):
            return self.only(self.places[row])
        return self._line(int(self.places[row]))

    @property
    def ids(self) -> Collection[str]:
        """Ids of all questions of the listing."""
        return self._place_of.keys()

    @property
    def n_tokens(self) -> int:
        """Tokens of all rollouts of these questions."""
        before_R1 = np.concatenate(([0], np.cumsum(self.listing.n_tokens_R, dtype=np.int64)))
        start_Q1 = self.listing.rollout_start_Q1
        return int((before_R1[start_Q1[self.places + 1]] - before_R1[start_Q1[self.places]]).sum())

    @property
    def n_kept(self) -> int:
        """Rollouts of these questions that the store has."""
        start_Q1 = self.listing.rollout_start_Q1
        return int((start_Q1[self.places + 1] - start_Q1[self.places]).sum())

    def row(self, question_id: str) -> int | None:
        """Where a question stands in this order; None where it does not."""
        place = self._place_of.get(question_id)
        if place is None:
            return None
        if self._row_of is None:
            self._row_of = np.full(len(self.listing.question_id_Q), -1)
            self._row_of[self.places] = np.arange(len(self.places))
        found = int(self._row_of[place])
        return None if found < 0 else found

    def get(self, question_id: str) -> QuestionFacts | None:
        """A question by its id, whether or not it stands in this order."""
        place = self._place_of.get(question_id)
        return None if place is None else self._line(place)

    def first_scored(self) -> int:
        """The row to begin with: of the first question that was scored, if there is one."""
        scored = np.flatnonzero(self.listing.status_Q[self.places] == QuestionStatus.SCORED)
        return int(scored[0]) if len(scored) else 0

    def only(self, places: Places) -> Questions:
        """The questions at these places of the listing, in this order."""
        return Questions(self.listing, places, self._place_of)

    def among(self, ids: Collection[str]) -> Questions:
        """Those whose ids are among `ids`, in the same order."""
        there_Q = np.zeros(len(self.listing.question_id_Q), np.bool_)
        there_Q[[self._place_of[one] for one in ids if one in self._place_of]] = True
        return self.only(self.places[there_Q[self.places]])

    def by_success(self) -> Questions:
        """The ones least often solved first."""
        listing = self.listing
        with np.errstate(invalid="ignore"):
            rate_Q = listing.n_correct_Q / listing.n_rollouts_Q.astype(float)
        return self._by(rate_Q)

    def by_name(self) -> Questions:
        """In the order of their ids."""
        ids = self.listing.question_id_Q
        return self.only(np.array(sorted(self.places.tolist(), key=lambda place: ids[place]), np.intp))

    def by_value(self, value_of_number: dict[int, float]) -> Questions:
        """By a number for each question, the least first; those without one last."""
        return self._by(np.array([value_of_number.get(number, inf) for number in self.listing.number_Q.tolist()]))

    def _by(self, value_Q: NDArray[np.float64]) -> Questions:
        return self.only(self.places[np.argsort(value_Q[self.places], kind="stable")])  # NaN last

    def _line(self, place: int) -> QuestionFacts:
        listing = self.listing
        question_id = listing.question_id_Q[place]
        first, stop = listing.rollout_start_Q1[place : place + 2].tolist()
        return QuestionFacts(
            id=question_id,
            label=safe(question_id),
            number=int(listing.number_Q[place]),
            n_rollouts=int(listing.n_rollouts_Q[place]),
            n_correct=int(listing.n_correct_Q[place]),
            left_out=WHY_LEFT_OUT.get(int(listing.status_Q[place]), "left out for a reason that this version does not know"),
            rollouts=Rollouts(listing, range(first, stop)),
        )


class Rollouts(Sequence[RolloutFacts]):
    """Some rollouts of a listing. A line of the list of questions knows its own, and asks for none of them."""

    def __init__(self, listing: Listing, rows: range) -> None:
        """The rollouts of `listing` in these rows."""
        self.listing, self.rows = listing, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> RolloutFacts: ...
    @overload
    def __getitem__(self, place: slice) -> Rollouts: ...
    def __getitem__(self, place: int | slice) -> RolloutFacts | Rollouts:
        if isinstance(place, slice):
            return Rollouts(self.listing, self.rows[place])
        listing, row = self.listing, self.rows[place]
        return RolloutFacts(
            index=int(listing.index_R[row]),
            correct=bool(listing.correct_R[row]),
            truncated=bool(listing.finish_reason_R[row] == FinishReason.LENGTH),
            representative=bool(listing.path_kind_R[row] != PathKind.NONE),
            n_tokens=int(listing.n_tokens_R[row]),
            n_nodes=int(listing.n_nodes_R[row]),
        )
