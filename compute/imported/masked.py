"""Turns from a run of tokens with a mask that says which of them the student sampled."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from compute.imported.rollout import BadLine, Turn


def masked_turns(
    ids: tuple[int, ...], mask: Any, name: str, logprobs: tuple[float, ...] | None, text: str | None = None
) -> tuple[Turn, ...]:
    """Cut the tokens of a response where the mask changes; without a mask they are one turn of the student.

    What follows the last sampled token is padding, or an answer that nobody read, and is left out. `text` belongs to
    the whole response and is kept where it is one turn. Raises `BadLine`.
    """
    if mask is None:
        return (Turn(text, ids, logprobs),)
    if not isinstance(mask, list) or len(mask) != len(ids) or any(one not in (0, 1) for one in mask):
        raise BadLine(f"has a `{name}` that is no list of 0 and 1, one for each of {len(ids)} tokens")
    turns, at = [], 0
    for sampled, group in groupby(mask):
        end = at + len(list(group))
        turns.append(Turn(None, ids[at:end], logprobs[at:end] if logprobs and sampled else None, tool=not sampled))
        at = end
    while turns and turns[-1].tool:
        turns.pop()
    if not turns:
        raise BadLine(f"has no token that `{name}` says was sampled")
    if len(turns) == 1:
        return (Turn(text, turns[0].token_ids, turns[0].logprobs),)
    return tuple(turns)
