"""The recorded decode step: the decoder's own numbers, bit for bit, the model's own weights, and no program where it differs."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from compute.engine.attention import Rows, Together
from compute.engine.batched import MIN_ROWS
from compute.engine.memory import is_refusal
from compute.engine.transformers import TransformersEngine, _prefix, _step
from tests.compute.engine_suite import DEVICES, tiny
from tests.compute.test_architectures import FIT, VOCABULARY, assert_greedy, build


def steps(model, program, parts):
    """States of eight steps of rows on several prefixes, up to 301 own tokens long, some of them dropped on the way."""
    caches = [_prefix(model, ((np.arange(150 - 70 * at) * 61 + at) % model.vocab_size).tolist())[0] for at in range(len(parts))]
    rows = [Rows(cache, n) for cache, n in zip(caches, parts, strict=True)]
    found = []
    for step in range(8):
        if step == 5:
            parts = [n - 4 for n in parts]
            for one, n in zip(rows, parts, strict=True):
                one.shrink(np.arange(n))
        kept = [np.arange(n) * 7 % (150 - 70 * at) + 1 for at, n in enumerate(parts)]
        for one, depths in zip(rows, kept, strict=True):
            one.look(depths, np.full(len(depths), 43 * step))
        seen = rows[0] if len(rows) == 1 else Together(rows)
        n = sum(parts)
        found.append(
            _step(model, seen, (np.arange(n) * 31 + 7 * step) % model.vocab_size, np.concatenate(kept) + 43 * step, program)
        )
    return found


@pytest.mark.parametrize("name", FIT)
@torch.inference_mode()
def test_a_program_gives_the_decoders_own_numbers(name):
    model = build(*FIT[name])
    program = TransformersEngine(model)._program
    assert program is not None
    for parts in ([20], [92], [24, 36]):
        for one, other in zip(steps(model, program, parts), steps(model, None, parts), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_and_those_of_the_tiny_student(device, dtype):
    model = tiny(device, dtype)
    program = TransformersEngine(model)._program
    assert program is not None or device != "cpu"
    for one, other in zip(steps(model, program, [88]), steps(model, None, [88]), strict=True):
        assert torch.equal(one, other)


class Looking(torch.nn.Module):
    """What it does depends on what it finds."""

    def forward(self, hidden):
        return hidden * 2 if hidden.abs().max() > 1000 else hidden


class Counting(torch.nn.Module):
    """Something else every time, and nothing of that in tensors."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, hidden):
        self.calls += 1
        return hidden * (1 + self.calls * 1e-6)


class Sized(torch.nn.Module):
    """Only right for the number of rows that it is recorded with."""

    def forward(self, hidden):
        return hidden * (1 + len(hidden) * 1e-6)


@pytest.mark.parametrize("part", [Looking, Counting, Sized])
def test_what_a_program_would_get_wrong_is_not_run_as_one(part):
    model, plain = build(*FIT["llama"]), build(*FIT["llama"])
    for one in (model, plain):
        one.decoder.layers[1].mlp.act_fn = torch.nn.Sequential(one.decoder.layers[1].mlp.act_fn, part())
    engine = TransformersEngine(model)
    assert engine._program is None
    assert_greedy(engine, plain)


def test_where_torch_records_nothing_the_decoder_is_called(monkeypatch):
    def gone(*_arguments, **_settings):
        raise RuntimeError("no longer there")

    monkeypatch.setattr(torch.jit, "trace", gone)
    model, plain = build(*FIT["qwen3"]), build(*FIT["qwen3"])
    engine = TransformersEngine(model)
    assert engine._program is None
    assert_greedy(engine, plain)


@torch.inference_mode()
def test_the_weights_are_the_models_own_and_go_with_it():
    model = build(*FIT["gemma"])
    program = TransformersEngine(model)._program
    before = steps(model, program, [16])
    weights = [weakref.ref(one) for one in model.decoder.parameters()]
    weight = model.decoder.layers[0].mlp.up_proj.weight
    weight.data = 2 * weight.data
    after = steps(model, program, [16])
    assert not torch.equal(before[-1], after[-1])
    assert torch.equal(after[-1], steps(model, None, [16])[-1])
    del model, program, weight
    gc.collect()
    assert all(one() is None for one in weights)


@torch.inference_mode()
def test_refused_memory_is_known_inside_a_program():
    class Greedy:
        def attend(self, *_arguments, **_settings):
            return torch.empty(1 << 58)

    ids = torch.arange(MIN_ROWS)[:, None] % VOCABULARY
    program = TransformersEngine(build(*FIT["llama"]))._program
    with pytest.raises(RuntimeError) as refused:
        program(Greedy(), ids, ids)
    assert is_refusal(refused.value)
