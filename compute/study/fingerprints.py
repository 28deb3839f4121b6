"""Hashes of studies and teachers: two runs with the same hash belong together."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from compute.study.settings import Study, Teacher


def fingerprint(study: Study, contents: Any) -> str:
    """The study's hash: of every setting that changes results, and of `contents`, what it names (questions, weights).

    Where it runs (devices, slots, threads, size of parts) is left out, so that a study can move and go on.
    """
    settings = msgspec.to_builtins(study)
    for section in ("parts", "engine"):
        del settings[section]
    del settings["student"]["device"]
    for teacher in settings["teacher"]:
        _leave_out_place(teacher)
    return _digest([settings, contents])


def teacher_fingerprint(teacher: Teacher, contents: Any) -> str:
    """The hash of one added teacher, as `fingerprint` is that of a study; `contents` are the digests of its models' weights."""
    settings = msgspec.to_builtins(teacher)
    _leave_out_place(settings)
    return _digest([settings, contents])


def _leave_out_place(teacher: dict[str, Any]) -> None:
    """Take out of a teacher's settings where it runs."""
    where = ("device", "url", "key_env", "concurrency", "tolerance")
    for key in where if teacher["kind"] == "served" else (*where, "served_model", "api"):
        del teacher[key]


def _digest(found: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(found, order="deterministic"), digest_size=16).hexdigest()
