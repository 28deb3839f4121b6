"""tinker-cookbook 0.6.1: `kl_penalty_coef` and `kl_discount_factor`.

Read in tinker_cookbook/distillation/train_on_policy.py (`incorporate_kl_penalty`, `Config`) and rl/metrics.py.
"""

from __future__ import annotations

from compute.trainers.meaning import AS_REWARD, Meaning
from compute.trainers.settings import Settings

KEYS = ("kl_penalty_coef", "kl_discount_factor")
SOURCE = "tinker-cookbook 0.6.1: distillation/train_on_policy.py, rl/metrics.py"


def meaning(settings: Settings) -> Meaning:
    """What these settings optimise. Raises `SettingsError`."""
    settings.require("tinker", KEYS)
    coefficient = settings.number("kl_penalty_coef", 1.0)
    discount = settings.number("kl_discount_factor", 0.0, 0.0, 1.0)
    if coefficient == 0.0:
        return Meaning(
            None, "0", "With kl_penalty_coef = 0 tinker-cookbook does not distil: the rewards alone count.", source=SOURCE
        )
    notes: tuple[str, ...] = ("Rewards of the environment are added to the advantages; in a distillation data set they are 0.",)
    if discount == 0.0:
        return Meaning(
            "reverse_kl", AS_REWARD["k1"].f,
            "tinker-cookbook's advantage log T(y)/P(y) of the sampled token alone is, in expectation, reverse KL, KL(P‖T).",
            True, notes, SOURCE,
        )  # fmt: skip
    sentence = "tinker-cookbook adds up the log-ratios of all later tokens: the reverse KL of whole responses by reward-to-go."
    if discount < 1.0:
        notes = (
            *notes,
            f"Later tokens are discounted by {discount:g} a step, which lies between reverse_kl (0) and minillm (1).",
        )
    return Meaning("minillm", "log r_j + F(u, j)", sentence, discount == 1.0, notes, SOURCE)
