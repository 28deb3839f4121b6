"""Estimates, intervals and probabilities against the truth of exact small language models:
`python -m benchmarks.calibration [--json]`. The tests take the same measures on fewer studies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from benchmarks.made_tables import Launch, allotted, every_child, trees
from benchmarks.measure import close
from benchmarks.small_language_model import TARGETINGS, VARIANTS, SmallStudy, Targeting, Variant, small_study
from compute.alignment import Support, cosine
from compute.allocation import Allocation, allot
from compute.estimators import Estimator, estimate, fit_pseudo_count
from compute.posterior import fit, posterior
from compute.scores import score, score_estimates
from compute.summary import summarise
from store.schema import ChildKind

Array = NDArray[np.float64]
COMPLETIONS = (10, 20, 50, 100)
LEVEL = 0.9
BINS = np.linspace(0.0, 1.0, 11)


@dataclass(frozen=True)
class Bias:
    """Of on-path children, over copies of one study."""

    mean: float  #: error, averaged over children and copies
    se: float
    rms: float  #: of the children's mean errors, noise taken off
    variance_ratio: float  #: the formula's variance over that of the copies
    coverage: float  #: of nominal 90 % intervals, true p in [.05, .95], all children
    on_path_coverage: float  #: of these the backed-up ones


def launched(study: SmallStudy, n: int, allocation: Allocation) -> list[Launch]:
    """What the product launches for `n` completions a child."""
    allotments = [allot(tree, allocation, n_min=n, n_sig=min(20, n)) for _, tree in trees(study.nodes)]
    return allotted(study.nodes, allotments)


def bias(study: SmallStudy, estimator: Estimator, n: int, *, times: int, seed: int) -> Bias:
    """`n` forced at every child, as all three estimators need, and 20 rollouts from the root."""
    nodes = study.simulate([*study.initial_rollouts(20), *every_child(study.children, n)], times=times, seed=seed)
    estimates = estimate(nodes, n_sig=1, estimator=estimator, level=LEVEL)
    shape = (times, *study.p_succ_NK.shape)
    p_RNK, variance_RNK = estimates.p_succ_NK.reshape(shape), estimates.variance_NK.reshape(shape)
    on_path_NK = (study.nodes.kind_NK == ChildKind.ON_PATH) & (study.p_succ_NK > 0.01) & (study.p_succ_NK < 0.99)
    error_Rk = (p_RNK - study.p_succ_NK)[:, on_path_NK]
    mean_k, spread_k = error_Rk.mean(axis=0), error_Rk.var(axis=0, ddof=1)
    copies = error_Rk.mean(axis=1)
    low_RNK, high_RNK = estimates.low_NK.reshape(shape), estimates.high_NK.reshape(shape)
    between_NK = (study.p_succ_NK >= 0.05) & (study.p_succ_NK <= 0.95) & ~np.isin(study.nodes.kind_NK, [ChildKind.END])
    inside_RNK = (low_RNK <= study.p_succ_NK) & (study.p_succ_NK <= high_RNK)
    return Bias(
        mean=float(copies.mean()),
        se=float(copies.std(ddof=1) / np.sqrt(times)),
        rms=float(np.sqrt(max(0.0, np.mean(mean_k**2 - spread_k / times)))),
        variance_ratio=float(variance_RNK[:, on_path_NK].mean() / spread_k.mean()),
        coverage=float(inside_RNK[:, between_NK].mean()),
        on_path_coverage=float(inside_RNK[:, between_NK & on_path_NK].mean()),
    )


def narrowed(
    study: SmallStudy, n: int, *, allocation: Allocation = "neyman", times: int, seed: int
) -> tuple[float, float, float, float]:
    """Coverage of nominal 90 % intervals of on-path children with one pseudo-count and with the fitted one, the
    fitted pseudo-count, and the width it leaves; counts as the product launches them."""
    nodes = study.simulate(launched(study, n, allocation), times=times, seed=seed)
    between_NK = (study.nodes.kind_NK == ChildKind.ON_PATH) & (study.p_succ_NK >= 0.05) & (study.p_succ_NK <= 0.95)
    fitted = fit_pseudo_count(nodes)
    coverage, width = [], []
    for pseudo_count in (1.0, fitted):
        e = estimate(nodes, n_sig=1, level=LEVEL, pseudo_count=pseudo_count)
        low_Rk, high_Rk = (end_NK.reshape(times, *between_NK.shape)[:, between_NK] for end_NK in (e.low_NK, e.high_NK))
        p_k = study.p_succ_NK[between_NK]
        # A child whose rest has met no completion has no interval.
        known_Rk = np.isfinite(low_Rk)
        coverage.append(float(((low_Rk <= p_k) & (p_k <= high_Rk))[known_Rk].mean()))
        width.append(float((high_Rk - low_Rk)[known_Rk].mean()))
    return coverage[0], coverage[1], fitted, width[1] / width[0]


@dataclass(frozen=True)
class Sureness:
    """What was promised of nodes, and what came true, over several studies. X: entries of all of them."""

    teachers: tuple[str, ...]
    teacher_X: NDArray[np.int64]  #: of the first four
    p_positive_X: Array
    is_positive_X: NDArray[np.bool_]
    cosine_inside_X: NDArray[np.bool_]
    reliability_X: Array
    cosine_to_truth_X: Array

    @property
    def calibration_error(self) -> float:
        """|promised - come true| of P(Align > 0) in ten bins, weighted by how many are in each."""
        return binned_errors(self.p_positive_X, self.is_positive_X)[0]

    def calibration_error_of(self, teacher: str) -> float:
        """The same of one teacher, where errors of others cannot make up for its own."""
        its_X = self.teacher_X == self.teachers.index(teacher)
        return binned_errors(self.p_positive_X[its_X], self.is_positive_X[its_X])[0]

    def cosine_coverage(self, *teachers: str) -> float:
        """Share of nominal 90 % intervals of the cosine that hold it."""
        return float(self.cosine_inside_X[np.isin(self.teacher_X, [self.teachers.index(one) for one in teachers])].mean())

    @property
    def reliability_errors(self) -> tuple[float, float]:
        """As `calibration_error`, of reliability against the cosine between estimated and true gradient; and the worst bin's."""
        return binned_errors(self.reliability_X, self.cosine_to_truth_X)


def binned_errors(promised_X: Array, came_true_X: NDArray[np.generic]) -> tuple[float, float]:
    """|promised - come true| over ten bins: their weighted mean, and the worst of those with a fiftieth of all entries."""
    bin_X = np.clip(np.digitize(promised_X, BINS), 1, len(BINS) - 1)
    share_B = np.array([np.mean(bin_X == b) for b in np.unique(bin_X)])
    error_B = np.array([abs(promised_X[bin_X == b].mean() - came_true_X[bin_X == b].mean()) for b in np.unique(bin_X)])
    return float(error_B @ share_B), float(error_B[share_B >= 0.02].max())


def sureness(
    variant: Variant,
    n: int,
    *,
    targeting: Targeting = "dense",
    support: Support = "sliced",
    allocation: Allocation = "neyman",
    n_questions: int,
    studies: int,
    seed: int,
) -> Sureness:
    """Studies of `n_questions` questions, `n` completions a candidate, each with a prior of its own."""
    found: list[tuple[NDArray[Any], ...]] = []
    for number in range(studies):
        study = small_study(variant, n_questions, seed + number, targeting=targeting)
        nodes = study.simulate(launched(study, n, allocation), times=1, seed=seed + number)
        scores = score(nodes, n_sig=min(20, n), support=support)
        estimates = scores.estimates
        truth = score_estimates(nodes, replace(estimates, p_succ_NK=study.p_succ_NK, value_N=study.value_N), support=support)
        told = posterior(nodes, scores, fit(nodes, scores), level=LEVEL, seed=seed + number)
        there_MON = np.isfinite(told.p_positive_MON) & np.isfinite(truth.alignment_MON) & (np.abs(truth.gain_MON) > 1e-12)
        # Two children that both move against each other have a cosine of exactly +1 or -1, but for rounding.
        inside_MON = (told.cosine_low_MON - 1e-6 <= truth.alignment_MON) & (truth.alignment_MON <= told.cosine_high_MON + 1e-6)
        scored_N = np.isfinite(told.reliability_N) & truth.decision_point_N
        found.append(
            (
                np.nonzero(there_MON)[0],
                told.p_positive_MON[there_MON],
                truth.alignment_MON[there_MON] > 0.0,
                inside_MON[there_MON],
                told.reliability_N[scored_N],
                cosine(scores.ideal_NK, truth.ideal_NK)[scored_N],
            )
        )
    return Sureness(study.nodes.teachers, *(np.concatenate(column) for column in zip(*found, strict=True)))


def null_coverage(
    variant: Variant, *, n: int, n_questions: int, studies: int, seed: int, allocation: Allocation = "neyman"
) -> dict[str, float]:
    """How often 95 % intervals of the sign-flipped nulls hold zero, their truth: of mean alignment and of mean gain."""
    holds: dict[str, list[bool]] = {"alignment": [], "gain": []}
    for number in range(studies):
        study = small_study(variant, n_questions, seed + number, targeting="sparse", objectives=("reverse_kl",))
        scores = score(study.simulate(launched(study, n, allocation), times=1, seed=number), n_sig=min(20, n))
        for row in summarise(study.nodes, study.paths, scores, seed=number).rows:
            if row.null and row.outcome == "all":
                for name, held in holds.items():
                    interval = getattr(row, name)
                    held.append(interval.low <= 0.0 <= interval.high)
    return {name: float(np.mean(held)) for name, held in holds.items()}


def main() -> None:
    figures: dict[str, float] = {}
    talks = "--json" not in sys.argv

    def table(head: Sequence[str], key: Sequence[object], row: dict[str, float], first: bool) -> None:
        figures.update({" ".join(map(str, (*key, name))): value for name, value in row.items()})
        if talks and first:
            print("\n| " + " | ".join((*head, *row)) + " |\n|" + "---|" * (len(head) + len(row)))
        if talks:
            print(f"| {' | '.join(map(str, key))} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |", flush=True)

    corners = [(variant, targeting, n) for variant in VARIANTS for targeting in TARGETINGS for n in COMPLETIONS]
    head = ("model", "targeting", "n")
    for number, (variant, targeting, n) in enumerate(corners):
        study = small_study(variant, 6, 11, targeting=targeting)
        backup, on_policy, plain = (bias(study, one, n, times=200, seed=n) for one in ("backup", "on_policy", "plain"))
        row = {
            "bias backup": backup.rms,
            "bias on_policy": on_policy.rms,
            "bias plain": plain.rms,
            "variance formula": backup.variance_ratio,
            "coverage": backup.coverage,
            "on paths": backup.on_path_coverage,
        }
        table(head, (variant, targeting, n), row, number == 0)
    for number, (variant, targeting, n) in enumerate(corners):
        told = sureness(variant, n, targeting=targeting, n_questions=40, studies=8, seed=100)
        row = {"P(Align > 0)": told.calibration_error}
        row |= {teacher: told.calibration_error_of(teacher) for teacher in told.teachers}
        row |= {
            "reliability": told.reliability_errors[0],
            "worst bin": told.reliability_errors[1],
            "cosine interval": told.cosine_coverage(*(one for one in told.teachers if one != "informed")),
            "of informed": told.cosine_coverage("informed"),
        }
        table(head, (variant, targeting, n), row, number == 0)
    for number, (share, n) in enumerate((share, n) for share in (0.08, 0.2, 0.3) for n in COMPLETIONS):
        study = small_study("sticky", 40, 1, stickiness=share)
        one, other, fitted, width = narrowed(study, n, times=10, seed=3)
        row = {"coverage, 1": one, "coverage, fitted": other, "fitted": fitted, "width": width}
        table(("share of sure tokens", "n"), (2 * share, n), row, number == 0)
    for number, variant in enumerate(VARIANTS):
        row = null_coverage(variant, n=20, n_questions=12, studies=300, seed=0)
        table(("model",), (f"null {variant}",), row, number == 0)
    close("calibration", figures)


if __name__ == "__main__":
    main()
