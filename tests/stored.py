"""What a store holds, whatever its parts: for tests that hold two stores against each other bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

import store
from store.schema import ChildKind


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
    elif isinstance(value, Struct):
        for field in value.__struct_fields__:
            _add(found, f"{name}/{field}", getattr(value, field))
    elif isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value).tobytes()
        found[name] = f"{value.dtype}{value.shape} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
    else:
        found[name] = repr(value)


def same_values(one: Struct, other: Struct, width: int | None = None) -> bool:
    """Whether two tables hold the same; absent children at the end of a row are nothing. Fails naming the field."""
    if hasattr(one, "kind_NK"):
        width = int(max((table.kind_NK != ChildKind.ABSENT).sum(axis=1).max(initial=0) for table in (one, other)))
    for field in one.__struct_fields__:
        a, b = getattr(one, field), getattr(other, field)
        if isinstance(a, np.ndarray):
            if width is not None and field.endswith("K"):
                a, b = a[..., :width], b[..., :width]
            assert a.dtype == b.dtype, field
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), field
        elif isinstance(a, tuple) and a and isinstance(a[0], Struct):
            assert len(a) == len(b)
            assert all(same_values(x, y) for x, y in zip(a, b, strict=True)), field
        else:
            assert a == b, field
    return True
