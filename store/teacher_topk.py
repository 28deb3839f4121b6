"""A teacher's most likely tokens, kept as what they add to the student's.

Nine in ten of them are among the student's top-K, whose ids and log-probabilities are kept already. So a teacher keeps
how many of its most likely tokens are known (`topk_n`), what it says of the student's (`logprob_at_student_topk`), and
its *extras*: those of its top-K that are not in the student's. The top-K is then, exactly, all extras together with the
most likely of the student's tokens under the teacher, as many as are left of `topk_n`. It comes out falling; of equal
log-probabilities the student's tokens come first, in the student's order, then the extras in theirs.

Axes: T token, C candidate (top-K), E extra, X extra of one token. numpy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from store.errors import StoreError
from store.rounding import next_lower, rounded
from store.schema import ABSENT_TOKEN, TOPK_BITS

Array = NDArray[Any]
Bool = NDArray[np.bool_]

#: float16 has no infinity worth keeping: a log-probability is clipped where it would overflow.
MOST = 60000.0


class Extras(Struct, frozen=True):
    """Those of one teacher's top-K that are not in the student's, of T tokens end to end."""

    start_T1: Array  #: offsets into the others, one more than tokens, from 0
    token_id_E: Array
    logprob_E: Array  #: under the teacher, falling within a token, nat
    student_logprob_E: Array  #: under the student, nat

    def __getitem__(self, tokens: slice) -> Extras:
        """Those of tokens in a row (no step)."""
        first, stop, _ = tokens.indices(len(self.start_T1) - 1)
        bounds = self.start_T1[first : max(first, stop) + 1]
        rows = slice(int(bounds[0]), int(bounds[-1]))
        return Extras(bounds - bounds[0], self.token_id_E[rows], self.logprob_E[rows], self.student_logprob_E[rows])


class TopK(Struct, frozen=True):
    """A teacher's most likely tokens at T positions, falling; ABSENT_TOKEN and NaN beyond those that are known."""

    token_id_TC: Array
    logprob_TC: Array  #: under the teacher, nat
    student_logprob_TC: Array  #: under the student, nat


def no_extras(length: int) -> Extras:
    """Of `length` tokens that have none."""
    return Extras(np.zeros(length + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float16), np.empty(0, np.float16))


def to_half(values: Array) -> NDArray[np.float16]:
    """Values as float16, clipped where they would become infinite. What is float16 already stays as it is."""
    if values.dtype == np.float16:
        return values
    return np.clip(values, -MOST, MOST).astype(np.float16)


def coarse(logprob: Array) -> NDArray[np.float16]:
    """Log-probabilities of a top-K as they are kept: float16, rounded to TOPK_BITS stored bits of mantissa.

    The order stays: of two different ones the larger comes out larger, or equal.
    """
    return rounded(to_half(logprob), TOPK_BITS)


def split_topk(student_token_id_TC: Array, logprob_at_student_topk_TC: Array, top: TopK) -> dict[str, Array]:
    """The arrays of a teacher's part that keep its top-K, by name; log-probabilities become `coarse`.

    Where rounding makes the teacher as sure of a student's token outside of its top-K as of one in it, the one outside is
    put a step below (in 0.9 % of the tokens of real text): so the tokens of the top-K stay exactly what they were.
    """
    there_TC = top.token_id_TC >= 0
    keys, student_keys = _keys(top.token_id_TC), _keys(student_token_id_TC)
    extra_TC = there_TC & ~np.isin(keys, student_keys)
    inside_TC = (student_token_id_TC >= 0) & np.isin(student_keys, keys)
    logprob_TC = coarse(logprob_at_student_topk_TC)
    least_T1 = np.where(inside_TC, logprob_TC, np.float16(np.inf)).min(axis=1, keepdims=True, initial=np.float16(np.inf))
    below_T1 = next_lower(least_T1, TOPK_BITS)
    return {
        "logprob_at_student_topk": np.where(~inside_TC & (logprob_TC >= least_T1), below_T1, logprob_TC),
        "topk_n": there_TC.sum(axis=1).astype(np.uint8),
        "extra_start": np.concatenate([[0], np.cumsum(extra_TC.sum(axis=1), dtype=np.int64)]),
        "extra_token_id": top.token_id_TC[extra_TC].astype(np.int32),
        "extra_logprob": coarse(top.logprob_TC[extra_TC]),
        "extra_student_logprob": coarse(top.student_logprob_TC[extra_TC]),
    }


def join_topk(
    student_token_id_TC: Array, student_logprob_TC: Array, logprob_at_student_topk_TC: Array, topk_n_T: Array, extras: Extras
) -> TopK:
    """The reverse of `split_topk`: a teacher's top-K [T, C], with C as wide as the student's."""
    width = student_token_id_TC.shape[1]
    n_extra_T = np.diff(extras.start_T1)
    shared_TC = shared_topk(logprob_at_student_topk_TC, topk_n_T - n_extra_T)
    column_X = np.arange(n_extra_T.max(initial=0))
    valid_TX = column_X < n_extra_T[:, None]
    row_TX = np.where(valid_TX, extras.start_T1[:-1, None] + column_X, 0)

    def both(of_student_TC: Array, of_extras_E: Array, absent: float) -> Array:
        pieces = np.where(shared_TC, of_student_TC, absent), np.where(valid_TX, of_extras_E[row_TX], absent)
        return np.concatenate(pieces, axis=1)

    logprob = both(logprob_at_student_topk_TC, extras.logprob_E, np.nan)
    order_TC = np.argsort(-logprob, axis=1, kind="stable")[:, :width]  # NaN last
    token_id = both(student_token_id_TC, extras.token_id_E, ABSENT_TOKEN)
    student_logprob = both(student_logprob_TC, extras.student_logprob_E, np.nan)
    return TopK(
        np.take_along_axis(token_id, order_TC, 1).astype(np.int32),
        np.take_along_axis(logprob, order_TC, 1).astype(np.float16),
        np.take_along_axis(student_logprob, order_TC, 1).astype(np.float16),
    )


def shared_topk(logprob_at_student_topk_TC: Array, n_shared_T: Array) -> Bool:
    """Which of the student's tokens are in the teacher's top-K, where `n_shared_T` of them are: its most likely ones. [.., C]."""
    order_TC = np.argsort(-logprob_at_student_topk_TC, axis=-1, kind="stable")  # NaN last
    shared_TC = np.zeros(order_TC.shape, dtype=np.bool_)
    np.put_along_axis(shared_TC, order_TC, np.arange(order_TC.shape[-1]) < np.asarray(n_shared_T)[..., None], axis=-1)
    return shared_TC


def check_topk(where: str, topk_n_T: Array, extra_start_T1: Array, width: int) -> None:
    """Raise StoreError unless there can be so many likely tokens and extras beside the student's top `width`."""
    if (topk_n_T > width).any():
        raise StoreError(f"{where}/topk_n holds {topk_n_T.max()}, the student's top-K has {width} tokens; the store is damaged")
    if (np.diff(extra_start_T1) > topk_n_T).any():
        raise StoreError(f"{where}/extra_start gives a token more extras than topk_n knows; the store is damaged")


def _keys(token_id_TC: Array) -> NDArray[np.int64]:
    """Row and token as one number, so that tokens of one row are compared with those of the same row; -1 where absent."""
    rows_T1 = np.arange(len(token_id_TC), dtype=np.int64)[:, None]
    return np.where(token_id_TC >= 0, rows_T1 << 32 | token_id_TC.astype(np.int64), -1)
