"""The engine on vLLM does what every engine must do. Needs vLLM: `make test-vllm`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from compute import models, scoring
from compute.engine import Launch
from compute.engine.vllm import VllmEngine
from compute.errors import ComputeError, Interrupted, StudyError
from compute.sampling import key
from compute.study import Chat
from store.schema import FinishReason
from tests.compute.engine_suite import LIMIT, EngineSuite, free, tokens


def open_vllm(model, slots=128, dtype="float32", **more):
    return VllmEngine(model, dtype=dtype, slots=slots, arguments={"enforce_eager": True, "max_model_len": 256} | more)


@pytest.fixture(scope="session")
def tiny(student):
    """One vLLM for all tests: a process holds one well."""
    return open_vllm(student)


class TestVllm(EngineSuite):
    batch_invariant = False

    @pytest.fixture(scope="class")
    def make(self, tiny):
        return lambda _model, _slots: tiny


def test_the_same_call_gives_the_same_completions(tiny, student):
    prompt, _ = _response(tiny, student)
    first, again = (tokens(tiny.complete(prompt, (), free(64), max_response_tokens=LIMIT)) for _ in range(2))
    assert first == again


def test_log_probs_agree_with_transformers(tiny, student):
    prompt, spine = _response(tiny, student)
    known = tiny.log_probs([*prompt, *spine], len(prompt), 10)
    expected = torch.log_softmax(student.logits(scoring.states(student, prompt, spine)[:-1]).double(), -1).numpy()
    there = known.token_id_TC >= 0
    found = np.take_along_axis(expected, np.where(there, known.token_id_TC, 0), axis=-1)
    assert np.abs(found - known.logprob_TC)[there].max() < 1e-4
    assert (known.n_top_T == 10).all()


def test_more_log_probs_than_the_cap_are_refused(tiny, student):
    prompt, spine = _response(tiny, student)
    with pytest.raises(ComputeError, match="at most 20 log-probabilities a position here, not 21"):
        tiny.log_probs([*prompt, *spine], len(prompt), 21)


def test_next_tokens_follow_the_students_distribution(tiny, student):
    """The tokens that vLLM draws itself: the second ones, after a forced first."""
    prompt, spine = _response(tiny, student)
    forced = spine[0]
    probabilities = torch.softmax(student.logits(scoring.states(student, prompt, [forced]))[-1], -1).numpy()
    n = 3000
    launches = [Launch(0, key(0, "q", "second", (), forced, at), forced=forced) for at in range(n)]
    second = [one[1] for one in tokens(tiny.complete(prompt, (), launches, max_response_tokens=2))]
    found = np.bincount(second, minlength=len(probabilities))
    likely = probabilities > 0.01
    error = (found / n - probabilities)[likely] / np.sqrt(probabilities * (1 - probabilities) / n)[likely]
    assert np.abs(error).max() < 4


def test_rows_of_the_head_that_are_no_tokens_are_never_drawn(tiny, student):
    """With a tokenizer that knows fewer tokens, the others are drawn again as if they had no mass."""
    size = student.vocab_size - 6
    fewer = dataclasses.replace(student, tokens=models.Tokens(student.tokens.token_bytes[:size], student.tokens.special_ids))
    prompt, _ = _response(tiny, student)
    tiny.model = fewer
    try:
        done = tiny.complete(prompt, (), free(200), max_response_tokens=12, temperature=2.0)
    finally:
        tiny.model = student
    assert max(max(one.token_ids) for one in done) < size
    assert all(len(one.token_ids) == 12 for one in done if one.finish_reason is FinishReason.LENGTH)


def test_a_stop_leaves_the_engine_usable(tiny, student):
    prompt, _ = _response(tiny, student)

    def stop(_n):
        raise Interrupted("stopped by a test")

    with pytest.raises(Interrupted):
        tiny.complete(prompt, (), free(50, name="stop"), max_response_tokens=LIMIT, tick=stop)
    assert len(tiny.complete(prompt, (), free(3), max_response_tokens=LIMIT)) == 3


def test_what_a_study_may_not_set_is_refused(student):
    with pytest.raises(StudyError, match="may not set trust_remote_code"):
        open_vllm(student, trust_remote_code=True)


def test_a_prompt_beyond_the_window_is_one_sentence(tiny, student):
    with pytest.raises(ComputeError, match="vLLM refuses a completion"):
        tiny.complete([3] * 400, (), [Launch(0, 1, forced=3)], max_response_tokens=LIMIT)


def _response(engine, student):
    prompt = student.prompt_ids("3+5+4?", Chat())
    return prompt, max(tokens(engine.complete(prompt, (), free(8), max_response_tokens=LIMIT)), key=len)
