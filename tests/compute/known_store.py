"""A study whose truth is known, written through the real writer: exact small language models and teachers that know
p_succ in some places and nothing in others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace as replaced

from benchmarks.made_tables import shares
from benchmarks.small_language_model import LENGTH, N_TOKENS, SmallStudy, small_study
from compute.averages import Averages
from compute.evidence import Evidence
from compute.halves import Halves, squared_norm
from compute.scores import score_estimates
from compute.updates import taken
from store.parts import pack_texts
from store.schema import DIVERGENCES, REST_MOMENTS, STUDENT, TEACHER, ArraySpec, ChildKind, ForcedKind
from store.tables import Nodes, RootAttributes, TeacherInfo
from store.writer import PartArrays, create, publish

#: Where each teacher knows p_succ: on nodes of incorrect paths only; everywhere, but turned round in the second half of
#: a response, and there more quietly; on easy questions only; ever less along a response, until it is wrong; nowhere.
TEACHERS = ("incorrect-only", "early", "easy-only", "fading", "uninformed")
OBJECTIVE = "reverse_kl"
#: Success rates of the initial rollouts, question after question: easy, medium, hard.
SUCCESS_RATES = (0.9, 0.5, 0.1)
LOUD, QUIET = 1.0, 0.3


@dataclass(frozen=True)
class KnownStudy:
    study: SmallStudy
    nodes: Nodes  #: with the teachers above, without completions
    success_rate_Q: np.ndarray

    def draw(self, n_min: int, n_sig: int, seed: int = 0) -> Nodes:
        """Completions, uniform over children; at every third node all candidates but one get too few to be kept."""
        launches, seen = [], set()
        for launch in shares(self.study.children, n_min):
            candidate = launch.forced == ForcedKind.TOKEN and launch.row % 3 == 0
            few = candidate and launch.row in seen
            seen |= {launch.row} if candidate else set()
            launches.append(replace(launch, n=n_sig - 2) if few else launch)
        return replace(self.study, nodes=self.nodes).simulate(launches, times=1, seed=seed)


def known_study(n_questions: int, seed: int = 0) -> KnownStudy:
    study = small_study("sticky", n_questions, seed, objectives=(OBJECTIVE,))
    nodes = study.nodes
    success_rate_Q = np.resize(SUCCESS_RATES, n_questions)
    present_NK = nodes.kind_NK != ChildKind.ABSENT
    P_NK = np.where(present_NK, np.exp(nodes.logprob_NK), 0.0)
    excess_NK = np.where(present_NK, study.p_succ_NK - study.value_N[:, None], 0.0)
    rng = np.random.default_rng([4, seed])
    noise_MNK = rng.normal(size=(len(TEACHERS), *P_NK.shape))
    # Everything is said equally loud: log T/P has one standard deviation under P at every node.
    informed_NK = _standardised(excess_NK, P_NK)
    ignorant_MNK = np.stack([_standardised(noise_NK, P_NK) for noise_NK in noise_MNK])
    averages = Averages.of(study.paths)
    incorrect_N = np.zeros(len(nodes), dtype=bool)
    incorrect_N[averages.node_P] = True
    incorrect_N[averages.node_P[averages.correct_L[averages.path_P]]] = False
    sign_N = np.where(nodes.position_N / LENGTH < 0.5, LOUD, -QUIET)
    turned_N1 = np.pi * nodes.position_N[:, None] / LENGTH
    log_r_MNK = np.stack(
        [
            np.where(incorrect_N[:, None], informed_NK, ignorant_MNK[0]),
            sign_N[:, None] * informed_NK,
            np.where((success_rate_Q[nodes.question_N] >= 0.8)[:, None], informed_NK, ignorant_MNK[2]),
            np.cos(turned_N1) * informed_NK + np.sin(turned_N1) * ignorant_MNK[4],
            ignorant_MNK[3],
        ]
    )
    T_MNK = P_NK * np.exp(log_r_MNK)
    T_MNK /= T_MNK.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_T_MNK = np.where(present_NK, np.log(T_MNK), np.nan)
    fbar_MN = np.nansum(P_NK * (log_T_MNK - nodes.logprob_NK), axis=-1)
    nodes = replaced(nodes, teachers=TEACHERS, teacher_logprob_MNK=log_T_MNK, fbar_MNO=fbar_MN[..., None])
    return KnownStudy(study, nodes, success_rate_Q)


def _standardised(value_NK: np.ndarray, P_NK: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 under P at every node; 0 where the value does not vary."""
    centred_NK = value_NK - (P_NK * value_NK).sum(axis=1, keepdims=True)
    sd_N1 = np.sqrt((P_NK * centred_NK**2).sum(axis=1, keepdims=True))
    return np.where(sd_N1 > 1e-9, centred_NK / np.maximum(sd_N1, 1e-9), 0.0)


def exact(evidence: Evidence, known: KnownStudy) -> Evidence:
    """The same evidence with the true p_succ of every child in place of counts."""
    scores, p_succ_NK = evidence.scores, known.study.p_succ_NK
    nothing_NK = np.zeros_like(p_succ_NK)
    estimates = replaced(scores.estimates, p_succ_NK=p_succ_NK, value_N=known.study.value_N, variance_NK=nothing_NK)
    true = score_estimates(evidence.nodes, estimates, support=scores.support, objectives=scores.objectives)
    ideal_N = np.where(np.nansum(true.ideal_NK**2, axis=1) > 0.0, 1.0, np.nan)
    twice = {
        "decision_point_HN": true.decision_point_N,
        "alignment_HMON": true.alignment_MON,
        "gain_HMON": true.gain_MON,
        "gain_se_HMON": true.gain_se_MON,
        "squared_norm_HN": squared_norm(evidence.nodes, true),
    }
    halves = Halves(**{name: np.stack([a, a]) for name, a in twice.items()}, agreement_N=ideal_N)
    return replace(evidence, scores=true, halves=halves)


def write_known_store(path: Path, known: KnownStudy, n_min: int, n_sig: int, publish_part: bool = True) -> Path:
    """Write the study with drawn completions, in one part."""
    nodes, paths, n_questions = known.draw(n_min, n_sig), known.study.paths, len(known.study.roots)
    root = RootAttributes(
        study="[student]\n",
        study_hash="known",
        student="exact",
        teachers=tuple(TeacherInfo(name, "external", "", "exact", False, "") for name in TEACHERS),
        objectives=(OBJECTIVE,),
        question_ids=tuple(f"q{number}" for number in range(n_questions)),
        n_sig=n_sig,
        top_k=2,
    )
    create(path, root, [bytes([97 + token]) for token in range(N_TOKENS)], [])
    if not publish_part:
        return path
    lengths = _lengths(nodes, known)
    by_teacher = {name: _filled(TEACHER, lengths, _teacher_arrays(nodes, paths.node_P, m)) for m, name in enumerate(TEACHERS)}
    publish(path, "p-00000000-0000", PartArrays(_filled(STUDENT, lengths, _student_arrays(nodes, known)), by_teacher))
    return path


def _lengths(nodes: Nodes, known: KnownStudy) -> dict[str, int]:
    """Lengths of all axes that are not empty."""
    paths = known.study.paths
    n_paths, n_questions = len(paths.question_L), len(known.study.roots)
    lengths = {"question": n_questions, "rollout": n_paths, "token": n_paths * LENGTH, "path_node": len(paths.node_P)}
    lengths |= {"node": len(nodes), "child": nodes.token_NK.shape[1], "group": len(nodes.group_n_G), "candidate": 2}
    return lengths | {"objective": 1, "divergence": len(DIVERGENCES), "moment": len(REST_MOMENTS)}


def _student_arrays(nodes: Nodes, known: KnownStudy) -> dict[str, np.ndarray]:
    paths = known.study.paths
    n_paths, n_questions = len(paths.question_L), len(known.study.roots)
    on_path_PK = nodes.kind_NK[paths.node_P] == ChildKind.ON_PATH
    taken_PK = taken(nodes, paths)
    column_P = np.where(taken_PK.any(axis=1), taken_PK.argmax(axis=1), on_path_PK.argmax(axis=1))
    P_PK = np.where(np.isnan(nodes.logprob_NK), 0.0, np.exp(nodes.logprob_NK))[paths.node_P]
    question_G = nodes.question_N[nodes.group_launch_node_G]
    ids, ids_start = pack_texts([f"q{number}" for number in range(n_questions)])

    def starts(question: np.ndarray) -> np.ndarray:
        return np.searchsorted(question, np.arange(n_questions + 1))

    return {
        "question_id": ids,
        "question_id_start": ids_start,
        "question_number": np.arange(n_questions),
        "question_n_rollouts": np.full(n_questions, 100),
        "question_n_correct": np.round(100 * known.success_rate_Q),
        "rollout_start": starts(paths.question_L),
        "node_start": starts(nodes.question_N),
        "group_start": starts(question_G),
        "rollout_index": paths.rollout_index_L,
        "reward": paths.correct_L,
        "correct": paths.correct_L,
        "path_kind": np.where(paths.correct_L, 1, 2),
        "token_start": LENGTH * np.arange(n_paths + 1),
        "path_node_start": paths.start_L1,
        "path_node": paths.node_P,
        "token_id": nodes.token_NK[paths.node_P, column_P],
        "logprob": nodes.logprob_NK[paths.node_P, column_P],
        "entropy": -(P_PK * np.log(np.where(P_PK > 0.0, P_PK, 1.0))).sum(axis=1),
        "node_position": nodes.position_N,
        "node_parent": nodes.parent_N,
        "child_token_id": nodes.token_NK,
        "child_kind": nodes.kind_NK,
        "child_logprob": nodes.logprob_NK,
        "child_next": nodes.next_NK,
        "child_continue_logprob": nodes.continue_logprob_NK,
        "child_outcome": nodes.outcome_NK,
        **{name.removesuffix("_G"): getattr(nodes, name) for name in Nodes.__struct_fields__ if name.startswith("group_")},
    }


def _teacher_arrays(nodes: Nodes, node_P: np.ndarray, m: int) -> dict[str, np.ndarray]:
    """The rest of the vocabulary is taken for one token; every position of a path is a node."""
    P_NK, T_NK = (np.where(np.isnan(log), 0.0, np.exp(log)) for log in (nodes.logprob_NK, nodes.teacher_logprob_MNK[m]))
    log_P_NK, log_T_NK = (np.log(np.where(a > 0.0, a, 1.0)) for a in (P_NK, T_NK))
    log_M_NK = np.log(np.where(P_NK > 0.0, (P_NK + T_NK) / 2.0, 1.0))
    divergence = {
        "kl_student_teacher": (P_NK * (log_P_NK - log_T_NK)).sum(axis=1),
        "kl_teacher_student": (T_NK * (log_T_NK - log_P_NK)).sum(axis=1),
        "js": (P_NK * (log_P_NK - log_M_NK) + T_NK * (log_T_NK - log_M_NK)).sum(axis=1) / 2.0,
        "l2": np.linalg.norm(P_NK - T_NK, axis=1),
        "cosine": (P_NK * T_NK).sum(axis=1) / np.linalg.norm(P_NK, axis=1) / np.linalg.norm(T_NK, axis=1),
    }
    return {
        "entropy": -(T_NK * log_T_NK).sum(axis=1)[node_P],
        "divergence": np.stack([divergence[name] for name in DIVERGENCES], axis=1)[node_P],
        "child_logprob": nodes.teacher_logprob_MNK[m],
        "fbar": nodes.fbar_MNO[m],
    }


def _filled(specs: Mapping[str, ArraySpec], lengths: Mapping[str, int], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All arrays of a group: the given ones, and nothing in the others."""
    arrays = {}
    for name, spec in specs.items():
        shape = tuple(lengths.get(dim.removesuffix("_bound"), 0) + dim.endswith("_bound") for dim in spec.dims)
        arrays[name] = np.asarray(given.get(name, np.full(shape, 0 if spec.bounds else spec.fill))).astype(spec.dtype)
    return arrays
