"""A rollout as a file tells of it, and what readers of every format need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


def printable(text: str) -> str:
    """Words of a file for a message: what a terminal would obey is written out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode() for one in text)


class BadLine(ValueError):
    """A line that is no rollout; the message says why and goes on after the line's place."""

    def __init__(self, why: str) -> None:
        super().__init__(printable(why))


class Turn(Struct, frozen=True):
    """A piece of a response: what the student wrote, or what a tool or the environment answered."""

    text: str | None = None  #: None where only tokens are known
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None  #: the sampling log-probability of each of `token_ids`; NaN where unknown
    tool: bool = False
    role: str = ""  #: of a message in a conversation; "" where there are tokens alone


class Rollout(Struct, frozen=True):
    """One response to one question."""

    turns: tuple[Turn, ...]
    question_id: str | None = None
    #: What the model was asked, as text: the question itself, or the whole prompt.
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    system: str | None = None
    reward: float | None = None
    cut_off: bool | None = None  #: whether it met a length limit; None where the file does not say
    step: int | None = None  #: of the policy that wrote it
    checkpoint: str | None = None
    has_teacher: bool = False  #: the line also has a teacher's log-probabilities of these tokens

    @property
    def has_tool(self) -> bool:
        """Whether somebody else than the student wrote a part of it."""
        return any(turn.tool for turn in self.turns)

    @property
    def policy(self) -> tuple[int | None, str | None]:
        """Which policy wrote it, as far as the file says."""
        return self.step, self.checkpoint


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """A field that must be a text. Raises `BadLine`."""
    found = fields.get(name)
    if not isinstance(found, str):
        raise BadLine(f"has no text `{name}` ({_has(fields)})")
    return found


def optional_text(fields: Mapping[str, Any], *names: str) -> str | None:
    """The first of the fields that is there, as text; numbers are written out."""
    for name in names:
        found = fields.get(name)
        if isinstance(found, str) or (isinstance(found, int) and not isinstance(found, bool)):
            return str(found)
    return None


def number_of(fields: Mapping[str, Any], *names: str) -> float | None:
    """The first of the fields that is there, as a finite number. Raises `BadLine` where it is none."""
    for name in names:
        found = fields.get(name)
        if found is None:
            continue
        if not isinstance(found, int | float) or not math.isfinite(found):
            raise BadLine(f"has a `{name}` that is no number: {str(found)[:40]!r}")
        return float(found)
    return None


def step_of(fields: Mapping[str, Any], *names: str) -> int | None:
    """The policy step."""
    found = number_of(fields, *names)
    return None if found is None else int(found)


def ids_of(found: Any, name: str) -> tuple[int, ...] | None:
    """Token ids, where there are some. Raises `BadLine` where they are something else."""
    if found is None:
        return None
    if not isinstance(found, list) or any(not isinstance(one, int) or isinstance(one, bool) or one < 0 for one in found):
        raise BadLine(f"has a `{name}` that is no list of token ids")
    return tuple(found)


def logprobs_of(found: Any, name: str, length: int) -> tuple[float, ...] | None:
    """Log-probabilities of `length` tokens, where there are some; null is NaN. Raises `BadLine` where they do not fit."""
    if found is None:
        return None
    if not isinstance(found, list) or any(one is not None and not isinstance(one, int | float) for one in found):
        raise BadLine(f"has a `{name}` that is no list of log-probabilities")
    if len(found) != length:
        raise BadLine(f"has {len(found)} log-probabilities in `{name}` for {length} tokens")
    return tuple(math.nan if one is None else float(one) for one in found)


def content_of(message: Any) -> str:
    """The text of a chat message. Raises `BadLine` where it has something else, such as images."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise BadLine("has a message without `role`")
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [one.get("text") for one in content if isinstance(one, Mapping)] if isinstance(content, list) else [None]
    if any(not isinstance(one, str) for one in parts):
        raise BadLine(f"has a message of {message['role']} whose content is no text")
    return "".join(str(one) for one in parts)


def asked(messages: Any, name: str) -> tuple[str | None, str]:
    """System prompt and question of a chat prompt: at most one of the first, one of the second. Raises `BadLine`."""
    if not isinstance(messages, list):
        raise BadLine(f"has no list of messages `{name}`")
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    plain = [role for role in roles if role not in ("system", "developer")]
    if plain != ["user"] or len(roles) > 2:
        raise BadLine(f"has a `{name}` of the roles {', '.join(map(str, roles)) or 'none'}; one question of the user is read")
    system = content_of(messages[0]) if len(messages) == 2 else None
    return system, content_of(messages[-1])


def turns_of(messages: list[Any]) -> tuple[Turn, ...]:
    """What follows the question: the assistant's turns and those of tools and users between them. Raises `BadLine`."""
    turns = []
    for message in messages:
        text = content_of(message)
        if message.get("tool_calls"):
            raise BadLine("has tool calls as structure, whose tokens only the model's template knows; give token ids")
        turns.append(Turn(text, tool=message["role"] != "assistant", role=message["role"]))
    if not turns or turns[0].tool:
        raise BadLine("has no answer of the assistant after the question")
    return tuple(turns)


def _has(fields: Mapping[str, Any]) -> str:
    names = ", ".join(list(map(str, fields))[:12])
    return f"it has {names}" if names else "it is empty"
