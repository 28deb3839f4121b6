"""A weight per token: 1 where a teacher is said to help, 0 elsewhere and where nothing is known (method.md 7).

`gate` weighs every token by the fitted gate, and no token at all where the gate finds nothing to gain. `posterior` takes
the decision points with P(Align > 0) of at least one half, `probability` gives them that probability, drawn towards what
the study teaches (`compute.posterior`); every other token is unknown to both, and gets 0.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.decisions.gains import objective_row
from compute.decisions.gates import GateResult, Machine, fit_gate
from compute.decisions.sharpening import sharpening_note, temperature_of
from compute.evidence import Evidence
from compute.findings.shape import added_later
from compute.posterior import fit, posterior
from compute.rules import threshold
from compute.selection import judge
from compute.statistics import Interval

Array = NDArray[np.float64]
By = Literal["gate", "posterior", "probability"]
BYS: tuple[By, ...] = get_args(By)


class Weighing(Struct, frozen=True):
    """How the tokens of a study are weighed for one teacher."""

    teacher: str
    objective: str
    by: By
    gain_over_all: Interval  #: of the tokens with weight 1, judged by what did not choose them; others earn nothing
    share_kept: Interval  #: of the decision points
    sentence: str
    gate: GateResult | None
    weight_N: Array | None  #: by node, where it is not a gate that weighs
    warnings: tuple[str, ...]

    @property
    def rule(self) -> Machine:
        """The gate that weighs; nowhere where it finds nothing to gain."""
        return self.gate.rule if self.gate is not None and self.gate.verdict == "something" else Machine("nowhere")


def weighing(evidence: Evidence, teacher: str, *, by: By = "gate", objective: str | None = None, seed: int = 0) -> Weighing:
    """Weights for one teacher. Raises ValueError for unknown names, and where P(Align > 0) is not calibrated."""
    o = objective_row(evidence, objective)
    name = evidence.scores.objectives[o]
    if by == "gate":
        (gate,) = fit_gate(evidence, objective=name, teachers=[teacher], seed=seed)
        none = "" if gate.verdict == "something" else " So every weight is 0."
        return Weighing(teacher, name, by, gate.gain_over_all, gate.share_kept, gate.sentence + none, gate, None, gate.warnings)
    if teacher not in evidence.scores.teachers:
        raise ValueError(f"There is no teacher {teacher!r}; there is {', '.join(evidence.scores.teachers)}.")
    m = evidence.scores.teachers.index(teacher)
    found = judge(evidence, threshold(teacher, "p_positive", 0.5), objective=name, teachers=[teacher], seed=seed)
    sure = posterior(evidence.nodes, evidence.scores, fit(evidence.nodes, evidence.scores), n_draws=2)
    if not sure.calibrated_MO[m, o]:
        raise ValueError(f"This study has too few scores of {teacher} to say how sure they are: weigh by the gate.")
    p_N = sure.p_positive_MON[m, o]
    weight_N = np.nan_to_num(p_N) if by == "probability" else (p_N >= 0.5).astype(np.float64)
    temperature = temperature_of(evidence.nodes, teacher)
    notes = (() if temperature is None else (sharpening_note(teacher, temperature),)) + added_later(evidence, teacher)
    gain = found.gain_over_all
    sentence = (
        f"Decision points where {teacher} seems to help by one half of the completions earn "
        f"{gain.mean:+.2g} [{gain.low:+.2g}, {gain.high:+.2g}] per decision point by the other."
    )
    return Weighing(teacher, name, by, gain, found.share, " ".join([sentence, *notes]), None, weight_N, notes)


def token_weights(rule: Machine, features: dict[str, Array], n_tokens: int) -> Array:
    """The weights of a rollout's tokens under a gate: [T], from features [T]; 0 where the feature is unknown."""
    if rule.kind != "range":
        return np.full(n_tokens, 1.0 if rule.kind == "everywhere" else 0.0)
    value_T = features[str(rule.feature)]
    low = -np.inf if rule.at_least is None else rule.at_least
    high = np.inf if rule.at_most is None else rule.at_most
    return ((value_T >= low) & (value_T <= high)).astype(np.float64)
