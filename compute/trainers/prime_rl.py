"""prime-rl: the algorithms `opd` and `opsd`, and before them `trainer.loss.teacher_tau`.

Read in docs/algorithms.md of PrimeIntellect-ai/prime-rl (commit 004274e; `[[orchestrator.algorithms]] id`, on the site also
`[orchestrator.train.algo] type`) and docs.primeintellect.ai/prime-rl/on_policy_distillation (`teacher_tau`, `adv_tau`). It is
not on PyPI.
"""

from __future__ import annotations

from compute.trainers.meaning import AS_REWARD, Meaning
from compute.trainers.settings import Settings

KEYS = ("train.algo.type", "orchestrator.algorithms.0.id", "trainer.loss.teacher_tau", "trainer.loss.adv_tau")
SOURCE = "prime-rl, commit 004274e: docs/algorithms.md; docs.primeintellect.ai/prime-rl/on_policy_distillation"
_OTHERS = ("grpo", "max_rl", "rl", "echo")


def meaning(settings: Settings) -> Meaning:
    """What these settings optimise. Raises `SettingsError`."""
    settings.require("prime-rl", KEYS)
    k1 = AS_REWARD["k1"]
    for key in ("train.algo.type", "orchestrator.algorithms.0.id"):
        if settings.has(key):
            name = settings.word(key, "", ("opd", "opsd", "sft", *_OTHERS))
            return _algorithm(name)
    tau = settings.number("trainer.loss.teacher_tau", 0.0)
    advantage = settings.number("trainer.loss.adv_tau", 1.0)
    if tau == 0.0:
        return Meaning(None, "0", "With teacher_tau = 0 prime-rl does not distil: the rewards alone count.", source=SOURCE)
    notes = (f"The rewards' advantages have the weight {advantage:g} beside it (`adv_tau`).",) if advantage else ()
    sentence = "prime-rl's advantage log T(y)/P(y) of the sampled token is, in expectation, reverse KL, KL(P‖T)."
    return Meaning(k1.objective, k1.f, sentence, True, notes, SOURCE)


def _algorithm(name: str) -> Meaning:
    k1 = AS_REWARD["k1"]
    if name in ("opd", "opsd"):
        who = (
            "the reference model"
            if name == "opd"
            else "the model that is shown a demonstration (a self teacher with the context 1c)"
        )
        sentence = f"prime-rl's {name}, the advantage log T(y)/P(y) with T of {who}, is, in expectation, reverse KL, KL(P‖T)."
        note = "Tokens whose probability moved too far since they were sampled are masked (`dppo_mask_low`, `dppo_mask_high`)."
        return Meaning(k1.objective, k1.f, sentence, True, (note,), SOURCE)
    if name == "sft":
        sentence = "prime-rl's sft on tokens that a teacher sampled is, in expectation, forward KL, KL(T‖P)."
        note = "On the student's own tokens it has no teacher in it."
        return Meaning("forward_kl", "r", sentence, True, (note,), SOURCE)
    return Meaning(
        None, "0", f"prime-rl's {name} has no teacher: it trains on rewards or on the environment's words.", source=SOURCE
    )
