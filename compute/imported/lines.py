"""A file of rollouts, line by line: what is a rollout, what is broken, and which policy wrote it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from compute.errors import StudyError
from compute.imported.rollout import BadLine, Rollout, printable

Reader = Callable[[Mapping[str, Any]], list[Rollout]]


class Line(Struct, frozen=True):
    """A rollout and where it stands."""

    number: int
    rollout: Rollout


class Broken(Struct, frozen=True):
    """A line that could not be read."""

    number: int
    why: str


class Lines(Struct, frozen=True):
    """What a file has."""

    path: Path
    digest: str
    lines: tuple[Line, ...]
    broken: tuple[Broken, ...]


def read_lines(path: Path, read: Reader) -> Lines:
    """All lines of a JSONL (or Parquet) file. Raises `StudyError` where it cannot be read, or holds no rollout at all."""
    lines: list[Line] = []
    broken: list[Broken] = []
    for number, found in _rows(path):
        try:
            fields = json.loads(found) if isinstance(found, bytes) else found
            if not isinstance(fields, dict):
                raise BadLine("is no JSON object")
            lines += [Line(number, one) for one in read(fields)]
        except BadLine as error:
            broken.append(Broken(number, str(error)))
        except (ValueError, RecursionError) as error:  # JSON, UTF-8
            broken.append(Broken(number, f"is no valid JSON ({printable(str(error)[:80])})"))
    if not lines and not broken:
        raise StudyError(f"{path} holds no rollout.")
    return Lines(path, hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest(), tuple(lines), tuple(broken))


def _rows(path: Path) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """Numbered lines, or rows of a table as TRL writes it."""
    try:
        if path.suffix == ".parquet":
            yield from enumerate(_table(path), 1)
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise StudyError(f"The rollouts {path} cannot be read: {error.strerror or error}.") from None


def _table(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise StudyError(
            f"{path} is a Parquet table; install the extra: pip install 'opd-tui[parquet]', or write it as JSONL."
        ) from None
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise StudyError(f"{path} is no Parquet table: {str(error).splitlines()[0]}") from None
    return rows


def without_broken(found: Lines, skip_bad: bool) -> tuple[str, ...]:
    """Sentences about broken lines that are skipped. Raises `StudyError` where there are some and they must not be."""
    if not found.broken:
        return ()
    first = found.broken[0]
    numbers = ", ".join(str(one.number) for one in found.broken[:10]) + (" and more" if len(found.broken) > 10 else "")
    if not skip_bad:
        more = f" ({len(found.broken)} broken lines: {numbers})" if len(found.broken) > 1 else ""
        raise StudyError(f"{found.path}, line {first.number} {first.why}{more}; correct it, or leave such lines out: --skip-bad.")
    count = len(found.broken)
    return (f"{count} broken line{'s are' if count > 1 else ' is'} left out: {numbers}. Line {first.number} {first.why}.",)


def of_one_policy(found: Lines, step: int | None) -> tuple[Line, ...]:
    """The rollouts of one policy: those of `step` where it is given. Raises `StudyError` where there are several."""
    lines = [one for one in found.lines if step is None or one.rollout.step == step]
    if not lines:
        steps = sorted({one.rollout.step for one in found.lines if one.rollout.step is not None})
        named = f"; there are steps {', '.join(map(str, steps[:10]))}" if steps else ", and names no steps"
        raise StudyError(f"{found.path} has no rollout of step {step}{named}.")
    first: dict[tuple[int | None, str | None], int] = {}
    for line in lines:
        first.setdefault(line.rollout.policy, line.number)
    if len(first) > 1:
        (one, at), (other, elsewhere) = list(first.items())[:2]
        raise StudyError(
            f"{found.path} mixes rollouts of {len(first)} policies: {policy_words(*one)} on line {at}, "
            f"{policy_words(*other)} on line {elsewhere}; a study has one student, so choose one with --step, or split the file."
        )
    return tuple(lines)


def policy_words(step: int | None, checkpoint: str | None) -> str:
    """A policy in words; empty where the file does not say."""
    parts = [f"step {step}"] if step is not None else []
    parts += [f"checkpoint {printable(checkpoint)}"] if checkpoint is not None else []
    return ", ".join(parts) or "an unnamed policy"
