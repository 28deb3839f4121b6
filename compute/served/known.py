"""What a server says of next tokens, and what follows from it: exactly, or not at all.

A row is one position. A server gives the log-probabilities of some tokens: its most likely ones, the token that was
taken, tokens that were asked for. The others share what is left of 1, the *tail*. What needs each of them is NaN, unless
the server named the whole vocabulary; `compute.served.bounds` says between which values it lies.

T positions, C known tokens at most, V tokens of the vocabulary. Log-probabilities are in nat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute import objectives
from compute.objectives import Spelling
from store.schema import ABSENT_TOKEN

Array = NDArray[np.float64]

#: A mass smaller than this is lost in the rounding of the float32 log-probabilities whose masses must give 1.
ROUNDING = 2e-6
#: The rest of a node has a log-probability where rounding moves it by less than this share.
_SURE = 0.1


@dataclass(frozen=True, slots=True)
class Known:
    """The known tokens of T positions. In a row the `n_top_T` most likely ones come first, falling; each token once."""

    token_id_TC: NDArray[np.int32]  #: ABSENT_TOKEN where a row knows fewer
    logprob_TC: Array  #: NaN there
    n_top_T: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_top_T)

    def __getitem__(self, rows: slice) -> Known:
        return Known(self.token_id_TC[rows], self.logprob_TC[rows], self.n_top_T[rows])

    def whole(self, vocab_size: int) -> bool:
        """Whether every token of the vocabulary is known everywhere."""
        return bool(((self.token_id_TC != ABSENT_TOKEN).sum(axis=-1) == vocab_size).all())

    def row(self, at: int, vocab_size: int) -> Array:
        """Log-probabilities of the whole vocabulary at one position, [V]; NaN where unknown."""
        row_V = np.full(vocab_size, np.nan)
        there = self.token_id_TC[at] != ABSENT_TOKEN
        row_V[self.token_id_TC[at, there]] = self.logprob_TC[at, there]
        return row_V

    def at(self, tokens_TX: NDArray[np.integer]) -> Array:
        """Log-probabilities of given tokens, [T, X]; NaN where unknown."""
        equal_TXC = (tokens_TX[:, :, None] == self.token_id_TC[:, None]) & (tokens_TX[:, :, None] != ABSENT_TOKEN)
        found = np.take_along_axis(self.logprob_TC, equal_TXC.argmax(axis=-1), axis=-1)
        return np.where(equal_TXC.any(axis=-1), found, np.nan)


def pack(rows: Sequence[tuple[Sequence[int], Sequence[float], Mapping[int, float]]], vocab_size: int) -> Known:
    """Rows of (most likely tokens, falling; their log-probabilities; further known tokens) as one table.

    Tokens outside the vocabulary are padding of the model's head: they and what comes after them are no longer its top.
    """
    known: list[tuple[list[int], list[float], int]] = []
    for top_ids, top_logprobs, further in rows:
        entries = dict(zip(top_ids, top_logprobs, strict=True))
        n_top = next((n for n, token in enumerate(entries) if token >= vocab_size), len(entries))
        entries |= {token: logprob for token, logprob in further.items() if token not in entries}
        inside = {token: logprob for token, logprob in entries.items() if token < vocab_size}
        known.append((list(inside), list(inside.values()), n_top))
    width = max((len(ids) for ids, _, _ in known), default=1) or 1
    token_id_TC = np.full((len(known), width), ABSENT_TOKEN, dtype=np.int32)
    logprob_TC = np.full((len(known), width), np.nan)
    for at, (ids, logprobs, _) in enumerate(known):
        token_id_TC[at, : len(ids)], logprob_TC[at, : len(ids)] = ids, logprobs
    return Known(token_id_TC, logprob_TC, np.array([n_top for _, _, n_top in known], dtype=np.int64))


def with_tokens(row_V: Array, found: Mapping[int, float]) -> Array:
    """A row that knows the tokens `found` as well."""
    row_V = row_V.copy()
    row_V[list(found)] = list(found.values())
    return row_V


def rest_logprob(row_V: Array, children: Iterable[int]) -> float:
    """Log of the mass outside `children`, all of which are known: what is left of 1.

    NaN where that is so little that the rounding of the children's masses could be a tenth of it; exact where the row
    knows the whole vocabulary.
    """
    outside_V = np.ones(len(row_V), dtype=bool)
    outside_V[list(children)] = False
    masses_V = np.exp(row_V)
    if not np.isnan(row_V).any():
        rest = float(masses_V[outside_V].sum())
        return float(np.log(rest)) if rest > 0.0 else -np.inf
    left, known = 1.0 - float(masses_V[~outside_V].sum()), float(np.nansum(masses_V[outside_V]))
    rest = max(left, known)
    return float(np.log(rest)) if rest * _SURE > ROUNDING else np.nan


def fbar_of(name: str | Spelling, logp_V: Array, row_V: Array) -> float:
    """fbar over the whole vocabulary from a row that may lack tokens; NaN where it does not follow.

    sum P f: with f = r it is the teacher's whole mass, 1; with f = 0 it is 0; a top-k objective needs no more than the
    student's k most likely tokens. Any other needs every token.
    """
    spelling = objectives.parse(name)
    if spelling.follows_completions:
        return np.nan
    if not np.isnan(row_V).any():
        return float(objectives.fbar(spelling, logp_V, row_V))
    if spelling.name in ("forward_kl", "k3_loss"):
        return 1.0
    if spelling.name == "top_k_penalty":
        return 0.0
    if spelling.name == "top_k_reverse_kl":
        top = np.argsort(-logp_V, kind="stable")[: int(spelling.parameter("k"))]
        f_k = objectives.f(spelling, logp_V[top], row_V[top])
        return float(np.exp(logp_V[top]) @ f_k)
    return np.nan


def needed_tokens(names: Iterable[str], logp_V: Array) -> list[int]:
    """Tokens beyond a node's children that the fbar of these objectives takes: the student's top k, for top-k objectives."""
    k = max((int(one.parameter("k")) for one in map(objectives.parse, names) if one.name == "top_k_reverse_kl"), default=0)
    return [int(token) for token in np.argsort(-logp_V, kind="stable")[:k]]
