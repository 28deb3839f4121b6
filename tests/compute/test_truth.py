"""The estimates against the truth: p_succ of every child of the tiny student, against enumeration of its continuations."""

from __future__ import annotations

import numpy as np
import pytest

import store
from compute.oracle import Oracle
from compute.progress import Reporter
from compute.runner import run
from compute.scores import score
from compute.setup import prepare
from tests.conftest import small_study

pytestmark = pytest.mark.full

N_QUESTIONS = 10
#: Mass that enumeration may leave unexplored; the truth is taken from the middle of what is left. Intervals of backed-up
#: children are some .01 wide: with .004 a tenth of them would seem to miss.
TOLERANCE = 0.002


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """Truth, estimate and interval of every child of 10 questions that has an interval: one array of columns."""
    folder = tmp_path_factory.mktemp("truth")
    path = small_study(folder, limit=N_QUESTIONS, n_min=100)
    path.write_text(path.read_text().replace("seed = 0", "seed = 1").replace("k = 4\n", "n_paths = 3\nk = 4\n"))
    reporter = Reporter(0)
    setup = prepare(path, reporter)
    run(setup, folder / "s.zarr", reporter)
    opened = store.open(folder / "s.zarr")
    bench, rows = setup.bench, []
    for line, question in zip(opened.questions(), setup.questions, strict=True):
        nodes = opened.nodes(question.id)
        estimates = score(nodes, n_sig=20).estimates
        prefix = {}
        for rollout in line.rollouts:
            page = opened.rollout(question.id, rollout.index)
            prefix |= {int(node): tuple(page.token_id_T[: nodes.position_N[node]].tolist()) for node in page.node_P}
        entries = [tuple(entry) for entry in np.argwhere((nodes.token_NK >= 0) & np.isfinite(estimates.low_NK))]
        oracle = Oracle(
            bench.student,
            bench.prompt_ids(bench.student, question, ""),
            setup.study.sampling.max_response_tokens,
            lambda tokens, asked=question: bench.grade(asked, bench.student.text(tokens)).correct,
        )
        found = oracle.p_succ([(*prefix[node], int(nodes.token_NK[node, child])) for node, child in entries], TOLERANCE)
        for entry, exact in zip(entries, found, strict=True):
            assert exact.unexplored <= 5 * TOLERANCE  # of very light prefixes nothing is looked at
            columns = (estimates.p_succ_NK, estimates.low_NK, estimates.high_NK)
            rows.append((exact.success + exact.unexplored / 2, *(float(one[entry]) for one in columns)))
    return np.array(rows).T


def test_95_percent_intervals_hold_the_truth(children):
    """95 % of the time and more: one pseudo-count is on the safe side of a student whose tokens decide the outcome."""
    truth, _, low, high = children
    between = (truth >= 0.05) & (truth <= 0.95)
    inside = (low <= truth) & (truth <= high)
    assert between.sum() >= 40
    assert inside[between].mean() >= 0.93, f"{inside[between].sum()} of {between.sum()}"
    assert (high - low)[between].mean() < 0.05


def test_estimates_are_unbiased(children):
    truth, estimate, *_ = children
    error = estimate - truth
    assert abs(error.mean()) <= TOLERANCE / 2 + 4 * error.std() / np.sqrt(len(error))
