"""An engine of the user's own: named in a study, as good as ours, and told of in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compute.errors import StudyError
from compute.progress import Reporter
from compute.setup import prepare
from tests.conftest import CHAIN_SUMS, run_opd, small_study
from tests.stored import stored

#: A whole engine in a few lines: everything alone, one forward a token.
ENGINE = """
import numpy as np
import torch
from compute.engine import Completion
from compute.engine.drawing import draw
from compute.sampling import uniforms
from store.schema import FinishReason


class Plain:
    batch_shape = "one completion at a time"

    def __init__(self, model):
        self.model = model

    @torch.inference_mode()
    def complete(self, prompt_ids, spine, launches, *, max_response_tokens, temperature=1.0, tick=None):
        return [self.one([*prompt_ids, *spine[: one.depth]], one, max_response_tokens, temperature, tick) for one in launches]

    def one(self, ids, launch, limit, temperature, tick):
        own = [] if launch.forced is None else [launch.forced]
        while not own or (own[-1] not in self.model.end_ids and launch.depth + len(own) < limit):
            padded = torch.tensor([[*ids, *own]] * 16)
            logits = self.model.logits(self.model.decoder(input_ids=padded, use_cache=False).last_hidden_state[:1, -1])
            if not own and launch.excluded:
                logits[0, list(launch.excluded)] = -torch.inf
            key, step = np.array([launch.key], dtype=np.uint64), np.array([len(own)])
            own.append(int(draw(logits, temperature, uniforms(key, step))[0]))
            if tick is not None:
                tick(1)
        ended = own[-1] in self.model.end_ids
        return Completion(np.array(own, dtype=np.int32), FinishReason.STOP if ended else FinishReason.LENGTH)


def broken(model):
    raise RuntimeError("no such accelerator")

def no_engine(model):
    return model
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("engine")
    (path / "mine.py").write_text(ENGINE)
    return path


def test_a_study_runs_on_it_and_the_store_says_so(folder):
    study = small_study(folder, limit=1, n_min=4)
    text = study.read_text().replace("n_rollouts = 24", "n_rollouts = 8")
    study.write_text(text.replace("[engine]\n", '[engine]\nkind = "mine.py:Plain"\n'))
    assert run_opd("compute", study, "-o", folder / "mine.zarr").returncode == 0
    assert run_opd("compute", study, "-o", folder / "usual.zarr", "--engine", "transformers").returncode == 0
    assert stored(folder / "mine.zarr") == stored(folder / "usual.zarr")
    said = [json.loads(run_opd("info", folder / f"{name}.zarr", "--json").stdout)["made_with"] for name in ("mine", "usual")]
    assert said[0] == ["mine.py:Plain, float32 on cpu, one completion at a time"]
    assert said[1] == ["transformers, float32 on cpu, up to 256 completions together"]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("mine.py:broken", "mine.py:broken failed: RuntimeError: no such accelerator"),
        ("mine.py:no_engine", "what mine.py:no_engine gives is no engine"),
        ("mine.py:absent", "has no function `absent`"),
        ("other.py:Plain", "there is no file"),
        ("tensorrt", "'tensorrt' is no engine; there is transformers, vllm, or FILE.py:FUNCTION"),
    ],
)
def test_what_is_no_engine_is_one_sentence(folder, kind, sentence):
    study = small_study(folder, limit=1)
    with pytest.raises(StudyError, match=sentence.replace("(", r"\(")):
        prepare(study, Reporter(0), engine=kind)


def test_the_example_is_the_one_of_the_docs():
    page = (CHAIN_SUMS.parent.parent / "docs" / "engine.md").read_text()
    assert ENGINE.split("def broken", maxsplit=1)[0].strip() in page
