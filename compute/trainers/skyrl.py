"""SkyRL 0.3.0: the KL to the reference model, which is the teacher where one distils.

Read in skyrl/train/config/config.py (`AlgorithmConfig`), skyrl/backends/skyrl_train/utils/ppo_utils.py (`compute_approx_kl`),
skyrl/backends/skyrl_train/workers/worker.py (the loss) and skyrl/train/trainer.py (`apply_reward_kl_penalty`).
"""

from __future__ import annotations

from compute.trainers.meaning import AS_LOSS, AS_REWARD, Meaning
from compute.trainers.settings import Settings, SettingsError

KEYS = ("algorithm.use_kl_loss", "algorithm.use_kl_in_reward", "algorithm.kl_estimator_type")
SOURCE = "SkyRL 0.3.0: train/config/config.py, backends/skyrl_train/utils/ppo_utils.py, train/trainer.py"


def meaning(settings: Settings) -> Meaning:
    """What these settings optimise. Raises `SettingsError`."""
    settings.require("skyrl", KEYS)
    in_reward = settings.flag("algorithm.use_kl_in_reward", False)
    as_loss = settings.flag("algorithm.use_kl_loss", True)
    name = settings.word("algorithm.kl_estimator_type", "k3", tuple(AS_LOSS))
    coefficient = settings.number("algorithm.kl_loss_coef", 0.001)
    notes = (f"It has the weight {coefficient:g} beside the rewards (`kl_loss_coef`); the teacher is the reference model.",)
    if in_reward and as_loss:
        raise SettingsError(
            f"{settings.where}: SkyRL refuses `use_kl_in_reward` together with `use_kl_loss` (its default is true); "
            "set one to false."
        )
    if as_loss:
        found = AS_LOSS[name]
        return Meaning(
            found.objective,
            found.f,
            f"SkyRL's {name} differentiated as a loss is, in expectation, {found.what}.",
            True,
            notes,
            SOURCE,
        )
    if not in_reward:
        return Meaning(None, "0", "Neither `use_kl_loss` nor `use_kl_in_reward` is on: SkyRL does not distil.", source=SOURCE)
    return _reward(settings, name, notes)


def _reward(settings: Settings, name: str, notes: tuple[str, ...]) -> Meaning:
    """A reward by token, which the advantage estimator may add up over the response."""
    estimator = settings.value("algorithm.advantage_estimator", "grpo")
    found = AS_REWARD[name]
    if estimator in ("grpo", "rloo", "gae", "reinforce++"):
        whole = "the reverse KL of whole responses" if name == "k1" else f"of the terms of {name}"
        sentence = (
            f"SkyRL's {name} in the rewards is added up over tokens by the advantage estimator {estimator}: a sequence-level "
            f"divergence, {whole}."
        )
        more = "The estimator's baselines and scales change size and noise of the update, and not what is meant."
        objective = "minillm" if name == "k1" else None
        return Meaning(objective, f"({found.f})_j + the same of later tokens", sentence, False, (*notes, more), SOURCE)
    sentence = (
        f"SkyRL's {name} in the rewards, taken token by token as the estimator {estimator} must do, is, in expectation, "
        f"{found.what}."
    )
    return Meaning(found.objective, found.f, sentence, True, notes, SOURCE)
