"""Memory that does not suffice: smaller batches, the same completions, one sentence."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from compute import scoring
from compute.engine import Launch
from compute.engine.batched import BatchedEngine
from compute.engine.memory import available, is_refusal
from compute.engine.transformers import TransformersEngine
from compute.errors import ComputeError
from compute.sampling import key
from tests.compute.engine_suite import tokens
from tests.compute.test_architectures import PROMPT, SPINE, build

LAUNCHES = [Launch(depth, key(0, "q", "m", SPINE[:depth], -1, n)) for depth in (0, 4, 12) for n in range(50)]
LIMIT = 30
#: Run in a process of its own: the same work, free or under a limit on the address space, a little above what is taken.
PROGRAM = """
import json, resource, sys
import torch
from compute.engine.memory import available
from compute.engine.transformers import TransformersEngine
from tests.compute.test_memory import LAUNCHES, PROMPT, SPINE, tokens, wide

model = wide()
notes = []
engine = TransformersEngine(model, slots=128, note=notes.append)
engine.complete(PROMPT, SPINE, LAUNCHES[:20], max_response_tokens=20)  # whatever is loaded late
if sys.argv[1] != "free":
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]), resource.RLIM_INFINITY))
    assert available(torch.device("cpu")) <= int(sys.argv[1])
print(json.dumps([tokens(engine.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=20)), notes, engine.slots]))
"""


def wide():
    """A model whose step with 128 rows takes some 60 MB."""
    return build("Llama", {"intermediate_size": 40_000, "num_hidden_layers": 1})


def run(limit: str):
    done = subprocess.run([sys.executable, "-c", PROGRAM, limit], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="the limit is Linux's")
def test_a_limit_on_the_address_space_halves_the_batch_and_changes_nothing():
    expected, no_notes, slots = run("free")
    assert no_notes == [] and slots == 128
    found, notes, slots = run(str(24 << 20))
    assert found == expected
    assert 16 <= slots < 128
    assert notes and all("going on with" in one for one in notes)


class Refusing(torch.utils._python_dispatch.TorchDispatchMode):
    """An allocator that refuses results of more than `most` elements, counting what it refused."""

    def __init__(self, most: int, error: type[Exception] = RuntimeError) -> None:
        super().__init__()
        self.most, self.error, self.refused = most, error, 0

    def __torch_dispatch__(self, function, kinds, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() > 4 * self.most:
            self.refused += 1
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate too many bytes.")
        return result


@pytest.mark.parametrize("engine_of", [TransformersEngine, BatchedEngine])
@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError, MemoryError])
def test_a_refusal_halves_the_batch_and_changes_nothing(engine_of, error):
    model = build("Llama", {"intermediate_size": 4000})
    expected = tokens(engine_of(model, slots=128).complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT))
    notes = []
    engine = engine_of(model, slots=128, note=notes.append)
    with Refusing(4000 * 40, error) as allocator:
        found = tokens(engine.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT))
        refused = allocator.refused
        again = tokens(engine.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT))
    assert refused > 0
    assert found == again == expected
    assert engine.slots <= 32
    assert len(notes) == allocator.refused == refused  # nothing is tried again that failed


def test_without_memory_for_the_least_batch_it_says_so():
    model = build("Llama", {"intermediate_size": 4000})
    engine = TransformersEngine(model, slots=128)
    with Refusing(4000 * 15), pytest.raises(ComputeError, match="no memory on cpu for 16 completions"):
        engine.complete([5], [], LAUNCHES[:40], max_response_tokens=LIMIT)


def test_a_hard_limit_bounds_the_batch():
    model = build("Llama", {"intermediate_size": 4000})
    free, bound = TransformersEngine(model, slots=0), TransformersEngine(model, slots=0, memory_limit=3_000_000)
    expected = tokens(free.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT))
    assert free.slots > 100
    assert tokens(bound.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT)) == expected
    assert 16 <= bound.slots < 64


def test_other_errors_are_no_refusals():
    assert not is_refusal(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_refusal(KeyboardInterrupt())
    assert available(torch.device("cpu")) > 100 << 20


def test_scores_are_the_same_in_any_chunk_and_after_a_refusal():
    torch.manual_seed(0)
    heads, (ours, theirs) = torch.randn(2, 5000, 8), torch.randn(2, 100, 8)
    ids = (np.arange(100) * 37 + 5) % 5000
    sides = [scoring.log_probs(lambda one, head=head: one @ head.T) for head in heads]

    def score(chunk):
        mine = scoring.score_student(sides[0], ours, ids, 8, chunk=chunk)
        return mine, scoring.score_teacher(sides[0], ours, sides[1], theirs, ids, mine.topk_token_id_TC, chunk=chunk)

    expected = score(64)
    for chunk in (16, 33, 99):
        for one, other in zip(expected, score(chunk), strict=True):
            for name in one.__slots__:
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=f"{chunk} {name}")
    with Refusing(5000 * 40) as allocator:
        for one, other in zip(expected, score(64), strict=True):
            for name in one.__slots__:
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert allocator.refused == 2
    with Refusing(5000 * 15), pytest.raises(ComputeError, match="no memory to score"):
        score(64)
