"""Enumeration says truly how much it has not looked at."""

from __future__ import annotations

import numpy as np
import torch

from compute import oracle, scoring
from compute.oracle import Oracle
from compute.study import Chat

LIMIT = 24


def make(student):
    return Oracle(student, student.prompt_ids("3+5+4?", Chat()), LIMIT, lambda tokens: len(tokens) % 2 == 0)


def test_a_finer_answer_is_looked_for_when_it_is_asked_for(student):
    asked, fresh = make(student), make(student)
    (coarse,) = asked.p_succ([()], 0.3)
    assert coarse.unexplored > 0.02
    (fine,), (at_once,) = asked.p_succ([()], 0.01), fresh.p_succ([()], 0.01)
    assert fine.unexplored <= 0.011
    assert abs(fine.success - at_once.success) <= 1e-6
    assert coarse.success <= fine.success + 1e-9
    assert fine.success + fine.unexplored <= coarse.success + coarse.unexplored + 1e-9
    assert asked.p_succ([()], 0.3) == [fine]


def test_prefixes_of_several_lengths_are_read_as_alone(student):
    """Padding on the left changes no distribution."""
    prompt, found = student.prompt_ids("3+5+4?", Chat()), make(student)
    found.p_succ([()], 0.02)
    prefixes = sorted(found._next, key=len)[:: max(1, len(found._next) // 40)]
    assert len({len(one) for one in prefixes}) > 5
    for prefix in prefixes:
        with torch.inference_mode():
            alone = torch.softmax(student.logits(scoring.states(student, prompt, prefix))[-1].double(), -1).numpy()
        assert np.abs(found._next[prefix] - alone).max() < 1e-5


def test_what_is_too_light_to_look_at_counts_as_unexplored(student, monkeypatch):
    prompt = student.prompt_ids("3+5+4?", Chat())

    def teacher(prefixes):
        ids = torch.tensor([[*prompt, *one] for one in prefixes])
        with torch.inference_mode():
            states = student.decoder(input_ids=ids).last_hidden_state[:, -1]
            return torch.log_softmax(student.logits(states).double() / 1.3, -1).numpy()

    usual = make(student).later((), teacher, 0.02)
    assert usual.unexplored <= 0.021
    monkeypatch.setattr(oracle, "_NEGLIGIBLE", 10.0)  # of a tolerance of .02: prefixes lighter than .2
    coarse = make(student).later((), teacher, 0.02)
    assert coarse.unexplored > 0.2
    assert usual.success < coarse.success < 0.0
