"""Studies in which no child is better than its siblings, so that whatever is found there is noise."""

from __future__ import annotations

import numpy as np
from made_nodes import Child, make_nodes
from msgspec.structs import replace

from compute.evidence import Evidence, evidence
from store.schema import ChildKind, ForcedKind
from store.tables import Paths

N_TOKENS = 6
#: Of a student that is as sure of its next token as real ones are.
PEAKED = 3.0
#: Success rates along a correct path; along an incorrect one the failure rate is this.
VALUES = np.linspace(0.7, 0.97, 12)


def equal_siblings(n_questions: int, path_n: int, other_n: int, seed: int, tau: float = 0.7) -> Evidence:
    """Two correct and two incorrect paths a question, `path_n` completions at the path's child and `other_n` at others.

    `sharpened` is the student at temperature `tau`, `random` the student with noise.
    """
    rng = np.random.default_rng(seed)
    correct_L = np.tile([True, True, False, False], n_questions)
    depth = len(VALUES)
    N = len(correct_L) * depth
    value_N = np.where(correct_L[:, None], VALUES, 1.0 - VALUES).ravel()
    logit_NK = rng.normal(scale=PEAKED, size=(N, N_TOKENS))
    logprob_NK = logit_NK - np.log(np.exp(logit_NK).sum(axis=1, keepdims=True))
    drawn_N = (np.exp(logprob_NK).cumsum(axis=1) < rng.uniform(size=(N, 1))).sum(axis=1).clip(max=N_TOKENS - 1)
    n_NK = np.where(np.arange(N_TOKENS) == drawn_N[:, None], path_n, other_n)
    logit_MNK = np.stack([logprob_NK / tau, logprob_NK + rng.normal(size=logprob_NK.shape)])
    teacher_MNK = logit_MNK - np.log(np.exp(logit_MNK).sum(axis=-1, keepdims=True))
    node_G, token_G = (np.repeat(a.ravel(), 2) for a in np.indices((N, N_TOKENS)))
    half_G = np.tile([0, 1], N * N_TOKENS)
    n_G = (np.repeat(n_NK.ravel(), 2) + 1 - half_G) // 2
    one = make_nodes([[Child(k, 1.0 / N_TOKENS) for k in range(N_TOKENS)]])
    nodes = replace(
        one,
        question_N=np.repeat(np.arange(n_questions), 4 * depth),
        position_N=np.tile(np.arange(depth), 4 * n_questions),
        parent_N=np.full(N, -1),
        nominated_by_N=np.ones(N, dtype=np.int64),
        token_NK=np.tile(np.arange(N_TOKENS), (N, 1)),
        kind_NK=np.full((N, N_TOKENS), ChildKind.CANDIDATE),
        logprob_NK=logprob_NK,
        child_nominated_by_NK=np.ones((N, N_TOKENS), dtype=np.int64),
        next_NK=np.full((N, N_TOKENS), -1),
        continue_logprob_NK=np.full((N, N_TOKENS), np.nan),
        outcome_NK=np.tile(one.outcome_NK, (N, 1)),
        group_launch_node_G=node_G,
        group_forced_kind_G=np.full(len(node_G), ForcedKind.TOKEN),
        group_forced_token_G=token_G,
        group_exit_node_G=node_G,
        group_exit_token_G=token_G,
        group_half_G=half_G,
        group_n_G=n_G,
        group_n_success_G=rng.binomial(n_G, value_N[node_G]),
        group_n_truncated_G=np.zeros_like(n_G),
        teachers=("sharpened", "random"),
        teacher_logprob_MNK=teacher_MNK,
        objectives=("reverse_kl",),
        fbar_MNO=(np.exp(logprob_NK) * (teacher_MNK - logprob_NK)).sum(axis=-1)[..., None],
    )
    paths = Paths(
        question_L=np.repeat(np.arange(n_questions), 4),
        rollout_index_L=np.tile(np.arange(4), n_questions),
        correct_L=correct_L,
        start_L1=np.arange(0, N + 1, depth),
        node_P=np.arange(N),
    )
    return evidence(nodes, paths, n_sig=min(path_n, other_n), length_L=np.full(len(correct_L), depth))
