"""Keyed random numbers: every draw is a function of what is drawn, never of when or beside what.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a 64-bit key names
a completion, the counter is its step. So a completion is the same for any batch, order, worker or restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], dtype=np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10


def philox(key: NDArray[np.uint64], counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Philox4x32-10: keys [n, 2] and counters [n, 4] of 32-bit words give [n, 4] words."""
    keys, even, odd = key.T, counter.T[::2], counter.T[1::2]
    for _ in range(_ROUNDS):
        product = _MULTIPLIERS * even
        even, odd = (product >> _SHIFT)[::-1] ^ odd ^ keys, (product & _LOW)[::-1]
        keys = (keys + _WEYL) & _LOW
    return np.stack([even[0], odd[0], even[1], odd[1]], axis=-1)


def uniforms(key: NDArray[np.uint64], step: NDArray[np.integer]) -> NDArray[np.float64]:
    """One uniform of 52 bits, never 0 or 1, for each 64-bit `key` [n] at its `step` [n]."""
    counter = np.zeros((len(key), 4), dtype=np.uint64)
    counter[:, 0] = step
    words = philox(np.stack([key & _LOW, key >> _SHIFT], axis=-1), counter)
    bits = (words[:, 0] << np.uint64(20)) | (words[:, 1] >> np.uint64(12))
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


def key(seed: int, question: str, purpose: str, prefix: Sequence[int] = (), forced: int = -1, sample: int = 0) -> int:
    """The 64-bit key of one draw.

    `prefix` are the response tokens kept before it, so that a node has the same key in every tree that
    contains it; `purpose` keeps draws apart that would otherwise coincide.
    """
    tokens = np.asarray(prefix, dtype="<i8").tobytes()
    head = f"{seed}\x00{question}\x00{purpose}\x00{forced}\x00{sample}\x00".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(head + tokens, digest_size=8).digest(), "little")
