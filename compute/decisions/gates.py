"""A gate on cheap features, fitted on half of the questions and judged on the other half (method.md 4 and 7).

What is known of a token without any completion says whether the teacher gets it. The rule for use is fitted to all
questions; what it is worth is what rules fitted the same way earned on questions that they had not seen, both ways.
Beside it stands the sign-flipped null: the same fit, many times over, on the teacher's own nodes with random signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from msgspec import Struct
from msgspec.structs import replace as replaced

from compute.decisions.gains import judged_teachers, objective_row
from compute.decisions.sharpening import sharpening_note, temperature_of
from compute.evidence import Evidence
from compute.findings.shape import added_later
from compute.rules import Gate, fitted_gate
from compute.selection import Fit, Rule, Selected, View, judge_fitted
from compute.statistics import MIN_QUESTIONS, Interval
from store.words import counted

#: What a gate may look at: nothing that takes a completion or a grade.
FEATURES = (
    "entropy",
    "teacher_entropy",
    "kl_student_teacher",
    "kl_teacher_student",
    "js",
    "log_ratio",
    "position",
    "depth",
    "overlap",
    "overlap_mass",
)
FLIPS = 39
WRONG = 0.05


class Machine(Struct, frozen=True):
    """A rule for programs: the tokens of which `feature` lies in the range; `everywhere` and `nowhere` have none."""

    kind: str  #: "range", "everywhere" or "nowhere"
    feature: str | None = None
    at_least: float | None = None
    at_most: float | None = None


class FlippedGates(Struct, frozen=True):
    """What gates earn that are fitted to the same nodes with random signs."""

    mean: float  #: of `gain_over_all`
    high: float  #: the largest but one of twenty lies below
    p: float  #: how often they earn as much
    n: int


class GateResult(Struct, frozen=True):
    """One teacher's gate. Gains are judged on questions that the rule was not fitted to."""

    teacher: str
    objective: str
    verdict: str  #: "something" or "nothing"
    sentence: str
    words: str
    rule: Machine
    words_by_half: tuple[str, str]  #: what each half of the questions settled on
    gain_over_all: Interval  #: mean over all scored tokens, those that are kept out earning nothing
    gain_kept: Interval  #: mean over the tokens that are let in
    gain_everywhere: Interval  #: the teacher without a gate
    more_than_everywhere: Interval  #: `gain_over_all` less that, paired by question
    share_kept: Interval
    flipped: FlippedGates
    temperature: float | None
    warnings: tuple[str, ...]


def fit_gate(
    evidence: Evidence,
    *,
    objective: str | None = None,
    teachers: Sequence[str] | None = None,
    features: Sequence[str] = FEATURES,
    flips: int | None = None,
    seed: int = 0,
) -> tuple[GateResult, ...]:
    """A gate for each of the teachers, by default all that are no nulls; `flips` is FLIPS by default.

    Raises ValueError for unknown names, and for an objective whose update is made from the completions that would judge.
    """
    o = objective_row(evidence, objective)
    name = evidence.scores.objectives[o]
    usable = [feature for feature in features if feature in evidence.features]
    n_flips = FLIPS if flips is None else flips
    return tuple(_one(evidence, name, teacher, usable, n_flips, seed) for teacher in judged_teachers(evidence, teachers))


def _one(evidence: Evidence, objective: str, teacher: str, features: Sequence[str], flips: int, seed: int) -> GateResult:
    fit, rules = watched(fitted_gate(teacher, features))
    found = judge_fitted(evidence, fit, objective=objective, teachers=[teacher], seed=seed)
    null_F = np.array(
        [
            judge_fitted(
                sign_flipped(evidence, [seed, 11, f]),
                fitted_gate(teacher, features),
                objective=objective,
                teachers=[teacher],
                seed=seed,
            ).gain_over_all.mean
            for f in range(flips)
        ]
    )
    flipped = _flipped(null_F, found.gain_over_all.mean)
    something = found.gain_over_all.low > 0.0 and flipped.p <= WRONG
    temperature = temperature_of(evidence.nodes, teacher)
    warnings = (() if temperature is None else (sharpening_note(teacher, temperature),)) + added_later(evidence, teacher)
    sentence = _sentence(found, teacher, something, temperature)
    return GateResult(
        teacher=teacher,
        objective=objective,
        verdict="something" if something else "nothing",
        sentence=" ".join([sentence, *(warnings[:1] if temperature is not None else ())]),
        words=found.notes[2],
        rule=machine(rules[2], found.notes[2]),
        words_by_half=found.notes[:2],
        gain_over_all=found.gain_over_all,
        gain_kept=found.split.gain,
        gain_everywhere=found.everything.gain,
        more_than_everywhere=found.more_over_all,
        share_kept=found.share,
        flipped=flipped,
        temperature=temperature,
        warnings=warnings,
    )


def watched(fit: Fit) -> tuple[Fit, list[Rule]]:
    """The fit, and a list of the rules that it gives: of either half, then of everything."""
    rules: list[Rule] = []

    def watching(view: View) -> Rule:
        rules.append(fit(view))
        return rules[-1]

    return watching, rules


def machine(rule: Rule, note: str) -> Machine:
    """The rule for programs; `note` is what it says of itself."""
    if not isinstance(rule, Gate):
        return Machine(note)
    ends = (end if math.isfinite(end) else None for end in (rule.at_least, rule.at_most))
    return Machine("range", rule.feature, *ends)


def sign_flipped(evidence: Evidence, seed: Sequence[int]) -> Evidence:
    """The same study with a random sign per node and teacher: every teacher without direction (method.md 4)."""
    scores, halves = evidence.scores, evidence.halves
    n_teachers, _, n_nodes = scores.gain_MON.shape
    sign_M1N = np.random.default_rng(list(seed)).choice((-1.0, 1.0), (n_teachers, 1, n_nodes))
    of_scores = {
        "alignment_MON": sign_M1N * scores.alignment_MON,
        "gain_MON": sign_M1N * scores.gain_MON,
        "update_MONK": sign_M1N[..., None] * scores.update_MONK,
    }
    of_halves = {"alignment_HMON": sign_M1N * halves.alignment_HMON, "gain_HMON": sign_M1N * halves.gain_HMON}
    return replace(evidence, scores=replaced(scores, **of_scores), halves=replaced(halves, **of_halves))


def _flipped(null_F: np.ndarray, seen: float) -> FlippedGates:
    null_F = null_F[np.isfinite(null_F)]
    if not null_F.size or not math.isfinite(seen):
        return FlippedGates(math.nan, math.nan, math.nan, int(null_F.size))
    p = (1 + np.count_nonzero(null_F >= seen)) / (null_F.size + 1)
    return FlippedGates(float(null_F.mean()), float(np.quantile(null_F, 0.95)), float(p), int(null_F.size))


def _sentence(found: Selected, teacher: str, something: bool, temperature: float | None) -> str:
    gain = found.gain_over_all
    if gain.n < MIN_QUESTIONS:
        return f"There is nothing to gain that could be seen: no interval for {counted(gain.n, 'question')}."
    spoken = f"{gain.mean:+.2g} [{gain.low:+.2g}, {gain.high:+.2g}] per token over {gain.n} questions that chose nothing"
    if not something:
        return f"There is nothing to gain that this study can see: a gate on {teacher} earned {spoken}."
    through = " through sharpening" if temperature is not None and temperature < 1.0 else ""
    through = " through flattening" if temperature is not None and temperature > 1.0 else through
    best = (
        "more than the teacher everywhere"
        if found.more_over_all.low > 0.0
        else "though not surely more than the teacher everywhere"
    )
    return f"There is something to gain{through}: {teacher} where {found.notes[2]} earned {spoken}, {best}."
