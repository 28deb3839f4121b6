"""All that a reader returns, by name, so that two stores can be held against each other value by value."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from store.errors import StoreError
from store.reader import Store

#: What stands for a value that the reader refused to return: the sentence it said.
Refused = StoreError


def everything(reader: Store) -> dict[str, str | StoreError]:
    """Digest of what every method of the reader returns, or the error it raised, by the call."""
    return {name: _ask(ask) for name, ask in _calls(reader)}


def _ask(ask: Callable[[], Any]) -> str | StoreError:
    try:
        return digest(ask())
    except StoreError as error:
        return error


def _calls(reader: Store) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "attributes", lambda: reader.attributes
    yield "teachers", lambda: (reader.teachers, reader.added_teachers)
    yield "part_ids", lambda: reader.part_ids
    yield "made_with", lambda: reader.made_with
    yield "counts", reader.counts
    yield "questions", reader.questions
    yield "vocab", lambda: [(reader.vocab.bytes_of(i), reader.vocab.is_special(i)) for i in range(len(reader.vocab))]
    yield "study_nodes", lambda: reader.study_nodes(whole=True)
    for name in reader.attributes.question_ids:
        yield f"question {name}", lambda name=name: reader.question(name)
        yield f"nodes {name}", lambda name=name: reader.nodes(name, whole=True)
        yield f"completions {name}", lambda name=name: reader.completions(name)
        for teacher in reader.teachers:
            yield f"prompt {name} {teacher.id}", lambda name=name, one=teacher.id: reader.teacher_prompt(name, one)
            yield f"judged {teacher.id}", lambda one=teacher.id: reader.judged(one)
        for index in range(4):
            yield f"rollout {name} {index}", lambda name=name, index=index: reader.rollout(name, index)


def digest(value: Any) -> str:
    """The same for the same values, types and shapes, whatever they are nested in."""
    state = hashlib.blake2b(digest_size=12)
    _take_in(state.update, value)
    return state.hexdigest()


def _take_in(update: Callable[[bytes], None], value: Any) -> None:
    if isinstance(value, Struct):
        for field in value.__struct_fields__:
            update(field.encode())
            _take_in(update, getattr(value, field))
    elif isinstance(value, np.ndarray):
        update(f"{value.dtype}{value.shape}".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, list | tuple):
        update(f"{len(value)}".encode())
        for item in value:
            _take_in(update, item)
    else:
        update(repr(value).encode())
