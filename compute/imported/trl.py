"""TRL: the table of completions that GRPOTrainer and its kin write with `log_completions` (TRL 1.16.0).

OUTPUT/completions/completions_STEP.parquet, here as JSONL (`pandas.read_parquet(F).to_json(G, orient="records", lines=True)`):
`step`, `prompt` and `completion` (texts, or lists of messages), one column for each reward function, `advantage`,
and columns of one's own. The columns of rewards carry the names of the functions; those that end in `reward` or
`reward_func` are added up, or `reward` alone is taken where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compute.imported.rollout import (
    BadLine,
    Rollout,
    Turn,
    asked,
    ids_of,
    logprobs_of,
    number_of,
    optional_text,
    step_of,
    text_of,
    turns_of,
)

_REWARDS = ("reward", "rewards", "reward_func", "reward_fn")


def read(fields: Mapping[str, Any]) -> list[Rollout]:
    """The rollout of one line. Raises `BadLine`."""
    prompt, completion = fields.get("prompt"), fields.get("completion")
    system = None
    if isinstance(prompt, list):
        system, prompt = asked(prompt, "prompt")
        system = system or ""
    else:
        prompt = text_of(fields, "prompt")
    turns = turns_of(completion) if isinstance(completion, list) else (Turn(text_of(fields, "completion")),)
    ids = ids_of(fields.get("completion_ids"), "completion_ids")
    if ids is not None:
        if len(turns) > 1:
            raise BadLine("has several turns and one list `completion_ids`; leave the ids out")
        turns = (
            Turn(turns[0].text, ids, logprobs_of(fields.get("sampling_per_token_logps"), "sampling_per_token_logps", len(ids))),
        )
    return [
        Rollout(
            turns,
            question_id=optional_text(fields, "question_id", "id"),
            prompt=prompt,
            system=system,
            reward=_reward(fields),
            step=step_of(fields, "step"),
            checkpoint=optional_text(fields, "checkpoint"),
        )
    ]


def _reward(fields: Mapping[str, Any]) -> float | None:
    """The reward: the column of that name, or the sum of those of the reward functions."""
    whole = number_of(fields, "reward")
    if whole is not None:
        return whole
    found = [number_of(fields, name) for name in fields if name.endswith(_REWARDS)]
    told = [one for one in found if one is not None]
    return sum(told) if told else None
