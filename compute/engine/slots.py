"""Which completion runs in which slot: the bookkeeping of shared-prefix decoding, without a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from compute.engine import Completion, Launch
from compute.sampling import uniforms
from store.schema import FinishReason

#: Numbers of rows are multiples of it. Where a batch has no whole number of vector registers, the last elements of an
#: activation are computed one by one, and rounded differently.
GRAIN = 4
_IDLE = -1
_ROOM = 64
#: Random numbers are made for so many steps of a completion at once.
_AHEAD = 16


def whole(rows: int) -> int:
    """The next number of rows that a batch may have."""
    return rows + -rows % GRAIN


class Schedule:
    """Launches waiting, running in slots, and done.

    The loop of an engine reads: `refill`, run one step for all slots, `append` the drawn tokens. Arrays have one
    entry per slot; an idle slot runs along on whatever it held last, and what it draws is dropped.
    """

    def __init__(
        self,
        launches: Sequence[Launch],
        first: NDArray[np.int64],
        *,
        prompt: int,
        max_response_tokens: int,
        end_ids: Collection[int],
    ) -> None:
        self._keys = np.array([one.key for one in launches], dtype=np.uint64)
        self._kept = np.array([prompt + one.depth for one in launches], dtype=np.int64)
        self._room = np.array([max_response_tokens - one.depth for one in launches], dtype=np.int64)
        self._first = np.asarray(first, dtype=np.int32)
        self._end_ids = np.array(sorted(end_ids), dtype=np.int64)
        self._done: list[NDArray[np.int32] | None] = [None] * len(launches)
        finished = self._finished(self._first, np.ones(len(launches), dtype=np.int64), self._room)
        for at in np.flatnonzero(finished):
            self._done[at] = self._first[at : at + 1].copy()
        self._waiting: list[int] = np.flatnonzero(~finished)[::-1].tolist()
        self._slots = np.empty(0, dtype=np.int64)
        self.open(0)

    def open(self, slots: int) -> None:
        """Make `slots` slots. Completions that run are given up and wait again: their draws are keyed, so nothing changes."""
        self._waiting += self._slots[self._slots != _IDLE][::-1].tolist()
        self._slots = np.full(slots, _IDLE, dtype=np.int64)
        self._own = np.ones(slots, dtype=np.int64)
        self._tokens = np.zeros((slots, _ROOM), dtype=np.int32)
        self._uniform = np.zeros((slots, _AHEAD))
        self._uniform_from = np.full(slots, _IDLE)  #: the step of each slot's first one

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def n_active(self) -> int:
        """Slots that run a completion."""
        return int((self._slots != _IDLE).sum())

    @property
    def n_left(self) -> int:
        """Completions that run or wait."""
        return self.n_active + len(self._waiting)

    def refill(self) -> bool:
        """Give idle slots the next launches. False when nothing is left to run."""
        idle = np.flatnonzero(self._slots == _IDLE)
        free = idle[: len(self._waiting)]
        if len(free):
            chosen = np.array(self._waiting[: -len(free) - 1 : -1], dtype=np.int64)
            del self._waiting[-len(free) :]
            self._slots[free], self._own[free], self._tokens[free, 0] = chosen, 1, self._first[chosen]
            self._uniform_from[free] = _IDLE
        return len(free) > 0 or len(idle) < len(self._slots)

    def spare(self, least: int) -> NDArray[np.int64] | None:
        """Close idle slots once an eighth of them is idle, down to `least`; the slots kept, or None."""
        active = np.flatnonzero(self._slots != _IDLE)
        wanted = whole(max(least, len(active)))
        if wanted > len(self._slots) * 7 // 8:
            return None
        idle = np.flatnonzero(self._slots == _IDLE)
        kept = np.concatenate([active, idle[: wanted - len(active)]])
        self._slots, self._own, self._tokens = self._slots[kept], self._own[kept], self._tokens[kept]
        self._uniform, self._uniform_from = self._uniform[kept], self._uniform_from[kept]
        # What an idle slot held may be long; it must not widen everybody's attention.
        self._own[len(active) :] = 1
        return kept

    def uniforms(self) -> NDArray[np.float64]:
        """The random number of each slot's next draw."""
        begin = self._own // _AHEAD * _AHEAD
        stale = np.flatnonzero(self._uniform_from != begin)
        if len(stale):
            step = begin[stale, None] + np.arange(_AHEAD)
            key = np.repeat(self._keys[self._slots[stale]], _AHEAD)
            self._uniform[stale] = uniforms(key, step.ravel()).reshape(-1, _AHEAD)
            self._uniform_from[stale] = begin[stale]
        drawn: NDArray[np.float64] = self._uniform[np.arange(len(begin)), self._own - begin]
        return drawn

    def kept(self) -> NDArray[np.int64]:
        """Positions of the shared prefix that each slot sees."""
        return self._kept[self._slots]

    def own(self) -> NDArray[np.int64]:
        """Own tokens of each slot so far, at least 1; also the step of its next draw."""
        return self._own.copy()

    def latest(self) -> NDArray[np.int64]:
        """The latest token of each slot."""
        latest: NDArray[np.int64] = self._tokens[np.arange(len(self._slots)), self._own - 1].astype(np.int64)
        return latest

    def append(self, drawn: NDArray[np.int64]) -> None:
        """Add one drawn token to each slot's completion; a finished one leaves its slot."""
        active = np.flatnonzero(self._slots != _IDLE)
        if self._own[active].max(initial=0) >= self._tokens.shape[1]:
            self._tokens = np.pad(self._tokens, ((0, 0), (0, self._tokens.shape[1])))
        self._tokens[active, self._own[active]] = drawn[active]
        self._own[active] += 1
        finished = active[self._finished(drawn[active], self._own[active], self._room[self._slots[active]])]
        for slot in finished:
            self._done[self._slots[slot]] = self._tokens[slot, : self._own[slot]].copy()
        self._slots[finished], self._own[finished], self._uniform_from[finished] = _IDLE, 1, _IDLE

    def _finished(self, token: NDArray[np.integer], own: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.bool_]:
        ended: NDArray[np.bool_] = (token[:, None] == self._end_ids).any(axis=-1)
        return ended | (own >= room)

    def completions(self) -> list[Completion]:
        """All completions, in the order of their launches, once none is left."""
        ends = set(self._end_ids.tolist())
        return [
            Completion(tokens, FinishReason.STOP if int(tokens[-1]) in ends else FinishReason.LENGTH)
            for tokens in self._done
            if tokens is not None
        ]
