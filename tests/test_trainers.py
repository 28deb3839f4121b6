"""`opd-tui objectives --trainer`: what settings are said to optimise is what their estimators do, and what the page says."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from compute.errors import ComputeError
from compute.objectives import parse, update
from compute.trainers import TRAINERS, read_settings
from compute.trainers.meaning import AS_LOSS, AS_REWARD
from tests.conftest import ROOT, run_opd

PAGE = (ROOT / "docs" / "trainers.md").read_text()
ROW = re.compile(r"^\| (\S+) \| `([^`]+)` \| (?:`([^`]+)`|-)( \*)? \| (.+) \|$", re.MULTILINE)


def means(folder, trainer: str, settings: str, ending: str = "txt"):
    file = folder / f"settings.{ending}"
    file.write_text(settings)
    return TRAINERS[trainer](read_settings(file))


@pytest.mark.parametrize(("trainer", "settings", "objective", "near", "f"), ROW.findall(PAGE))
def test_the_table_of_the_page_is_what_the_code_says(tmp_path, trainer, settings, objective, near, f):
    found = means(tmp_path, trainer, settings.replace(" ", "\n"))
    assert found.objective == (str(parse(objective)) if objective else None)
    assert found.exact == (not near)
    assert found.f == f.replace("\\|", "|")


def test_the_page_has_every_trainer():
    assert {row[0] for row in ROW.findall(PAGE)} == set(TRAINERS)


#: Of KL(P‖T) from one token y of the student, d = log T(y) - log P(y): verl's kl_penalty, SkyRL's compute_approx_kl.
ESTIMATORS = {
    "k1": lambda d: -d,
    "k2": lambda d: d.square() / 2,
    "k3": lambda d: d.exp() - d - 1,
    "abs": lambda d: d.abs(),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("as_reward", [True, False])
def test_estimators_move_the_logits_as_their_objective(name, as_reward):
    """Expected updates over all tokens that the student may sample, by automatic differentiation."""
    import torch

    torch.manual_seed(0)
    logits = torch.randn(12, dtype=torch.float64, requires_grad=True)
    log_T = torch.log_softmax(torch.randn(12, dtype=torch.float64), 0)
    log_P = torch.log_softmax(logits, 0)
    sampled = log_P.detach().exp()
    value = ESTIMATORS[name](log_T - log_P)
    loss = (sampled * (log_P * value.detach() if as_reward else value)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    descent = -gradient.numpy()
    found = (AS_REWARD if as_reward else AS_LOSS)[name]
    P, T = sampled.numpy(), log_T.exp().numpy()
    # the f that the page gives, as Python
    f = eval(
        found.f.replace("^", "**").replace("|log r|", "abs(log(r))").replace("log r", "log(r)"),
        {"log": np.log, "r": T / P, "abs": np.abs, "sign": np.sign, "T": T, "P": P},
    )
    written = P * (f - (P * f).sum())
    scale = 2.0 if (name, as_reward) == ("abs", False) else 1.0  # |d| is twice the half of the objective
    np.testing.assert_allclose(descent, scale * written, atol=1e-12)
    if found.objective is not None:
        np.testing.assert_allclose(descent, scale * update(found.objective, np.log(P), np.log(T)), atol=1e-12)


def test_server_distillation_over_two_outcomes_is_not_reverse_kl():
    """The f that TRL's server trainer is said to have: binary KL of the sampled token and the rest."""
    import torch

    torch.manual_seed(1)
    logits = torch.randn(9, dtype=torch.float64, requires_grad=True)
    log_T = torch.log_softmax(torch.randn(9, dtype=torch.float64), 0)
    P, T = torch.softmax(logits, 0), log_T.exp()
    binary = P * (P / T).log() + (1 - P) * ((1 - P) / (1 - T)).log()
    (gradient,) = torch.autograd.grad((P.detach() * binary).sum(), logits)
    p, t = P.detach().numpy(), T.numpy()
    f = p * (np.log(t / p) - np.log((1 - t) / (1 - p)))
    np.testing.assert_allclose(-gradient.numpy(), p * (f - (p * f).sum()), atol=1e-12)


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("yaml", "distillation:\n  distillation_loss:\n    loss_mode: k3\n    use_policy_gradient: true\n"),
        ("toml", '[distillation.distillation_loss]\nloss_mode = "k3"\nuse_policy_gradient = true\n'),
        ("json", '{"distillation_loss": {"loss_mode": "k3", "use_policy_gradient": true}}'),
        ("sh", "# as on a command line\n+distillation.distillation_loss.loss_mode=k3 \\\nuse_policy_gradient=True\n"),
    ],
)
def test_settings_are_read_from_every_kind_of_file(tmp_path, ending, text):
    assert means(tmp_path, "verl", text, ending).objective == "k3_reward"


@pytest.mark.parametrize(
    ("trainer", "text", "ending", "says"),
    [
        ("verl", "a: 1", "yaml", ["no distillation setting of verl", "loss_mode", "use_policy_gradient", "it has a"]),
        ("verl", "loss_mode=k9", "txt", ["`distillation_loss.loss_mode` = 'k9'", "known are k1"]),
        ("verl", "loss_mode=k1", "txt", ["verl refuses", "use_policy_gradient"]),
        ("verl", "loss_mode=k3\nuse_policy_gradient=3", "txt", ["must be true or false"]),
        ("verl", "a.distillation_loss.loss_mode=k1\nb.distillation_loss.loss_mode=k3", "txt", ["2 times", "a.dist"]),
        ("trl", "beta=2", "txt", ["`beta` = 2", "between 0 and 1"]),
        ("skyrl", "use_kl_in_reward=true", "txt", ["SkyRL refuses", "use_kl_loss"]),
        ("trl", "beta=0.04\nscale_rewards=true", "txt", ["GRPO", "no teacher"]),
        ("trl", "distillation_mode=sampled_token\ndistillation_alpha=0.5", "txt", ["TRL refuses", "distillation_alpha"]),
        ("trl", "just words", "txt", ["line 1", "key=value"]),
        ("trl", "a: [", "yaml", ["not valid YAML"]),
        ("trl", "a = ", "toml", ["not valid TOML"]),
        ("trl", "[1]", "json", ["no table of settings"]),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path, trainer, text, ending, says):
    with pytest.raises(ComputeError) as caught:
        means(tmp_path, trainer, text, ending)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for words in says:
        assert words in sentence


def test_the_command_scores_the_teachers_of_a_store_under_it(tmp_path, computed):
    config = tmp_path / "verl.yaml"
    config.write_text("distillation_loss: {loss_mode: k3, use_policy_gradient: true, use_task_rewards: false}\n")
    done = run_opd("objectives", "--trainer", "verl", "--config", config, "--store", computed, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["schema"], said["objective"], said["f"]) == ("opd-tui/trainer-objective/1", "k3_reward", "log r - r")
    report = run_opd("report", computed, "--objective", "k3_reward", "--json")
    ranking = next(one for one in json.loads(report.stdout)["findings"] if one["name"] == "teacher_ranking")
    assert json.dumps(said["teachers"]) == json.dumps(ranking["rows"])
    shown = run_opd("objectives", "--trainer", "verl", "--config", config, "--store", computed)
    assert "reverse minus forward KL" in " ".join(shown.stdout.split())
    assert "gain x 1000" in shown.stdout


def test_wrong_usage_and_wrong_stores(tmp_path, computed):
    config = tmp_path / "tinker.toml"
    config.write_text("kl_discount_factor = 1.0\n")
    assert run_opd("objectives", "--trainer", "tinker").returncode == 2
    assert run_opd("objectives", "--trainer", "nemo", "--config", config).returncode == 2
    missing = run_opd("objectives", "--trainer", "tinker", "--config", tmp_path / "no.toml")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "cannot be read" in missing.stderr
    unscored = run_opd("objectives", "--trainer", "tinker", "--config", config, "--store", computed)
    assert unscored.returncode == 1
    assert "minillm" in unscored.stderr
