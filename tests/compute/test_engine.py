"""Shared-prefix decoding gives what plain generation gives, whatever shares the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compute import scoring
from compute.engine import Launch
from compute.engine.drawing import draw
from compute.engine.transformers import TransformersEngine
from compute.sampling import key
from store.schema import FinishReason

LIMIT = 32


@pytest.fixture(scope="module")
def engine(student):
    return TransformersEngine(student)


@pytest.fixture(scope="module")
def prompt(student):
    from compute.study import Chat

    return student.prompt_ids("3+5+4?", Chat())


def free(n, depth=0, name="q"):
    return [Launch(depth, key(0, name, "rollout", (), -1, sample)) for sample in range(n)]


def tokens(completions):
    return [one.token_ids.tolist() for one in completions]


def test_a_cold_completion_is_what_generate_gives(engine, student, prompt):
    spine = engine.complete(prompt, (), free(1), max_response_tokens=LIMIT)[0].token_ids.tolist()
    for depth in range(0, len(spine) - 1, 3):
        launches = [Launch(depth, key(0, "q", "cold", spine[:depth], -1, n)) for n in range(3)]
        found = tokens(engine.complete(prompt, spine, launches, max_response_tokens=LIMIT, temperature=1e-4))
        ids = torch.tensor([[*prompt, *spine[:depth]]])
        plain = student.network.generate(
            ids, max_new_tokens=LIMIT - depth, do_sample=False, eos_token_id=list(student.end_ids), pad_token_id=0
        )[0, ids.shape[1] :].tolist()
        assert found == [plain] * 3


def test_completions_do_not_depend_on_slots_or_order_or_company(student, prompt):
    spine = TransformersEngine(student).complete(prompt, (), free(1), max_response_tokens=LIMIT)[0].token_ids.tolist()
    launches = [Launch(depth, key(0, "q", "any", spine[:depth], -1, n)) for depth in (0, 2, 5) for n in range(40)]
    expected = tokens(TransformersEngine(student, slots=128).complete(prompt, spine, launches, max_response_tokens=LIMIT))
    for slots in (16, 48):
        found = tokens(
            TransformersEngine(student, slots=slots).complete(prompt, spine, launches[::-1], max_response_tokens=LIMIT)
        )
        assert found[::-1] == expected
    alone = [
        tokens(TransformersEngine(student).complete(prompt, spine, [one], max_response_tokens=LIMIT))[0] for one in launches[::17]
    ]
    assert alone == expected[::17]


def test_the_forced_token_comes_first_and_the_excluded_never(engine, student, prompt):
    forced = [Launch(0, key(0, "q", "f", (), 7, n), forced=7) for n in range(20)]
    assert {one[0] for one in tokens(engine.complete(prompt, (), forced, max_response_tokens=LIMIT))} == {7}
    likely = int(torch.argmax(student.logits(scoring.states(student, prompt, ()))[0]))
    restricted = [Launch(0, key(0, "q", "x", (), -1, n), excluded=(likely,)) for n in range(60)]
    assert likely not in {one[0] for one in tokens(engine.complete(prompt, (), restricted, max_response_tokens=LIMIT))}


def test_first_tokens_follow_the_students_distribution(engine, student, prompt):
    probabilities = torch.softmax(student.logits(scoring.states(student, prompt, ()))[0], -1).numpy()
    n = 3000
    found = np.bincount(
        [one[0] for one in tokens(engine.complete(prompt, (), free(n), max_response_tokens=2))], minlength=len(probabilities)
    )
    likely = probabilities > 0.01
    error = (found / n - probabilities)[likely] / np.sqrt(probabilities * (1 - probabilities) / n)[likely]
    assert np.abs(error).max() < 4


def test_the_length_limit_is_on_the_whole_response(engine, prompt, student):
    spine = engine.complete(prompt, (), free(1), max_response_tokens=LIMIT)[0].token_ids.tolist()
    found = engine.complete(prompt, spine, free(30, depth=3), max_response_tokens=6)
    for one in found:
        assert len(one.token_ids) <= 3
        ended = int(one.token_ids[-1]) in student.end_ids
        assert one.finish_reason is (FinishReason.STOP if ended else FinishReason.LENGTH)
    assert any(one.truncated for one in found)


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


def test_scores_equal_those_of_whole_distributions(student, teacher, prompt):
    """Chunked scoring against the formulas on full [T, V] arrays."""
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
