"""Means over questions: the unit, the shared questions, and the sign-flipped null."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from made_nodes import Child, make_nodes, repeat
from msgspec.structs import replace

from benchmarks.made_tables import shares
from benchmarks.small_language_model import SmallStudy, small_study
from compute.halves import split, squared_norm
from compute.scores import Scores, score, score_estimates
from compute.statistics import sign_flip_test, t_interval
from compute.summary import Summary, SummaryRow, summarise
from store.node_tables import take_nodes
from store.tables import Nodes, Paths

OBJECTIVES = ("reverse_kl",)


def study(alignment_MN: np.ndarray, gain_MN: np.ndarray) -> tuple[Nodes, Scores]:
    """A table and scores with the numbers of one objective put in."""
    M, N = alignment_MN.shape
    nodes = make_nodes(
        [[Child(0, 0.5), Child(1, 0.5)]],
        teachers=tuple(f"t{m}" for m in range(M)),
        teacher_MNK=np.full((M, 1, 2), 0.5),
        objectives=OBJECTIVES,
    )
    nodes = repeat(nodes, N, np.zeros((N, 0), dtype=np.int64), np.zeros((N, 0), dtype=np.int64))
    scores = score(nodes, n_sig=20)
    replaced = {"alignment_MON": alignment_MN[:, None], "gain_MON": gain_MN[:, None]}
    names = [name for name in Scores.__struct_fields__ if name not in replaced]
    return nodes, Scores(**{name: getattr(scores, name) for name in names}, **replaced)


def make_paths(rows: list[tuple[int, bool, list[int]]]) -> Paths:
    """Question, correct, nodes of each path."""
    return Paths(
        question_L=np.array([q for q, _, _ in rows]),
        rollout_index_L=np.arange(len(rows)),
        correct_L=np.array([c for _, c, _ in rows], dtype=bool),
        start_L1=np.cumsum([0, *(len(n) for _, _, n in rows)]),
        node_P=np.array([n for _, _, nodes in rows for n in nodes], dtype=np.int64),
    )


def row(summary: Summary, teacher: str, outcome: str, null: bool = False) -> SummaryRow:
    return next(r for r in summary.rows if (r.teacher, r.outcome, r.null) == (teacher, outcome, null))


def test_nodes_are_averaged_over_paths_paths_over_questions_questions_at_last() -> None:
    alignment_MN = np.array([[0.1, 0.2, 0.6, -0.4, np.nan]])
    nodes, scores = study(alignment_MN, 10 * alignment_MN)
    paths = make_paths([(7, True, [0, 1, 4]), (7, False, [1, 2]), (9, False, [3])])
    summary = summarise(nodes, paths, scores)
    everything = row(summary, "t0", "all")
    assert everything.alignment.mean == pytest.approx(((0.15 + 0.4) / 2 - 0.4) / 2)
    assert everything.gain.mean == pytest.approx(10 * everything.alignment.mean)
    assert everything.share_positive.mean == pytest.approx(0.5)
    assert (everything.n_questions, everything.n_decision_points) == (2, 4)  # node 1 once, node 4 never
    assert row(summary, "t0", "correct").alignment.mean == pytest.approx(0.15)
    assert row(summary, "t0", "correct").n_questions == 1
    assert row(summary, "t0", "incorrect").alignment.mean == pytest.approx((0.4 - 0.4) / 2)
    assert math.isnan(everything.alignment.low)


def test_intervals_are_over_question_means() -> None:
    alignment_MN = np.random.default_rng(0).normal(size=(1, 8))
    nodes, scores = study(alignment_MN, alignment_MN)
    summary = summarise(nodes, make_paths([(q, True, [q]) for q in range(8)]), scores)
    assert row(summary, "t0", "all").alignment == t_interval(alignment_MN[0])


def test_teachers_are_compared_on_the_same_questions() -> None:
    """Question 1 has no score of the second teacher: it counts for neither."""
    alignment_MN = np.array([[0.1, 0.9, 0.3], [0.2, np.nan, 0.4]])
    nodes, scores = study(alignment_MN, alignment_MN)
    summary = summarise(nodes, make_paths([(q, True, [q]) for q in range(3)]), scores)
    assert row(summary, "t0", "all").alignment.mean == pytest.approx(0.2)
    assert row(summary, "t1", "all").alignment.mean == pytest.approx(0.3)
    assert [row(summary, f"t{m}", "all").n_questions for m in (0, 1)] == [2, 2]
    assert [row(summary, f"t{m}", "all").n_decision_points for m in (0, 1)] == [2, 2]


def test_the_null_flips_alignment_and_gain_of_a_node_together_and_is_seeded() -> None:
    alignment_MN = np.array([[0.25, 0.5, 1.0, 2.0]])  # every sum of signed powers of 2 is a different number
    nodes, scores = study(alignment_MN, 10 * alignment_MN)
    paths = make_paths([(0, True, [0, 1, 2, 3])])
    null = row(summarise(nodes, paths, scores), "t0", "all", null=True)
    assert null.gain.mean == pytest.approx(10 * null.alignment.mean)
    assert null == row(summarise(nodes, paths, scores), "t0", "all", null=True)
    others = {row(summarise(nodes, paths, scores, seed=s), "t0", "all", null=True).alignment.mean for s in range(20)}
    assert len(others) > 5


def test_the_null_earns_nothing_and_its_interval_says_so() -> None:
    """A strong teacher: its sign-flipped null covers zero in about 95 % of studies of 12 questions."""
    rng = np.random.default_rng(1)
    alignment_MN = rng.uniform(0.2, 1.0, (1, 12 * 6))
    nodes, scores = study(alignment_MN, alignment_MN)
    paths = make_paths([(q, True, list(range(6 * q, 6 * q + 6))) for q in range(12)])
    nulls = [row(summarise(nodes, paths, scores, seed=s), "t0", "all", null=True).alignment for s in range(300)]
    assert 0.91 <= np.mean([n.low <= 0.0 <= n.high for n in nulls]) <= 0.98
    assert abs(np.mean([n.mean for n in nulls])) < 0.02
    assert row(summarise(nodes, paths, scores), "t0", "all").alignment.low > 0.3


def test_a_teacher_that_is_a_null_itself_is_marked_and_not_flipped() -> None:
    alignment_MN = np.array([[0.1, 0.2], [0.3, 0.4]])
    nodes, scores = study(alignment_MN, alignment_MN)
    summary = summarise(nodes, make_paths([(0, True, [0]), (1, True, [1])]), scores, null_teachers={"t1"})
    kinds = [(r.teacher, r.null) for r in summary.rows if r.outcome == "all"]
    assert kinds == [("t0", False), ("t0", True), ("t1", True)]
    assert row(summary, "t1", "all", null=True).alignment.mean == pytest.approx(0.35)


def test_outcomes_without_paths_have_no_mean() -> None:
    nodes, scores = study(np.array([[0.1]]), np.array([[0.1]]))
    summary = summarise(nodes, make_paths([(0, True, [0])]), scores)
    incorrect = row(summary, "t0", "incorrect")
    assert math.isnan(incorrect.alignment.mean) and incorrect.n_questions == 0 and math.isnan(incorrect.share_positive.mean)


def test_a_study_without_paths() -> None:
    nodes, scores = study(np.array([[0.1]]), np.array([[0.1]]))
    assert row(summarise(nodes, make_paths([]), scores), "t0", "all").n_questions == 0


@pytest.fixture(scope="module")
def simulated() -> tuple[SmallStudy, Nodes, Scores]:
    small = small_study("mixing", 10, 3, objectives=("reverse_kl", "forward_kl"))
    nodes = small.simulate(shares(small.children, 40), times=1, seed=0)
    return small, nodes, score(nodes, n_sig=20)


def test_every_column_is_what_it_says(simulated: tuple[SmallStudy, Nodes, Scores]) -> None:
    """Recomputed from the scores by plain loops over questions, paths and nodes."""
    small, nodes, scores = simulated
    halves = split(nodes, scores)
    summary = summarise(nodes, small.paths, scores, halves=halves)
    m = scores.teachers.index("noisy")
    alignment_N, gain_N, range_N = scores.alignment_MON[m, 1], scores.gain_MON[m, 1], scores.success_rate_range_N
    measures = {
        "alignment": alignment_N,
        "gain": gain_N,
        "positive": np.where(alignment_N > 0.0, 1.0, 0.0),
        "SR cos": range_N * alignment_N,
        "SR": range_N,
        "|g|^2": squared_norm(nodes, scores),
        "r": halves.agreement_N,
        "advantage": scores.advantage_MN[m],
    }
    means = {}
    for name, value_N in measures.items():
        questions = []
        for question in range(10):
            of_paths = []
            for path in np.flatnonzero((small.paths.question_L == question) & ~small.paths.correct_L):
                on_path = small.paths.node_P[small.paths.start_L1[path] : small.paths.start_L1[path + 1]]
                here = value_N[on_path][np.isfinite(alignment_N[on_path])]
                of_paths.append(np.mean(here[np.isfinite(here)]))
            questions.append(np.mean(of_paths))
        means[name] = np.array(questions)
    wanted = ("noisy", "forward_kl", "incorrect", False)
    (found,) = [r for r in summary.rows if (r.teacher, r.objective, r.outcome, r.null) == wanted]
    for name, interval in (("alignment", found.alignment), ("gain", found.gain), ("positive", found.share_positive)):
        assert astuple(interval) == pytest.approx(astuple(t_interval(means[name])))
    assert found.advantage.mean == pytest.approx(means["advantage"].mean())
    assert found.reliability.mean == pytest.approx(means["r"].mean())
    mean = {name: value_Q.mean() for name, value_Q in means.items()}
    assert found.sr_weighted.mean == pytest.approx(mean["SR cos"] / mean["SR"])
    assert found.pooled.mean == pytest.approx(mean["gain"] / math.sqrt(mean["|g|^2"]))
    assert found.corrected.mean == pytest.approx(mean["alignment"] / math.sqrt(2.0 * mean["r"] / (1.0 + mean["r"])))
    assert found.p_alignment == sign_flip_test(means["alignment"]) and found.p_gain == sign_flip_test(means["gain"])
    assert found.pooled.low < found.pooled.mean < found.pooled.high


def test_nodes_with_two_children_can_be_left_out(simulated: tuple[SmallStudy, Nodes, Scores]) -> None:
    small, nodes, scores = simulated
    kept_NK = scores.estimates.kept_NK.copy()
    kept_NK[::2] &= np.arange(kept_NK.shape[1]) < 2
    thinned = score_estimates(nodes, replace(scores.estimates, kept_NK=kept_NK))
    assert (thinned.n_kept_N == 2).any()
    left, everything = (row(summarise(nodes, small.paths, thinned, min_children=n), "noisy", "all") for n in (3, 2))
    blotted = replace(thinned, alignment_MON=np.where(thinned.n_kept_N > 2, thinned.alignment_MON, np.nan))
    assert left.gain == row(summarise(nodes, small.paths, blotted), "noisy", "all").gain
    assert left.n_decision_points == np.isfinite(blotted.alignment_MON[1, 0]).sum() < everything.n_decision_points


def test_scores_that_lack_all_but_alignment_and_gain_are_summarised(simulated: tuple[SmallStudy, Nodes, Scores]) -> None:
    """As the explorer keeps them of a large study."""
    small, nodes, scores = simulated
    no_rows = np.empty(0, np.intp)
    bare = replace(
        score(take_nodes(nodes, no_rows, no_rows), n_sig=20), alignment_MON=scores.alignment_MON, gain_MON=scores.gain_MON
    )
    found, full = (row(summarise(nodes, small.paths, of), "noisy", "all") for of in (bare, scores))
    assert (found.alignment, found.gain, found.share_positive) == (full.alignment, full.gain, full.share_positive)
    assert math.isnan(found.pooled.mean) and math.isnan(found.sr_weighted.mean) and math.isnan(found.advantage.mean)


def test_the_null_of_every_column_is_nothing(simulated: tuple[SmallStudy, Nodes, Scores]) -> None:
    small, nodes, scores = simulated
    halves = split(nodes, scores)
    summaries = [summarise(nodes, small.paths, scores, halves=halves, seed=seed) for seed in range(40)]
    for name in ("alignment", "gain", "pooled", "corrected", "sr_weighted", "advantage"):
        means = np.array([getattr(row(one, "informed", "all", null=True), name).mean for one in summaries])
        assert abs(means.mean()) < 4.0 * means.std() / math.sqrt(len(means))
