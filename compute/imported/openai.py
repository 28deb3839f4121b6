"""Chat completions as JSONL: what people log who sample through an OpenAI-compatible server.

Read are two shapes. A conversation: `messages` (the question, then what was answered), and beside it whatever of
`id`, `reward`, `step`, `checkpoint`, `finish_reason`, `token_ids`, `logprobs` is known. Or request and response as they
went over the wire: `request` with `messages` and `response` with `choices`, each a rollout, with `logprobs.content` (OpenAI's
log-probabilities by token) and, from vLLM, `token_ids`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compute.imported.rollout import (
    BadLine,
    Rollout,
    Turn,
    asked,
    content_of,
    ids_of,
    logprobs_of,
    number_of,
    optional_text,
    step_of,
    turns_of,
)


def read(fields: Mapping[str, Any]) -> list[Rollout]:
    """The rollouts of one line. Raises `BadLine`."""
    response = fields.get("response")
    if isinstance(response, Mapping):
        return _exchange(fields, response)
    messages = fields.get("messages")
    if not isinstance(messages, list):
        raise BadLine(f"has neither `messages` nor `request` and `response` (it has {', '.join(list(map(str, fields))[:12])})")
    first = next((at for at, one in enumerate(messages) if isinstance(one, Mapping) and one.get("role") == "assistant"), None)
    if first is None:
        raise BadLine("has no answer of the assistant")
    system, question = asked(messages[:first], "messages")
    turns = turns_of(messages[first:])
    ids = ids_of(fields.get("token_ids"), "token_ids")
    if ids is not None:
        if len(turns) > 1:
            raise BadLine("has several turns and one list `token_ids`; give one line per turn, or no token ids")
        turns = (Turn(turns[0].text, ids, logprobs_of(fields.get("logprobs"), "logprobs", len(ids))),)
    return [_rollout(fields, system, question, turns, fields.get("finish_reason"))]


def _exchange(fields: Mapping[str, Any], response: Mapping[str, Any]) -> list[Rollout]:
    request = fields.get("request")
    if not isinstance(request, Mapping):
        raise BadLine("has a `response` without its `request`")
    system, question = asked(request.get("messages"), "request.messages")
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadLine("has a `response` without `choices`")
    return [_rollout(fields, system, question, (_turn(one),), one.get("finish_reason")) for one in choices]


def _turn(choice: Any) -> Turn:
    """The answer of one choice, with its tokens where the server said them."""
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise BadLine("has a choice without `message`")
    if message.get("tool_calls"):
        raise BadLine("has tool calls as structure, whose tokens only the model's template knows; give token ids")
    text, ids = content_of({"role": "assistant", **message}), ids_of(choice.get("token_ids"), "token_ids")
    said = (choice.get("logprobs") or {}).get("content")
    if said is None or ids is None:
        return Turn(text, ids)
    logprobs = [one.get("logprob") if isinstance(one, Mapping) else None for one in said]
    return Turn(text, ids, logprobs_of(logprobs, "logprobs.content", len(ids)))


def _rollout(fields: Mapping[str, Any], system: str | None, question: str, turns: tuple[Turn, ...], finish: Any) -> Rollout:
    return Rollout(
        turns,
        question_id=optional_text(fields, "question_id", "id"),
        prompt=question,
        system=system or "",
        reward=number_of(fields, "reward", "score"),
        cut_off=finish == "length" if isinstance(finish, str) else None,
        step=step_of(fields, "step"),
        checkpoint=optional_text(fields, "checkpoint"),
        has_teacher=fields.get("teacher_logprobs") is not None,
    )
