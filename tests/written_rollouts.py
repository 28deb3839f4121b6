"""Rollouts of the tiny student, and lines of each format that say so, by the schema that `compute.imported` names for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute import scoring
from compute.pipeline import Responses, sample_rollouts
from compute.setup import Setup


@dataclass(frozen=True)
class Sampled:
    """One rollout with everything that some trainer would know of it."""

    question_id: str
    question: str
    answer: str
    prompt: str  #: decoded, special tokens left out
    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    text: str
    reward: float
    cut_off: bool


def sample(setup: Setup) -> tuple[list[Sampled], dict[str, Responses]]:
    """The rollouts that a run of the study would sample itself."""
    bench, rows, responses = setup.bench, [], {}
    for question in setup.questions:
        found = responses[question.id] = sample_rollouts(bench, question)
        prompt = bench.prompt_ids(bench.student, question, "")
        for one, grade in zip(found.completions, found.grades, strict=True):
            ids = one.token_ids.tolist()
            states = scoring.states(bench.student, prompt, ids)[:-1]
            logprobs = scoring.score_student(bench.student_log_probs, states, one.token_ids, 1).logprob_T.tolist()
            rows.append(
                Sampled(
                    question_id=question.id,
                    question=question.prompt,
                    answer=question.answer,
                    prompt=bench.student.text(prompt),
                    prompt_ids=prompt,
                    ids=ids,
                    logprobs=logprobs,
                    text=bench.student.text(ids),
                    reward=grade.reward,
                    cut_off=one.truncated,
                )
            )
    return rows, responses


def verl(one: Sampled, step: int = 120) -> dict[str, Any]:
    """verl 0.9.1, RayPPOTrainer._write_generations."""
    return {"input": one.prompt, "output": one.text, "gts": one.answer, "score": one.reward, "step": step, "acc": one.reward}


def trl(one: Sampled, step: int = 30) -> dict[str, Any]:
    """TRL 1.16.0, the table of GRPOTrainer.log with one reward function."""
    prompt, completion = [{"role": "user", "content": one.question}], [{"role": "assistant", "content": one.text}]
    return {"step": step, "prompt": prompt, "completion": completion, "accuracy_reward": one.reward, "advantage": 0.0}


def prime_rl(one: Sampled, step: int = 7) -> dict[str, Any]:
    """prime-rl, src/prime_rl/trainer/rl/token_export.py (commit 004274e), schema 1; columns that nothing reads left out."""
    n, total = len(one.prompt_ids), len(one.prompt_ids) + len(one.ids)
    return {
        "schema_version": 1,
        "step": step,
        "export_step": step,
        "rank": 0,
        "token_ids": one.prompt_ids + one.ids,
        "position_ids": list(range(total)),
        "loss_mask": [False] * n + [True] * len(one.ids),
        "rewards": [one.reward] * total,
        "inference_logprobs": [0.0] * n + one.logprobs,
    }


def verifiers(one: Sampled) -> dict[str, Any]:
    """verifiers 0.4.0, an Episode as `write_episode` appends it; fields that nothing reads left out."""
    user = {
        "parent": None,
        "message": {"role": "user", "content": one.question},
        "sampled": False,
        "token_ids": one.prompt_ids[:-1],
        "mask": [False] * (len(one.prompt_ids) - 1),
        "logprobs": [],
    }
    said = {
        "parent": 0,
        "message": {"role": "assistant", "content": one.text},
        "sampled": True,
        "token_ids": [one.prompt_ids[-1], *one.ids],
        "mask": [False] + [True] * len(one.ids),
        "logprobs": one.logprobs,
    }
    task = {"type": "Sums", "data": {"id": one.question_id}}
    finish = "length" if one.cut_off else "stop"
    trace = {
        "version": 1,
        "task": task,
        "agent": {"name": "agent", "trainable": True},
        "nodes": [user, said],
        "calls": [{"node": 1, "model": "run/step-7", "finish_reason": finish}],
        "rewards": {"right": {"score": one.reward, "weight": 1.0}},
    }
    return {"id": "e", "task": task, "traces": [trace]}


def openai(one: Sampled, **more: Any) -> dict[str, Any]:
    """A conversation with its tokens and their log-probabilities."""
    messages = [{"role": "user", "content": one.question}, {"role": "assistant", "content": one.text}]
    finish = "length" if one.cut_off else "stop"
    known = {"token_ids": one.ids, "logprobs": one.logprobs, "finish_reason": finish, "reward": one.reward}
    return {"id": one.question_id, "messages": messages, **known, **more}


def exchange(one: Sampled) -> dict[str, Any]:
    """Request and response of a chat completion with log-probabilities, and the token ids that vLLM adds."""
    content = [{"token": "", "logprob": value, "bytes": None, "top_logprobs": []} for value in one.logprobs]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": one.text},
        "finish_reason": "length" if one.cut_off else "stop",
        "logprobs": {"content": content},
        "token_ids": one.ids,
    }
    request = {"model": "student", "messages": [{"role": "user", "content": one.question}]}
    return {"request": request, "response": {"choices": [choice]}, "step": 3}


def write(path: Path, lines: Sequence[Any]) -> Path:
    """A JSONL file; a text is a line as it is."""
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path
