"""Scores of a table: which nodes are decision points, what is NaN, and that nothing heavy is loaded."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from made_nodes import Child, Group, end, make_nodes, on_path, rest
from msgspec.structs import replace

from compute import objectives
from compute.alignment import SUPPORTS, Support
from compute.scores import score
from store.schema import REST_TOKEN, ForcedKind
from store.tables import Nodes

OBJECTIVES = ("reverse_kl", "forward_kl", "jsd(0.3)")


def counted(row: int, token: int, n: int, n_success: int) -> Group:
    kind = ForcedKind.REST if token == REST_TOKEN else ForcedKind.TOKEN
    return Group(row, kind, token, row, token, n, n_success)


def one_node(children: list[Child], counts: list[tuple[int, int, int]], T: list[float]) -> Nodes:
    """A node whose rest is a single token, so that the children are the whole vocabulary."""
    log_P, log_T = np.log([c.probability for c in children]), np.log(T)
    fbar = [float(objectives.fbar(name, log_P, log_T)) for name in OBJECTIVES]
    return make_nodes(
        [children],
        [counted(0, *count) for count in counts],
        teachers=("teacher",),
        teacher_MNK=np.array([[T]]),
        objectives=OBJECTIVES,
        fbar_MNO=np.array([[fbar]]),
    )


CHILDREN = [Child(0, 0.5), Child(1, 0.3), end(2, 0.15, 1), rest(0.05)]
COUNTS = [(0, 20, 5), (1, 20, 12), (REST_TOKEN, 4, 1)]
T = [0.3, 0.4, 0.25, 0.05]


@pytest.mark.parametrize("support", SUPPORTS)
def test_scores_of_one_node_are_the_formulas(support: Support) -> None:
    scores = score(one_node(CHILDREN, COUNTS, T), n_sig=20, support=support)
    P, p, kept = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.25, 0.6, 1.0, 0.25]), slice(0, 3)
    Q = np.array(T)
    if support == "renormalised":
        P, Q, p = P[kept] / P[kept].sum(), Q[kept] / Q[kept].sum(), p[kept]
    g, d = P * (p - P @ p), P * (np.log(Q / P) - P @ np.log(Q / P))
    np.testing.assert_allclose(scores.ideal_NK[0], [*g[kept], np.nan], atol=1e-14)
    np.testing.assert_allclose(scores.update_MONK[0, 0, 0], [*d[kept], np.nan], atol=1e-14)
    g, d = g[kept], d[kept]
    if support == "lumped":
        g, d = np.append(g, -g.sum()), np.append(d, -d.sum())
    assert scores.alignment_MON[0, 0, 0] == pytest.approx(g @ d / np.linalg.norm(g) / np.linalg.norm(d))
    assert scores.gain_MON[0, 0, 0] == pytest.approx(g @ d / np.linalg.norm(d))
    assert scores.gain_se_MON[0, 0, 0] > 0.0
    assert (scores.n_kept_N[0], scores.success_rate_range_N[0]) == (3, 0.75)
    assert scores.decision_point_N[0]


def test_gain_se_counts_the_children_that_are_not_kept() -> None:
    """V moves with the rest's p_succ, hence so does every coordinate of the sliced gradient."""
    few, many = (score(one_node(CHILDREN, [*COUNTS[:2], (REST_TOKEN, n, n // 4)], T), n_sig=20) for n in (4, 4000))
    assert few.gain_MON[0, 0, 0] == pytest.approx(many.gain_MON[0, 0, 0])
    assert few.gain_se_MON[0, 0, 0] > many.gain_se_MON[0, 0, 0]


@pytest.mark.parametrize(
    ("counts", "n_kept", "decides"),
    [
        ([(0, 20, 5), (1, 19, 12), (REST_TOKEN, 4, 1)], 2, True),  # the end token is always kept
        ([(0, 19, 5), (1, 19, 12), (REST_TOKEN, 40, 1)], 1, False),  # the rest never is
        ([(0, 20, 20), (1, 20, 20), (REST_TOKEN, 4, 1)], 3, False),  # no difference between children
    ],
)
def test_a_decision_point_has_two_kept_children_that_differ(
    counts: list[tuple[int, int, int]], n_kept: int, decides: bool
) -> None:
    scores = score(one_node(CHILDREN, counts, T), n_sig=20)
    assert scores.n_kept_N[0] == n_kept
    assert bool(scores.decision_point_N[0]) == decides
    for array in (scores.alignment_MON, scores.gain_MON, scores.gain_se_MON, scores.advantage_MN):
        assert np.isfinite(array).all() == decides


def test_a_teacher_equal_to_the_student_is_not_scored() -> None:
    scores = score(one_node(CHILDREN, COUNTS, [0.5, 0.3, 0.15, 0.05]), n_sig=20)
    assert np.isnan(scores.alignment_MON).all() and np.isnan(scores.gain_MON).all() and np.isnan(scores.gain_se_MON).all()
    assert scores.advantage_MN[0, 0] == pytest.approx(0.0, abs=1e-15)


def test_an_unknown_rest_leaves_only_the_renormalised_support() -> None:
    nodes = one_node(CHILDREN, COUNTS[:2], T)
    assert np.isnan(score(nodes, n_sig=20, support="sliced").alignment_MON).all()
    assert np.isfinite(score(nodes, n_sig=20, support="renormalised").alignment_MON).all()


def test_a_teacher_that_gives_nothing_for_a_node_is_not_scored_there() -> None:
    nodes = one_node(CHILDREN, COUNTS, T)
    nodes = replace(nodes, teacher_logprob_MNK=np.full((1, 1, 4), np.nan), fbar_MNO=np.full((1, 1, 3), np.nan))
    scores = score(nodes, n_sig=20)
    assert np.isnan(scores.alignment_MON).all() and np.isnan(scores.advantage_MN).all()


def test_nodes_of_different_widths_are_scored_as_if_alone() -> None:
    wide, narrow = [on_path(0, 0.5, 1), Child(1, 0.3), Child(2, 0.15), rest(0.05)], [Child(0, 0.6), rest(0.4)]
    groups = [
        counted(0, 1, 20, 5),
        counted(0, 2, 30, 3),
        counted(0, REST_TOKEN, 4, 1),
        counted(1, 0, 20, 18),
        counted(1, REST_TOKEN, 20, 10),
    ]
    teacher_MNK = np.array([[[0.4, 0.3, 0.2, 0.1], [0.7, 0.3, np.nan, np.nan]]])
    nodes = make_nodes([wide, narrow], groups, teachers=("t",), teacher_MNK=teacher_MNK, objectives=("reverse_kl",))
    scores = score(nodes, n_sig=20)
    assert np.isfinite(scores.alignment_MON[0, 0, 0]) and np.isnan(scores.alignment_MON[0, 0, 1])
    np.testing.assert_array_equal(scores.n_kept_N, [3, 1])


def test_no_teacher_and_no_node() -> None:
    assert score(make_nodes([CHILDREN], [counted(0, *c) for c in COUNTS]), n_sig=20).alignment_MON.shape == (0, 0, 1)
    assert score(make_nodes([]), n_sig=20).alignment_MON.shape == (0, 0, 0)


def test_wrong_names_are_refused() -> None:
    nodes = one_node(CHILDREN, COUNTS, T)
    with pytest.raises(ValueError, match="Unknown support 'whole'; allowed: sliced, renormalised, lumped"):
        score(nodes, n_sig=20, support="whole")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unknown objective 'kl'"):
        score(replace(nodes, objectives=("kl", "forward_kl", "jsd")), n_sig=20)


@pytest.mark.parametrize("module", ["scores", "summary", "statistics", "objectives", "alignment", "estimators"])
def test_the_mathematics_loads_numpy_alone(module: str) -> None:
    heavy = ("torch", "transformers", "scipy", "zarr", "textual")
    code = f"import sys, compute.{module}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
