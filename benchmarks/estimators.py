"""How many completions each estimator and allocation needs for the error that the paper's counts reach:
`python -m benchmarks.estimators [--json]`.

The measure is uniform allocation, 100 completions forced at every child, counted on policy. A figure is its completions over
those that another way needs for the same error, so 2 means half of them; all completions are counted, those of the rest and of
gaps too. Two errors:

    on-path p_succ   root mean square over the children on the paths, against the truth
    cosine           mean over nodes of 1 - cos(estimated, true ideal gradient) over all tokens of the node; nodes whose true
                     success-rate range is below .02 have no direction worth finding and are left out

Trees are exact: the small language model by dynamic programming, the tiny student's as a run of the engine makes them, with
every continuation enumerated. Completions are drawn from the strata of these trees, many studies over.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.exact_student import exact_student
from benchmarks.made_tables import Child, Launch, allotted, make_nodes, simulate, trees, true_values
from benchmarks.small_language_model import VARIANTS, small_study
from compute import allocation
from compute.alignment import cosine, ideal_gradient, trace_of_covariance
from compute.allocation import Allotment, Tree
from compute.estimators import Estimates, Estimator, estimate, stratum_counts
from store.schema import NOWHERE, ChildKind
from store.tables import Nodes

Array = NDArray[np.float64]
N_REFERENCE, N_SIG = 100, 20
#: Completions per child whose total each way may spend.
GRID = (2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 56, 80, 110, 150)
LEAST_RANGE = 0.02
#: Counting without the back-up is slower to simulate: the reference has twice as many.
COPIES = 60
MODEL_QUESTIONS, STUDENT_QUESTIONS = 6, 16


class Scene:
    """Trees of several questions end to end, and their truth."""

    def __init__(self, name: str, children: Sequence[Sequence[Child]], question_N: NDArray[np.integer[Any]]) -> None:
        self.name, self.children = name, children
        self.nodes = make_nodes(children, question_N=np.asarray(question_N, np.int64))
        self.token_NK = ~np.isin(self.nodes.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
        self.on_path_NK = self.nodes.kind_NK == ChildKind.ON_PATH
        self.p_NK, self.q_NK = np.full(self.token_NK.shape, np.nan), np.zeros(self.token_NK.shape)
        p, V = true_values(children)
        for row, siblings in enumerate(children):
            self.p_NK[row, : len(siblings)] = p[row]
            self.q_NK[row, : len(siblings)] = [0.0 if math.isnan(child.mean) else child.mean for child in siblings]
        self.value_N = np.array(V)
        self.ideal_NK = self.gradient(self.p_NK, self.value_N, 1)
        tokens_NK = np.where(self.token_NK, self.p_NK, np.nan)
        self.used_N = np.nanmax(tokens_NK, axis=1) - np.nanmin(tokens_NK, axis=1) >= LEAST_RANGE

    def gradient(self, p_NK: Array, value_N: Array, copies: int) -> Array:
        """The ideal gradient over all tokens of every node, NaN elsewhere."""
        logprob_NK = np.tile(np.where(self.token_NK, self.nodes.logprob_NK, np.nan), (copies, 1))
        return ideal_gradient(logprob_NK, p_NK, value=value_N)

    def errors(self, launches: Sequence[Launch], estimator: Estimator, copies: int, seed: int) -> tuple[float, float]:
        """Of on-path p_succ, and of the cosine."""
        nodes = simulate(self.children, launches, times=copies, seed=seed)
        e = estimate(nodes, n_sig=0, estimator=estimator)
        p_RNK = e.p_succ_NK.reshape(copies, *self.p_NK.shape)
        on_path = math.sqrt(float(np.nanmean((p_RNK - self.p_NK)[:, self.on_path_NK] ** 2)))
        ideal_NK = self.gradient(e.p_succ_NK, e.value_N, copies)
        cosine_RN = cosine(ideal_NK, np.tile(self.ideal_NK, (copies, 1))).reshape(copies, -1)
        return on_path, float(1.0 - np.nan_to_num(cosine_RN[:, self.used_N]).mean())


Allotter = Callable[[Scene, int], list[Allotment]]


def under(rule: Callable[[Tree, int], Allotment]) -> Allotter:
    return lambda scene, n: [rule(tree, n) for _, tree in trees(scene.nodes)]


def neyman(n_sig: int) -> Allotter:
    return under(lambda tree, n: allocation.neyman(tree, allocation.uniform(tree, n).n_completions, min(n_sig, n)))


def knowing(*, gradients: bool) -> Allotter:
    """Neyman allocation that knows the true q (1 - q) of every stratum, and also how large every ideal gradient is and how
    uncertain: no way of looking at outcomes can do better. It cannot be had."""

    def allot(scene: Scene, n: int) -> list[Allotment]:
        squared_N = np.nansum(scene.ideal_NK**2, axis=1)
        alike_N = trace_of_covariance(scene.nodes.logprob_NK, np.ones(scene.p_NK.shape), scene.token_NK)
        importance_N = np.ones(len(squared_N))
        found: list[Allotment] = []
        for _ in range(4 if gradients else 1):
            found = [_known(tree, importance_N[rows], scene.q_NK[rows], n) for rows, tree in trees(scene.nodes)]
            if gradients:
                # The derivative of 1 - 1/sqrt(1 + noise/signal) in the noise.
                noise_N = _noise(scene, found)
                importance_N = alike_N * np.sqrt(squared_N) / np.maximum(squared_N + noise_N, 1e-12) ** 1.5 * scene.used_N
        return found

    return allot


def _known(tree: Tree, importance_N: Array, q_NK: Array, n: int) -> Allotment:
    coefficient_NK = allocation.error_coefficients(tree, importance_N) * (q_NK * (1.0 - q_NK) + 1e-4)
    floor_NK = allocation.floors(tree, min(N_SIG, n))
    own_NK = allocation.fill(floor_NK, np.sqrt(coefficient_NK), tree.cost_NK, allocation.uniform(tree, n).n_completions)
    return Allotment(own_NK, np.zeros(own_NK.shape, dtype=np.int64), N_SIG)


def _noise(scene: Scene, allotments: Sequence[Allotment]) -> Array:
    """tr Cov of every node's estimated ideal gradient, from the true variances."""
    n_NK = np.zeros(scene.p_NK.shape)
    for (rows, _), given in zip(trees(scene.nodes), allotments, strict=True):
        n_NK[rows, : given.own_NK.shape[1]] = given.own_NK
    variance_NK, value_N = np.zeros(n_NK.shape), np.zeros(len(n_NK))
    stay_NK = np.where(scene.on_path_NK, np.exp(np.nan_to_num(scene.nodes.continue_logprob_NK)), 0.0)
    P_NK = np.exp(np.nan_to_num(scene.nodes.logprob_NK, nan=-np.inf))
    for row in reversed(range(len(n_NK))):
        own_K = np.where(n_NK[row] > 0, scene.q_NK[row] * (1 - scene.q_NK[row]) / np.maximum(n_NK[row], 1), 0.0)
        ahead_K = np.where(scene.nodes.next_NK[row] == NOWHERE, 0.0, value_N[scene.nodes.next_NK[row]])
        variance_NK[row] = stay_NK[row] ** 2 * ahead_K + (1.0 - stay_NK[row]) ** 2 * own_K
        value_N[row] = float((P_NK[row] ** 2 * variance_NK[row]).sum())
    return trace_of_covariance(scene.nodes.logprob_NK, variance_NK, scene.token_NK)


@dataclass(frozen=True)
class Way:
    """An allocation with an estimator."""

    name: str
    allotter: Allotter
    estimator: Estimator


REFERENCE = Way("uniform, on_policy", under(allocation.uniform), "on_policy")
WAYS = (
    Way("uniform, plain", under(allocation.uniform), "plain"),
    Way("uniform, backup", under(allocation.uniform), "backup"),
    Way("shares, backup", under(allocation.shares), "backup"),
    Way("neyman, backup", neyman(N_SIG), "backup"),
    Way("neyman without N_sig, backup", neyman(0), "backup"),
    Way("outcomes known, backup", knowing(gradients=False), "backup"),
    Way("outcomes and gradients known, backup", knowing(gradients=True), "backup"),
)


@dataclass(frozen=True)
class Ratio:
    """Completions of the reference over those of a way, at equal error."""

    value: float
    bound: str = ""  #: ">" where the fewest completions have less error already, "<" where the most have more


def ratio(totals: Sequence[int], errors: Sequence[float], reference: int, target: float) -> Ratio:
    """By interpolation between the logarithms; from the first number of completions that falls below the target."""
    below = next((at for at, error in enumerate(errors) if error <= target), None)
    if below is None:
        return Ratio(reference / totals[-1], "<")
    if below == 0:
        return Ratio(reference / totals[0], ">")
    x0, x1 = math.log(totals[below - 1]), math.log(totals[below])
    y0, y1 = math.log(errors[below - 1]), math.log(errors[below])
    return Ratio(reference / math.exp(x0 + (x1 - x0) * (y0 - math.log(target)) / (y0 - y1)))


def off_path_share(scene: Scene) -> float:
    """Of the reference's noise in the ideal gradient (trace of its covariance), the share of children off the paths."""
    launches = allotted(scene.nodes, REFERENCE.allotter(scene, N_REFERENCE))
    e: Estimates = estimate(simulate(scene.children, launches, times=1, seed=1), n_sig=0, estimator="on_policy")
    everything_N = trace_of_covariance(scene.nodes.logprob_NK, e.variance_NK, scene.token_NK)
    off_path_N = trace_of_covariance(scene.nodes.logprob_NK, np.where(scene.on_path_NK, 0.0, e.variance_NK), scene.token_NK)
    noisy_N = scene.used_N & (everything_N > 0)
    return float(np.mean(off_path_N[noisy_N] / everything_N[noisy_N]))


def measure(scene: Scene) -> dict[str, tuple[Ratio, Ratio]]:
    """Of every way, the ratio by the error of on-path p_succ and by that of the cosine."""
    launches = allotted(scene.nodes, REFERENCE.allotter(scene, N_REFERENCE))
    total = sum(launch.n for launch in launches)
    targets = scene.errors(launches, REFERENCE.estimator, 2 * COPIES, seed=0)
    found = {}
    for way in WAYS:
        totals, errors = [], []
        for n in GRID:
            launches = allotted(scene.nodes, way.allotter(scene, n))
            totals.append(sum(launch.n for launch in launches))
            errors.append(scene.errors(launches, way.estimator, COPIES, seed=n))
        columns = list(zip(*errors, strict=True))
        found[way.name] = ratio(totals, columns[0], total, targets[0]), ratio(totals, columns[1], total, targets[1])
    return found


def scenes() -> tuple[list[Scene], float]:
    """Both models, densely and sparsely targeted; and how the engine's own completions agree with the enumeration."""
    found = []
    for variant in VARIANTS:
        for targeting in ("dense", "sparse"):
            study = small_study(variant, MODEL_QUESTIONS, 1, targeting=targeting)
            found.append(Scene(f"small language model, {variant}, {targeting}", study.children, study.nodes.question_N))
    worst = 0.0
    for targeting, student in exact_student(STUDENT_QUESTIONS, 10).items():
        scene = Scene(f"tiny student, {targeting}", student.children, student.nodes.question_N)
        found.append(scene)
        worst = max(worst, _surprise(scene, student.nodes))
    return found, worst


def _surprise(scene: Scene, nodes: Nodes) -> float:
    """Root mean square of (S - N q)/sqrt(N q (1 - q)) over the strata of a run: 1 where engine and enumeration agree."""
    counts = stratum_counts(nodes)
    expected_NK, spread_NK = counts.n_NK * scene.q_NK, counts.n_NK * scene.q_NK * (1.0 - scene.q_NK)
    told_NK = spread_NK > 1.0
    return float(np.sqrt(np.mean((counts.n_success_NK - expected_NK)[told_NK] ** 2 / spread_NK[told_NK])))


def main() -> None:
    torch.set_num_threads(1)
    as_json = "--json" in sys.argv
    found, surprise = scenes()
    if not as_json:
        print(f"The engine's completions against the enumeration: rms of their z scores {surprise:.2f}\n")
    figures = {}
    for scene in found:
        gap = float((1.0 - np.exp(scene.nodes.continue_logprob_NK[scene.on_path_NK])).mean())
        share, measured = off_path_share(scene), measure(scene)
        if not as_json:
            n_children = scene.token_NK.sum(axis=1).mean()
            print(f"{scene.name}: {len(scene.nodes)} nodes, {n_children:.1f} tokens each, mean gap mass {gap:.3f}")
            print(f"  of the reference's noise {100 * share:.0f} % is of children off the paths")
            print(f"  {'completions of the reference over':38} {'on-path p_succ':>14} {'cosine':>8}", flush=True)
        for way, pair in measured.items():
            if not as_json:
                on_path, of_cosine = (f"{one.bound}{one.value:.1f}" for one in pair)
                print(f"  {way:38} {on_path:>14} {of_cosine:>8}", flush=True)
            for error, one in zip(("on-path", "cosine"), pair, strict=True):
                figures[f"{scene.name}: {way}: {error}"] = round(one.value, 3)
        figures[f"{scene.name}: gap mass"] = round(gap, 4)
        figures[f"{scene.name}: off-path share of noise"] = round(share, 3)
    print(json.dumps({"name": "estimators", "figures": figures}))


if __name__ == "__main__":
    main()
