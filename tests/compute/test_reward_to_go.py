"""F of `minillm`, backed up from strata, against the exact one of a small language model."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.made_tables import Child, make_nodes
from benchmarks.small_language_model import LENGTH, VARIANTS, make_teachers, sample_paths, small_language_model
from compute import objectives
from compute.estimators import estimate
from compute.reward_to_go import expected_later
from compute.scores import score_estimates
from compute.tree import Trie
from store.schema import NOWHERE, REST_TOKEN, ChildKind
from store.tables import Nodes

TARGETS = (0, 2, 3, 7)


def exact_F(model, log_T_MTSV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """KL(P‖T) and F after T tokens in state S: [M, T, S]; F of a finished response is 0."""
    P_SV = np.exp(model.logprob_SV)
    kl_MTS = (P_SV * (model.logprob_SV - log_T_MTSV)).sum(axis=-1)
    F_MTS = np.zeros((len(log_T_MTSV), LENGTH + 1, len(P_SV)))
    for t in reversed(range(LENGTH)):
        F_MTS[:, t] = -kl_MTS[:, t] + (P_SV * F_MTS[:, t + 1][:, model.next_SV]).sum(axis=-1)
    return kl_MTS, F_MTS


def exact_table(variant: str) -> tuple[Nodes, np.ndarray, np.ndarray]:
    """Nodes of three paths at `TARGETS` and forks, with exact sums of what comes later; F(u, k) and F(u)."""
    model = small_language_model(variant, 5)
    teachers = make_teachers(model, 5)
    kl_MTS, F_MTS = exact_F(model, teachers.logprob_MTSV)
    start = 4
    trie = Trie(sample_paths(model, start, np.random.default_rng(1)))
    targets = {at for path in range(len(trie.paths)) for at in (trie.along(path)[t] for t in TARGETS)} | set(trie.forks())
    row_of = {at: row for row, at in enumerate(sorted(targets))}
    M, rows, T_rows, later_rows, gap_rows, F_rows, state_of = len(F_MTS), [], [], [], [], [], {}
    for at in row_of:
        state_of[at] = start
        for token in trie.prefix(at):
            state_of[at] = int(model.next_SV[state_of[at], token])
    for at in row_of:
        t, s = trie.nodes[at].depth, state_of[at]
        P_V, log_T_MV = np.exp(model.logprob_SV[s]), teachers.logprob_MTSV[:, t, s]
        F_MV = F_MTS[:, t + 1][:, model.next_SV[s]]
        tokens = sorted({int(k) for k in np.flatnonzero(P_V > 0.1)} | set(trie.nodes[at].children))
        outside = [k for k in range(len(P_V)) if k not in tokens]
        children, later, gaps = [], [], []
        for k in tokens:
            own, gap = F_MV[:, k], np.zeros(M)
            if k not in trie.nodes[at].children:
                children.append(Child(k, P_V[k]))
            else:
                chain = trie.chain(at, k, row_of)
                state, reach = int(model.next_SV[s, k]), chain.reach()
                spent = np.zeros(M)
                for position, probability in zip(chain.positions, reach, strict=True):
                    spent += probability * kl_MTS[:, position, state]
                    state = int(model.next_SV[state, trie.paths[chain.path].token_ids[position]])
                stay = float(np.exp(chain.continue_logprob))
                ahead = F_MTS[:, t + 1 + len(chain.positions), state] if chain.next_node != NOWHERE else np.zeros(M)
                # F(u, k) = -spent + stay * ahead + (1 - stay) * mean of what leaves
                own = (F_MV[:, k] + spent - stay * ahead) / (1 - stay) if chain.positions else np.full(M, np.nan)
                gap = spent
                children.append(Child(k, P_V[k], ChildKind.ON_PATH, row_of.get(chain.next_node, NOWHERE), stay, chain.outcome))
            later.append(own)
            gaps.append(gap)
        children.append(Child(REST_TOKEN, P_V[outside].sum(), ChildKind.REST))
        later.append(F_MV[:, outside] @ P_V[outside] / P_V[outside].sum())
        gaps.append(np.zeros(M))
        rows.append(children)
        later_rows.append(np.array(later).T)
        gap_rows.append(np.array(gaps).T)
        F_rows.append(np.append(F_MV[:, tokens], later[-1][:, None], axis=1))
        T_M = np.exp(log_T_MV)
        T_rows.append(np.append(T_M[:, tokens], T_M[:, outside].sum(axis=1, keepdims=True), axis=1))

    def padded(pieces: list[np.ndarray]) -> np.ndarray:
        table = np.full((M, len(pieces), max(piece.shape[1] for piece in pieces)), np.nan)
        for row, piece in enumerate(pieces):
            table[:, row, : piece.shape[1]] = piece
        return table

    node_kl = np.array([kl_MTS[:, trie.nodes[at].depth, state_of[at]] for at in row_of]).T
    nodes = make_nodes(
        rows, teachers=teachers.names, teacher_MNK=padded(T_rows), objectives=("reverse_kl",), fbar_MNO=-node_kl[..., None]
    )
    later_MNK = padded(later_rows)
    n_MNK = np.where(np.isnan(later_MNK), 0, 8)
    nodes = replace(
        nodes, later_n_MNK=n_MNK, later_sum_MNK=np.where(n_MNK, 8 * later_MNK, 0.0), gap_kl_MNK=padded(gap_rows),
        later_sum_squares_MNK=np.zeros_like(later_MNK),
    )  # fmt: skip
    F_node_MN = np.array([F_MTS[:, trie.nodes[at].depth, state_of[at]] for at in row_of]).T
    return nodes, padded(F_rows), F_node_MN


@pytest.mark.parametrize("variant", VARIANTS)
def test_backed_up_F_is_the_exact_one(variant: str) -> None:
    nodes, F_MNK, F_MN = exact_table(variant)
    later_MNK, node_MN = expected_later(nodes)
    np.testing.assert_allclose(node_MN, F_MN, atol=1e-10)
    np.testing.assert_allclose(later_MNK, F_MNK, atol=1e-10)
    assert (nodes.kind_NK == ChildKind.ON_PATH).sum() > 8
    assert np.nanmin(F_MNK) < -0.05


def test_where_no_completion_was_read_nothing_is_known_above_either() -> None:
    nodes, *_ = exact_table("mixing")
    leaf = int(np.argmax(nodes.position_N))
    n_MNK = nodes.later_n_MNK.copy()
    n_MNK[0, leaf] = 0
    later_MNK, node_MN = expected_later(replace(nodes, later_n_MNK=n_MNK))
    above = leaf
    while above != NOWHERE:
        assert np.isnan(node_MN[0, above])
        assert np.isfinite(node_MN[1, above])
        above = int(nodes.parent_N[above])
    assert np.isfinite(later_MNK[0]).any()


def test_minillm_moves_a_token_by_its_ratio_and_what_comes_after() -> None:
    nodes, F_MNK, F_MN = exact_table("sticky")
    estimates = estimate(nodes, n_sig=1)
    shape = nodes.token_NK.shape
    kept = replace(
        estimates, kept_NK=nodes.token_NK >= 0, p_succ_NK=np.random.default_rng(0).random(shape), value_N=np.full(shape[0], 0.5)
    )
    scores = score_estimates(nodes, kept, objectives=["minillm", "reverse_kl"])
    log_r_MNK = nodes.teacher_logprob_MNK - nodes.logprob_NK
    expected = np.exp(nodes.logprob_NK) * (log_r_MNK + F_MNK - F_MN[..., None])
    np.testing.assert_allclose(scores.update_MONK[:, 0], np.where(nodes.token_NK >= 0, expected, np.nan), atol=1e-10)
    assert np.nanmax(np.abs(scores.update_MONK[:, 0] - scores.update_MONK[:, 1])) > 0.01
    assert objectives.parse("minillm").needs == ("later",)
