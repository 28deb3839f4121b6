"""TRL takes what `opd-tui decide` writes, through examples/trl/distil.py. Needs TRL: `make test-trl`."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback
from trl.experimental.gkd import GKDTrainer
from trl.experimental.sdft.loss_utils import (
    compute_full_logit_self_distillation_loss,
    compute_sampled_token_self_distillation_loss,
    compute_topk_self_distillation_loss,
)
from trl.trainer.distillation_trainer import _chunked_divergence_loss
from typer.testing import CliRunner

import store
from compute.objectives import update
from opd_tui.cli import app

ROOT = Path(__file__).resolve().parents[2]
CHAIN_SUMS = ROOT / "examples" / "chain_sums"


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("distil_of_the_example", ROOT / "examples" / "trl" / "distil.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


distil = load_example()


@pytest.fixture(scope="module")
def opened() -> Any:
    torch.set_num_threads(1)
    return store.open(CHAIN_SUMS / "chain_sums.zarr")


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's trainer for a decision that is made and written here."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def make(kind: str, *words: str) -> Any:
        out = tmp_path / f"{kind}.jsonl"
        command = ["decide", str(CHAIN_SUMS / "chain_sums.zarr"), "--kind", kind, "--format", "trl", "-o", str(out), *words]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (done.output, done.exception)
        return distil.main(kind, str(out), output_dir=str(tmp_path / "out"))

    return make


def frozen(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(CHAIN_SUMS / name, dtype=torch.float32).eval()


def log_probs(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Of every next token along the response, one sequence at a time and without padding: [T, vocabulary]."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0]
    return torch.log_softmax(logits[len(prompt) - 1 : -1].double(), -1)


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student.exp() * (student - teacher)).sum(-1)


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class Seen(TrainerCallback):
    """Every batch as SDFTTrainer has made it."""

    def __init__(self) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []

    def on_self_distillation_batch_prepared(self, args: Any, state: Any, control: Any, **batch: Any) -> None:
        self.batches.append({name: value for name, value in batch.items() if isinstance(value, torch.Tensor)})


def unpadded(ids: torch.Tensor, pad: int) -> list[int]:
    return [token for token in ids.tolist() if token != pad]


def test_every_question_has_the_context_that_routing_chose_in_the_teachers_prompt(opened: Any, trainer: Any) -> None:
    training = trainer("routing")
    seen = Seen()
    training.add_callback(seen)
    routed = {opened.question(row["question_id"]).prompt: row for row in training.train_dataset}
    assert {row["teacher"] for row in routed.values()} == {"self-answer", "self-1c"}
    before = [one.detach().clone() for one in training.model.parameters()]
    training.train()
    assert any((now != then).any() for now, then in zip(training.model.parameters(), before, strict=True))
    assert len(losses(training)) == len(seen.batches) == 3 and np.isfinite(losses(training)).all()
    tokenizer, model, first = training.processing_class, frozen("student"), []
    pad, met = tokenizer.pad_token_id, set()
    for batch in seen.batches:
        n = batch["completion_ids"].shape[1]
        for ours, theirs, response in zip(batch["prompt_ids"], batch["teacher_input_ids"], batch["completion_ids"], strict=True):
            prompt, told = unpadded(ours, pad), unpadded(theirs[:-n], pad)
            row = routed[tokenizer.decode(prompt).removeprefix("<user>").removesuffix("<assistant>")]
            assert prompt == opened.question(row["question_id"]).prompt_token_ids.tolist()
            assert tokenizer.decode(told) == opened.teacher_prompt(row["question_id"], row["teacher"])
            assert theirs[-n:].tolist() == response.tolist()
            met.add(row["question_id"])
            if batch is seen.batches[0]:
                answer = unpadded(response, pad)
                first.append(reverse_kl(log_probs(model, prompt, answer), log_probs(model, told, answer)).mean())
    assert len(met) == len(routed)
    assert losses(training)[0] == pytest.approx(float(sum(first) / len(first)), rel=1e-4)


def test_weights_of_another_model_are_in_the_loss_and_in_the_gradient(opened: Any, trainer: Any) -> None:
    training = trainer("weights", "--teacher", "teacher")
    rows = list(training.train_dataset)[:8]
    assert all(0 < sum(row["weights"]) < len(row["weights"]) for row in rows)
    batch = training._generate_and_score_completions(rows)
    hidden, get = [], training._get_last_hidden_state

    def watched(model: Any, *words: Any, **more: Any) -> torch.Tensor:
        hidden.append(get(model, *words, **more))
        if hidden[-1].requires_grad:
            hidden[-1].retain_grad()
        return hidden[-1]

    training._get_last_hidden_state = watched
    loss = training.compute_loss(training.model, batch)
    loss.backward()

    student, teacher, ours, theirs, weights = frozen("student"), frozen("teacher"), [], [], []
    for row in rows:
        prompt, response = row["prompt_ids"], row["completion_ids"]
        ours.append(reverse_kl(log_probs(student, prompt, response), log_probs(teacher, prompt, response)))
        theirs.append(opened.rollout(row["question_id"], row["rollout_index"], ["teacher"]).divergence_TMD[:, 0, 0])
        weights.append(np.array(row["weights"], float))
    weight = np.concatenate(weights)
    for by_token in (np.concatenate(ours), np.concatenate(theirs)):  # by hand from the models, and as the study stored it
        assert loss.item() == pytest.approx(float((weight * by_token).sum() / weight.sum()), rel=2e-3)
    assert loss.item() == pytest.approx(float((weight * np.concatenate(ours)).sum() / weight.sum()), rel=1e-5)

    moved = hidden[0].grad.abs().sum(-1)
    for row, one in zip(rows, moved, strict=True):
        there = one[: len(row["weights"])] > 0
        assert there.int().tolist() == row["weights"] and not one[len(row["weights"]) :].any()


def test_weights_under_the_name_of_completion_mask_would_hide_tokens_from_both_models(trainer: Any) -> None:
    """Why the column has a name of its own."""
    training = trainer("weights", "--teacher", "teacher")
    batch = training._generate_and_score_completions(list(training.train_dataset)[:8])
    right = training.compute_loss(training.model, batch).item()
    wrong = training.compute_loss(training.model, {**batch, "completion_mask": batch["tool_mask"]}).item()
    assert abs(wrong - right) > 0.01 * right


@pytest.mark.parametrize("by", ["posterior", "probability"])
def test_weights_of_the_student_with_a_context_are_in_the_loss_and_in_the_gradient(by: str, opened: Any, trainer: Any) -> None:
    training = trainer("weights", "--teacher", "self-1c", "--by", by)
    training.model.train()
    rows = [row for row in training.train_dataset if any(row["weights"])][:8]
    batch = training._prepare_training_batch(rows)
    logits = training._compute_teacher_student_logits(training.model, training.teacher_model, batch)
    logits.student_logits.retain_grad()
    loss = training._compute_self_distillation_loss(training.model, batch, logits)
    loss.backward()

    student, by_hand = frozen("student"), []
    for row in rows:
        prompt, response = row["prompt_ids"], row["completion_ids"]
        told = training.processing_class(opened.teacher_prompt(row["question_id"], "self-1c"))["input_ids"]
        kl = reverse_kl(log_probs(student, prompt, response), log_probs(student, told, response)).numpy()
        by_hand.append(float(np.dot(row["weights"], kl)) / max(sum(row["weights"]), 1.0))
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)

    for row, moved in zip(rows, logits.student_logits.grad.abs().sum(-1), strict=True):
        none = torch.tensor(row["weights"]) == 0
        assert not moved[: len(none)][none].any() and not moved[len(none) :].any() and moved.any()
    if by == "probability":
        assert any(0 < weight < 1 for row in rows for weight in row["weights"])


@pytest.mark.parametrize("teacher", ["teacher", "self-1c"])
def test_three_steps_over_weighted_rollouts(teacher: str, trainer: Any) -> None:
    training = trainer("weights", "--teacher", teacher, "--by", "posterior")
    before = [one.detach().clone() for one in training.model.parameters()]
    training.train()
    assert len(losses(training)) == 3 and np.isfinite(losses(training)).all()
    assert any((now != then).any() for now, then in zip(training.model.parameters(), before, strict=True))


#: What docs/trainers.md says of TRL's settings, where it names an objective exactly.
SAID = re.findall(r"^\| trl \| `([^`]+)` \| `([^`]+)` \| ", (ROOT / "docs" / "trainers.md").read_text(), re.MULTILINE)


def loss_of(settings: dict[str, str], student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """As TRL computes it from logits [vocabulary]; of a sampled token, its expectation."""
    size = len(student)
    if "distillation_mode" in settings:
        options: dict[str, Any] = {"distillation_alpha": float(settings["distillation_alpha"])}
        match settings["distillation_mode"]:
            case "sampled_token":
                every = torch.arange(size)[None]
                both = (logits.expand(1, size, size) for logits in (student, teacher))
                by_token = compute_sampled_token_self_distillation_loss(*both, every, **options)[0]
                return (student.detach().softmax(0) * by_token).sum()
            case "topk_logits":
                options |= {"distillation_topk": int(settings["distillation_topk"]), "distillation_add_tail": False}
                return compute_topk_self_distillation_loss(student, teacher, **options)
        return compute_full_logit_self_distillation_loss(student, teacher, **options)
    if "lmbda" in settings:  # beta is 0.5 unless said
        return GKDTrainer.generalized_jsd_loss(student[None, None], teacher[None, None], beta=float(settings.get("beta", 0.5)))
    eye = torch.eye(size, dtype=student.dtype)
    return _chunked_divergence_loss(
        student[None, None], teacher[None, None], eye, eye, torch.ones(1, 1), float(settings["beta"])
    )[0]


@pytest.mark.parametrize(("said", "objective"), SAID)
def test_the_gradient_of_settings_is_that_of_the_objective_that_they_are_said_to_be(said: str, objective: str) -> None:
    settings = dict(word.split("=") for word in said.split())
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 32, dtype=torch.float64)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(settings, student, teacher), student)
    log_P, log_T = (torch.log_softmax(logits.detach(), -1).numpy() for logits in (student, teacher))
    expected = update(objective, log_P, log_T)
    factor = float(expected @ -gradient.numpy()) / float(expected @ expected)
    assert factor > 0.1
    np.testing.assert_allclose(-gradient.numpy(), factor * expected, atol=1e-5)
