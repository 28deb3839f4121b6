"""A rollout as the student's tokens: those of the file, or those that its text comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compute.engine import Completion
from compute.imported.rollout import BadLine, Rollout, Turn
from compute.models import Model
from compute.study import Study
from compute.tasks import Question
from compute.teachers import prompt_with
from store.schema import FinishReason


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A rollout in tokens, and what its file says of them."""

    completion: Completion
    logprob_T: NDArray[np.float64]  #: as the file has them; NaN where it does not
    same_text: bool = True  #: whether the tokens come to the text of the file
    canonical: bool = True  #: whether the text comes to the tokens of the file


def tokenise(model: Model, study: Study, question: Question, rollout: Rollout) -> Tokenised:
    """The student's tokens of a rollout. Raises `BadLine` where they cannot be had, or the study's student cannot write them."""
    turns = rollout.turns
    if len(turns) > 1 and any(one.token_ids is None for one in turns):
        turns = _rendered(model, study, question, turns)
    ids: list[int] = []
    tool: list[bool] = []
    logprobs: list[float] = []
    for one in turns:
        own = _own_ids(model, one)
        ids += own
        tool += [one.tool] * len(own)
        logprobs += one.logprobs if one.logprobs is not None else [float("nan")] * len(own)
    if not ids:
        raise BadLine("has an empty response")
    from_file = rollout.turns[-1].token_ids is not None
    if not rollout.has_tool:
        ids = _up_to_the_end(model, ids)
    ended = _ended(model, rollout, ids, study.sampling.max_response_tokens, from_file)
    if ended and ids[-1] not in model.end_ids:
        ids.append(_end_id(model))
        tool.append(False)
        logprobs.append(float("nan"))
    limit = study.sampling.max_response_tokens
    if len(ids) > limit:
        raise BadLine(f"has {len(ids)} tokens, and `sampling.max_response_tokens` of the study is {limit}: raise it")
    tool_T = np.array(tool[: len(ids)], dtype=np.bool_)
    completion = Completion(
        np.array(ids, dtype=np.int32),
        FinishReason.STOP if ended else FinishReason.LENGTH,
        tool_T if tool_T.any() else None,
    )
    text = rollout.turns[0].text if len(rollout.turns) == 1 else None
    same = text is None or model.text(ids).strip() == _without_special(model, text).strip()
    canonical = not (from_file and text is not None) or _encode(model, text) == [one for one in ids if not _special(model, one)]
    return Tokenised(completion, np.array(logprobs[: len(ids)], dtype=np.float64), same, canonical)


def _own_ids(model: Model, turn: Turn) -> list[int]:
    if turn.token_ids is None:
        return _encode(model, turn.text or "")
    if turn.token_ids and max(turn.token_ids) >= model.vocab_size:
        raise BadLine(f"has token {max(turn.token_ids)}, outside of the student's vocabulary of {model.vocab_size}")
    return list(turn.token_ids)


def _encode(model: Model, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def _special(model: Model, token: int) -> bool:
    return token in model.tokens.special_ids


def _without_special(model: Model, text: str) -> str:
    """A text as the student decodes it: special tokens left out."""
    return model.text(_encode(model, text)) if any(_special(model, one) for one in _encode(model, text)) else text


def _up_to_the_end(model: Model, ids: list[int]) -> list[int]:
    """A response without the padding after its end token. Raises `BadLine` where it goes on with something else."""
    end = next((at for at, one in enumerate(ids) if one in model.end_ids), None)
    if end is None:
        return ids
    if any(not _special(model, one) for one in ids[end + 1 :]):
        raise BadLine(f"goes on after token {end}, where the study's student ends (its end tokens and `sampling.stop`)")
    return ids[: end + 1]


def _ended(model: Model, rollout: Rollout, ids: Sequence[int], limit: int, from_file: bool) -> bool:
    """Whether the student ended the response. A text that does not say so did, unless it fills the limit."""
    if ids[-1] in model.end_ids:
        return True
    if rollout.cut_off is not None:
        return not rollout.cut_off
    return not from_file and len(ids) < limit


def _end_id(model: Model) -> int:
    """The token that ends a response: the tokenizer's own where it does."""
    own = model.tokenizer.eos_token_id
    return int(own) if own in model.end_ids else model.end_ids[-1]


def _rendered(model: Model, study: Study, question: Question, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """A conversation of texts with what the chat template writes between them. Raises `BadLine` where that is not to be told.

    The student wrote each answer and the end token after it; all else is the environment's.
    """
    if study.chat.template == "plain":
        raise BadLine('has several turns, and [chat] template = "plain" has no words between them; give token ids')
    messages = [{"role": "system", "content": study.chat.system}] if study.chat.system else []
    messages.append({"role": "user", "content": prompt_with(question.prompt, "")})
    done = _template(model, study, messages, True)
    ends = sorted((model.tokens.token_bytes[one].decode("utf-8", "replace") for one in model.end_ids), key=len, reverse=True)
    pieces: list[Turn] = []
    for turn in turns:
        if turn.tool:
            messages.append({"role": turn.role, "content": turn.text or ""})
            continue
        before = _template(model, study, messages, True)
        messages.append({"role": "assistant", "content": turn.text or ""})
        after = _template(model, study, messages, False)
        if not before.startswith(done) or not after.startswith(before + (turn.text or "")):
            raise BadLine("has turns that the student's chat template rewrites when another follows; give token ids")
        if len(before) > len(done):
            pieces.append(Turn(before[len(done) :], tool=True))
        done = before + (turn.text or "")
        end = next((one for one in ends if one and after[len(done) :].startswith(one)), "")
        done += end
        pieces.append(Turn((turn.text or "") + end))
    return tuple(pieces)


def _template(model: Model, study: Study, messages: Sequence[dict[str, str]], ask: bool) -> str:
    try:
        text = model.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=ask, **study.chat.arguments
        )
    except Exception as error:  # the template is the model's own program
        raise BadLine(f"has turns that the student's chat template refuses: {str(error)[:80]}") from None
    return str(text)
