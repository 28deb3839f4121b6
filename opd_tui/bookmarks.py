"""Tokens that somebody wants to come back to."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from opd_tui.place import Place


class Bookmark(Struct, frozen=True):
    """A token, and how it reads. `text` is not safe by itself: it may come from a file."""

    question_id: str
    rollout: int
    token: int
    text: str = ""

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.question_id, self.rollout, self.token)


class Bookmarks:
    """All bookmarks, in the order in which they were set."""

    def __init__(self, there: Sequence[Bookmark] = ()) -> None:
        self.all = list(there)

    def toggle(self, one: Bookmark) -> bool:
        """Set a bookmark, or take it away where there is one; whether there is one now."""
        kept = [other for other in self.all if other.place != one.place]
        is_new = len(kept) == len(self.all)
        self.all = [*kept, one] if is_new else kept
        return is_new

    def along(self, question_id: str | None, rollout: int | None) -> frozenset[int]:
        """The tokens of a rollout that have one."""
        return frozenset(one.token for one in self.all if (one.question_id, one.rollout) == (question_id, rollout))
