"""SmolLM2-135M on the engine: exact, and the same bit for bit however a study is run. Some ten minutes: `make test-smollm2`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from compute import models, scoring
from compute.engine import attention
from compute.engine.transformers import TransformersEngine
from tests.compute.engine_suite import EngineSuite
from tests.conftest import ROOT, run_opd
from tests.faults.test_workers import start, wait_for
from tests.stored import stored

SMOLLM2 = ROOT / "examples" / "smollm2"
PROMPT = """Problem: 3 + 5 + 4
Solution: 3 + 5 = 8. 8 + 4 = 12. Answer: 12

Problem: 4 + 9 + 2 + 3
Solution:"""


@pytest.fixture(scope="module")
def student() -> Iterator[models.Model]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield models.load(str(SMOLLM2 / "model"))
    torch.set_num_threads(before)


def encoded(student: models.Model, text: str) -> list[int]:
    return student.tokenizer(text, add_special_tokens=False)["input_ids"]


class TestSmolLM2(EngineSuite):
    @pytest.fixture(scope="class")
    def make(self):
        return lambda model, slots: TransformersEngine(model, slots=slots)

    @pytest.fixture(scope="class")
    def prompt(self, student):
        return encoded(student, PROMPT)


def test_distributions_are_those_of_a_plain_forward(student):
    """Of every node of a response, in one forward, against a forward over each prefix alone."""
    prompt, spine = encoded(student, PROMPT), encoded(student, " 4 + 9 = 13. 13 + 2 = 15. 15 + 3 = 18.")
    found = torch.log_softmax(student.logits(scoring.states(student, prompt, spine)), -1)
    plain = models.load(str(SMOLLM2 / "model"))
    assert plain.decoder.config._attn_implementation != attention.NAME
    with torch.inference_mode():
        for depth in range(0, len(spine), 4):
            logits = plain.network(torch.tensor([[*prompt, *spine[:depth]]])).logits[0, -1]
            assert (torch.log_softmax(logits, -1).exp() - found[depth].exp()).abs().max() < 1e-5


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("smollm2"), 128)


def written(folder: Path, slots: int) -> Path:
    """A cut of the example: three questions, some 500 completions."""
    text = (SMOLLM2 / "chain_sums.toml").read_text()
    for key, value in (
        ('model = "model"', f'model = "{SMOLLM2 / "model"}"'),
        ("n_rollouts = 32", "n_rollouts = 20"),
        ("limit = 16", "limit = 3"),
        ("k = 3\nr = 2\nn_min = 30\nn_sig = 20", "k = 2\nr = 1\nn_min = 8\nn_sig = 4"),
        ("minutes = 10", "questions = 1"),
        ("[engine]\n", f"[engine]\nslots = {slots}\n"),
    ):
        assert key in text
        text = text.replace(key, value)
    path = folder / f"slots{slots}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> dict[str, str]:
    return computed(study, study.with_name("whole.zarr"))


def computed(study: Path, out: Path, *words: str) -> dict[str, str]:
    done = run_opd("compute", study, "-o", out, *words)
    assert done.returncode == 0, done.stderr
    return stored(out)


@pytest.mark.parametrize("slots", [16, 64])
def test_a_store_is_the_same_with_fewer_slots(undisturbed, tmp_path, slots):
    assert computed(written(tmp_path, slots), tmp_path / "s.zarr") == undisturbed


def test_a_store_is_the_same_with_two_workers(study, undisturbed, tmp_path):
    assert computed(study, tmp_path / "s.zarr", "--workers", "2") == undisturbed


def test_a_store_is_the_same_in_another_order(study, undisturbed, tmp_path):
    for shard in ("3/3", "1/3"):
        run_opd("compute", study, "-o", tmp_path / "s.zarr", "--shard", shard)
    assert computed(study, tmp_path / "s.zarr", "--shard", "2/3") == undisturbed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_store_is_the_same_after_an_interruption(study, undisturbed, tmp_path, number):
    process = start(study, tmp_path / "s.zarr")
    wait_for(process, "completions")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, 130)
    assert computed(study, tmp_path / "s.zarr") == undisturbed
