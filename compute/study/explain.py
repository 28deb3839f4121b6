"""One sentence for a fault in a settings file: the key, what is allowed there, and the nearest name.

msgspec finds the fault and its path; it does not say which keys or values would have been right.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import msgspec
from msgspec import inspect


def explain(error: msgspec.ValidationError, root: type[msgspec.Struct], raw: Any) -> str:
    """Say what `error`, met while converting `raw` to `root`, means. No file name; the caller knows it."""
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `(.*)`", message)
    if unknown:
        allowed = _field_names(_type_at(root, path))
        section = f"in [{_section(path)}]" if path else "at the top"
        return f"`{unknown[1]}` is no key {section}{_nearest(unknown[1], allowed)}; keys there: {', '.join(allowed)}."
    missing = re.search(r"missing required field `(.*)`", message)
    if missing:
        return f"`{_join(path, missing[1])}` is missing."
    kind = _type_at(root, path)
    value = _value_at(raw, path)
    if isinstance(kind, inspect.LiteralType):
        allowed = [str(option) for option in kind.values if option != ""]
        return f"`{path}` = {value!r} is not allowed{_nearest(str(value), allowed)}; allowed: {', '.join(allowed)}."
    return f"`{path}` = {value!r}: {message[:1].lower()}{message[1:]}."


def _nearest(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _section(path: str) -> str:
    return re.sub(r"\[\d+\]|\[\.\.\.\]", "", path)


def _steps(path: str) -> list[str]:
    return re.findall(r"[^.\[\]]+|\[\d+\]|\[\.\.\.\]", path)


def _type_at(root: type[msgspec.Struct], path: str) -> inspect.Type:
    kind: inspect.Type = _bare(inspect.type_info(root))
    for step in _steps(path):
        if isinstance(kind, inspect.StructType):
            found = [one.type for one in kind.fields if one.encode_name == step]
            if not found:
                return kind
            kind = _bare(found[0])
        elif isinstance(kind, inspect.VarTupleType | inspect.ListType):
            kind = _bare(kind.item_type)
        elif isinstance(kind, inspect.DictType):
            kind = _bare(kind.value_type)
    return kind


def _bare(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


def _field_names(kind: inspect.Type) -> list[str]:
    return [one.encode_name for one in kind.fields] if isinstance(kind, inspect.StructType) else []


def _value_at(raw: Any, path: str) -> Any:
    for step in _steps(path):
        try:
            raw = raw[int(step[1:-1])] if step.startswith("[") else raw[step]
        except (KeyError, IndexError, ValueError, TypeError):
            return raw
    return raw
