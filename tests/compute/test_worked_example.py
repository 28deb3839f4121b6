"""The ten-node tree of worked_example.json, worked by hand in exact fractions: every number of it comes out."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_nodes import Child, Group, make_nodes, on_path, rest

from compute import objectives
from compute.alignment import (
    SUPPORTS,
    Support,
    contrast,
    contrast_variance,
    cut,
    ideal_gradient,
    lump,
    renormalise,
    trace_of_covariance,
)
from compute.estimators import Estimator, estimate, passing_counts
from compute.scores import score
from compute.statistics import normal_cdf
from store.schema import ABSENT_TOKEN, REST_TOKEN, ForcedKind
from store.tables import Nodes

EXAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "worked_example.json").read_text())
NODES: dict[str, Any] = EXAMPLE["nodes"]
EXPECTED: dict[str, Any] = EXAMPLE["expected"]
NAMES = list(NODES)
OBJECTIVES = ("reverse_kl", "forward_kl", "jsd(0.5)")
VOCABULARY: list[str] = EXAMPLE["vocabulary"]
CASES = [(name, support) for name in NAMES for support in SUPPORTS]


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


def token(child: str) -> int:
    return REST_TOKEN if child == "rest" else VOCABULARY.index(child)


def worked_nodes() -> Nodes:
    """Children: the kept tokens, then the rest. The path's end ABC is only a stratum, so C is a candidate at u2."""
    children, T_NK, fbar_NO = [], [], []
    for row, node in enumerate(NODES.values()):
        P, T = node["P"], node["T"]
        next_row = {} if row == 2 else {node["on_path_child"]: row + 1}
        tokens = [on_path(token(k), P[k], next_row[k]) if k in next_row else Child(token(k), P[k]) for k in node["kept"]]
        children.append([*tokens, rest(sum(P[k] for k in P if k not in node["kept"]))])
        T_NK.append([*(T[k] for k in node["kept"]), sum(T[k] for k in T if k not in node["kept"])])
        log_P, log_T = np.log(list(P.values())), np.log(list(T.values()))
        fbar_NO.append([float(objectives.fbar(name, log_P, log_T)) for name in OBJECTIVES])
    groups = []
    for c in EXAMPLE["completions"]:
        kind = {"*": ForcedKind.NONE, "rest": ForcedKind.REST}.get(c["forced"], ForcedKind.TOKEN)
        forced_token = token(c["forced"]) if kind == ForcedKind.TOKEN else ABSENT_TOKEN
        launch = -1 if kind == ForcedKind.NONE else NAMES.index(c["launch"])
        leaves = NAMES.index(c["exit_node"]), token(c["exit_child"])
        groups.append(Group(launch, kind, forced_token, *leaves, c["n"], c["n_success"]))
    return make_nodes(
        children,
        groups,
        teachers=("teacher",),
        teacher_MNK=np.array([T_NK]),
        objectives=OBJECTIVES,
        fbar_MNO=np.array([fbar_NO]),
    )


@pytest.mark.parametrize("name", NAMES)
def test_children_under_the_three_estimators(name: str) -> None:
    nodes, row = worked_nodes(), NAMES.index(name)
    estimators: tuple[Estimator, ...] = ("plain", "on_policy", "backup")
    by_name = {estimator: estimate(nodes, n_sig=EXAMPLE["n_sig"], estimator=estimator) for estimator in estimators}
    for k, child in enumerate([*NODES[name]["kept"], "rest"]):
        expected = EXPECTED[name]["children"][child]
        for estimator in ("plain", "on_policy"):
            close(by_name[estimator].p_succ_NK[row, k], expected[estimator]["p_succ"])
            assert by_name[estimator].n_NK[row, k] == expected[estimator]["n"]
            assert by_name[estimator].n_success_NK[row, k] == expected[estimator]["n_success"]
        backup = by_name["backup"]
        close(backup.p_succ_NK[row, k], expected["backup"]["p_succ"])
        close(backup.variance_NK[row, k], expected["backup"]["variance"])
        close(backup.effective_n_NK[row, k], expected["backup"]["effective_count"])
        stratum = expected["stratum"] or {"n": 0, "n_success": 0}
        assert (backup.n_NK[row, k], backup.n_success_NK[row, k]) == (stratum["n"], stratum["n_success"])
        assert backup.kept_NK[row, k] == (child != "rest")


@pytest.mark.parametrize("name", NAMES)
def test_values_range_and_advantage(name: str) -> None:
    scores, row = score(worked_nodes(), n_sig=EXAMPLE["n_sig"]), NAMES.index(name)
    expected = EXPECTED[name]
    close(scores.estimates.value_N[row], expected["value"]["p_succ"])
    close(scores.estimates.value_variance_N[row], expected["value"]["variance"])
    close(scores.estimates.value_effective_n_N[row], expected["value"]["effective_count"])
    close(scores.success_rate_range_N[row], expected["success_rate_range"])
    close(scores.advantage_MN[0, row], expected["teacher_advantage"])


@pytest.mark.parametrize(("name", "support"), CASES)
def test_gradients_cosines_and_gains(name: str, support: Support) -> None:
    nodes, row = worked_nodes(), NAMES.index(name)
    scores = score(nodes, n_sig=EXAMPLE["n_sig"], support=support)
    expected = EXPECTED[name]["supports"][support]
    kept_K, variance_K = scores.estimates.kept_NK[row], scores.estimates.variance_NK[row]
    student_K = nodes.logprob_NK[row]
    if support == "renormalised":
        student_K = renormalise(student_K, kept_K)
    ideal_K = vector(scores.ideal_NK[row], support)
    close(ideal_K, list(expected["ideal_gradient"].values()))
    squared_norm, trace = ideal_K @ ideal_K, trace_of_covariance(student_K, variance_K, kept_K, support)
    close(squared_norm, expected["squared_norm"])
    close(trace, expected["trace_of_covariance"])
    close(1.0 - trace / squared_norm, expected["reliability"])
    for o, objective in enumerate(OBJECTIVES):
        numbers = expected["objectives"][objective]
        update_K = vector(scores.update_MONK[0, o, row], support)
        close(update_K, list(numbers["update"].values()))
        close(scores.alignment_MON[0, o, row], numbers["cosine"])
        close(scores.gain_MON[0, o, row], numbers["gain"])
        close(scores.gain_se_MON[0, o, row], numbers["gain_se"])
        ratio = scores.gain_MON[0, o, row] / scores.gain_se_MON[0, o, row]
        close(normal_cdf(ratio), numbers["p_positive_flat_normal"])
        # First-order: the cosine's derivative in g is (d/|d| - cos g/|g|) / |g|, linear in p like a gain.
        kept_update_K, kept_ideal_K = scores.update_MONK[0, o, row], scores.ideal_NK[row]
        slope_K = kept_update_K / np.linalg.norm(update_K) - numbers["cosine"] * kept_ideal_K / np.sqrt(squared_norm)
        slope_K = slope_K / np.sqrt(squared_norm)
        close(np.sqrt(contrast_variance(contrast(student_K, slope_K, support), variance_K)), numbers["cosine_se_delta"])


def vector(kept_K: np.ndarray, support: Support) -> np.ndarray:
    """The finite coordinates, with the one more of the lumped support."""
    whole_K = lump(kept_K) if support == "lumped" else kept_K
    return whole_K[np.isfinite(whole_K)]


@pytest.mark.parametrize("name", NAMES)
def test_contract_functions_reproduce_the_sliced_vectors_from_the_whole_vocabulary(name: str) -> None:
    """P, T and p over the five tokens (tokens of the rest share its p), vectors cut to the kept ones afterwards."""
    node, expected = NODES[name], EXPECTED[name]["supports"]["sliced"]
    p = [EXPECTED[name]["children"][k if k in node["kept"] else "rest"]["backup"]["p_succ"] for k in VOCABULARY]
    log_P, log_T = np.log([node["P"][k] for k in VOCABULARY]), np.log([node["T"][k] for k in VOCABULARY])
    kept = np.array([k in node["kept"] for k in VOCABULARY])
    close(cut(ideal_gradient(log_P, p), kept)[kept], list(expected["ideal_gradient"].values()))
    for objective in OBJECTIVES:
        update = objectives.update(objective, log_P, log_T)
        close(update[kept], list(expected["objectives"][objective]["update"].values()))


@pytest.mark.parametrize("name", NAMES)
def test_finite_sample_dr_grpo_uses_unforced_rollouts_only(name: str) -> None:
    nodes, row, expected = worked_nodes(), NAMES.index(name), EXPECTED[name]["dr_grpo_finite_sample"]
    counts = passing_counts(nodes, "unforced")
    assert counts.n_NK[row].sum() == expected["n_rollouts"]
    group_mean = counts.n_success_NK[0].sum() / counts.n_NK[0].sum()
    close(group_mean, expected["group_mean"])
    close(np.sqrt(group_mean * (1.0 - group_mean)), expected["group_std"])
    update = objectives.dr_grpo_sample(nodes.logprob_NK[row], counts.n_NK[row], counts.n_success_NK[row], group_mean)
    np.testing.assert_allclose(update, list(expected["update"].values()), rtol=1e-12, atol=1e-15)


def page_tables() -> dict[str, str]:
    """The tables of docs/worked_example.md, from the code."""
    nodes = worked_nodes()
    scores = score(nodes, n_sig=EXAMPLE["n_sig"])
    by_name = {name: estimate(nodes, n_sig=EXAMPLE["n_sig"], estimator=name) for name in ("plain", "on_policy", "backup")}
    estimates = by_name["backup"]
    children, gradients, summary = [], [], []
    for row, name in enumerate(NAMES):
        for k, child in enumerate([*NODES[name]["kept"], "rest"]):
            n, n_success = estimates.n_NK[row, k], estimates.n_success_NK[row, k]
            own = f"{n_success}/{n}" if n else "none"
            pooled, on_policy, backup = (_fraction(one.p_succ_NK[row, k]) for one in by_name.values())
            numbers = f"{estimates.variance_NK[row, k]:.6f} | {estimates.effective_n_NK[row, k]:.2f}"
            children.append(f"| {name} | {child} | {own} | {pooled} | {on_policy} | {backup} | {numbers} |")
            if child != "rest":
                update = f"{scores.update_MONK[0, 0, row, k]:+.6f}"
                gradients.append(f"| {name} | {child} | {scores.ideal_NK[row, k]:+.6f} | {update} |")
        for o, objective in enumerate(OBJECTIVES):
            gain = f"{scores.gain_MON[0, o, row]:+.6f} | {scores.gain_se_MON[0, o, row]:.6f}"
            value = f"{_fraction(scores.estimates.value_N[row])} | {scores.advantage_MN[0, row]:+.6f}"
            summary.append(f"| {name} | {value} | {objective} | {scores.alignment_MON[0, o, row]:+.6f} | {gain} |")
    return {"children": "\n".join(children), "gradients": "\n".join(gradients), "summary": "\n".join(summary)}


def _fraction(value: float) -> str:
    return str(Fraction(float(value)).limit_denominator(10_000))


@pytest.mark.parametrize("name", ["children", "gradients", "summary"])
def test_the_page_shows_these_numbers(name: str) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "worked_example.md"
    assert page_tables()[name] in page.read_text(encoding="utf-8")
