"""Memory that does not suffice: smaller batches, the same completions, one sentence."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from compute import scoring
from compute.engine import Launch
from compute.engine.batched import BatchedEngine
from compute.engine.memory import Budget, available, is_refusal
from compute.engine.transformers import TransformersEngine
from compute.errors import ComputeError
from compute.models import Tokens
from compute.sampling import key
from compute.served.known import pack
from compute.served.scores import score_served
from compute.study import Engine
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
from compute.scoring import chunk_on
from tests.compute.test_memory import LAUNCHES, PROMPT, SPINE, tokens, wide

model = wide()
notes = []
engine = TransformersEngine(model, slots=128, note=notes.append)
engine.complete(PROMPT, SPINE, LAUNCHES[:20], max_response_tokens=20)  # whatever is loaded late
if sys.argv[1] != "free":
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]), resource.RLIM_INFINITY))
    assert available(torch.device("cpu")) <= int(sys.argv[1])
chunk = chunk_on(torch.device("cpu"))
print(json.dumps([tokens(engine.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=20)), notes, engine.slots, chunk]))
"""


def wide():
    """A model whose step with 128 rows takes some 60 MB."""
    return build("Llama", {"intermediate_size": 40_000, "num_hidden_layers": 1})


def run(limit: str):
    done = subprocess.run([sys.executable, "-c", PROGRAM, limit], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.full
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="the limit is Linux's")
def test_a_limit_on_the_address_space_halves_the_batch_and_changes_nothing():
    expected, no_notes, slots, chunk = run("free")
    assert no_notes == [] and slots == 128 and chunk == 64
    found, notes, slots, chunk = run(str(40 << 20))
    assert found == expected
    assert 16 <= slots < 128 and chunk == 16
    assert notes and all("going on with" in one for one in notes)


class Refusing(torch.utils._python_dispatch.TorchDispatchMode):
    """An allocator that refuses results of more than `most` elements, counting what it refused.

    Not for recorded programs: an error raised from Python inside of one loses its text, which torch's own do not.
    """

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
@pytest.mark.parametrize(
    "error", [RuntimeError, *(pytest.param(one, marks=pytest.mark.full) for one in (torch.OutOfMemoryError, MemoryError))]
)
def test_a_refusal_halves_the_batch_and_changes_nothing(engine_of, error, monkeypatch):
    monkeypatch.setattr("compute.engine.transformers._recorded", lambda _model: None)
    model = build("Llama", {"intermediate_size": 4000})
    launches = [Launch(depth, key(0, "q", "m", SPINE[:depth], -1, n)) for depth in (0, 12) for n in range(150)]
    expected = tokens(engine_of(model, slots=256).complete(PROMPT, SPINE, launches, max_response_tokens=LIMIT))
    notes = []
    engine = engine_of(model, slots=256, note=notes.append)
    with Refusing(4000 * 65, error) as allocator:  # a prefix takes 64 rows
        found = tokens(engine.complete(PROMPT, SPINE, launches, max_response_tokens=LIMIT))
        refused = allocator.refused
        again = tokens(engine.complete(PROMPT, SPINE, launches, max_response_tokens=LIMIT))
    assert refused == 2
    assert found == again == expected
    assert engine.slots <= 64
    assert len(notes) == allocator.refused == refused  # nothing is tried again that failed


def test_without_memory_for_the_least_batch_it_says_so():
    def work(rows):
        with Refusing(4000 * 15):
            torch.zeros(rows, 4000)

    with pytest.raises(ComputeError, match="no memory on cpu for 16 completions"):
        Budget(torch.device("cpu"), 128, 16, None, lambda _text: None).run(work, 100)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda model: TransformersEngine(model).complete, "the prefix that completions share, 20 tokens"),
        (lambda model: BatchedEngine(model).complete, "the prefix that completions share, 8 tokens"),
        (lambda model: lambda *_, **__: scoring.states(model, PROMPT, SPINE), "1 x 20 tokens of prompt and response in Llama"),
        (lambda model: lambda *_, **__: scoring.batch_states(model, PROMPT, [SPINE, []]), "2 x 20 tokens"),
    ],
)
def test_what_cannot_be_halved_says_so_too(what, words):
    work = what(build("Llama", {"intermediate_size": 4000}))
    with Refusing(4000 * 5), pytest.raises(ComputeError, match=f"no memory on cpu for {words}.*; lower `sampling") as found:
        work(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("engine_of", [TransformersEngine, BatchedEngine])
def test_without_memory_for_first_tokens_it_says_so(engine_of):
    model = build("Llama", {"vocab_size": 4000})
    wide = replace(model, tokens=Tokens(tuple(b"%d" % at for at in range(4000)), ()))
    engine = engine_of(wide)
    with Refusing(4000 * 15), pytest.raises(ComputeError, match="no memory on cpu for the prefix"):
        engine.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT)


def test_a_hard_limit_bounds_the_batch():
    model = build("Llama", {"intermediate_size": 4000})
    free, bound = TransformersEngine(model, slots=0), TransformersEngine(model, slots=0, memory_limit=3_000_000)
    expected = tokens(free.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT))
    assert free.slots > 100
    assert tokens(bound.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT)) == expected
    assert 16 <= bound.slots < 64


@pytest.mark.parametrize("engine_of", [TransformersEngine, BatchedEngine])
def test_a_limit_below_the_least_batch_is_exceeded_and_said_once(engine_of):
    model = build("Llama", {"intermediate_size": 4000})
    expected = tokens(engine_of(model, slots=0).complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT))
    notes = []
    engine = engine_of(model, slots=0, memory_limit=100_000, note=notes.append)
    for _ in range(2):
        assert tokens(engine.complete(PROMPT, SPINE, LAUNCHES, max_response_tokens=LIMIT)) == expected
    assert engine.slots == 16
    (note,) = notes
    assert "16 completions at once" in note and "`engine.memory_limit`" in note


def test_a_limit_counts_the_prefix():
    notes = []
    budget = Budget(torch.device("cpu"), 128, 16, 100_000, notes.append)
    assert [budget.rows(500, 1000, shared) for shared in (0, 40_000, 80_000)] == [100, 60, 20]
    assert notes == []
    assert budget.rows(500, 1000, 90_000) == 16
    assert len(notes) == 1


def test_by_default_memory_bounds_the_batch():
    assert Engine().slots == 0
    cpu = torch.device("cpu")
    budget = Budget(cpu, Engine().slots, 16, None, lambda _text: None)
    assert budget.rows(1000, 1, 0) == 256
    assert 40 < budget.rows(1000, available(cpu) // 100, 0) < 100


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


def test_scores_of_a_served_teacher_are_the_same_in_any_chunk_and_after_a_refusal():
    torch.manual_seed(0)
    head, states = torch.randn(5000, 8), torch.randn(100, 8)
    student = scoring.log_probs(lambda one: one @ head.T)
    ids = (np.arange(100) * 37 + 5) % 5000
    known = pack([([at, 7, 4001], [-0.5, -1.5, -3.0], {at: -0.5}) for at in ids.tolist()], 5000)
    topk_TC = np.resize(np.array([1, 7, 30, 4001], dtype=np.int32), (100, 4))
    expected = score_served(student, states, known, ids, topk_TC)

    def assert_rows(found, rows):
        for name in expected.__slots__:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[rows], err_msg=name)

    for rows in (slice(3, 4), slice(40, 55), slice(17, 100)):
        assert_rows(score_served(student, states[rows], known[rows], ids[rows], topk_TC[rows]), rows)
    with Refusing(5000 * 40) as allocator:
        assert_rows(score_served(student, states, known, ids, topk_TC), slice(None))
    assert allocator.refused == 1
