"""What teachers said of completions against enumeration: F of `minillm` for the tiny student."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import store
from compute.oracle import Oracle
from compute.progress import Reporter
from compute.reward_to_go import expected_later
from compute.runner import run
from compute.setup import prepare
from store.schema import ChildKind
from tests.conftest import small_study

TOLERANCE = 0.01
#: Children this near the end of their path: further up, enumeration takes minutes.
LAST = 4


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """Teacher, truth and estimate of F after children near the end of the paths of two questions: one array of columns."""
    folder = tmp_path_factory.mktemp("minillm")
    path = small_study(folder, limit=2, n_min=48)
    text = path.read_text().replace("seed = 0", 'seed = 3\nobjectives = ["reverse_kl", "minillm"]')
    text = text.replace("k = 4\n", 'k = 4\nallocation = "shares"\n')  # 48 completions of every candidate
    path.write_text(text.replace("[parts]", "[keep]\nminillm_completions = 48\n\n[parts]"))
    reporter = Reporter(0)
    setup = prepare(path, reporter)
    run(setup, folder / "s.zarr", reporter)
    opened, bench, rows = store.open(folder / "s.zarr"), setup.bench, []
    for line, question in zip(opened.questions(), setup.questions, strict=True):
        nodes = opened.nodes(question.id, whole=True)
        F_MNK, _ = expected_later(nodes)
        prefix, near = {}, set()
        for rollout in line.rollouts:
            page = opened.rollout(question.id, rollout.index)
            prefix |= {int(node): tuple(page.token_id_T[: nodes.position_N[node]].tolist()) for node in page.node_P}
            near |= {int(node) for node in page.node_P if nodes.position_N[node] >= len(page) - LAST}
        prompt = bench.prompt_ids(bench.student, question, "")
        oracle = Oracle(bench.student, prompt, setup.study.sampling.max_response_tokens, lambda tokens: True)
        for m in (0, len(bench.teachers) - 1):  # another model, and the student at temperature 1.3
            teacher = partial(_after, bench.teachers[m], prompt)
            for node in sorted(near):
                for child in np.flatnonzero((nodes.token_NK[node] >= 0) & np.isfinite(F_MNK[m, node])):
                    if nodes.kind_NK[node, child] == ChildKind.END:
                        continue
                    truth = oracle.later((*prefix[node], int(nodes.token_NK[node, child])), teacher, TOLERANCE)
                    rows.append((m, truth.success, F_MNK[m, node, child]))
    return np.array(rows).T


@torch.inference_mode()
def _after(teacher, prompt, prefixes):
    ids = torch.tensor([[*prompt, *one] for one in prefixes])
    states = teacher.model.decoder(input_ids=ids).last_hidden_state[:, -1]
    return teacher.log_probs(states).double().numpy()


@pytest.mark.full
@pytest.mark.parametrize(("m", "spread"), [(0, 0.05), (5, 0.01)])
def test_F_agrees_with_enumeration(children, m, spread):
    """Up to rare continuations, which 48 completions may miss: `spread` of the truth's own size."""
    teacher, truth, estimate = children
    truth, error = truth[teacher == m], (estimate - truth)[teacher == m]
    assert len(truth) >= 12
    assert np.abs(truth).max() > 0.1
    assert np.sqrt(np.mean(error**2)) <= spread * np.sqrt(np.mean(truth**2))
    assert abs(error.mean()) <= 0.5 * spread * np.abs(truth).mean()
