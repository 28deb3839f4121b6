"""Which completion runs in which slot: the bookkeeping of shared-prefix decoding, without a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from compute.engine import Completion, Launch
from store.schema import FinishReason

_IDLE = -1


class Schedule:
    """Launches waiting, running in slots, and done.

    The loop of an engine reads: `refill`, run one step for all slots, `append` the drawn tokens. Arrays have one
    entry per slot; an idle slot runs along on whatever it holds, and what it draws is dropped.
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
        self._tokens = [[int(token)] for token in first]
        self._end_ids = frozenset(end_ids)
        self._waiting = [at for at in reversed(range(len(launches))) if not self._finished(at)]
        self._slots = np.full(0, _IDLE, dtype=np.int64)

    def open(self, slots: int) -> None:
        """Make `slots` slots."""
        self._slots = np.full(slots, _IDLE, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def n_active(self) -> int:
        """Slots that run a completion."""
        return int((self._slots != _IDLE).sum())

    def refill(self) -> bool:
        """Give idle slots the next launches. False when nothing is left to run."""
        for slot in np.flatnonzero(self._slots == _IDLE):
            if not self._waiting:
                break
            self._slots[slot] = self._waiting.pop()
        return bool((self._slots != _IDLE).any())

    def spare(self, least: int) -> NDArray[np.int64] | None:
        """Close idle slots once a quarter of them is idle, down to `least`; the slots kept, or None."""
        active = np.flatnonzero(self._slots != _IDLE)
        wanted = max(least, len(active))
        if wanted > len(self._slots) * 3 // 4:
            return None
        idle = np.flatnonzero(self._slots == _IDLE)
        kept = np.concatenate([active, idle[: wanted - len(active)]])
        self._slots = self._slots[kept]
        return kept

    def keys(self) -> NDArray[np.uint64]:
        """The key of each slot's random numbers."""
        return self._keys[self._slots]

    def kept(self) -> NDArray[np.int64]:
        """Positions of the shared prefix that each slot sees."""
        return self._kept[self._slots]

    def own(self) -> NDArray[np.int64]:
        """Own tokens of each slot so far, at least 1; also the step of its next draw."""
        return np.array([len(self._tokens[at]) if at != _IDLE else 1 for at in self._slots], dtype=np.int64)

    def latest(self) -> NDArray[np.int64]:
        """The latest token of each slot."""
        return np.array([self._tokens[at][-1] for at in self._slots], dtype=np.int64)

    def append(self, drawn: NDArray[np.int64]) -> None:
        """Add one drawn token to each slot's completion; a finished one leaves its slot."""
        for slot, at in enumerate(self._slots):
            if at != _IDLE:
                self._tokens[at].append(int(drawn[slot]))
                if self._finished(at):
                    self._slots[slot] = _IDLE

    def _finished(self, at: int | np.int64) -> bool:
        tokens = self._tokens[at]
        return tokens[-1] in self._end_ids or len(tokens) >= self._room[at]

    def completions(self) -> list[Completion]:
        """All completions, in the order of their launches."""
        return [
            Completion(
                np.array(tokens, dtype=np.int32), FinishReason.STOP if tokens[-1] in self._end_ids else FinishReason.LENGTH
            )
            for tokens in self._tokens
        ]
