"""What a store holds, whatever its parts: for tests that hold two stores against each other bit for bit."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

import store


def stored(path: Path) -> dict[str, str]:
    """Every array and value of every question, by name: digests of bytes.

    Scores are left out: they are computed when looking, part by part, and their last bit depends on what shares a part.
    """
    opened = store.open(path)
    found: dict[str, str] = {}
    for row in opened.questions():
        _add(found, row.id, opened.question(row.id))
        for rollout in row.rollouts:
            _add(found, f"{row.id}/{rollout.index}", opened.rollout(row.id, rollout.index))
        for completion in opened.completions(row.id):
            _add(found, f"{row.id}/{completion.exit_node}/{completion.exit_token}/{completion.sample}", completion)
    nodes, paths = opened.study_nodes(whole=True)
    _add(found, "nodes", nodes)
    _add(found, "paths", paths)
    return found


def _add(found: dict[str, str], name: str, value: Any) -> None:
    if isinstance(value, tuple):
        for number, item in enumerate(value):
            _add(found, f"{name}/{number}", item)
    elif is_dataclass(value):
        for field in fields(value):
            _add(found, f"{name}/{field.name}", getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value).tobytes()
        found[name] = f"{value.dtype}{value.shape} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
    else:
        found[name] = repr(value)
