"""verifiers: traces.jsonl of an evaluation or of prime-rl (verifiers 0.4.0, trace version 1), and its older results.jsonl.

A line of traces.jsonl is an episode with its `traces`, each a graph of messages. A path from its root to a leaf is a
conversation, whose nodes carry `token_ids`, `mask` (sampled or not) and `logprobs` of the sampled ones. A trace with
several leaves is several conversations, and is refused. Lines of results.jsonl have `prompt`, `completion` (messages),
`answer` and `reward`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from compute.imported import trl
from compute.imported.masked import masked_turns
from compute.imported.rollout import BadLine, Rollout, Turn, asked, content_of, ids_of, optional_text, turns_of


def read(fields: Mapping[str, Any]) -> list[Rollout]:
    """The rollouts of one line: one for each trace that is trained on. Raises `BadLine`."""
    if isinstance(fields.get("traces"), list):
        return [_trace(one, fields) for one in fields["traces"] if isinstance(one, Mapping) and _trained(one)]
    if "prompt" in fields and "completion" in fields:
        return trl.read({**fields, "id": fields.get("example_id", fields.get("id"))})
    raise BadLine("is neither an episode with `traces` nor a result with `prompt` and `completion`")


def _trained(trace: Mapping[str, Any]) -> bool:
    agent = trace.get("agent")
    return not isinstance(agent, Mapping) or bool(agent.get("trainable", True))


def _trace(trace: Mapping[str, Any], episode: Mapping[str, Any]) -> Rollout:
    if trace.get("version", 1) != 1:
        raise BadLine(f"has a trace of version {trace['version']}; version 1 is read")
    nodes = trace.get("nodes")
    if not isinstance(nodes, list) or not nodes or not all(isinstance(one, Mapping) for one in nodes):
        raise BadLine("has a trace without `nodes`")
    parents = [one.get("parent") for one in nodes]
    if parents != [None, *range(len(nodes) - 1)]:
        raise BadLine("has a trace that branches, which is several conversations and no rollout")
    first = next((at for at, one in enumerate(nodes) if one.get("sampled")), None)
    if first is None:
        raise BadLine("has a trace in which the model said nothing")
    system, question = asked([one.get("message") for one in nodes[:first]], "nodes")
    prompt_ids, turns = _tokens(nodes, first)
    calls = [one for one in trace.get("calls") or [] if isinstance(one, Mapping)]
    finish = calls[-1].get("finish_reason") if calls else None
    task = trace.get("task") if isinstance(trace.get("task"), Mapping) else episode.get("task") or {}
    assert isinstance(task, Mapping)
    data = task.get("data")
    policy = next((one.get("model") for one in calls if isinstance(one.get("model"), str)), None)
    return Rollout(
        turns,
        question_id=optional_text(data if isinstance(data, Mapping) else {}, "id", "example_id", "name"),
        prompt=question,
        prompt_ids=prompt_ids,
        system=system or "",
        reward=_reward(trace.get("rewards")),
        cut_off=finish == "length" if isinstance(finish, str) else None,
        checkpoint=policy,
        has_teacher=any(one.get("reference_logprobs") for one in nodes),
    )


def _tokens(nodes: list[Any], first: int) -> tuple[tuple[int, ...] | None, tuple[Turn, ...]]:
    """The prompt's tokens, where the trace has tokens, and the turns: with tokens, or as texts."""
    if not all(one.get("token_ids") for one in nodes[first:] if one.get("sampled")):
        return None, turns_of([one.get("message") for one in nodes[first:]])
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for one in nodes:
        own = ids_of(one.get("token_ids") or [], "token_ids") or ()
        sampled = one.get("mask") or [False] * len(own)
        if len(sampled) != len(own):
            raise BadLine("has a node whose `mask` and `token_ids` differ in length")
        said = iter(one.get("logprobs") or [])
        ids += own
        mask += [int(bool(flag)) for flag in sampled]
        logprobs += [float(next(said, math.nan)) if flag else math.nan for flag in sampled]
    if 1 not in mask:
        raise BadLine("has tokens, and none that was sampled")
    start = mask.index(1)
    text = content_of(nodes[first].get("message")) if len(nodes) == first + 1 else None
    return tuple(ids[:start]), masked_turns(tuple(ids[start:]), mask[start:], "mask", tuple(logprobs[start:]), text)


def _reward(rewards: Any) -> float | None:
    """The sum of the weighted rewards."""
    if not isinstance(rewards, Mapping):
        return None
    found = [one for one in rewards.values() if isinstance(one, Mapping) and isinstance(one.get("score"), int | float)]
    return sum(float(one["score"]) * float(one.get("weight", 1.0)) for one in found) if found else None
