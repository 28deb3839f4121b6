"""verl takes what `opd-tui decide` writes, with the settings of docs/decide.md. Needs verl: `make test-verl`."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.experimental.teacher_loop.teacher_manager import AsyncTeacherLLMServerManager
from verl.trainer.distillation.losses import distillation_loss
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
from verl.utils.tensordict_utils import get_tensordict

import store
from compute.objectives import update
from opd_tui.cli import app

ROOT = Path(__file__).resolve().parents[2]
CHAIN_SUMS = ROOT / "examples" / "chain_sums"
DOCUMENTED = (ROOT / "docs" / "decide.md").read_text().split("### verl")[1].split("### ")[0].split("```")


def decided(out: Path, kind: str, *words: str) -> Path:
    command = ["decide", str(CHAIN_SUMS / "chain_sums.zarr"), "--kind", kind, "--format", "verl", "-o", str(out), *words]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.output, done.exception)
    return out


@pytest.fixture(scope="module")
def opened() -> Any:
    torch.set_num_threads(1)
    return store.open(CHAIN_SUMS / "chain_sums.zarr")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(CHAIN_SUMS / "student")


def composed(words: list[str]) -> DictConfig:
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer", overrides=words)


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    """verl's own configuration, with the settings that docs/decide.md gives; the study's teacher is the first of two."""
    routing, reward = decided(tmp_path / "routing.parquet", "routing"), tmp_path / "reward.py"
    reward.write_text(DOCUMENTED[3].removeprefix("python\n"))
    words = [word for word in shlex.split(DOCUMENTED[1].replace("\\\n", " ")) if "=" in word]
    assert len(words) == 17
    named = {"routing.parquet": routing, "reward.py": reward, "path/to/T1": CHAIN_SUMS / "teacher", "=T1": "=teacher"}
    for name, there in named.items():
        words = [word.replace(name, str(there)) for word in words]
    words.append(f"+data.cache_dir={tmp_path}")
    return composed(words)


def test_prompts_and_keys_arrive_and_every_question_finds_its_teacher(config: DictConfig, opened: Any, tokenizer: Any) -> None:
    for overlong in (False, True):
        config.data.filter_overlong_prompts = overlong
        rows = RLHFDataset(config.data.train_files, tokenizer, config.data)
        assert len(rows) == 10
    batch = collate_fn([rows[at] for at in range(len(rows))])
    assert config.distillation.teacher_key in batch and set(batch["teacher_key"]) == {"teacher"}
    for at, question_id in enumerate(batch["question_id"]):
        question = opened.question(question_id)
        ids = tokenizer.apply_chat_template(batch["raw_prompt"][at], add_generation_prompt=True, return_dict=False)
        assert ids == question.prompt_token_ids.tolist()
        assert batch["reward_model"][at]["ground_truth"] == question.reference_answer
    clients: Any = {"teacher": object(), "T2": object()}
    manager = AsyncTeacherLLMServerManager(config, clients)
    asked = {manager._resolve_teacher_key(key) for key in batch["teacher_key"]}
    assert {manager.teacher_model_configs[key].model_path for key in asked} == {str(CHAIN_SUMS / "teacher")}
    with pytest.raises(ValueError, match="No teacher configured for routing key 'T9'"):
        manager._resolve_teacher_key("T9")


def test_a_prompt_without_a_chat_template_comes_through_as_it_is(config: DictConfig, tokenizer: Any) -> None:
    (said,) = [word for word in DOCUMENTED[4].split("`") if "custom_chat_template" in word]
    plain = AutoTokenizer.from_pretrained(CHAIN_SUMS / "student")
    plain.chat_template = composed(shlex.split(said)).actor_rollout_ref.model.custom_chat_template
    prompt = RLHFDataset(config.data.train_files, plain, config.data)[0]["raw_prompt"]
    assert plain.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) == prompt[0]["content"]


def test_rewards_want_a_function(config: DictConfig, tokenizer: Any) -> None:
    rows = RLHFDataset(config.data.train_files, tokenizer, config.data)
    batch = {**collate_fn([rows[0]]), "responses": torch.tensor([[19, 5, 1]]), "attention_mask": torch.tensor([[1] * 13])}

    async def reward(function: Any) -> Any:
        return await NaiveRewardManager(config, tokenizer, function).run_single(DataProto.from_single_dict(batch))

    assert asyncio.run(reward(get_custom_reward_fn(config)))["reward_score"] == 0.0
    with pytest.raises(NotImplementedError, match="data_source='opd-tui'"):
        asyncio.run(reward(None))


def log_probs(name: str, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Of the tokens of the sequence, each where verl has it: one place before the token."""
    model = AutoModelForCausalLM.from_pretrained(CHAIN_SUMS / name, dtype=torch.float32).eval()
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        logprob = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    return torch.cat([logprob[:-1].gather(1, ids[0, 1:, None])[:, 0], torch.zeros(1)])


def padded(lists: list[list[float]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(one, dtype=torch.float32) for one in lists], True)


def nested(sequences: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(sequences, layout=torch.jagged)


@pytest.mark.parametrize(("gradient", "by"), [(True, "probability"), (True, "gate"), (False, "gate")])
def test_weights_are_in_the_loss_and_in_the_gradient(gradient: bool, by: str, config: DictConfig, tmp_path: Path) -> None:
    path = decided(tmp_path / "w.jsonl", "weights", "--teacher", "teacher", "--by", by)
    rows = [json.loads(line) for line in path.read_text().splitlines()][:4]
    prompts, responses = [row["prompts"] for row in rows], [row["responses"] for row in rows]
    weight = padded([row["rollout_is_weights"] for row in rows])
    mask = padded([[1.0] * len(one) for one in responses])
    ours = [log_probs("student", *one).requires_grad_() for one in zip(prompts, responses, strict=True)]
    theirs = [log_probs("teacher", *one) for one in zip(prompts, responses, strict=True)]

    def along(sequences: list[torch.Tensor]) -> torch.Tensor:
        return padded([one[len(p) - 1 : -1].tolist() for one, p in zip(sequences, prompts, strict=True)])

    old, counted = along(ours), mask if gradient else mask * weight
    n = float(counted.sum())
    batch = {
        "prompts": nested([torch.tensor(one) for one in prompts]),
        "responses": nested([torch.tensor(one) for one in responses]),
        "teacher_logprobs": nested([one[:, None] for one in theirs]),
        "old_log_probs": old,
        "response_mask": counted,
    } | ({"rollout_is_weights": weight} if gradient else {})
    data = get_tensordict(batch, {"dp_size": 1, "global_batch_size": len(rows), "batch_num_tokens": n})
    config.distillation.distillation_loss.use_policy_gradient = gradient
    config.distillation.distillation_loss.loss_mode = "k1" if gradient else "k3"
    actor: Any = SimpleNamespace(loss_agg_mode="token-mean", loss_scale_factor=None, global_batch_info={})
    loss, _ = distillation_loss(actor, omega_conf_to_dataclass(config.distillation), {"log_probs": nested(ours)}, data)
    loss.backward()
    log_r = along(theirs) - old
    by_hand = -log_r if gradient else torch.exp(log_r) - log_r - 1.0
    assert loss.item() == pytest.approx(float((weight * mask * by_hand).sum()) / n, rel=1e-4)
    update = -log_r if gradient else 1.0 - torch.exp(log_r)
    moved = along([one.grad for one in ours])
    assert torch.allclose(moved, weight * mask * update / n, atol=1e-6)
    assert (weight == 0).any() and weight.any() and not moved[weight == 0].any()


#: What docs/trainers.md says of verl's settings, where it names an objective exactly.
SAID = re.findall(r"^\| verl \| `([^`]+)` \| `([^`]+)` \| ", (ROOT / "docs" / "trainers.md").read_text(), re.MULTILINE)
PAGE = [(said, objective) for said, objective in SAID if objective != "top_k_penalty"]


@pytest.mark.parametrize(("said", "objective"), PAGE)
def test_the_gradient_of_settings_is_that_of_the_objective_that_they_are_said_to_be(
    said: str, objective: str, config: DictConfig
) -> None:
    """Every token of a vocabulary is sampled once, and counted as often as the student would."""
    torch.manual_seed(0)
    logits, teacher = 0.5 * torch.randn(2, 24, dtype=torch.float64)  # k3 is clamped from T = 13.6 P on
    logits.requires_grad_()
    log_P, log_T = torch.log_softmax(logits, 0), torch.log_softmax(teacher, 0)
    batch = {
        "prompts": torch.zeros(24, 1, dtype=torch.long),
        "responses": torch.arange(24)[:, None],
        "attention_mask": torch.ones(24, 2, dtype=torch.long),
        "teacher_logprobs": nested([torch.stack([one, one])[:, None] for one in log_T]),
        "old_log_probs": log_P.detach()[:, None],
        "response_mask": log_P.detach().exp()[:, None],
    }
    data = get_tensordict(batch, {"dp_size": 1, "global_batch_size": 1, "batch_num_tokens": 1})
    for word in said.split():
        name, value = word.split("=")
        config.distillation.distillation_loss[name] = {"true": True}.get(value, value)
    actor: Any = SimpleNamespace(loss_agg_mode="token-mean", loss_scale_factor=None, global_batch_info={})
    flat = torch.stack([log_P, torch.zeros_like(log_P)], 1).flatten()
    loss, _ = distillation_loss(actor, omega_conf_to_dataclass(config.distillation), {"log_probs": flat}, data)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = update(objective, log_P.detach().numpy(), log_T.numpy())
    factor = 2.0 if objective == "total_variation" else 1.0  # |log r| is twice the half of the objective
    np.testing.assert_allclose(-gradient.numpy(), factor * expected, atol=1e-9)
