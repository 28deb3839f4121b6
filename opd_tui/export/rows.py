"""Slices of a store as rows for people's own tools: one token under one teacher a row.

`write` is the command `opd-tui export`; `rows` is the same for Python.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Literal

import numpy as np
from msgspec import Struct

import store
from compute.objectives import parse
from compute.posterior import FIT_NODES, Posterior, Prior, fit_tables, posterior
from compute.scores import Scores, score
from compute.updates import takes_whole
from opd_tui.export.parquet import require_pyarrow, write_parquet
from opd_tui.export.where import Where, parse_where
from opd_tui.search.evaluating import Bool
from opd_tui.text import safe
from opd_tui.whole_file import check_apart, whole_file
from store.errors import StoreError
from store.node_tables import merge_nodes
from store.reader import Store
from store.schema import DIVERGENCES, ChildKind
from store.tables import Nodes, QuestionRow, Rollout

Format = Literal["jsonl", "csv", "parquet", "npz"]
Row = dict[str, Any]
Progress = Callable[[int], None]
Told = Callable[[int, int], None]  #: questions done, and all of them

#: Nodes that are scored together for what the study teaches: each takes some 20 KB meanwhile.
_SCORED_TOGETHER = 500


class Selection(Struct, frozen=True):
    """Which rows: empty tuples and None mean all."""

    questions: tuple[str, ...] = ()
    rollouts: tuple[int, ...] = ()
    teachers: tuple[str, ...] = ()
    positions: tuple[int, int] | None = None
    objectives: tuple[str, ...] = ()  #: the study's, or any others as `compute.objectives.parse` reads them
    where: str = ""  #: an expression (`opd_tui.search.expression`) that rows match


def parse_range(text: str) -> tuple[int, int] | None:
    """``A:B`` as two positions; either may be missing. Raises ValueError."""
    if not text:
        return None
    first, colon, last = text.partition(":")
    try:
        found = int(first or 0), int(last) if last else sys.maxsize
    except ValueError:
        found = (0, -1)
    if not colon or found[0] < 0 or found[1] < found[0]:
        raise ValueError(f"--tokens {text!r} is no range; write A:B with 0 <= A <= B.")
    return found


def count(opened: Store, selection: Selection) -> int:
    """How many rows a selection has before `where` takes some. Raises StoreError for unknown names."""
    n_tokens = 0
    for question in _chosen(opened, selection):
        for line in question.rollouts:
            if not selection.rollouts or line.index in selection.rollouts:
                first, last = selection.positions or (0, line.n_tokens)
                n_tokens += max(0, min(last, line.n_tokens) - first)
    return n_tokens * (len(selection.teachers) or len(opened.teachers))


def rows(opened: Store, selection: Selection, told: Told = lambda done, n: None) -> Iterator[Row]:
    """The rows of a selection, by question, rollout, position and teacher; `told` hears before each question how far it is.

    Raises `StoreError` for unknown names, and `opd_tui.search.expression.ExpressionError` for an expression that cannot be read.
    """
    teachers = selection.teachers or tuple(teacher.id for teacher in opened.teachers)
    chosen = _chosen(opened, selection)
    there = {line.index for question in chosen for line in question.rollouts}
    unknown = [index for index in selection.rollouts if index not in there]
    if unknown:
        raise StoreError(
            f"No chosen question has a rollout {unknown[0]}; there is {', '.join(map(str, sorted(there))) or 'none'}."
        )
    names = _objectives(opened, selection)
    expression = parse_where(opened, selection.where, names)
    prior = _prior(opened, teachers, names) if chosen else None
    where = Where(opened, expression, teachers, names[0] if names else "", prior) if expression is not None else None
    for done, question in enumerate(chosen):
        told(done, len(chosen))
        matching = where.question(question.id) if where is not None else None
        if matching is not None and not matching.any:
            continue
        nodes, scores = _scored(opened, [question.id], teachers, names)
        scored = _Scored(
            nodes, scores, posterior(nodes, scores, prior) if prior is not None else None, opened.judged_only(question.id)
        )
        for line in question.rollouts:
            if selection.rollouts and line.index not in selection.rollouts:
                continue
            keep = matching.rollout(line.index, line.n_tokens) if matching is not None else None
            if keep is None or keep.any():
                rollout = opened.rollout(question.id, line.index, teachers)
                yield from _rollout_rows(opened, rollout, scored, selection.positions, keep)
    told(len(chosen), len(chosen))


def _chosen(opened: Store, selection: Selection) -> list[QuestionRow]:
    for name in selection.questions:
        opened.question(name)  # an unknown name is an error, not an empty slice
    names = set(selection.questions)
    return [one for one in opened.questions() if not names or one.id in names]


def one_row(
    opened: Store, rollout: Rollout, nodes: Nodes, scores: Scores, prior: Prior | None, position: int, teacher: str
) -> Row:
    """The row of one token under one teacher, from nodes that are scored already. `prior`: the study's, as far as it is known."""
    known = prior is not None and (prior.teachers, prior.objectives) == (scores.teachers, scores.objectives)
    sure = posterior(nodes, scores, prior) if known and prior is not None else None
    scored = _Scored(nodes, scores, sure, opened.judged_only(rollout.question_id))
    found = _rollout_rows(opened, rollout, scored, (position, position + 1), None)
    return next(row for row in found if row["teacher"] == teacher)


class _Scored(Struct, frozen=True):
    """A question's nodes, their scores, and how sure these are under the prior of the whole study."""

    nodes: Nodes
    scores: Scores
    sure: Posterior | None
    judged_only: frozenset[str]  #: teachers added later, judged only at the nodes that others nominated


def _objectives(opened: Store, selection: Selection) -> tuple[str, ...]:
    return tuple(str(parse(name)) for name in selection.objectives) or opened.attributes.objectives


def _scored(
    opened: Store, questions: Sequence[str], teachers: tuple[str, ...], names: tuple[str, ...], level: float | None = 0.95
) -> tuple[Nodes, Scores]:
    """The nodes of some questions, scored under any objectives; `level`: as for `compute.scores.score`."""
    whole = takes_whole(names, opened.attributes.objectives)
    nodes = merge_nodes([opened.nodes(question, teachers, whole=whole) for question in questions])
    try:
        return nodes, score(nodes, n_sig=opened.attributes.n_sig, objectives=names, level=level)
    except ValueError as error:  # an objective that asks for more than this store keeps
        raise StoreError(str(error)) from None


def _prior(opened: Store, teachers: tuple[str, ...], names: tuple[str, ...]) -> Prior:
    """What the whole study teaches of how sure scores are: from all of its nodes, and of more than a fit looks at, from whole
    questions that lie evenly over it. A few hundred are scored together, since scoring takes much more memory than its result."""
    listing = opened.listing()
    n_nodes_R1 = np.r_[0, np.cumsum(listing.n_nodes_R, dtype=np.int64)]
    with_nodes = np.flatnonzero(np.diff(n_nodes_R1[listing.rollout_start_Q1]) > 0)
    sample = [listing.question_id_Q[q] for q in with_nodes[:: max(1, -(-opened.counts().n_nodes // FIT_NODES))].tolist()]
    n_together = max(1, round(_SCORED_TOGETHER * len(with_nodes) / max(1, opened.counts().n_nodes)))
    groups = [sample[start : start + n_together] for start in range(0, len(sample), n_together)]
    return fit_tables([_scored(opened, group, teachers, names, None) for group in groups or [list(listing.question_id_Q[:1])]])


def write(
    path: str, selection: Selection, format: Format, out: str, progress: Progress | None = None, told: Told | None = None
) -> int:
    """Write a selection of the store at `path` to the file `out`, or text to standard output for ``-``; return how many rows.

    `progress` is told now and then how many rows are made, `told` how many questions are done. A file appears only when it is
    whole, and memory holds a question and a block of rows, whatever the format. Raises StoreError for unknown names, where the
    file cannot be written, and where a format takes an extra that is not installed; ExpressionError as `rows`.
    """
    if format == "parquet":
        require_pyarrow()  # before a store is scored for it
    opened = store.open(path)
    found = rows(opened, selection, told) if told else rows(opened, selection)
    found = _counted(found, progress) if progress else found
    names = _objectives(opened, selection)
    parse_where(opened, selection.where, names)  # before a file is begun
    if out == "-":
        if format in ("parquet", "npz"):
            raise StoreError(f"{format} is no text: name a file to write to.")
        return _write(found, format, names, sys.stdout, _on_screen if sys.stdout.isatty() else str)
    check_apart(path, out)
    with whole_file(out) as unfinished:
        if format == "parquet":
            about = {"study_hash": opened.attributes.study_hash, "student": opened.attributes.student}
            return write_parquet(found, names, unfinished, about)
        if format == "npz":
            from opd_tui.export.npz import write_npz

            return write_npz(found, names, unfinished)
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            return _write(found, format, names, file, str)


def _counted(found: Iterator[Row], progress: Progress) -> Iterator[Row]:
    for n, row in enumerate(found):
        if n % 200 == 0:
            progress(n)
        yield row


def _on_screen(line: str) -> str:
    """A line that a terminal can show: JSON escapes the lower controls, nothing escapes the upper ones."""
    return safe(line.rstrip("\r\n")) + "\n"


class _Lines:
    """A file for csv's writer, which calls `write` once a row."""

    def __init__(self, file: IO[str], shown: Callable[[str], str]) -> None:
        self._file = file
        self._shown = shown

    def write(self, line: str) -> None:
        self._file.write(self._shown(line))


def _write(found: Iterator[Row], format: Format, objectives: tuple[str, ...], file: IO[str], shown: Callable[[str], str]) -> int:
    """Write the rows; `shown` is what becomes of each line."""
    n = 0
    if format == "jsonl":
        for n, row in enumerate(found, 1):  # noqa: B007  # the count outlives the loop
            file.write(shown(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"))
        return n
    columns = _columns(objectives)
    table = csv.DictWriter(_Lines(file, shown), columns, restval="", extrasaction="raise")
    table.writeheader()
    for n, row in enumerate(found, 1):  # noqa: B007  # as above
        table.writerow({name: _cell(value) for name, value in _flat(row).items()})
    return n


#: What a decision point has under every objective. `alignment_low` to `alignment_high` is the central 95 % of what the node's
#: counts leave possible; it and `p_positive` are nothing where `p_positive_calibrated` is false: the study then has too few
#: scores to say how sure one is, or the update follows the completions that judge it.
PER_OBJECTIVE = ("alignment", "alignment_low", "alignment_high", "gain", "gain_se", "p_positive", "p_positive_calibrated")


def _columns(objectives: tuple[str, ...]) -> list[str]:
    per_objective = [f"{name}.{objective}" for name in PER_OBJECTIVE for objective in objectives]
    return [
        *("question_id", "rollout_index", "correct", "position", "token_id", "token", "student_logprob", "student_entropy"),
        *("teacher", "teacher_logprob", "teacher_entropy", *DIVERGENCES, *per_objective),
        *("reliability", "teacher_advantage", "success_rate_range", "n_kept", "judged_only", "children"),
    ]


def _flat(row: Row) -> Row:
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return flat


def _cell(value: Any) -> Any:
    """A spreadsheet runs a cell that begins like a formula; text from data is kept from that by a quote in front."""
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def _rollout_rows(
    opened: Store, rollout: Rollout, scored: _Scored, positions: tuple[int, int] | None, keep_TM: Bool | None
) -> Iterator[Row]:
    nodes, scores = scored.nodes, scored.scores
    node_at = {int(nodes.position_N[row]): int(row) for row in rollout.node_P}
    first, last = positions or (0, len(rollout))
    for position in range(first, min(last, len(rollout))):
        token = int(rollout.token_id_T[position])
        for m, teacher in enumerate(rollout.teachers):
            if keep_TM is not None and not keep_TM[position, m]:
                continue
            row: Row = {
                "question_id": rollout.question_id,
                "rollout_index": rollout.index,
                "correct": rollout.correct,
                "position": position,
                "token_id": token,
                "token": _text(opened, token),
                "student_logprob": _number(rollout.logprob_T[position]),
                "student_entropy": _number(rollout.entropy_T[position]),
                "teacher": teacher,
                "teacher_logprob": _number(rollout.teacher_logprob_TM[position, m]),
                "teacher_entropy": _number(rollout.teacher_entropy_TM[position, m]),
            }
            row |= {name: _number(rollout.divergence_TMD[position, m, d]) for d, name in enumerate(DIVERGENCES)}
            node = node_at.get(position)
            if node is not None and scores.decision_point_N[node]:
                row |= _node_columns(opened, scored, node, nodes.teachers.index(teacher))
            yield row


def _node_columns(opened: Store, scored: _Scored, node: int, m: int) -> Row:
    """What a decision point adds to a row."""
    nodes, scores, sure = scored.nodes, scored.scores, scored.sure
    calibrated_O = sure.calibrated_MO[m] if sure is not None else np.zeros(len(scores.objectives), bool)

    def said(name: str) -> Any:
        value_O = getattr(sure, name)[m, :, node] if sure is not None else np.nan
        return np.where(calibrated_O, value_O, np.nan)

    columns = (
        scores.alignment_MON[m, :, node],
        said("cosine_low_MON"),
        said("cosine_high_MON"),
        scores.gain_MON[m, :, node],
        scores.gain_se_MON[m, :, node],
        said("p_positive_MON"),
    )
    values = (*(map(_number, column_O) for column_O in columns), calibrated_O.tolist())
    return {
        **{name: dict(zip(scores.objectives, value_O, strict=True)) for name, value_O in zip(PER_OBJECTIVE, values, strict=True)},
        "reliability": _number(sure.reliability_N[node]) if sure is not None else None,
        "teacher_advantage": _number(scores.advantage_MN[m, node]),
        "success_rate_range": _number(scores.success_rate_range_N[node]),
        "n_kept": int(scores.n_kept_N[node]),
        "judged_only": nodes.teachers[m] in scored.judged_only,
        "children": _children(opened, nodes, scores, node, m),
    }


def _children(opened: Store, nodes: Nodes, scores: Scores, node: int, m: int) -> list[Row]:
    estimates = scores.estimates
    children = []
    for child in np.flatnonzero(nodes.kind_NK[node] != ChildKind.ABSENT):
        kind = ChildKind(int(nodes.kind_NK[node, child]))
        token = int(nodes.token_NK[node, child])
        children.append(
            {
                "token_id": token if token >= 0 else None,
                "token": _text(opened, token) if token >= 0 else None,
                "kind": kind.name.lower(),
                "kept": bool(estimates.kept_NK[node, child]),
                "student_logprob": _number(nodes.logprob_NK[node, child]),
                "teacher_logprob": _number(nodes.teacher_logprob_MNK[m, node, child]),
                "n_completions": int(estimates.n_NK[node, child]),
                "n_success": int(estimates.n_success_NK[node, child]),
                "n_effective": _number(estimates.effective_n_NK[node, child]),
                "p_succ": _number(estimates.p_succ_NK[node, child]),
                "p_succ_low": _number(estimates.low_NK[node, child]),
                "p_succ_high": _number(estimates.high_NK[node, child]),
            }
        )
    return children


def _text(opened: Store, token: int) -> str:
    return opened.vocab.bytes_of(token).decode("utf-8", "replace")


def _number(value: Any) -> float | None:
    """A JSON number: nothing for what is not finite, and no digits beyond what the type holds."""
    number = float(value)
    if not math.isfinite(number):
        return None
    return float(str(np.float32(number))) if isinstance(value, np.float32 | np.float16) else number
