"""Everything that findings and selection are made from, read from a store once.

Scores of all completions and of each half, and at every entry (a node on a path) the cheap features that are known
without any completion.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compute.alignment import Support
from compute.averages import Averages
from compute.estimators import Estimator
from compute.halves import Halves, split
from compute.scores import Scores, score
from compute.updates import takes_whole
from store.schema import DIVERGENCES
from store.tables import Int, Nodes, Paths, Rollout

if TYPE_CHECKING:
    from store.reader import Store

Array = NDArray[np.float64]

#: Features at every entry that `gather` reads, beside `correct`, `position` and `depth`, which are always there.
TOKEN_FEATURES = (*DIVERGENCES, "entropy", "teacher_entropy", "entropy_difference", "log_ratio", "overlap", "overlap_mass")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A study, scored. Axes: M teacher, O objective, N node, L path, P entry (a node on a path), Q question."""

    nodes: Nodes
    paths: Paths
    scores: Scores
    halves: Halves
    length_L: Int  #: tokens of every path
    #: by name [M, P], NaN where unknown; those of the student alone are the same for every teacher
    features: Mapping[str, Array]
    #: by question number: share of the initial rollouts that were correct
    success_rates: Mapping[int, float] = field(default_factory=dict)
    null_teachers: frozenset[str] = frozenset()
    #: teachers that were added later: at how many nodes they are judged, of how many that others nominated without them
    judged_only: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def averages(self) -> Averages:
        """The way from entries to questions."""
        return Averages.of(self.paths)

    @property
    def depth_P(self) -> Array:
        """Normalised depth of every entry: its position over the length of its path."""
        averages = self.averages
        length_P = np.maximum(self.length_L[averages.path_P], 1)
        return np.asarray(self.nodes.position_N[averages.node_P] / length_P, dtype=np.float64)


def gather(
    opened: Store,
    *,
    objectives: Sequence[str] | None = None,
    support: Support = "sliced",
    estimator: Estimator = "backup",
) -> Evidence:
    """Read and score a whole store, under the study's objectives or any others. Raises StoreError, and ValueError as `score`."""
    names = tuple(opened.attributes.objectives if objectives is None else objectives)
    nodes, paths = opened.study_nodes(whole=takes_whole(names, opened.attributes.objectives))
    lines = {line.number: line for line in opened.questions()}
    lengths = {(line.number, row.index): row.n_tokens for line in lines.values() for row in line.rollouts}
    keys = list(zip(paths.question_L.tolist(), paths.rollout_index_L.tolist(), strict=True))
    features = {name: np.full((len(nodes.teachers), len(paths.node_P)), np.nan) for name in TOKEN_FEATURES}
    for path, (number, index) in enumerate(keys):
        entries = slice(int(paths.start_L1[path]), int(paths.start_L1[path + 1]))
        rollout = opened.rollout(lines[number].id, index, nodes.teachers)
        for name, value_MP in token_features(rollout, nodes.position_N[paths.node_P[entries]]).items():
            features[name][:, entries] = value_MP
    added = {teacher.id: opened.judged(teacher.id) for teacher in opened.added_teachers}
    found = evidence(
        nodes,
        paths,
        n_sig=opened.attributes.n_sig,
        length_L=np.array([lengths[key] for key in keys], dtype=np.int64),
        features=features,
        success_rates={number: line.success_rate for number, line in lines.items()},
        null_teachers=[teacher.id for teacher in opened.teachers if teacher.null],
        objectives=names,
        support=support,
        estimator=estimator,
    )
    return replace(found, judged_only={teacher: counts for teacher, counts in added.items() if counts[1]})


def evidence(
    nodes: Nodes,
    paths: Paths,
    *,
    n_sig: float,
    length_L: Int,
    features: Mapping[str, Array] | None = None,
    success_rates: Mapping[int, float] | None = None,
    null_teachers: Collection[str] = (),
    objectives: Sequence[str] | None = None,
    support: Support = "sliced",
    estimator: Estimator = "backup",
) -> Evidence:
    """Score tables that are in memory already."""
    scores = score(nodes, n_sig=n_sig, support=support, estimator=estimator, objectives=objectives)
    bare = Evidence(
        nodes=nodes,
        paths=paths,
        scores=scores,
        halves=split(nodes, scores, estimator=estimator),
        length_L=length_L,
        features={},
        success_rates=success_rates or {},
        null_teachers=frozenset(null_teachers),
    )
    of_entries = {
        "correct": paths.correct_L[bare.averages.path_P],
        "position": nodes.position_N[paths.node_P],
        "depth": bare.depth_P,
    }
    shape = (len(nodes.teachers), len(paths.node_P))
    always = {name: np.broadcast_to(value_P.astype(np.float64), shape) for name, value_P in of_entries.items()}
    return replace(bare, features={**always, **(features or {})})


def token_features(rollout: Rollout, position_P: Int) -> dict[str, Array]:
    """What is cheap to know at positions of a rollout, by name: [M, P]. The distributions are those that precede the token.

    `entropy_difference` is |H(T) - H(P)|; `log_ratio` is log T(y)/P(y) of the token y that was taken; `overlap` is the share
    of the student's top-K that is in the teacher's, `overlap_mass` the student's mass on these tokens: what its tail and the
    others of its top-K leave of 1, for these are mostly unlikely, and the stored log-probabilities of likely tokens are rounded.
    """
    logprob_P = rollout.logprob_T[position_P].astype(np.float64)
    entropy_P = rollout.entropy_T[position_P].astype(np.float64)
    teacher_entropy_MP = rollout.teacher_entropy_TM[position_P].T.astype(np.float64)
    divergence_DMP = np.transpose(rollout.divergence_TMD[position_P], (2, 1, 0)).astype(np.float64)
    present_PC = rollout.topk_token_id_TC[position_P] >= 0
    common_PMC = rollout.shared_topk(position_P)
    asked_MP = rollout.teacher_topk_n_TM[position_P].T > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        share_MP = (common_PMC.sum(axis=-1) / present_PC.sum(axis=-1)[:, None]).T
    mass_PC = np.where(present_PC, np.exp(rollout.topk_logprob_TC[position_P].astype(np.float64)), 0.0)
    others_MP = (~common_PMC * mass_PC[:, None]).sum(axis=-1).T
    overlap_MP = np.clip(1.0 - rollout.tail_mass_T[position_P].astype(np.float64) - others_MP, 0.0, 1.0)
    return {
        **dict(zip(DIVERGENCES, divergence_DMP, strict=True)),
        "entropy": np.broadcast_to(entropy_P, teacher_entropy_MP.shape),
        "teacher_entropy": teacher_entropy_MP,
        "entropy_difference": np.abs(teacher_entropy_MP - entropy_P),
        "log_ratio": rollout.teacher_logprob_TM[position_P].T.astype(np.float64) - logprob_P,
        "overlap": np.where(asked_MP, share_MP, np.nan),
        "overlap_mass": np.where(asked_MP, overlap_MP, np.nan),
    }
