"""torchrl 0.14.1: `kl_direction` of DistillationLoss.

Read in torchrl/objectives/llm/distillation.py (`k3_kl_token_estimate`, `DistillationLoss.forward`), whose
documentation says the same.
"""

from __future__ import annotations

from compute.trainers.meaning import AS_LOSS, Meaning
from compute.trainers.settings import Settings

KEYS = ("kl_direction",)
SOURCE = "torchrl 0.14.1: objectives/llm/distillation.py"


def meaning(settings: Settings) -> Meaning:
    """What these settings optimise. Raises `SettingsError`."""
    settings.require("torchrl", KEYS)
    direction = settings.word("kl_direction", "reverse", ("reverse", "forward"))
    k3 = AS_LOSS["k3"]
    if direction == "reverse":
        sentence = (
            "torchrl's kl_direction = \"reverse\" differentiates k3 of the student's own tokens as a loss, which is, "
            "in expectation, "
            "forward KL, KL(T‖P)."
        )
        return Meaning(k3.objective, k3.f, sentence, source=SOURCE)
    sentence = 'torchrl\'s kl_direction = "forward", on tokens that the teacher sampled, is in expectation forward KL, KL(T‖P).'
    note = (
        "On tokens that the student sampled it is something else, f = -1/r: it pushes away from what the teacher finds unlikely."
    )
    return Meaning("forward_kl", "r", sentence, True, (note,), SOURCE)
