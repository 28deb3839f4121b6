"""prime-rl: token exports, `trainer.enable_token_export` (schema 1), token_exports/step_N/rank_R.jsonl.

A line is one sequence, prompt and response together: `token_ids`, `loss_mask` (the tokens that were sampled and are
trained on), `inference_logprobs`, `rewards` by token, `export_step`. What comes before the first token of the mask is the
prompt, gaps in the mask are turns of tools and users. Lines without texts are matched with questions by the prompt's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compute.imported.masked import masked_turns
from compute.imported.rollout import BadLine, Rollout, ids_of, logprobs_of, optional_text, step_of


def read(fields: Mapping[str, Any]) -> list[Rollout]:
    """The rollout of one line. Raises `BadLine`."""
    if fields.get("schema_version", 1) != 1:
        raise BadLine(f"is a token export of schema {fields['schema_version']}; schema 1 is read")
    ids, mask = ids_of(fields.get("token_ids"), "token_ids"), fields.get("loss_mask")
    if ids is None or not isinstance(mask, list) or len(mask) != len(ids):
        raise BadLine("has no `token_ids` with a `loss_mask` of the same length")
    if True not in mask:
        raise BadLine("has no token in `loss_mask`, so no response")
    logprobs = logprobs_of(fields.get("inference_logprobs"), "inference_logprobs", len(ids))
    start = mask.index(True)
    return [
        Rollout(
            masked_turns(ids[start:], mask[start:], "loss_mask", logprobs[start:] if logprobs else None),
            question_id=optional_text(fields, "question_id"),
            prompt_ids=ids[:start],
            reward=_reward(fields.get("rewards"), mask),
            step=step_of(fields, "export_step", "step"),
            checkpoint=optional_text(fields, "checkpoint"),
        )
    ]


def _reward(rewards: Any, mask: list[Any]) -> float | None:
    """The reward of the response, which stands at each of its tokens."""
    if not isinstance(rewards, list) or len(rewards) != len(mask):
        return None
    found = {float(one) for one, sampled in zip(rewards, mask, strict=True) if sampled and isinstance(one, int | float)}
    if len(found) > 1:
        raise BadLine(f"has {len(found)} different rewards at the tokens of one response")
    return found.pop() if found else None
