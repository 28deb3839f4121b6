"""Two rollouts of one question: which to put beside which, where they part, and what of one belongs to what of the other.

Pure, and without numpy: pages come from the loader, screens ask here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import exp, isfinite, nan
from typing import TYPE_CHECKING

from msgspec import Struct

from opd_tui.text import Safe

if TYPE_CHECKING:
    from opd_tui.facts import ChildFacts
    from opd_tui.pages import RolloutPage


class Lock(Enum):
    """How the two sides move together, in the order in which one key goes through them."""

    PREFIX = "same token"
    NODE = "node by node"
    FREE = "free"

    @property
    def next(self) -> Lock:
        """The one after it."""
        every = list(Lock)
        return every[(every.index(self) + 1) % len(every)]


class Sketch(Struct, frozen=True):
    """A rollout as far as choosing a partner needs it."""

    index: int
    correct: bool
    token_ids: Sequence[int]


class Comparison(Struct, frozen=True, eq=False):
    """Two rollouts of a question that are to be shown beside each other."""

    left: RolloutPage
    right: RolloutPage
    n_shared: int  #: tokens that both begin with
    node_pairs: tuple[tuple[int, int], ...]  #: positions of nodes that belong together, rising on both sides
    opposite: bool  #: whether the rollouts have opposite outcomes
    may_be_opposite: bool  #: whether any rollout has the outcome opposite to that of the left one


def shared_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return min(len(left), len(right))


def nearest(here: Sketch, others: Sequence[Sketch]) -> Sketch | None:
    """The rollout of opposite outcome with the longest common beginning; where there is none, the nearest of the others.

    Of those that share as much: the first. None where there is no other rollout.
    """
    others = [other for other in others if other.index != here.index]
    opposite = [other for other in others if other.correct != here.correct]
    by_nearness = sorted(opposite or others, key=lambda other: (-shared_prefix(here.token_ids, other.token_ids), other.index))
    return by_nearness[0] if by_nearness else None


def pair_nodes(left: Mapping[int, int], right: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """Positions that belong together, from position -> row of the question's nodes on either side.

    Nodes that are one and the same in the tree of prefixes come first; after them the k-th node of one side goes
    with the k-th of the other, until one side has no more.
    """
    position_of = {row: position for position, row in right.items()}
    shared = [(position, position_of[row]) for position, row in sorted(left.items()) if row in position_of]
    alone_left = sorted(position for position, row in left.items() if row not in position_of)
    of_left = set(left.values())
    alone_right = sorted(position for position, row in right.items() if row not in of_left)
    return (*shared, *zip(alone_left, alone_right, strict=False))


def partner(lock: Lock, token: int, *, n_shared: int, pairs: Sequence[tuple[int, int]], n_other: int) -> int | None:
    """Where the other side stands when this one is at `token`: None where it stays. `pairs`: (here, there).

    On the shared tokens both stand on the same one, whatever the lock.
    """
    last = max(n_other - 1, 0)
    if lock is Lock.FREE or not n_other:
        return None
    if lock is Lock.PREFIX or token < n_shared:
        return min(token, last)
    before = [there for here, there in pairs if here <= token]
    return min(before[-1] if before else n_shared, last)


# the fork


class Branch(Struct, frozen=True):
    """One of the two tokens with which the rollouts part."""

    label: Safe  #: "" where the rollout ended before
    p_student: float
    p_succ: float  #: NaN: no estimate
    low: float
    high: float
    n: float
    kept: bool


class ForkTeacher(Struct, frozen=True):
    """What one teacher says of both tokens, and what its update is worth there."""

    left: float
    right: float
    alignment: float
    gain: float
    gain_se: float


class Fork(Struct, frozen=True):
    """Where two rollouts part."""

    position: int
    number: int | None  #: which node of the left rollout this is (of the right one, where only that has nodes), from 1
    reason: str  #: why it is no decision point, "" where it is one or no node at all
    left: Branch
    right: Branch
    teachers: tuple[ForkTeacher, ...]


def fork(both: Comparison, objective: int) -> Fork | None:
    """Where the rollouts part; None where they are the same to the end."""
    left, right, position = both.left, both.right, both.n_shared
    if position >= max(left.n_tokens, right.n_tokens):
        return None
    n_teachers = min(left.n_teachers, right.n_teachers)
    owner = left if position in left.row_of else right
    nodes = [owner.node(position, m, objective) for m in range(n_teachers)]
    first = nodes[0] if nodes else None
    children = {child.token_id: child for child in first.children} if first else {}
    teachers = []
    for m, node in enumerate(nodes):
        of = node.objectives[objective] if node is not None and objective < len(node.objectives) else None
        teachers.append(
            ForkTeacher(
                _teacher(left, position, m),
                _teacher(right, position, m),
                of.alignment if of else nan,
                of.gain if of else nan,
                of.gain_se if of else nan,
            )
        )
    return Fork(
        position,
        first.number if first else None,
        first.reason if first else "",
        _branch(left, position, children),
        _branch(right, position, children),
        tuple(teachers),
    )


def _branch(page: RolloutPage, position: int, children: Mapping[int, ChildFacts]) -> Branch:
    if position >= page.n_tokens:
        return Branch(Safe(""), nan, nan, nan, nan, nan, False)
    token_id = int(page.rollout.token_id_T[position])
    child = children.get(token_id)
    p_student = _exp(float(page.rollout.logprob_T[position]))
    if child is None:
        return Branch(page.label(token_id), p_student, nan, nan, nan, nan, False)
    return Branch(page.label(token_id), p_student, child.p_succ, child.low, child.high, child.n, child.kept)


def _teacher(page: RolloutPage, position: int, teacher: int) -> float:
    return _exp(float(page.rollout.teacher_logprob_TM[position, teacher])) if position < page.n_tokens else nan


def _exp(logprob: float) -> float:
    return exp(logprob) if isfinite(logprob) else 0.0 if logprob == float("-inf") else nan
