"""Selection: what the split says is the truth of what was chosen, and the wrong way cannot be taken by accident."""

from __future__ import annotations

import inspect
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from equal_siblings import equal_siblings
from msgspec.structs import replace

from benchmarks.made_tables import shares
from benchmarks.small_language_model import LENGTH, small_study
from compute import rules, selection
from compute.alignment import gain
from compute.evidence import Evidence, evidence
from compute.halves import pooled, squared_norm
from compute.rules import best_teacher, everywhere, fitted_gate, gate, threshold
from compute.scores import score_estimates
from compute.selection import Choice, Rule, Selected, View, judge, judge_fitted

N_MIN = 20


@pytest.fixture(scope="module")
def small() -> SimpleNamespace:
    """80 questions of an exact model whose siblings are nearly equal, at 20 completions a child, and the truth."""
    study = small_study("mixing", 80, 1, objectives=("reverse_kl",))
    nodes = study.simulate(shares(study.children, N_MIN), times=1, seed=0)
    rng = np.random.default_rng(0)
    shape = (len(nodes.teachers), len(study.paths.node_P))
    found = evidence(
        nodes,
        study.paths,
        n_sig=N_MIN / 2,
        length_L=np.full(len(study.paths.question_L), LENGTH),
        features={f"noise{i}": rng.normal(size=shape) for i in range(30)},
        objectives=["reverse_kl", "dr_grpo"],
    )
    exactly = replace(
        found.scores.estimates,
        p_succ_NK=study.p_succ_NK,
        value_N=study.value_N,
        variance_NK=np.zeros_like(study.p_succ_NK),
    )
    true = score_estimates(nodes, exactly)
    node_P = study.paths.node_P
    return SimpleNamespace(
        evidence=found,
        gain_MP=gain(true.ideal_NK, true.update_MONK)[:, 0][:, node_P],
        squared_P=squared_norm(nodes, true)[node_P],
    )


def truth_of_the_chosen(small: SimpleNamespace, chosen: list[np.ndarray]) -> tuple[float, float]:
    """True mean gain and pooled cosine of what was chosen in each direction (entries by teachers)."""
    averages = small.evidence.averages
    columns = []
    for teacher_P in chosen:
        gain_P = np.where(teacher_P < 0, np.nan, small.gain_MP[np.maximum(teacher_P, 0), np.arange(len(teacher_P))])
        columns.append(averages.question_means(np.stack([gain_P, np.where(teacher_P < 0, np.nan, small.squared_P)])))
    mean_C = np.nanmean(np.nanmean(columns, axis=0), axis=1)
    return float(mean_C[0]), float(pooled(mean_C))


def watched(rule: Rule, evidence: Evidence) -> tuple[Rule, list[np.ndarray]]:
    """The rule, and a list of what it chooses at every entry of the study, view after view."""
    position_P = evidence.features["position"][0]
    paths, path_P = evidence.paths, evidence.averages.path_P
    entry = {
        key: p
        for p, key in enumerate(
            zip(paths.question_L[path_P].tolist(), paths.rollout_index_L[path_P].tolist(), position_P.tolist(), strict=True)
        )
    }
    chosen: list[np.ndarray] = []

    def watching(view: View) -> Choice:
        choice = rule(view)
        teacher_P = np.full(len(position_P), -1)
        keys = zip(view.question_P.tolist(), view.rollout_P.tolist(), view.features["position"][0].tolist(), strict=True)
        teacher_P[[entry[key] for key in keys]] = choice.teacher_P
        chosen.append(teacher_P)
        return choice

    return watching, chosen


@pytest.mark.parametrize(
    ("rule", "inflated_by"),
    [
        (threshold("perturbed", "alignment", 0.0), 0.008),
        (threshold("perturbed", "gain", 0.01), 0.01),
        (threshold("noisy", "p_positive", 0.8), 0.008),
        (best_teacher("node"), 0.01),
        (best_teacher("question"), 0.0),
    ],
)
def test_split_is_the_truth_of_the_chosen_and_unsplit_is_not(small: SimpleNamespace, rule: Rule, inflated_by: float) -> None:
    watching, chosen = watched(rule, small.evidence)
    found = judge(small.evidence, watching)
    by_half_0, by_half_1, by_all = chosen
    true_gain, true_pooled = truth_of_the_chosen(small, [by_half_0, by_half_1])
    assert abs(found.split.gain.mean - true_gain) < 0.0015
    assert abs(found.split.pooled.mean - true_pooled) < 0.03
    assert found.split.gain.low <= true_gain <= found.split.gain.high
    seeming_gain, _ = truth_of_the_chosen(small, [by_all])
    assert found.unsplit.gain.mean - seeming_gain > inflated_by - 0.001
    if inflated_by:
        assert found.unsplit.gain.low > seeming_gain
    np.testing.assert_array_equal(found.teacher_P, by_all)


def test_where_siblings_are_equal_choosing_gains_nothing() -> None:
    even = equal_siblings(150, 20, 20, seed=3)
    for rule in (threshold("random", "alignment", 0.3), threshold("sharpened", "gain", 0.0), best_teacher("question")):
        found = judge(even, rule)
        for nothing in (found.split.gain, found.split.alignment, found.more_gain, found.more_alignment):
            assert abs(nothing.mean) < 1.5 * (nothing.high - nothing.mean)
        assert found.unsplit.gain.low > 0.0 and found.unsplit.alignment.mean > found.split.alignment.mean + 0.03
    assert judge(even, threshold("random", "alignment", 0.3)).unsplit.alignment.mean > 0.5


def test_split_is_unbiased_over_many_studies() -> None:
    study = small_study("mixing", 12, 5, objectives=("reverse_kl",))
    times = 60
    nodes = study.simulate(shares(study.children, N_MIN), times=times, seed=1)
    n_paths, n_entries = len(study.paths.question_L), len(study.paths.node_P)
    copies = np.arange(times)
    paths = replace(
        study.paths,
        question_L=np.tile(study.paths.question_L, times) + np.repeat(copies * 12, n_paths),
        rollout_index_L=np.tile(study.paths.rollout_index_L, times),
        correct_L=np.tile(study.paths.correct_L, times),
        start_L1=np.append((study.paths.start_L1[:-1] + (copies * n_entries)[:, None]).ravel(), times * n_entries),
        node_P=np.tile(study.paths.node_P, times) + np.repeat(copies * len(study.nodes), n_entries),
    )
    found = evidence(nodes, paths, n_sig=N_MIN / 2, length_L=np.full(times * n_paths, LENGTH))
    p_succ_NK, value_N = np.tile(study.p_succ_NK, (times, 1)), np.tile(study.value_N, times)
    exactly = replace(found.scores.estimates, p_succ_NK=p_succ_NK, value_N=value_N, variance_NK=np.zeros_like(p_succ_NK))
    true = score_estimates(nodes, exactly)
    small = SimpleNamespace(
        evidence=found,
        gain_MP=gain(true.ideal_NK, true.update_MONK)[:, 0][:, paths.node_P],
        squared_P=squared_norm(nodes, true)[paths.node_P],
    )
    watching, chosen = watched(threshold("perturbed", "alignment", 0.0), found)
    split = judge(found, watching).split.gain
    true_gain, _ = truth_of_the_chosen(small, chosen[:2])
    assert split.mean > 0.01
    assert abs(split.mean - true_gain) < 0.0004


def test_what_the_numbers_mean(small: SimpleNamespace) -> None:
    """Everywhere is everything; a rule that names a teacher for some entries leaves the others."""
    found = judge(small.evidence, everywhere("informed"), teachers=["informed"])
    assert found.split == found.everything and found.share.mean == 1.0
    assert found.more_gain.mean == 0.0 and found.gain_over_all == found.split.gain
    # Of the halves, hence near the study's own mean but not the same.
    assert found.split.gain.mean == pytest.approx(found.unsplit.gain.mean, rel=0.03)
    half = judge(small.evidence, gate("informed", "correct", at_least=1.0), teachers=["informed"])
    assert half.share.mean == pytest.approx(0.5, abs=0.02)
    assert half.gain_over_all.mean == pytest.approx(half.share.mean * half.split.gain.mean, rel=0.05)
    assert half.notes == ("1 <= correct",) * 3
    nothing = judge(small.evidence, rules.nowhere())
    assert nothing.split.gain.n == 0 and np.isnan(nothing.split.gain.mean) and nothing.share.mean == 0.0
    only = judge(small.evidence, everywhere("informed"), teachers=["informed"], outcome="incorrect")
    assert only.outcome == "incorrect" and only.split.gain.mean != found.split.gain.mean


def test_a_view_shows_one_half_and_leads_nowhere_else(small: SimpleNamespace) -> None:
    views: list[View] = []

    def look(view: View) -> Choice:
        views.append(view)
        return Choice(np.zeros(len(view), dtype=np.int64))

    judge(small.evidence, look, teachers=["perturbed"])
    evidence, m = small.evidence, small.evidence.scores.teachers.index("perturbed")
    halves, node_P = evidence.halves, evidence.paths.node_P
    for half, view in enumerate(views[:2]):
        shown_P = np.flatnonzero(halves.decision_point_HN[half][node_P])
        np.testing.assert_allclose(np.sort(view.gain_MP[0]), np.sort(halves.gain_HMON[half, m, 0, node_P[shown_P]]))
        # Shuffled: the order of the study tells nothing.
        assert not np.allclose(view.gain_MP[0], halves.gain_HMON[half, m, 0, node_P[shown_P]])
        for item in fields(view):
            value = getattr(view, item.name)
            for array in value.values() if item.name == "features" else [value]:
                for secret in (halves.gain_HMON, halves.alignment_HMON, evidence.scores.gain_MON, evidence.scores.alignment_MON):
                    assert not (isinstance(array, np.ndarray) and np.shares_memory(array, secret))
    assert {item.name for item in fields(View)} == {
        *("teachers", "alignment_MP", "gain_MP", "gain_se_MP", "p_positive_MP", "question_P", "rollout_P", "features")
    }
    assert "success_rate" not in views[0].features


def test_an_answer_made_elsewhere_does_not_fit(small: SimpleNamespace) -> None:
    """A mask from the scores of all completions is either refused or says nothing, for a view is shuffled."""
    evidence = small.evidence
    m = evidence.scores.teachers.index("perturbed")
    elsewhere_P = np.where(evidence.scores.alignment_MON[m, 0, evidence.paths.node_P] > 0.0, 0, -1)
    with pytest.raises(ValueError, match=r"shape \(\d+,\) to a view of \d+ entries; it must be made from nothing but the view"):
        judge(evidence, lambda view: Choice(elsewhere_P), teachers=["perturbed"])
    cut = judge(evidence, lambda view: Choice(elsewhere_P[: len(view)]), teachers=["perturbed"])
    assert cut.unsplit.gain.low < 0.0 < cut.unsplit.gain.high and cut.split.gain.low < 0.0 < cut.split.gain.high


def test_nothing_public_judges_on_the_completions_that_chose() -> None:
    """The only public way to a number is `judge` and `judge_fitted`, and what they return names its one unsplit part."""
    public = {
        name: value
        for module in (selection, rules)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    judges = {name for name, value in public.items() if "Evidence" in str(inspect.signature(value))}
    assert judges == {"judge", "judge_fitted"}
    assert [item.name for item in fields(Selected) if "unsplit" in item.name] == ["unsplit"]


def test_a_fitted_gate_is_judged_on_questions_that_it_has_not_seen(small: SimpleNamespace) -> None:
    """Thirty features of noise: a cut through one of them seems to gain in the questions it was fitted to, and does not."""
    noise = [name for name in small.evidence.features if name.startswith("noise")]
    dealt = [
        judge_fitted(small.evidence, fitted_gate("perturbed", noise), teachers=["perturbed"], seed=seed) for seed in range(20)
    ]
    unsplit = dealt[0].unsplit.gain
    assert unsplit.low > 0.0
    assert abs(np.mean([found.split.gain.mean for found in dealt])) < 0.4 * unsplit.mean
    assert all(len(set(found.notes)) > 1 for found in dealt)


def test_a_gate_that_is_real_is_found(small: SimpleNamespace) -> None:
    """Children lie further apart late in a response: there is more to gain."""
    found = judge_fitted(small.evidence, fitted_gate("noisy"), teachers=["noisy"])
    assert found.more_gain.low > 0.0 and found.gain_over_all.low > 0.0
    assert found.notes[2].endswith("<= depth")


def test_a_fitted_rule_sees_features_alone_where_it_is_judged(small: SimpleNamespace) -> None:
    shown: list[View] = []
    judged: list[View] = []

    def fit(view: View) -> Rule:
        shown.append(view)

        def rule(view: View) -> Choice:
            judged.append(view)
            return Choice(np.zeros(len(view), dtype=np.int64))

        return rule

    judge_fitted(small.evidence, fit, teachers=["noisy"])
    for fitted_to, other in zip(shown[:2], judged[:2], strict=True):
        assert np.isfinite(fitted_to.gain_MP).any() and np.isnan(other.gain_MP).all() and np.isnan(other.alignment_MP).all()
        assert not set(fitted_to.question_P.tolist()) & set(other.question_P.tolist())
    assert {q for view in judged[:2] for q in view.question_P.tolist()} == set(shown[2].question_P.tolist())


def test_the_best_teacher_per_study_question_and_node() -> None:
    """By hand: two questions, the first with two rollouts of unequal length."""
    view = View(
        teachers=("a", "b"),
        alignment_MP=np.array([[0.9, 0.0, 0.0, 0.1], [0.0, 0.3, 0.5, np.nan]]),
        gain_MP=np.array([[0.0, 0.0, 0.0, np.nan], [1.0, 1.0, 1.0, np.nan]]),
        gain_se_MP=np.ones((2, 4)),
        p_positive_MP=np.full((2, 4), 0.5),
        question_P=np.array([1, 1, 1, 2]),
        rollout_P=np.array([0, 1, 1, 0]),
        features={},
    )
    # Question 1: a has (.9 + 0)/2, b (0 + .4)/2. Question 2: a alone. Study: a (.45 + .1)/2, b .2.
    assert best_teacher("question", "alignment")(view).teacher_P.tolist() == [0, 0, 0, 0]
    assert best_teacher("node", "alignment")(view).teacher_P.tolist() == [0, 1, 1, 0]
    assert best_teacher("study", "alignment")(view).note == "a"
    assert best_teacher("question", "gain")(view).teacher_P.tolist() == [1, 1, 1, -1]
    assert threshold("b", "alignment", 0.3)(view).teacher_P.tolist() == [-1, 1, 1, -1]


def test_wrong_names_and_answers_are_refused(small: SimpleNamespace) -> None:
    evidence = small.evidence
    with pytest.raises(ValueError, match="There is no teacher 'nobody'; there is informed, noisy"):
        judge(evidence, everywhere("informed"), teachers=["nobody"])
    with pytest.raises(ValueError, match="There is no objective 'kl'; there is reverse_kl, dr_grpo"):
        judge(evidence, everywhere("informed"), objective="kl")
    with pytest.raises(ValueError, match="A rule names teacher 'noisy'; it may choose among informed"):
        judge(evidence, everywhere("noisy"), teachers=["informed"])
    with pytest.raises(ValueError, match="A rule names feature 'heat'; there are correct, depth"):
        judge(evidence, gate("noisy", "heat", at_least=1.0))
    with pytest.raises(ValueError, match="must answer with rows of its 5 teachers, or -1"):
        judge(evidence, lambda view: Choice(np.full(len(view), 7)))
    with pytest.raises(ValueError, match="update of dr_grpo is made from completions, so they cannot judge"):
        judge(evidence, everywhere("informed"), objective="dr_grpo")
