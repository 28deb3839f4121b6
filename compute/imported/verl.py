"""verl: what `trainer.rollout_data_dir` (and `validation_data_dir`) makes it write, STEP.jsonl (verl 0.9.1).

`input` and `output` are the decoded prompt and response without special tokens, `gts` the reference answer, `score` the
sum of the token scores, `step` the global step; what a reward function returns besides stands beside them. A dump
hook that also writes `response_ids`, `response_mask`, `rollout_log_probs` or `uid` is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compute.imported.masked import masked_turns
from compute.imported.rollout import Rollout, Turn, ids_of, logprobs_of, number_of, optional_text, step_of, text_of


def read(fields: Mapping[str, Any]) -> list[Rollout]:
    """The rollout of one line. Raises `BadLine`."""
    text = text_of(fields, "output")
    ids = ids_of(fields.get("response_ids"), "response_ids")
    turns: tuple[Turn, ...] = (Turn(text),)
    if ids is not None:
        logprobs = logprobs_of(fields.get("rollout_log_probs"), "rollout_log_probs", len(ids))
        turns = masked_turns(ids, fields.get("response_mask"), "response_mask", logprobs, text)
    return [
        Rollout(
            turns,
            question_id=optional_text(fields, "question_id"),
            prompt=text_of(fields, "input"),
            prompt_ids=ids_of(fields.get("prompt_ids"), "prompt_ids"),
            reward=number_of(fields, "score"),
            step=step_of(fields, "step"),
            checkpoint=optional_text(fields, "checkpoint"),
            has_teacher=fields.get("teacher_logprobs") is not None or fields.get("teacher_log_probs") is not None,
        )
    ]
