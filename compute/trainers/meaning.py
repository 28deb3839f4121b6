"""What settings come to, and what single-sample estimators of a divergence come to as a reward and as a loss."""

from __future__ import annotations

from msgspec import Struct

#: The direction of descent of every objective here, with respect to the student's logits.
UPDATE = "P_j (f_j - fbar)"


class Meaning(Struct, frozen=True):
    """The objective of some settings, in expectation over sampled tokens."""

    objective: str | None  #: as `compute.objectives` spells it; None where it has no such objective
    f: str  #: f_j of the update P_j (f_j - fbar), with r = T/P
    sentence: str
    exact: bool = True  #: otherwise the objective named is the nearest one
    notes: tuple[str, ...] = ()
    source: str = ""  #: where it was looked up


class Estimator(Struct, frozen=True):
    """What a single-sample estimator is when it is used as one thing."""

    objective: str | None
    f: str
    what: str
    exact: bool = True


#: log P(y)/T(y) and its kin of one sampled token y, taken as a negative reward of the policy gradient: f is minus the estimator.
AS_REWARD: dict[str, Estimator] = {
    "k1": Estimator("reverse_kl", "log r", "reverse KL, KL(P‖T)"),
    "k2": Estimator(None, "-(log r)^2 / 2", "a penalty on every token that the two rate differently, whichever rates it higher"),
    "k3": Estimator("k3_reward", "log r - r", "reverse minus forward KL, KL(P‖T) - KL(T‖P)"),
    "abs": Estimator(None, "-|log r|", "a penalty on every token that the two rate differently, whichever rates it higher"),
}
#: The same differentiated through log P(y), the sampling left out: f is minus the derivative.
AS_LOSS: dict[str, Estimator] = {
    "k1": Estimator(None, "0", "nothing: its gradient does not know the teacher, and is zero in expectation"),
    "k2": Estimator("reverse_kl", "log r", "reverse KL, KL(P‖T)"),
    "k3": Estimator("k3_loss", "r", "forward KL, KL(T‖P), although k3 estimates the reverse one"),
    "abs": Estimator("total_variation", "sign(T - P) / 2", "the total variation distance"),
}
#: Other names for them.
ALIASES = {"kl": "k1", "mse": "k2", "low_var_kl": "k3"}


def jsd(beta: float) -> tuple[str, str, str]:
    """Objective, f and words of TRL's generalised JSD."""
    if beta == 0.0:
        return "forward_kl", "r", "forward KL, KL(T‖P)"
    if beta == 1.0:
        return "reverse_kl", "log r", "reverse KL, KL(P‖T)"
    return f"jsd({beta:g})", f"(1-{beta:g}) log(M/P)", f"the generalised JSD, M = {beta:g} T + {1 - beta:g} P"
