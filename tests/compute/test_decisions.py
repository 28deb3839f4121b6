"""Decisions: a planted rule is found and its worth is the truth, nothing is found where there is nothing, verdicts hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from equal_siblings import equal_siblings
from known_store import TEACHERS, KnownStudy, exact, known_study
from msgspec.structs import replace as replaced

from benchmarks.small_language_model import LENGTH, small_study
from compute.alignment import gain
from compute.decisions import fit_gate, go_no_go, routing, temperature_of, weighing
from compute.decisions.gains import question_gains
from compute.decisions.gates import sign_flipped, watched
from compute.decisions.go import detectable, judge_means
from compute.decisions.routing import BEYOND, odds_of
from compute.decisions.weights import token_weights
from compute.evidence import Evidence, evidence
from compute.rules import Rule, fitted_gate
from compute.selection import View, judge_fitted

FEATURES = ("position", "depth")


def seen(known: KnownStudy, n_min: int, seed: int = 0, nulls: tuple[str, ...] = ()) -> Evidence:
    return evidence(
        known.draw(n_min, n_min, seed),
        known.study.paths,
        n_sig=n_min,
        length_L=np.full(len(known.study.paths.question_L), LENGTH),
        null_teachers=nulls,
    )


@pytest.fixture(scope="module")
def known() -> KnownStudy:
    return known_study(40, 3)


@pytest.fixture(scope="module")
def found(known: KnownStudy) -> Evidence:
    return seen(known, 20, nulls=("uninformed",))


def test_a_planted_gate_is_found_and_its_true_gain_lies_in_the_interval(known: KnownStudy, found: Evidence) -> None:
    """`early` is right in the first half of a response and wrong after it."""
    (gate,) = fit_gate(found, teachers=["early"], features=FEATURES, flips=19)
    assert gate.verdict == "something" and gate.sentence.startswith("There is something to gain: early where ")
    assert gate.rule.kind == "range" and gate.rule.feature in FEATURES and gate.rule.at_least is None
    last = gate.rule.at_most if gate.rule.feature == "position" else LENGTH * (gate.rule.at_most or 0.0)
    assert 3 <= last <= 5
    assert gate.more_than_everywhere.low > 0.0 and gate.flipped.p <= 0.05 < gate.flipped.mean + 1.0

    fit, rules = watched(fitted_gate("early", FEATURES))
    judge_fitted(found, fit, teachers=["early"])
    given = iter(rules)

    def again(view: View) -> Rule:
        return next(given)

    true = judge_fitted(exact(found, known), again, teachers=["early"])
    assert gate.gain_over_all.low < true.gain_over_all.mean < gate.gain_over_all.high
    assert gate.gain_kept.low < true.split.gain.mean < gate.gain_kept.high


def test_with_random_signs_there_is_nothing_to_gain(found: Evidence) -> None:
    verdicts = Counter(
        fit_gate(sign_flipped(found, [seed]), teachers=["early"], features=FEATURES, flips=19)[0].verdict for seed in range(10)
    )
    assert verdicts["something"] <= 1
    goes = Counter(go_no_go(sign_flipped(found, [seed]), teachers=["early"])[0].verdict for seed in range(10))
    assert goes["undecided"] >= 8


def test_a_temperature_is_named_for_what_it_is() -> None:
    study = equal_siblings(12, 20, 20, 0)
    assert temperature_of(study.nodes, "sharpened") == pytest.approx(0.7)
    assert temperature_of(study.nodes, "random") is None
    (verdict,) = go_no_go(study, teachers=["sharpened"])
    assert verdict.temperature == pytest.approx(0.7)
    assert "sharpened is the student at temperature 0.7" in verdict.sentence and "through sharpening" in verdict.sentence
    (gate,) = fit_gate(study, teachers=["sharpened"], features=FEATURES, flips=3)
    assert "through sharpening" in gate.sentence
    for by in ("gate", "posterior"):
        assert "through sharpening" in weighing(study, "sharpened", by=by).sentence  # type: ignore[arg-type]
    small = small_study("sticky", 8, 0)
    assert temperature_of(small.nodes, "sharpened") == pytest.approx(0.7, abs=1e-3)
    assert {temperature_of(small.nodes, name) for name in small.nodes.teachers if name != "sharpened"} == {None}


def test_the_verdict_is_go_where_the_teacher_knows_and_no_go_where_it_is_turned_round(found: Evidence) -> None:
    verdicts = {one.teacher: one for one in go_no_go(found)}
    assert set(verdicts) == set(TEACHERS) - {"uninformed"}
    assert verdicts["early"].verdict == "go" and verdicts["early"].sentence.startswith("Go: the mean gain is +")
    assert verdicts["early"].against[0].null == "uninformed"
    assert verdicts["early"].flipped.low < 0.0 < verdicts["early"].flipped.high < verdicts["early"].gain.mean
    assert verdicts["early"].flipped.p <= 0.01
    scores = found.scores
    turned = replace(
        found,
        scores=type(scores)(**{name: getattr(scores, name) for name in scores.__struct_fields__} | {
            "update_MONK": -scores.update_MONK, "alignment_MON": -scores.alignment_MON, "gain_MON": -scores.gain_MON,
        }),
        halves=sign_flipped(found, [0]).halves,
    )  # fmt: skip
    (against,) = go_no_go(turned, teachers=["early"])
    assert against.verdict == "no-go" and "harms" in against.sentence
    (more,) = go_no_go(found, teachers=["early"], worth=10.0)
    assert more.verdict == "no-go" and "less than the 10 that is worth it" in more.sentence


def test_too_few_questions_decide_nothing() -> None:
    few = seen(known_study(5, 0), 20)
    for one in go_no_go(few):
        assert one.verdict == "undecided" and "no interval for" in one.sentence and np.isnan(one.detectable)
    assert all(one.verdict == "nothing" for one in fit_gate(few, features=FEATURES, flips=3))
    with pytest.raises(ValueError, match="Routing takes 6 questions"):
        routing(few)


@pytest.mark.parametrize("call", [go_no_go, fit_gate, routing])
def test_wrong_names_are_said(found: Evidence, call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="There is no teacher 'nobody'; there is incorrect-only"):
        call(found, teachers=["nobody"])
    with pytest.raises(ValueError, match="There is no objective 'chi2'"):
        call(found, objective="chi2")


DRAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "few that gain much": lambda rng, shape: rng.exponential(size=shape) - 1.0,
    "few that lose much": lambda rng, shape: 1.0 - rng.exponential(size=shape),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n_questions", [6, 10, 24])
def test_at_most_five_percent_of_verdicts_are_wrong(name: str, n_questions: int) -> None:
    """300 studies without any gain: go is wrong. Then with a gain above that of a null: no-go is wrong."""
    rng = np.random.default_rng(5)
    gain_SQ, null_SQ = DRAWS[name](rng, (300, n_questions)), DRAWS[name](rng, (300, n_questions))
    wrong = sum(judge_means(gain_Q, {})[0] == "go" for gain_Q in gain_SQ)
    assert wrong <= 0.05 * 300 + 6  # the share is held against 5 %, with room for the luck of 300 studies
    both = [(0.1 + gain_Q, {"null": 0.1 + gain_Q - null_Q}) for gain_Q, null_Q in zip(gain_SQ, null_SQ, strict=True)]
    assert sum(judge_means(gain_Q, beyond)[0] == "no-go" for gain_Q, beyond in both) <= 0.05 * 300


def test_the_detectable_gain_is_seen_in_about_four_studies_of_five() -> None:
    rng = np.random.default_rng(0)
    for n in (10, 40):
        noise_SQ = rng.normal(size=(300, n))
        size = np.mean([detectable(noise_Q) for noise_Q in noise_SQ])
        goes = np.mean([judge_means(noise_Q + size, {})[0] == "go" for noise_Q in noise_SQ])
        assert 0.7 < goes < 0.9


@pytest.mark.full
def test_verdicts_of_whole_studies() -> None:
    """200 studies of exact models: a teacher that knows nothing gains nothing, so go is wrong; one that knows, no-go."""
    verdicts = {name: Counter[str]() for name in TEACHERS}
    for seed in range(200):
        for one in go_no_go(seen(known_study(12, seed), 20, seed)):
            verdicts[one.teacher][one.verdict] += 1
    assert verdicts["uninformed"]["go"] + verdicts["uninformed"]["no-go"] <= 0.08 * 200
    assert verdicts["uninformed"]["go"] <= 0.05 * 200
    assert all(verdicts[name]["no-go"] <= 0.05 * 200 for name in ("incorrect-only", "early", "easy-only"))
    assert verdicts["early"]["go"] >= 0.8 * 200


def test_the_probability_of_being_best_is_about_right() -> None:
    """Questions of which the truth is drawn: said often enough, it comes true as often."""
    rng = np.random.default_rng(2)
    said, right, honest = [], [], []
    for _ in range(15):
        true_MQ = np.array([0.2, 0.1, 0.15])[:, None] + 0.5 * rng.normal(size=(3, 30))
        noise_MM = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.5]]) * 0.4
        halves_2MQ = true_MQ + np.einsum("mk,hkq->hmq", np.linalg.cholesky(noise_MM), rng.normal(size=(2, 3, 30)))
        odds_q = odds_of(np.concatenate([halves_2MQ.mean(axis=0)[None], halves_2MQ]), np.ones(30), 3)
        for v in range(3):
            said += [one.best for one in odds_q[v]]
            right += [true_MQ[:, q].argmax() == one.likeliest for q, one in enumerate(odds_q[v])]
        honest += [(one.expected, true_MQ[one.likeliest, q]) for q, one in enumerate(odds_q[0])]
    for low, high in ((0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        inside = [i for i, p in enumerate(said) if low <= p < high]
        assert len(inside) > 40
        assert np.mean([right[i] for i in inside]) == pytest.approx(np.mean([said[i] for i in inside]), abs=0.1)
    expected, true = np.mean(honest, axis=0)
    assert expected == pytest.approx(true, abs=0.06)  # what was chosen for being large is not too large


def test_routing_gives_the_truth_of_what_it_chose(known: KnownStudy, found: Evidence) -> None:
    routes = routing(found)
    assert [route.question for route in routes.routes] == sorted({route.question for route in routes.routes})
    assert routes.nulls == ("uninformed",) and "uninformed" not in routes.teachers
    truly = exact(found, known)
    gain_MON = np.where(found.scores.n_kept_N >= 2, gain(truly.scores.ideal_NK, truly.scores.update_MONK), np.nan)
    true = question_gains(replace(truly, halves=replaced(truly.halves, gain_HMON=np.stack([gain_MON, gain_MON]))))
    row = {int(number): q for q, number in enumerate(true.numbers_Q)}
    worth = []
    for route in routes.routes:
        rows = [None if name is None else true.row(name) for name in route.chosen_by_halves]
        worth.append(np.mean([0.0 if m is None else true.gain_VMQ[0, m, row[route.question]] for m in rows]))
        assert 0.0 <= route.probability_best <= 1.0 and 0.0 <= route.probability_beyond_null <= 1.0
        assert (route.teacher is None) == (route.probability_beyond_null < BEYOND or route.expected_gain <= 0.0)
    assert routes.gain.low < np.mean(worth) < routes.gain.high
    assert routes.gain.mean > 0.0 and routes.share_routed > 0.5
    assert routing(found) == routes or np.isnan([route.alignment for route in routes.routes]).any()


def test_where_no_child_is_better_routing_earns_nothing() -> None:
    earned = [routing(equal_siblings(12, 20, 20, seed)) for seed in range(8)]
    assert sum(one.gain.low > 0.0 for one in earned) <= 2
    assert np.mean([one.share_routed for one in earned]) < 0.5


def test_weights_of_a_gate_and_of_the_posterior(found: Evidence) -> None:
    gated = weighing(found, "early")
    assert gated.gate is not None and gated.rule == gated.gate.rule and gated.rule.kind == "range"
    value_T = np.array([0.0, 4.0, 8.0, np.nan])
    feature = str(gated.rule.feature)
    weight_T = token_weights(gated.rule, {feature: value_T / (1 if feature == "position" else LENGTH)}, 4)
    assert weight_T[0] == 1.0 and weight_T[2] == weight_T[3] == 0.0
    nothing = weighing(sign_flipped(found, [1]), "early")
    if nothing.gate is not None and nothing.gate.verdict == "nothing":
        assert not token_weights(nothing.rule, {}, 3).any() and nothing.sentence.endswith("So every weight is 0.")
    sure, likely = (weighing(found, "early", by=by) for by in ("posterior", "probability"))  # type: ignore[arg-type]
    assert sure.weight_N is not None and likely.weight_N is not None
    scored_N = np.isfinite(found.scores.alignment_MON[TEACHERS.index("early"), 0])
    assert set(np.unique(sure.weight_N)) == {0.0, 1.0} and not sure.weight_N[~scored_N].any()
    assert np.array_equal(likely.weight_N >= 0.5, sure.weight_N == 1.0)
    assert sure.gain_over_all.low > 0.0
