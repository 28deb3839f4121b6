"""Estimates, intervals and probabilities against the truth of exact small language models:
`python -m benchmarks.calibration [--json]`. The tests take the same measures on fewer studies."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.made_tables import every_child, uniform
from benchmarks.small_language_model import VARIANTS, SmallStudy, Targeting, Variant, small_study
from compute.alignment import cosine
from compute.estimators import Estimator, estimate
from compute.posterior import fit, posterior
from compute.scores import score, score_estimates
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
    )


@dataclass(frozen=True)
class Sureness:
    """What was promised of nodes, and what came true, over several studies. X: entries of all of them."""

    p_positive_X: Array
    is_positive_X: NDArray[np.bool_]
    cosine_inside_X: NDArray[np.bool_]
    reliability_X: Array
    cosine_to_truth_X: Array

    @property
    def calibration_error(self) -> float:
        """|promised - come true| of P(Align > 0) in ten bins, weighted by how many are in each."""
        return binned_error(self.p_positive_X, self.is_positive_X)

    @property
    def cosine_coverage(self) -> float:
        """Share of nominal 90 % intervals of the cosine that hold it."""
        return float(self.cosine_inside_X.mean())

    @property
    def reliability_error(self) -> float:
        """As `calibration_error`, of reliability against the cosine between estimated and true gradient."""
        return binned_error(self.reliability_X, self.cosine_to_truth_X)


def binned_error(promised_X: Array, came_true_X: NDArray[np.generic]) -> float:
    bin_X = np.clip(np.digitize(promised_X, BINS), 1, len(BINS) - 1)
    errors = [abs(promised_X[bin_X == b].mean() - came_true_X[bin_X == b].mean()) * (bin_X == b).mean() for b in np.unique(bin_X)]
    return float(sum(errors))


def sureness(variant: Variant, n: int, *, targeting: Targeting = "dense", n_questions: int, studies: int, seed: int) -> Sureness:
    """Studies of `n_questions` questions, `n` completions a candidate, each with a prior of its own."""
    found: list[tuple[Array, ...]] = []
    for number in range(studies):
        study = small_study(variant, n_questions, seed + number, targeting=targeting)
        nodes = study.simulate(uniform(study.children, n), times=1, seed=seed + number)
        scores = score(nodes, n_sig=min(20, n))
        estimates = scores.estimates
        truth = score_estimates(nodes, replace(estimates, p_succ_NK=study.p_succ_NK, value_N=study.value_N))
        told = posterior(nodes, scores, fit(nodes, scores), level=LEVEL, seed=seed + number)
        there_MON = np.isfinite(told.p_positive_MON) & np.isfinite(truth.alignment_MON) & (np.abs(truth.gain_MON) > 1e-12)
        # Two children that both move against each other have a cosine of exactly +1 or -1, but for rounding.
        inside_MON = (told.cosine_low_MON - 1e-6 <= truth.alignment_MON) & (truth.alignment_MON <= told.cosine_high_MON + 1e-6)
        scored_N = np.isfinite(told.reliability_N) & truth.decision_point_N
        found.append(
            (
                told.p_positive_MON[there_MON],
                truth.alignment_MON[there_MON] > 0.0,
                inside_MON[there_MON],
                told.reliability_N[scored_N],
                cosine(scores.ideal_NK, truth.ideal_NK)[scored_N],
            )
        )
    return Sureness(*(np.concatenate(column) for column in zip(*found, strict=True)))


def main() -> None:
    figures: dict[str, float] = {}
    lines = []
    for variant in VARIANTS:
        study = small_study(variant, 6, 11)
        for n in COMPLETIONS:
            by = {name: bias(study, name, n, times=400, seed=n) for name in ("backup", "on_policy", "plain")}
            told = sureness(variant, n, n_questions=40, studies=6, seed=100)
            row = {
                "bias backup": by["backup"].rms,
                "bias on_policy": by["on_policy"].rms,
                "bias plain": by["plain"].rms,
                "variance formula": by["backup"].variance_ratio,
                "coverage p_succ": by["backup"].coverage,
                "calibration P(Align > 0)": told.calibration_error,
                "coverage cosine": told.cosine_coverage,
                "reliability error": told.reliability_error,
            }
            figures |= {f"{variant} {n} {name}": round(value, 4) for name, value in row.items()}
            lines.append(f"| {variant} | {n} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")
            if "--json" not in sys.argv:
                if len(lines) == 1:
                    print("| model | n | " + " | ".join(row) + " |\n|---|---|" + "---|" * len(row))
                print(lines[-1], flush=True)
    print(json.dumps({"name": "calibration", "figures": figures}))


if __name__ == "__main__":
    main()
