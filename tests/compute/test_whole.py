"""The whole vocabulary in a few numbers: fbar of any objective from what a store keeps."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.made_tables import Child, make_nodes
from compute import objectives
from compute.alignment import SUPPORTS
from compute.scores import score
from compute.updates import takes_whole
from compute.whole import mean_f, whole
from store.tables import Nodes
from tests.compute.made_nodes import rest
from tests.compute.test_objectives import log_softmax

V, TOP_K, TAU = 5000, 16, 0.02
EXACT = ("reverse_kl", "forward_kl", "k3_reward", "k3_loss", "sampled_token(-1)", "total_variation", "squared_error", "chi2")
TOP = ("top_k_reverse_kl(3, whole)", "top_k_reverse_kl(16, renormalised)", "top_k_reverse_kl(5, stop_gradient)")
CLOSE = ("jsd(0.1)", "jsd(0.5)", "jsd(0.9)", "skewed_forward_kl(0.1)", "skewed_reverse_kl(0.3)", "hellinger")


def vocabulary(seed: int, spread: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Student and two teachers over a large vocabulary, as float32 as a store keeps them."""
    rng = np.random.default_rng(seed)
    logp_V = log_softmax(rng.normal(0, spread, V))
    logt_MV = log_softmax(logp_V + rng.normal(0, noise, (2, V)))
    return logp_V, logt_MV


def table(pairs: list[tuple[np.ndarray, np.ndarray]], names: tuple[str, ...] = ()) -> tuple[Nodes, list[np.ndarray]]:
    """One node per pair, its children the tokens above tau; and their ids."""
    rows, kept, teachers, tokens_N = [], [], [], []
    for logp_V, logt_MV in pairs:
        tokens = np.flatnonzero((logp_V > np.log(TAU)) | (logt_MV > np.log(TAU)).any(axis=0))
        tokens_N.append(tokens)
        P, T_M = np.exp(logp_V), np.exp(logt_MV)
        rows.append([*(Child(int(token), P[token]) for token in tokens), rest(1 - P[tokens].sum())])
        teachers.append(np.append(T_M[:, tokens], 1 - T_M[:, tokens].sum(axis=1, keepdims=True), axis=1))
        kept.append(whole(logp_V, logt_MV, tokens, TOP_K))
    T_MNK = np.full((2, len(pairs), max(map(len, rows))), np.nan)
    for row, T_MK in enumerate(teachers):
        T_MNK[:, row, : T_MK.shape[1]] = T_MK
    fbar_MNO = np.array([[[objectives.fbar(name, p, t) for name in names] for p, t_M in pairs for t in [t_M[m]]] for m in (0, 1)])
    nodes = make_nodes(rows, teachers=("a", "b"), teacher_MNK=T_MNK, objectives=names, fbar_MNO=fbar_MNO)
    nodes = replace(
        nodes,
        topk_logprob_NC=np.float32([one.topk_logprob_C for one in kept]),
        teacher_topk_logprob_MNC=np.float32([one.teacher_topk_logprob_MC for one in kept]).transpose(1, 0, 2),
        rest_moment_MNB=np.float32([one.rest_moment_MB for one in kept]).transpose(1, 0, 2),
    )
    return nodes, tokens_N


PAIRS = [
    vocabulary(seed, spread, noise) for seed, (spread, noise) in enumerate([(2, 1), (3, 1), (4, 2), (3, 0.3), (5, 4), (3, 8)])
]


@pytest.mark.parametrize(("spelling", "tolerance"), [*((s, 1e-5) for s in (*EXACT, *TOP)), *((s, 5e-3) for s in CLOSE)])
def test_fbar_from_a_few_numbers_is_that_of_the_whole_vocabulary(spelling: str, tolerance: float) -> None:
    """The error that it makes of the update, relative to the update's size."""
    nodes, tokens_N = table(PAIRS)
    found_MN = mean_f(objectives.parse(spelling), nodes)
    for n, (logp_V, logt_MV) in enumerate(PAIRS):
        for m, logt_V in enumerate(logt_MV):
            update = objectives.update(spelling, logp_V, logt_V)[tokens_N[n]]
            error = found_MN[m, n] - objectives.fbar(spelling, logp_V, logt_V)
            assert abs(error) * np.linalg.norm(np.exp(logp_V[tokens_N[n]])) <= tolerance * np.linalg.norm(update)


@pytest.mark.parametrize("spelling", ["reverse_kl", "jsd(0.5)", *TOP])
@pytest.mark.parametrize("support", SUPPORTS)
def test_an_objective_switched_to_scores_as_one_of_the_study(spelling: str, support: str) -> None:
    with_fbar, _ = table(PAIRS, (str(objectives.parse(spelling)),))
    without, _ = table(PAIRS)
    rng = np.random.default_rng(0)
    groups = {"group_launch_node_G": [], "group_exit_token_G": [], "group_n_success_G": []}
    for row, tokens in enumerate(without.token_NK):
        for token in tokens[(tokens >= 0) | (tokens == -2)]:
            for name, value in zip(groups, (row, token, rng.integers(0, 40)), strict=True):
                groups[name].append(value)
    n = len(groups["group_exit_token_G"])
    columns = {name: np.array(values) for name, values in groups.items()}
    columns |= {"group_exit_node_G": columns["group_launch_node_G"], "group_n_G": np.full(n, 40)}
    columns |= {name: np.zeros(n, int) for name in ("group_half_G", "group_n_truncated_G")}
    columns |= {"group_forced_kind_G": np.ones(n, int), "group_forced_token_G": columns["group_exit_token_G"]}
    one = score(replace(with_fbar, **columns), n_sig=20, support=support)
    other = score(replace(without, **columns), n_sig=20, support=support, objectives=[spelling])
    assert other.objectives == one.objectives
    assert np.isfinite(one.alignment_MON).any()
    np.testing.assert_allclose(other.alignment_MON, one.alignment_MON, atol=5e-3)


def test_more_than_the_kept_top_k_is_refused() -> None:
    nodes, _ = table(PAIRS[:1])
    with pytest.raises(ValueError, match="keeps the student's 16 most likely tokens, not 17"):
        mean_f(objectives.parse("top_k_reverse_kl(17)"), nodes)


def test_a_table_read_without_the_whole_vocabulary_says_how_to_read_it() -> None:
    nodes, _ = table(PAIRS[:1])
    with pytest.raises(ValueError, match="whole=True"):
        mean_f(objectives.parse("chi2"), replace(nodes, rest_moment_MNB=None))


def test_which_objectives_take_the_whole_vocabulary() -> None:
    stored = ("reverse_kl", "top_k_reverse_kl(16, renormalised)")
    assert not takes_whole(("reverse_kl", "dr_grpo"), stored)
    assert takes_whole(("jsd",), stored)
    assert takes_whole(("top_k_reverse_kl",), stored)
    assert takes_whole(("minillm",), ("minillm",))
