"""What is cheap to know of a token, from the numbers that a store keeps of it."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

import store
from compute.evidence import token_features
from store.schema import TOPK_BITS
from store.tables import Rollout
from store.teacher_topk import Extras, TopK, coarse, split_topk
from tests.compute.test_objectives import log_softmax
from tests.synthetic import write_store

V, T, K = 400, 64, 16


@pytest.fixture(scope="module")
def stored_and_true(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rollout, np.ndarray, np.ndarray]:
    """T tokens with one teacher as a store would keep them, with both sides' whole distributions [T, V]."""
    rng = np.random.default_rng(0)
    logp_TV = log_softmax(rng.gumbel(size=(T, V)) * rng.lognormal(1.0, 0.5, (T, 1)))
    logt_TV = log_softmax(logp_TV + rng.normal(0, 1.0, (T, V)))
    ids, top = (np.argsort(-one, axis=1)[:, :K] for one in (logp_TV, logt_TV))
    at = {name: np.take_along_axis(one, where, 1) for name, one, where in (("pp", logp_TV, ids), ("tp", logt_TV, ids))}
    of_top = TopK(top, np.take_along_axis(logt_TV, top, 1), np.take_along_axis(logp_TV, top, 1))
    kept = split_topk(ids, at["tp"], of_top)
    one = store.open(write_store(tmp_path_factory.mktemp("features") / "S.zarr")).rollout("q000", 0, ["hot"])
    rollout = replace(
        one,
        **{name: getattr(one, name)[np.zeros(T, int)] for name in ("token_id_T", "logprob_T", "entropy_T", "divergence_TMD")},
        teacher_logprob_TM=np.zeros((T, 1)),
        teacher_entropy_TM=np.zeros((T, 1)),
        topk_token_id_TC=ids,
        topk_logprob_TC=coarse(at["pp"]),
        tail_mass_T=(1 - np.exp(at["pp"]).sum(axis=1)).astype(np.float16),
        teacher_logprob_at_student_topk_TMC=kept["logprob_at_student_topk"][:, None],
        teacher_topk_n_TM=kept["topk_n"][:, None],
        extras_M=(Extras(*(kept[name] for name in ("extra_start", "extra_token_id", "extra_logprob", "extra_student_logprob"))),),
    )
    return rollout, np.exp(logp_TV), (ids[:, :, None] == top[:, None, :]).any(-1)


def test_overlap_is_what_both_have_in_common(stored_and_true: tuple[Rollout, np.ndarray, np.ndarray]) -> None:
    rollout, P_TV, shared_TC = stored_and_true
    found = token_features(rollout, np.arange(T))
    np.testing.assert_array_equal(found["overlap"][0], shared_TC.mean(axis=1))
    P_TC = np.take_along_axis(P_TV, rollout.topk_token_id_TC, 1)
    np.testing.assert_allclose(found["overlap_mass"][0], (P_TC * shared_TC).sum(axis=1), atol=2e-3)


def test_rounding_of_likely_tokens_does_not_reach_the_overlap(stored_and_true: tuple[Rollout, np.ndarray, np.ndarray]) -> None:
    """Only the student's tokens outside of the teacher's top-K, and the tail, make an error, each as large as it is."""
    rollout, P_TV, shared_TC = stored_and_true
    found_T = token_features(rollout, np.arange(T))["overlap_mass"][0]
    P_TC = np.take_along_axis(P_TV, rollout.topk_token_id_TC, 1)
    worst_TC = np.where(shared_TC, 0.0, -P_TC * np.log(P_TC)) * 1.01 * (2.0 ** -(TOPK_BITS + 1) + 2.0**-11)
    bound_T = worst_TC.sum(axis=1) + rollout.tail_mass_T.astype(float) * 2.0**-11 + 2.0**-24
    assert (np.abs(found_T - (P_TC * shared_TC).sum(axis=1)) <= bound_T).all()
    assert np.median(bound_T) < 1e-4


def test_it_is_a_share_of_1_and_unknown_where_the_teacher_was_not_asked(
    stored_and_true: tuple[Rollout, np.ndarray, np.ndarray],
) -> None:
    rollout, _, _ = stored_and_true
    none = Extras(np.zeros(T + 1, np.int64), *(np.empty(0) for _ in range(3)))
    silent = replace(rollout, teacher_topk_n_TM=np.zeros((T, 1), np.uint8), extras_M=(none,))
    assert np.isnan(token_features(silent, np.arange(T))["overlap_mass"]).all()
    sure = replace(rollout, tail_mass_T=np.full(T, -1e-4, np.float16))
    assert (token_features(sure, np.arange(T))["overlap_mass"] <= 1).all()
