"""The estimates against the truth: p_succ of every child of the tiny student, against enumeration of its continuations."""

from __future__ import annotations

import numpy as np
import pytest

import store
from compute.oracle import Oracle
from compute.progress import Reporter
from compute.runner import prepare, run
from compute.scores import score
from tests.conftest import small_study

#: Mass that enumeration may leave unexplored; the truth is taken from the middle of what is left.
TOLERANCE = 0.02
N_QUESTIONS = 20
#: Independent studies of the same questions: other paths, other completions.
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """Truth, estimate and interval of every child with an interval: one array of columns."""
    oracles: dict[str, Oracle] = {}
    rows = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp("truth")
        path = small_study(folder, limit=N_QUESTIONS, n_min=40)
        path.write_text(path.read_text().replace("seed = 0", f"seed = {seed}").replace("k = 4\n", "n_paths = 3\nk = 4\n"))
        reporter = Reporter(0)
        setup = prepare(path, reporter)
        run(setup, folder / "s.zarr", reporter)
        rows += _compare(setup, store.open(folder / "s.zarr"), oracles)
    return np.array(rows).T


def _compare(setup, opened, oracles):
    """(truth, estimate, low, high) of every child that has an interval."""
    bench, rows = setup.bench, []
    for line, question in zip(opened.questions(), setup.questions, strict=True):
        nodes = opened.nodes(question.id)
        estimates = score(nodes, n_sig=20).estimates
        prefix = {}
        for rollout in line.rollouts:
            page = opened.rollout(question.id, rollout.index)
            prefix |= {int(node): tuple(page.token_id_T[: nodes.position_N[node]].tolist()) for node in page.node_P}
        entries = [
            (node, child) for node, child in np.argwhere(nodes.token_NK >= 0) if np.isfinite(estimates.low_NK[node, child])
        ]
        oracle = oracles.setdefault(
            question.id,
            Oracle(
                bench.student,
                bench.prompt_ids(bench.student, question, ""),
                setup.study.sampling.max_response_tokens,
                lambda tokens, asked=question: bench.grade(asked, bench.student.text(tokens)).correct,
            ),
        )
        found = oracle.p_succ([(*prefix[node], int(nodes.token_NK[node, child])) for node, child in entries], TOLERANCE)
        for (node, child), exact in zip(entries, found, strict=True):
            assert exact.unexplored <= 1.5 * TOLERANCE  # prefixes lighter than 1e-6 are not looked at
            table = (estimates.p_succ_NK, estimates.low_NK, estimates.high_NK)
            rows.append((exact.success + exact.unexplored / 2, *(float(one[node, child]) for one in table)))
    return rows


def test_95_percent_intervals_hold_the_truth_95_percent_of_the_time(children):
    truth, _, low, high = children
    between = (truth >= 0.05) & (truth <= 0.95)
    inside = (low <= truth) & (truth <= high)
    assert between.sum() >= 250
    assert 0.93 <= inside[between].mean() <= 0.97, f"{inside[between].sum()} of {between.sum()}"


def test_estimates_are_unbiased(children):
    truth, estimate, *_ = children
    error = estimate - truth
    assert abs(error.mean()) <= TOLERANCE / 2 + 4 * error.std() / np.sqrt(len(error))
