"""What every engine must do. A test module of an engine subclasses `EngineSuite` and says how to make one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from compute import models, scoring
from compute.engine import Job, Launch, complete_jobs
from compute.sampling import key, uniforms
from compute.study import Chat
from store.schema import FinishReason
from tests.conftest import CHAIN_SUMS

LIMIT = 32
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def tiny(device, dtype="float32"):
    """A tiny student of one's own: shared-prefix decoding changes the model's attention."""
    torch.set_num_threads(1)
    return models.load(str(CHAIN_SUMS / "student"), dtype=dtype, device=device)


def free(n, depth=0, name="q"):
    return [Launch(depth, key(0, name, "rollout", (), -1, sample)) for sample in range(n)]


def tokens(completions):
    return [one.token_ids.tolist() for one in completions]


def greedy(student, prompt, limit):
    """What the model's own `generate` says."""
    ids = torch.tensor([prompt], device=student.device)
    found = student.network.generate(
        ids, max_new_tokens=limit, do_sample=False, eos_token_id=list(student.end_ids), pad_token_id=0
    )
    return found[0, len(prompt) :].tolist()


def logits_of(engine, work: Sequence[tuple], *, together: bool = False, **settings):
    """The logits behind every draw of calls (prompt, spine, launches), or of them as jobs of one batch, as bytes by the
    draw's random number.

    Idle slots draw along with the key of the last launch, so its draws are left out.
    """
    module, seen = sys.modules[type(engine).__module__], {}
    plain = module.draw

    def draw(logits, temperature, uniform_B):
        seen.update(zip(uniform_B.tolist(), (row.tobytes() for row in logits.cpu().numpy()), strict=True))
        return plain(logits, temperature, uniform_B)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw", draw)
        jobs = [Job(*one) for one in work]
        for batch in [jobs] if together else [[one] for one in jobs]:
            done = complete_jobs(engine, batch, **settings)
            assert [len(one) for one in done] == [len(one.launches) for one in batch]
        for _, _, launches in work:
            last = np.full(1000, launches[-1].key, dtype=np.uint64)
            for uniform in uniforms(last, np.arange(1000)).tolist():
                seen.pop(uniform, None)
    return seen


class EngineSuite:
    """Give `make`, a function from a model and the most completions at once to an engine."""

    #: Whether a completion is the same bit for bit in whatever batch it runs.
    batch_invariant = True

    @pytest.fixture(scope="class")
    def make(self):
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def engine(self, make, student):
        return make(student, 128)

    @pytest.fixture(scope="class")
    def prompt(self, student):
        return student.prompt_ids("3+5+4?", Chat())

    @pytest.fixture(scope="class")
    def spine(self, engine, prompt):
        return tokens(engine.complete(prompt, (), free(1), max_response_tokens=LIMIT))[0]

    def test_nothing_to_do_is_done(self, engine, prompt):
        assert engine.complete(prompt, (), [], max_response_tokens=LIMIT) == []

    def test_a_greedy_completion_is_what_generate_gives(self, engine, student, prompt, spine):
        depths = range(0, len(spine) - 1, 3)
        launches = [Launch(depth, key(0, "q", "cold", spine[:depth], -1, n)) for depth in depths for n in range(3)]
        found = tokens(engine.complete(prompt, spine, launches, max_response_tokens=LIMIT, temperature=0.0))
        for at, depth in enumerate(depths):
            assert found[3 * at : 3 * at + 3] == [greedy(student, [*prompt, *spine[:depth]], LIMIT - depth)] * 3

    @pytest.mark.parametrize("left_over", [1, 7, 16])
    def test_completions_do_not_depend_on_slots_or_order(self, make, student, engine, prompt, spine, left_over):
        """Nodes of several depths in one batch, so that rows see different widths; the last batch is almost empty."""
        if not self.batch_invariant:
            assert engine.batch_shape, "an engine whose results depend on the batch says what its batches are"
            return
        each = (128 + left_over) // 3 + 1
        launches = [Launch(depth, key(0, "q", "any", spine[:depth], -1, n)) for depth in (0, 2, 5) for n in range(each)]
        launches = launches[: 128 + left_over]
        expected = tokens(engine.complete(prompt, spine, launches, max_response_tokens=LIMIT))
        shuffled = np.random.default_rng(left_over).permutation(len(launches))
        for slots in (16, 64):
            found = tokens(
                make(student, slots).complete(prompt, spine, [launches[at] for at in shuffled], max_response_tokens=LIMIT)
            )
            assert found == [expected[at] for at in shuffled]

    def test_a_completion_alone_is_the_one_in_company(self, engine, prompt, spine):
        if not self.batch_invariant:
            return
        launches = [Launch(depth, key(0, "q", "any", spine[:depth], -1, n)) for depth in (0, 2, 5) for n in range(20)]
        expected = tokens(engine.complete(prompt, spine, launches, max_response_tokens=LIMIT))
        alone = [tokens(engine.complete(prompt, spine, [one], max_response_tokens=LIMIT))[0] for one in launches[::17]]
        assert alone == expected[::17]

    def test_jobs_together_are_those_alone(self, engine, student):
        """Prompts of several lengths, more rows than slots, a job of nothing, and one that is as good as done."""
        prompts = [student.prompt_ids(asked, Chat()) for asked in ("3+5+4?", "9+9?", "1+2+3+4?", "5+5+5?")]
        jobs = [Job(prompt, (), free(n, name=str(n))) for prompt, n in zip(prompts, (40, 3, 21, 90), strict=True)]
        spine = tokens(engine.complete(prompts[0], (), free(1), max_response_tokens=LIMIT))[0]
        jobs += [Job(prompts[0], spine, [Launch(3, key(0, "q", "deep", spine[:3], -1, n)) for n in range(9)])]
        jobs += [Job(prompts[0], (), [])]
        found = complete_jobs(engine, jobs, max_response_tokens=LIMIT)
        assert [len(one) for one in found] == [40, 3, 21, 90, 9, 0]
        if self.batch_invariant:
            alone = [engine.complete(one.prompt_ids, one.spine, one.launches, max_response_tokens=LIMIT) for one in jobs]
            assert [tokens(one) for one in found] == [tokens(one) for one in alone]

    def test_the_forced_token_comes_first_and_the_excluded_never(self, engine, student, prompt):
        forced = [Launch(0, key(0, "q", "f", (), 7, n), forced=7) for n in range(20)]
        assert {one[0] for one in tokens(engine.complete(prompt, (), forced, max_response_tokens=LIMIT))} == {7}
        likely = int(torch.argmax(student.logits(scoring.states(student, prompt, ()))[0]))
        restricted = [Launch(0, key(0, "q", "x", (), -1, n), excluded=(likely,)) for n in range(60)]
        assert likely not in {one[0] for one in tokens(engine.complete(prompt, (), restricted, max_response_tokens=LIMIT))}

    @pytest.mark.parametrize("depth", [0, 2])
    def test_first_tokens_follow_the_students_distribution(self, engine, student, prompt, spine, depth):
        probabilities = torch.softmax(student.logits(scoring.states(student, prompt, spine[:depth]))[-1], -1).cpu().numpy()
        n = 3000
        found = np.bincount(
            [one[0] for one in tokens(engine.complete(prompt, spine, free(n, depth), max_response_tokens=depth + 1))],
            minlength=len(probabilities),
        )
        likely = probabilities > 0.01
        error = (found / n - probabilities)[likely] / np.sqrt(probabilities * (1 - probabilities) / n)[likely]
        assert np.abs(error).max() < 4

    def test_the_length_limit_is_on_the_whole_response(self, engine, prompt, student, spine):
        found = engine.complete(prompt, spine, free(30, depth=3), max_response_tokens=6)
        for one in found:
            assert len(one.token_ids) <= 3
            ended = int(one.token_ids[-1]) in student.end_ids
            assert one.finish_reason is (FinishReason.STOP if ended else FinishReason.LENGTH)
        assert any(one.truncated for one in found)

    def test_every_drawn_token_is_counted(self, engine, prompt, spine):
        counted = []
        done = engine.complete(prompt, spine, free(40, depth=2), max_response_tokens=LIMIT, tick=counted.append)
        n_tokens = sum(len(one.token_ids) for one in done)
        assert n_tokens - len(done) <= sum(counted) <= n_tokens  # first tokens may be forced ones
