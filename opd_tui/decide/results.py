"""`opd-tui decide`: what to do with a study, as a file for trainers and a sentence for people."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

import store
from compute.decisions import fit_gate, go_no_go, routing, weighing
from compute.decisions.weights import By, Weighing
from compute.evidence import Evidence, gather
from compute.objectives import parse
from opd_tui.decide.hashes import NO_TEMPLATE, Hashes
from opd_tui.decide.rows import Format, Row, Weighted, routing_rows, weight_row, weighted
from opd_tui.export.parquet import require_pyarrow
from opd_tui.text import safe
from opd_tui.usage import WrongUsage
from opd_tui.whole_file import whole_file
from store.errors import StoreError
from store.reader import Store
from store.words import are, counted

SCHEMA = "opd-tui/decide/1"
Kind = Literal["routing", "gate", "go-no-go", "weights"]
#: Endings of FILE that each kind can be written as.
ENDINGS: dict[Kind, tuple[str, ...]] = {
    "routing": (".json", ".jsonl", ".parquet"),
    "gate": (".json",),
    "go-no-go": (".json",),
    "weights": (".jsonl", ".npz"),
}
#: Why a mean gain is another than that of a report, which leaves out nodes where all children turned out alike.
COUNTED = (
    "Mean gains are not those of `opd-tui report`: here every node with two kept children counts, also where these succeed "
    "equally often and nothing can be gained."
)


def decide(
    path: str,
    kind: Kind,
    out: str,
    *,
    objective: str = "",
    teachers: Sequence[str] = (),
    format: Format = "plain",
    by: By = "gate",
    worth: float = 0.0,
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Decide about the store at `path`, write the file `out` when it is whole, and say what was found.

    Raises StoreError where the store cannot be read, holds too little to decide, or `out` cannot be written; WrongUsage for
    weights of several teachers.
    """
    ending = Path(out).suffix
    if ending == ".parquet":
        require_pyarrow()
    opened = store.open(path)
    names = (str(parse(objective)),) if objective else opened.attributes.objectives[:1]
    head: dict[str, Any]
    rows: Callable[[], Iterator[Any]] | None = None
    try:
        evidence = gather(opened, objectives=names)
        if kind == "go-no-go":
            verdicts = go_no_go(evidence, teachers=teachers or None, worth=worth, seed=seed)
            head, sentences = {"verdicts": verdicts}, [f"{one.teacher}: {one.sentence}" for one in verdicts]
        elif kind == "gate":
            gates = fit_gate(evidence, teachers=teachers or None, seed=seed)
            head, sentences = {"gates": gates}, [f"{one.teacher}: {one.sentence}" for one in gates]
        elif kind == "routing":
            head, sentences, rows = _routing(opened, evidence, teachers, format, seed)
        else:
            head, sentences, rows = _weights(opened, evidence, teachers, by, format, seed)
    except ValueError as error:  # more was asked for than this store keeps
        raise StoreError(str(error)) from None
    about = _about(opened, kind, names, seed) | head
    warned = dict.fromkeys(_warnings(about))
    n = _write(rows, about, ending, out)
    if as_json:
        print(json.dumps({**_plain(about), "file": out, "n_rows": n}, ensure_ascii=False))
        return
    for sentence in sentences:
        print(safe(sentence))
    if kind == "routing" or any("the mean gain is" in sentence for sentence in sentences):
        print(COUNTED)
    for warning in warned:
        if not any(warning in sentence for sentence in sentences):
            print(safe(f"! {warning}"))
    print(f"{'The decision' if n is None else counted(n, 'row')} {'is' if n is None else are(n)} in {safe(out)}.")


#: What is said of everything, the sentences, and what gives the rows.
Found = tuple[dict[str, Any], list[str], Callable[[], Iterator[Any]]]


def _routing(opened: Store, evidence: Evidence, teachers: Sequence[str], format: Format, seed: int) -> Found:
    found = routing(evidence, teachers=teachers or None, seed=seed)
    given = [route.teacher for route in found.routes if route.teacher is not None]
    rows = list(routing_rows(opened, found, format))
    lost = len(given) - len(rows) if format != "plain" else 0
    head = {name: getattr(found, name) for name in found.__struct_fields__ if name != "routes"}
    head |= {"n_questions": len(found.routes), "n_routed": len(given), "n_left_out_by_format": lost}
    sentences = [found.sentence, f"{len(given)} of {len(found.routes)} questions get{'s' if len(given) == 1 else ''} a teacher."]
    if lost:
        sentences.append(
            f"{lost} of them {are(lost)} left out: {format} cannot follow a route to that kind of teacher or context."
        )
    return head, sentences, lambda: iter(rows)


def _weights(opened: Store, evidence: Evidence, teachers: Sequence[str], by: By, format: Format, seed: int) -> Found:
    there = [name for name in evidence.scores.teachers if name not in evidence.null_teachers]
    names = list(teachers) or there
    if len(names) != 1:
        raise WrongUsage(f"Weights are for one teacher: name it with --teacher ({', '.join(there) or 'every one is a null'}).")
    found, hashes = weighing(evidence, names[0], by=by, seed=seed), Hashes.of(opened)
    head = {name: getattr(found, name) for name in found.__struct_fields__ if name != "weight_N"}
    head |= {"rule": found.rule if by == "gate" else None, "tokenizer_hash": hashes.tokenizer}
    head |= {"chat_template_hash": hashes.chat_template}
    if hashes.chat_template is None:
        head["warnings"] = (*found.warnings, NO_TEMPLATE)
    head["format"] = format
    return head, [found.sentence], lambda: _Rows(weighted(opened, evidence, found), found, hashes, format)


class _Rows(Iterator[Any]):
    """Rollouts with their weights, as rows for a text file or as they are for arrays."""

    def __init__(self, rollouts: Iterator[Weighted], found: Weighing, hashes: Hashes, format: Format) -> None:
        self.rollouts, self._found, self._hashes, self._format = rollouts, found, hashes, format

    def __next__(self) -> Row:
        return weight_row(next(self.rollouts), self._found, self._hashes, self._format)


def _about(opened: Store, kind: Kind, objectives: Sequence[str], seed: int) -> dict[str, Any]:
    attributes = opened.attributes
    try:
        task = tomllib.loads(attributes.study).get("task", {})
    except tomllib.TOMLDecodeError:
        task = {}
    return {
        "schema": SCHEMA,
        "kind": kind,
        "study_hash": attributes.study_hash,
        "student": attributes.student,
        "task": {name: task[name] for name in ("name", "questions", "data_set", "grader") if name in task},
        "contexts": {teacher.id: {"kind": teacher.kind, "context": teacher.context} for teacher in opened.teachers},
        "objective": objectives[0] if objectives else "",
        "level": 0.95,
        "seed": seed,
    }


def _plain(value: Any) -> Any:
    """As JSON knows it: what is not finite is null."""
    return json.loads(msgspec.json.encode(value))


def _warnings(about: dict[str, Any]) -> Iterator[str]:
    for one in (about, *about.get("verdicts", ()), *about.get("gates", ())):
        yield from one.get("warnings", ()) if isinstance(one, dict) else one.warnings


def _write(rows: Callable[[], Iterator[Any]] | None, about: dict[str, Any], ending: str, out: str) -> int | None:
    """Write the file; how many rows are in it, None for one without rows."""
    with whole_file(out) as file:
        if rows is None:
            file.write_text(json.dumps(_plain(about), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            return None
        found = rows()
        if ending == ".npz":
            assert isinstance(found, _Rows)
            return _write_npz(found.rollouts, about, file)
        if ending == ".jsonl":
            n = 0
            with file.open("wb") as lines:
                for n, row in enumerate(found, 1):  # noqa: B007  # the count outlives the loop
                    lines.write(msgspec.json.encode(row) + b"\n")
            return n
        listed = [_plain(row) for row in found]
        if ending == ".parquet":
            import pyarrow
            import pyarrow.parquet

            about_text = json.dumps(_plain(about), ensure_ascii=False)
            table = pyarrow.Table.from_pylist(listed).replace_schema_metadata({"opd_tui": about_text})
            pyarrow.parquet.write_table(table, file, compression="zstd")
        else:
            questions = {row.pop("question_id"): row for row in listed}
            text = json.dumps({**_plain(about), "questions": questions}, indent=1, ensure_ascii=False)
            file.write_text(text + "\n", encoding="utf-8")
        return len(listed)


def _write_npz(rollouts: Iterator[Weighted], about: dict[str, Any], file: Path) -> int:
    """Rollouts end to end: those of rollout r are tokens ``rollout_start[r]`` to ``rollout_start[r + 1]``. No pickles."""
    ids: list[str] = []
    index, starts = [], [0]
    tokens: list[Any] = [np.zeros(0, np.int32)]
    weights: list[Any] = [np.zeros(0, np.float32)]
    positions: list[Any] = [np.zeros(0, np.int32)]
    for one in rollouts:
        ids.append(one.question.id)
        index.append(one.rollout.index)
        starts.append(starts[-1] + len(one.rollout))
        tokens.append(one.rollout.token_id_T.astype(np.int32))
        weights.append(one.weight_T.astype(np.float32))
        positions.append(np.arange(len(one.rollout), dtype=np.int32))
    arrays: dict[str, Any] = {
        "about": np.array(json.dumps(_plain(about), ensure_ascii=False)),
        "question_id": np.array(ids, dtype=np.str_),
        "rollout_index": np.array(index, dtype=np.int64),
        "rollout_start": np.array(starts, dtype=np.int64),
        "token_id": np.concatenate(tokens),
        "position": np.concatenate(positions),
        "weight": np.concatenate(weights),
    }
    with file.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    return len(ids)
