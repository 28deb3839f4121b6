"""The study file that `opd-tui init` writes: every section and key with its description, from `settings` itself."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import msgspec
from msgspec import inspect

from compute.study.settings import Study

_WIDTH = 100
#: What a first study says; every other key stands there as a comment with its default.
STARTER: dict[str, Any] = {
    "study": {"name": "my first study"},
    "student": {"model": "path/to/student"},
    "task": {"questions": "questions.jsonl", "prompt": "{question}", "grader": "exact"},
    "teacher": [
        {"id": "teacher", "kind": "external", "model": "path/to/teacher"},
        {"id": "self-answer", "kind": "self", "context": "answer"},
        {"id": "self-1c", "kind": "self", "context": "1c"},
        {"id": "null-other", "kind": "self", "context": "other"},
        {"id": "null-t0.7", "kind": "temperature", "temperature": 0.7},
        {"id": "null-t1.3", "kind": "temperature", "temperature": 1.3},
    ],
}


def study_template() -> str:
    """A commented study file."""
    lines = ["# A study for opd-tui. Lines that begin with `#` and a key show its default."]
    kind = inspect.type_info(Study)
    assert isinstance(kind, inspect.StructType)
    for section in kind.fields:
        if section.name == "teacher":
            lines += _teachers(_struct_of(section.type))
        else:
            lines += ["", *_comment(_doc(section.type)), f"[{section.name}]"]
            lines += _keys(_struct_of(section.type), STARTER.get(section.name, {}))
    return "\n".join(lines) + "\n"


def _teachers(kind: inspect.StructType) -> list[str]:
    lines = ["", *_comment(str(kind.cls.__doc__).strip().splitlines()[0])]
    for number, values in enumerate(STARTER["teacher"]):
        lines += ["", "[[teacher]]"]
        lines += _keys(kind, values) if number == 0 else [f"{name} = {_toml(value)}" for name, value in values.items()]
    return lines


def _keys(kind: inspect.StructType, values: dict[str, Any]) -> list[str]:
    lines = []
    for one in kind.fields:
        lines += _comment(_description(one.type))
        if one.name in values:
            lines.append(f"{one.name} = {_toml(values[one.name])}")
        else:
            default = one.default if one.default is not msgspec.NODEFAULT else {}
            lines.append(f"# {one.name} = {_toml(default)}")
    return lines


def _struct_of(kind: inspect.Type) -> inspect.StructType:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.VarTupleType):
        return _struct_of(kind.item_type)
    assert isinstance(kind, inspect.StructType)
    return kind


def _doc(kind: inspect.Type) -> str:
    return str(_struct_of(kind).cls.__doc__).strip().splitlines()[0]


def _description(kind: inspect.Type) -> str:
    return str((kind.extra_json_schema or {}).get("description", "")) if isinstance(kind, inspect.Metadata) else ""


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2)]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + " }" if value else "{}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if value is None:
        return "true"  # decided by the rest of the section unless it is given
    return json.dumps(value, ensure_ascii=False)
