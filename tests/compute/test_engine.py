"""Both engines on transformers: decoding with a shared prefix, and in batches of one depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compute import models, scoring
from compute.engine.batched import BatchedEngine
from compute.engine.drawing import draw
from compute.engine.transformers import TransformersEngine
from compute.study import Chat
from tests.compute.engine_suite import LIMIT, EngineSuite, free
from tests.conftest import CHAIN_SUMS


class TestSharedPrefix(EngineSuite):
    @pytest.fixture(scope="class")
    def make(self):
        return lambda model, slots: TransformersEngine(model, slots=slots)


class TestBatchesOfOneDepth(EngineSuite):
    """The way of models that do not fit, here with one that does."""

    @pytest.fixture(scope="class")
    def student(self):
        return models.load(str(CHAIN_SUMS / "student"))  # one of its own: shared-prefix decoding changes the model's attention

    @pytest.fixture(scope="class")
    def make(self):
        return lambda model, slots: BatchedEngine(model, slots=slots)


def test_drawing_is_the_inverse_of_the_cumulative_distribution():
    torch.manual_seed(0)
    logits = torch.randn(50, 1000) * 3
    logits[:, ::3] = -torch.inf
    uniform = np.linspace(1e-9, 1 - 1e-12, 50)
    probabilities = torch.softmax(logits, -1).double()
    ends = (probabilities / probabilities.sum(-1, keepdim=True)).cumsum(-1).numpy()
    drawn = draw(logits, 1.0, uniform)
    for row, token in enumerate(drawn):
        assert probabilities[row, token] > 0
        before = ends[row, token - 1] if token else 0.0
        assert before - 1e-9 <= uniform[row] <= ends[row, token] + 1e-9


def test_scores_equal_those_of_whole_distributions(student, teacher):
    """Chunked scoring against the formulas on full [T, V] arrays."""
    prompt = student.prompt_ids("3+5+4?", Chat())
    response = np.array(TransformersEngine(student).complete(prompt, (), free(3), max_response_tokens=LIMIT)[2].token_ids)
    ours, theirs = (
        scoring.states(student, prompt, response.tolist())[:-1],
        scoring.states(teacher, prompt, response.tolist())[:-1],
    )
    logp = torch.log_softmax(student.logits(ours).double(), -1).numpy()
    logt = torch.log_softmax(teacher.logits(theirs).double(), -1).numpy()
    p, t, rows = np.exp(logp), np.exp(logt), np.arange(len(response))
    mine = scoring.score_student(scoring.log_probs(student.logits), ours, response, 4)
    found = scoring.score_teacher(
        scoring.log_probs(student.logits), ours, scoring.log_probs(teacher.logits), theirs, response, mine.topk_token_id_TC
    )
    np.testing.assert_allclose(mine.logprob_T, logp[rows, response], atol=1e-5)
    np.testing.assert_allclose(mine.entropy_T, -(p * logp).sum(-1), atol=1e-5)
    np.testing.assert_allclose(mine.tail_mass_T, 1 - np.sort(p, axis=-1)[:, -4:].sum(-1), atol=1e-5)
    mean = np.log((p + t) / 2)
    js = 0.5 * ((p * (logp - mean)).sum(-1) + (t * (logt - mean)).sum(-1))
    cosine = (p * t).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(t, axis=-1)
    expected = np.stack(
        [(p * (logp - logt)).sum(-1), (t * (logt - logp)).sum(-1), js, np.linalg.norm(t - p, axis=-1), cosine], -1
    )
    np.testing.assert_allclose(found.divergence_TD, expected, atol=2e-5)
    ratio = logt - logp
    np.testing.assert_allclose(found.gradient_T, np.abs(p * (ratio - (p * ratio).sum(-1, keepdims=True))).max(-1), atol=1e-5)
    np.testing.assert_allclose(found.difference_T, np.abs(t - p).max(-1), atol=1e-5)
    np.testing.assert_allclose(
        found.logprob_at_student_topk_TC, np.take_along_axis(logt, mine.topk_token_id_TC.astype(int), -1), atol=1e-4
    )
