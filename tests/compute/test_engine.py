"""Both engines on transformers: decoding with a shared prefix, and in batches of one depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compute import scoring
from compute.engine.attention import Rows
from compute.engine.batched import BatchedEngine
from compute.engine.drawing import draw
from compute.engine.transformers import TransformersEngine, _prefix, _step
from compute.study import Chat
from tests.compute.engine_suite import DEVICES, LIMIT, EngineSuite, free, tiny


class TestSharedPrefix(EngineSuite):
    @pytest.fixture(scope="class", params=DEVICES)
    def student(self, request):
        return tiny(request.param)

    @pytest.fixture(scope="class")
    def make(self):
        return lambda model, slots: TransformersEngine(model, slots=slots)


class TestBatchesOfOneDepth(EngineSuite):
    """The way of models that do not fit, here with one that does."""

    @pytest.fixture(scope="class", params=DEVICES)
    def student(self, request):
        return tiny(request.param)

    @pytest.fixture(scope="class")
    def make(self):
        return lambda model, slots: BatchedEngine(model, slots=slots)


class TestSharedPrefixInBfloat16(EngineSuite):
    """Greedy completions are those of `generate` as well: here the two likeliest tokens lie 0.8 nat apart at least."""

    # Bit for bit in any batch is float32's alone.
    test_completions_do_not_depend_on_slots_or_order = None
    test_a_completion_alone_is_the_one_in_company = None

    @pytest.fixture(scope="class", params=DEVICES)
    def student(self, request):
        return tiny(request.param, "bfloat16")

    @pytest.fixture(scope="class")
    def make(self):
        return lambda model, slots: TransformersEngine(model, slots=slots)

    @torch.inference_mode()
    def test_states_are_those_of_a_plain_forward_within_the_tolerance(self, engine, student, prompt, spine):
        """Of the prefix, and of rows of several depths after 20 own tokens: relative differences of at most 0.08."""
        plain = tiny(student.device, "bfloat16")

        def differences(found, ids):
            expected = plain.decoder(input_ids=torch.tensor([ids], device=student.device)).last_hidden_state[0, -len(found) :]
            return (found.float() - expected.float()).norm(dim=-1) / expected.float().norm(dim=-1)

        cache, states = _prefix(student, [*prompt, *spine])
        assert states.dtype == torch.bfloat16
        assert differences(states, [*prompt, *spine]).max() < 0.08
        depths = np.resize([0, 2, 5], 16)
        own = (np.arange(16 * 20).reshape(16, 20) * 7 + 5) % student.vocab_size
        rows = Rows(cache, 16)
        for step in range(20):
            rows.look(len(prompt) + depths, np.full(16, step))
            found = _step(student, rows, own[:, step], len(prompt) + depths + step)
        for row in range(3):
            ids = [*prompt, *spine[: depths[row]], *own[row].tolist()]
            assert differences(found[row : row + 1], ids).max() < 0.08


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
