"""The trained tiny student as trees whose truth is known: paths, targets and probabilities as a run has them, and the
success rate of every stratum by enumeration of continuations."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import store
from benchmarks.made_tables import Child
from compute.oracle import Oracle, Prefix
from compute.progress import Reporter
from compute.runner import run
from compute.setup import Setup, prepare
from compute.study import Study
from compute.tasks import Question
from store.schema import NOWHERE, UNKNOWN_OUTCOME, ChildKind
from store.tables import Nodes

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "chain_sums"
#: Positions per window by either ranking. Responses are some 15 tokens long.
TARGETING = {"dense": (4, 3), "sparse": (1, 1)}
#: Mass that enumeration may leave open. What is left is shared out evenly, and the trees are then taken as the truth.
TOLERANCE = 0.01

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExactStudent:
    """Trees of several questions end to end."""

    children: list[list[Child]]
    nodes: Nodes  #: with the completions of the run


def exact_student(n_questions: int, n_min: int) -> dict[str, ExactStudent]:
    """The same questions at dense and at sparse targeting; the runs take `n_min` completions forced at every child."""
    found = {}
    oracles: dict[str, Oracle] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (k, r) in TARGETING.items():
            setup = _computed(Path(folder), name, n_questions, n_min, k, r)
            found[name] = _exact(setup, Path(folder, f"{name}.zarr"), oracles)
    return found


def _computed(folder: Path, name: str, n_questions: int, n_min: int, k: int, r: int) -> Setup:
    text = (EXAMPLE / "study.toml").read_text()
    for key in ("student", "teacher"):
        text = text.replace(f'model = "{key}"', f'model = "{EXAMPLE / key}"')
    text = text.replace('"questions.jsonl"', f'"{EXAMPLE / "questions.jsonl"}"')
    head, targeting = text.split("[targeting]\n")
    _, rest = targeting.split("\n\n", 1)
    settings = f'k = {k}\nr = {r}\nn_min = {n_min}\nn_sig = 20\nallocation = "uniform"'
    path = folder / f"{name}.toml"
    path.write_text(f"{head.replace('limit = 24', f'limit = {n_questions}')}[targeting]\n{settings}\n\n{rest}")
    setup = prepare(path, Reporter(0))
    run(setup, folder / f"{name}.zarr", Reporter(0))
    return setup


def _exact(setup: Setup, path: Path, oracles: dict[str, Oracle]) -> ExactStudent:
    opened = store.open(path)
    nodes, paths = opened.study_nodes()
    of_number = {question.number: question for question in setup.questions}
    prefix_N: dict[int, Prefix] = {}
    for at, (number, index) in enumerate(zip(paths.question_L.tolist(), paths.rollout_index_L.tolist(), strict=True)):
        tokens = opened.rollout(of_number[number].id, index).token_id_T
        for node in paths.node_P[paths.start_L1[at] : paths.start_L1[at + 1]].tolist():
            prefix_N[node] = tuple(tokens[: nodes.position_N[node]].tolist())
    p_NK, value_N = np.full(nodes.token_NK.shape, np.nan), np.full(len(nodes), np.nan)
    for number, question in of_number.items():
        rows = np.flatnonzero(nodes.question_N == number).tolist()
        if not rows:
            continue
        oracle = oracles.setdefault(question.id, _oracle(setup, setup.study, question))
        asked = [(row, child) for row in rows for child in np.flatnonzero(nodes.token_NK[row] >= 0).tolist()]
        after = [(*prefix_N[row], int(nodes.token_NK[row, child])) for row, child in asked]
        exact = oracle.p_succ([*(prefix_N[row] for row in rows), *after], TOLERANCE)
        value_N[rows] = [one.success + one.unexplored / 2 for one in exact[: len(rows)]]
        for (row, child), one in zip(asked, exact[len(rows) :], strict=True):
            p_NK[row, child] = one.success + one.unexplored / 2
    return ExactStudent([_siblings(nodes, row, p_NK[row], value_N) for row in range(len(nodes))], nodes)


def _oracle(setup: Setup, study: Study, question: Question) -> Oracle:
    bench = setup.bench
    prompt = bench.prompt_ids(bench.student, question, "")
    succeeds = partial(_succeeds, setup, question)
    return Oracle(bench.student, prompt, study.sampling.max_response_tokens, succeeds)


def _succeeds(setup: Setup, question: Question, tokens: Prefix) -> bool:
    return setup.bench.grade(question, setup.bench.student.text(tokens)).correct


def _siblings(nodes: Nodes, row: int, p_K: Array, value_N: Array) -> list[Child]:
    """The children of a node, each with the mean of its own stratum: what is left of its value is the gap's, or the rest's."""
    present_K = nodes.kind_NK[row] != ChildKind.ABSENT
    P_K = np.where(present_K, np.exp(nodes.logprob_NK[row].astype(np.float64)), 0.0)
    P_K = P_K / P_K.sum()
    found = []
    for child in np.flatnonzero(present_K).tolist():
        token, kind, P = int(nodes.token_NK[row, child]), ChildKind(int(nodes.kind_NK[row, child])), float(P_K[child])
        outcome, next_row = int(nodes.outcome_NK[row, child]), int(nodes.next_NK[row, child])
        if kind == ChildKind.ON_PATH:
            stay = float(np.exp(min(float(nodes.continue_logprob_NK[row, child]), 0.0)))
            ahead = value_N[next_row] if next_row != NOWHERE else outcome
            mean = float(np.clip((p_K[child] - stay * ahead) / (1.0 - stay), 0.0, 1.0)) if stay < 1.0 else float("nan")
            found.append(Child(token, P, kind, next_row, stay, outcome, mean))
        elif kind == ChildKind.REST:
            left = value_N[row] - float(np.nansum(np.where(nodes.token_NK[row] >= 0, P_K * p_K, 0.0)))
            found.append(Child(token, P, kind, mean=float(np.clip(left / max(P, 1e-12), 0.0, 1.0))))
        elif kind == ChildKind.END:
            found.append(Child(token, P, kind, outcome=outcome))
        else:
            found.append(Child(token, P, kind, outcome=UNKNOWN_OUTCOME, mean=float(np.clip(p_K[child], 0.0, 1.0))))
    return found
