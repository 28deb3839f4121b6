"""TRL 1.16.0: DistillationTrainer, GKDTrainer, ServerDistillationTrainer (`beta`, `lmbda`), SDPO and SDFT (`distillation_mode`).

Read in trl/trainer/distillation_config.py and distillation_trainer.py, trl/experimental/gkd/ (config and
`generalized_jsd_loss`), trl/experimental/server_distillation/ (config, `_jsd_divergence`, `_add_tail_bucket`), and
trl/experimental/sdpo/ and sdft/ (configs, loss_utils.py).
"""

from __future__ import annotations

from compute.trainers.meaning import Meaning, jsd
from compute.trainers.settings import Settings, SettingsError

KEYS = (
    "beta",
    "lmbda",
    "seq_kd",
    "teacher_model_server_url",
    "loss_top_k",
    "loss_add_tail",
    "distillation_mode",
    "distillation_alpha",
    "teacher_model_name_or_path",
)
SOURCE = "TRL 1.16.0: trainer/distillation_config.py, experimental/gkd/, experimental/server_distillation/, experimental/sdpo/"


#: Keys of trainers in which the same words mean something else.
_OTHERS = {
    "distillation_objective": "IW-OPD, which is not read",
    "use_uld_loss": "GOLD, which is not read",
    "scale_rewards": "GRPO, whose beta is the weight of a KL to the reference model, and which has no teacher",
    "reward_weights": "GRPO, whose beta is the weight of a KL to the reference model, and which has no teacher",
    "epsilon": "GRPO, whose beta is the weight of a KL to the reference model, and which has no teacher",
}


def meaning(settings: Settings) -> Meaning:
    """What these settings optimise; which trainer they are for is told by its own keys. Raises `SettingsError`."""
    settings.require("trl", KEYS)
    if settings.has("distillation_mode") or settings.has("distillation_alpha"):
        return _self_distillation(settings)
    for key, whose in _OTHERS.items():
        if settings.has(key):
            raise SettingsError(f"{settings.where}: `{key}` belongs to TRL's {whose}.")
    if any(map(settings.has, ("teacher_model_server_url", "loss_top_k", "loss_add_tail"))):
        return _server(settings)
    gkd = settings.has("lmbda") or settings.has("seq_kd")
    beta = settings.number("beta", 0.5 if gkd else 1.0, 0.0, 1.0)
    objective, f, words = jsd(beta)
    trainer = "GKDTrainer" if gkd else "DistillationTrainer"
    return Meaning(
        objective, f, f"TRL's {trainer} with beta = {beta:g} minimises {words}, over the whole vocabulary.", True,
        (*(_off_policy(settings) if gkd else ()), *_temperature(settings, 0.9 if gkd else 1.0)), SOURCE,
    )  # fmt: skip


def _off_policy(settings: Settings) -> tuple[str, ...]:
    """On whose tokens it is computed: alignment is about the student's own."""
    lmbda, seq_kd = settings.number("lmbda", 0.5, 0.0, 1.0), settings.flag("seq_kd", False)
    if lmbda == 1.0:
        return ()
    others = "the teacher's own responses" if seq_kd else "the data set's responses"
    return (f"Only a share lmbda = {lmbda:g} of the batches is the student's; on {others} nothing here says what it does.",)


def _temperature(settings: Settings, default: float) -> tuple[str, ...]:
    temperature = settings.number("temperature", default)
    if temperature == 1.0:
        return ()
    return (
        f"Both distributions are taken at temperature {temperature:g}, and rollouts are sampled there; a study is at "
        f"temperature 1.",
    )


def _self_distillation(settings: Settings) -> Meaning:
    """SDPO and SDFT: the teacher is the student with a context, as a study's self teachers are."""
    sdpo = settings.has("distillation_weight") or settings.value("distillation_mode", "") == "sampled_token"
    settings.defaults.pop("distillation_mode", None)
    trainer = "SDPO" if sdpo else "SDFT"
    modes = ("sampled_token", "full_logits", "topk_logits")
    mode = settings.word("distillation_mode", modes[0] if sdpo else modes[2], modes)
    alpha = settings.number("distillation_alpha", 1.0 if sdpo else 0.5, 0.0, 1.0)
    weight = settings.number("distillation_weight", 1.0, 0.0, 1.0) if sdpo else 1.0
    notes: tuple[str, ...] = ("The teacher is the student with a context: compare with a study's teachers of the kind self.",)
    notes += (f"The policy gradient of the rewards has the weight {1 - weight:g} beside it.",) if weight < 1.0 else ()
    objective, f, words = jsd(alpha)
    if mode == "sampled_token":
        if alpha != 1.0:
            raise SettingsError(
                f"{settings.where}: TRL refuses `distillation_mode` = sampled_token unless `distillation_alpha` = 1."
            )
        sentence = f"TRL's {trainer} on sampled tokens is, in expectation, reverse KL, KL(P‖T)."
        return Meaning("reverse_kl", "log r", sentence, True, notes, SOURCE)
    if mode == "full_logits":
        return Meaning(objective, f, f"TRL's {trainer} minimises {words}, over the whole vocabulary.", True, notes, SOURCE)
    k = int(settings.number("distillation_topk", 100, 1.0))
    tail = settings.flag("distillation_add_tail", False)
    over = f"over the student's {k} most likely tokens, " + ("all others as one" if tail else "renormalised")
    exact = alpha == 1.0 and not tail
    name = f"top_k_reverse_kl({k}, renormalised)" if exact else objective
    f = "1[K] (log r_j - mean over K) / P(K)" if exact else f"{f}, {over}"
    return Meaning(name, f, f"TRL's {trainer} minimises {words}, {over}.", exact, notes, SOURCE)


def _server(settings: Settings) -> Meaning:
    """The teacher is behind a server, so that only few of its tokens take part."""
    beta = settings.number("beta", 1.0, 0.0, 1.0)
    k, tail = int(settings.number("loss_top_k", 1)), settings.flag("loss_add_tail", True)
    notes = _temperature(settings, 1.0)
    if k == 1 and not tail and beta in (0.0, 1.0):
        sentence = (
            "TRL's ServerDistillationTrainer over one token without the tail: renormalised to 1 on both sides, its loss is 0."
        )
        return Meaning(None, "0", sentence, True, notes, SOURCE)
    if beta == 0.0:
        sentence = (
            f"TRL's ServerDistillationTrainer with beta = 0 minimises forward KL over the teacher's {k} most likely tokens"
            + (", all others as one." if tail else ", renormalised.")
        )
        f = f"r within the teacher's top {k}, " + ("else the ratio of the two tails" if tail else "renormalised; else 0")
        return Meaning("forward_kl", f, sentence, False, notes, SOURCE)
    if beta == 1.0:
        sentence = (
            "TRL's ServerDistillationTrainer with beta = 1 minimises the reverse KL of two outcomes, the sampled "
            "token and all others: "
            "not reverse KL, whose weight P_j it has once too often."
        )
        return Meaning(None, "P_j (log r_j - log((1-T_j)/(1-P_j)))", sentence, True, notes, SOURCE)
    sentence = (
        f"TRL's ServerDistillationTrainer with beta = {beta:g} minimises a JSD over the teacher's most likely token, "
        f"the sampled one" + (" and all others as one." if tail else ".")
    )
    return Meaning(None, "that of the JSD over two or three outcomes", sentence, True, notes, SOURCE)
