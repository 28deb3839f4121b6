"""What the arrays of a part must say, so that every number in it can be what was written: the deep half of `store.doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import IntEnum

import numpy as np

from store.encoding import grid as chunk_grid
from store.errors import StoreError
from store.layout import CommitRecord
from store.parts import Array, Arrays, check_bounds, check_rows, count_completions, unpack_texts
from store.schema import (
    PATH_END_TOKEN,
    REST_TOKEN,
    UNKNOWN_OUTCOME,
    ArraySpec,
    ChildKind,
    FinishReason,
    ForcedKind,
    PathKind,
    QuestionStatus,
    TokenSource,
)

#: What rounding may add to a log-probability of 0 (float32: of a sum over a vocabulary), and to a sum of probabilities.
ABOVE_ZERO = {"f4": 1e-3, "f2": 1e-2}
ABOVE_ONE = {"f4": 1e-3, "f2": 2e-2}

_KINDS: Mapping[str, type[IntEnum]] = {
    "question_status": QuestionStatus,
    "finish_reason": FinishReason,
    "path_kind": PathKind,
    "token_source": TokenSource,
    "child_kind": ChildKind,
    "group_forced_kind": ForcedKind,
    "completion_forced_kind": ForcedKind,
    "completion_finish_reason": FinishReason,
}
_FLAGS = ("correct", "completion_correct", "group_half")
#: Counts that are never above another count.
_AT_MOST = {
    "question_n_correct": "question_n_rollouts",
    "question_n_truncated": "question_n_rollouts",
    "group_n_success": "group_n",
    "group_n_truncated": "group_n",
}
#: Arrays of which every row is a distribution, or a piece of one.
_DISTRIBUTIONS = (
    "topk_logprob", "node_topk_logprob", "child_logprob", "logprob_at_student_topk",
)  # fmt: skip


def check_metadata(content: bytes | None, spec: ArraySpec, shape: tuple[int, ...] | None) -> Iterator[tuple[str, bool]]:
    """What is strange about the ``zarr.json`` of an array, and whether it is damage. `shape` None: it is not known."""
    if content is None:
        yield "is missing", True
        return
    try:
        found = json.loads(content)
        dtype, of, grid = found["data_type"], tuple(found["shape"]), found["chunk_grid"]["configuration"]["chunk_shape"]
        inner = found["codecs"][0]["configuration"]["chunk_shape"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        yield "is damaged: it is not the metadata of a Zarr v3 array", True
        return
    if dtype != np.dtype(spec.dtype).name:
        yield f"is damaged: the array is {str(dtype)[:40]} instead of {np.dtype(spec.dtype).name}", True
    if shape is not None and of != shape:
        yield f"is damaged: the array has shape {str(of)[:60]} instead of {shape}", True
    elif shape is not None and (tuple(inner), tuple(grid)) != chunk_grid(shape, spec.chunk):
        yield f"has chunks of {str(inner)[:60]} in shards of {str(grid)[:60]}, which opd-tui does not write", False


def check_array(name: str, values: Array, spec: ArraySpec, counts: Mapping[str, int], vocab_size: int) -> Iterator[str]:
    """What is wrong with one array by itself, one sentence each, the array its subject."""
    try:
        if spec.bounds:
            check_bounds("", values, counts.get(spec.bounds, 0))
        if spec.refers:
            check_rows("", values, counts.get(spec.refers, 0), spec.refers)
    except StoreError as error:
        yield str(error).strip()
    if not values.size:
        return
    if name in _KINDS:
        strange = np.setdiff1d(values, [int(one) for one in _KINDS[name]])
        if strange.size:
            yield f"holds {strange[0]}, which is no {_KINDS[name].__name__}"
    if name in _FLAGS and values.max() > 1:
        yield f"holds {values.max()}, and can only be 0 or 1"
    if name == "child_outcome" and not np.isin(values, (0, 1, UNKNOWN_OUTCOME)).all():
        yield f"holds an outcome that is none of 0, 1 and {UNKNOWN_OUTCOME}"
    if _is_token(name):
        lowest = PATH_END_TOKEN - vocab_size if name.endswith("exit_token") else REST_TOKEN
        if values.max() >= vocab_size or values.min() < lowest:
            worst = values.max() if values.max() >= vocab_size else values.min()
            yield f"holds token {worst}, outside of the vocabulary of {vocab_size}"
    if name.startswith(("question_n_", "group_n", "later_n")) and values.min() < 0:
        yield f"holds the count {values.min()}"
    if "logprob" in name:
        yield from _check_logprob(name, values, spec)


def _is_token(name: str) -> bool:
    return name.endswith(("token_id", "forced_token", "exit_token"))


def _check_logprob(name: str, values: Array, spec: ArraySpec) -> Iterator[str]:
    highest = np.nanmax(values) if not np.isnan(values).all() else -np.inf
    if highest > ABOVE_ZERO[spec.dtype]:
        yield f"holds the log-probability {highest:.6g}, which is above 0"
    elif name in _DISTRIBUTIONS:
        sums = np.nansum(np.exp(values.astype(np.float64)), axis=-1)
        if sums.max() > 1 + ABOVE_ONE[spec.dtype]:
            yield f"holds probabilities that sum to {sums.max():.6g} in row {int(sums.argmax())}, which is above 1"


def check_together(arrays: Arrays, commit: CommitRecord) -> Iterator[tuple[str, str]]:
    """What is wrong between arrays of one group: the array, and one sentence with it as subject. Missing ones are passed over."""
    for name, most in _AT_MOST.items():
        if name in arrays and most in arrays and (arrays[name] > arrays[most]).any():
            yield name, f"is above {most} in row {int((arrays[name] > arrays[most]).argmax())}"
    for name in ("question_id", "prompt", "reference_answer", "teacher_prompt"):
        bounds = f"{name}_start"
        if name not in arrays or bounds not in arrays:
            continue
        try:
            texts = unpack_texts(arrays[name], arrays[bounds])
        except StoreError:
            yield name, "is not UTF-8"
            continue
        if name == "question_id" and tuple(texts) != commit.question_ids:
            yield name, "names other questions than the commit record"
    if {"group_n", "group_forced_kind"} <= arrays.keys() and count_completions(arrays) != commit.n_completions:
        yield "group_n", f"counts {count_completions(arrays)} completions, the commit record {commit.n_completions}"
