"""The tokens of a study as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from store import layout
from store.arrays import ArrayReader, Slice, shape_of
from store.errors import StoreError
from store.parts import Array, check_bounds
from store.place import Place
from store.schema import VOCAB


class Vocab:
    """Token ids and the bytes they stand for.

    A piece need not be valid UTF-8 by itself: text is joined first and decoded then.
    """

    def __init__(self, token_bytes: Array, token_start: Array, special_ids: Array) -> None:
        """`token_bytes` (all pieces end to end), `token_start` (offsets, one more than tokens). Raises StoreError."""
        check_bounds("vocab/token_start", token_start, len(token_bytes))
        self._bytes = token_bytes.tobytes()
        self._start: Sequence[int] = memoryview(np.ascontiguousarray(token_start).data)  # gives integers of Python
        self._special = frozenset(special_ids.tolist())

    def __len__(self) -> int:
        return len(self._start) - 1

    def bytes_of(self, token_id: int) -> bytes:
        """Raw bytes of one token. Raises StoreError where there is no such token."""
        if not 0 <= token_id < len(self):
            raise StoreError(f"token {token_id} is outside of the vocabulary of {len(self)} tokens")
        return self._bytes[self._start[token_id] : self._start[token_id + 1]]

    def is_special(self, token_id: int) -> bool:
        """Whether the token is a mark of the chat template or the like, not text."""
        return token_id in self._special

    def text(self, token_ids: Iterable[int]) -> str:
        """Text of tokens in a row; what is not UTF-8 becomes U+FFFD. Raises StoreError as `bytes_of` does."""
        return b"".join([self.bytes_of(int(token_id)) for token_id in token_ids]).decode("utf-8", errors="replace")


def read_vocab(root: Place, arrays: ArrayReader, n_tokens: int) -> Vocab:
    """The vocabulary of a store whose root says that it has `n_tokens`. Raises StoreError where it is damaged."""
    known = layout.read_vocab(root)
    shapes = {name: shape_of(spec, known[0], "vocab") if known else None for name, spec in VOCAB.items()}
    slices = [Slice("vocab", name, spec, shapes[name], 0, (shapes[name] or (0,))[0]) for name, spec in VOCAB.items()]
    vocab = Vocab(*arrays.read(slices))
    if len(vocab) != n_tokens:
        raise StoreError(f"{root / 'vocab'} has {len(vocab)} tokens, the root says {n_tokens}; the store is damaged")
    return vocab
