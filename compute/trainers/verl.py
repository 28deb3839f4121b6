"""verl 0.9.1: `distillation.distillation_loss`.

Read in verl/trainer/distillation/losses.py, verl/trainer/distillation/fsdp/losses.py (the top-k loss), `kl_penalty` of
verl/trainer/ppo/core_algos.py, and the defaults in verl/trainer/config/distillation/distillation.yaml. Those of the dataclass in
verl/workers/config/distillation.py are others (use_policy_gradient is true there, and clamps are on); who starts verl through
its configuration has the file's.
"""

from __future__ import annotations

from compute.trainers.meaning import ALIASES, AS_LOSS, AS_REWARD, Meaning
from compute.trainers.settings import Settings, SettingsError

KEYS = ("distillation_loss.loss_mode", "distillation_loss.use_policy_gradient", "distillation_loss.use_task_rewards")
SOURCE = "verl 0.9.1: trainer/distillation/losses.py, trainer/ppo/core_algos.py, trainer/config/distillation/distillation.yaml"
_MODES = ("k1", "k2", "k3", "abs", "kl", "mse", "low_var_kl", "forward_kl_topk")


def meaning(settings: Settings) -> Meaning:
    """What these settings optimise. Raises `SettingsError`."""
    settings.require("verl", KEYS)
    mode = settings.word("distillation_loss.loss_mode", "k3", _MODES)
    as_reward = settings.flag("distillation_loss.use_policy_gradient", False)
    notes = _notes(settings, mode)
    if mode == "forward_kl_topk":
        return _top_k(settings, as_reward, notes)
    name = ALIASES.get(mode, mode)
    if mode == "k1" and not as_reward:
        raise SettingsError(
            f"{settings.where}: verl refuses `loss_mode` = k1 with `use_policy_gradient` = false, because its "
            f"gradient does not know "
            "the teacher; set `use_policy_gradient` = true for reverse KL."
        )
    found = (AS_REWARD if as_reward else AS_LOSS)[name]
    used = "as a negative reward of the policy gradient" if as_reward else "differentiated as a loss"
    if mode == "kl" and not as_reward:
        notes = (*notes, "verl refuses this for `loss_mode` = k1, and not under its other name kl.")
    return Meaning(
        found.objective, found.f, f"verl's {mode} {used} is, in expectation, {found.what}.", found.exact, notes, SOURCE
    )


def _top_k(settings: Settings, as_reward: bool, notes: tuple[str, ...]) -> Meaning:
    k = settings.value("distillation_loss.topk", 32)
    if as_reward:
        sentence = (
            f"The KL over the teacher's {k} most likely tokens as a negative reward does not depend on the sampled token, so in "
            "expectation it moves nothing."
        )
        return Meaning("top_k_penalty", "0", sentence, True, notes, SOURCE)
    sentence = (
        f"Forward KL, KL(T‖P), over the teacher's {k} most likely tokens, not renormalised: forward KL but for "
        f"what T has outside."
    )
    notes = (*notes, f"Outside of the teacher's top {k} f is 0 instead of r.")
    return Meaning("forward_kl", f"r within the teacher's top {k}, else 0", sentence, False, notes, SOURCE)


def _notes(settings: Settings, mode: str) -> tuple[str, ...]:
    notes = []
    if settings.flag("distillation_loss.use_task_rewards", True):
        coefficient = settings.number("distillation_loss.distillation_loss_coef", 1.0)
        notes.append(
            f"The task's rewards are trained on as well (`use_task_rewards`); distillation has the weight {coefficient:g}."
        )
    clamp = settings.value("distillation_loss.loss_max_clamp", None)
    if clamp is not None:
        notes.append(f"Where the loss of a token exceeds {clamp} it is clamped: as a loss such a token has no gradient.")
    if mode in ("k3", "low_var_kl"):
        notes.append(
            "k3 itself is clamped at 10, which r reaches at about 13.6: tokens that the teacher rates higher still are cut off."
        )
    return tuple(notes)
