"""Objectives: each update is the direction of descent of its loss in the student's logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute import objectives

SPELLINGS = (
    *("reverse_kl", "forward_kl", "jsd(0.1)", "jsd(0.5)", "jsd(0.9)", "jsd(0)", "jsd(1)"),
    *("skewed_forward_kl(0)", "skewed_forward_kl(0.1)", "skewed_forward_kl(0.7)"),
    *("skewed_reverse_kl(0)", "skewed_reverse_kl(0.1)", "skewed_reverse_kl(0.7)"),
    *("total_variation", "squared_error", "chi2", "hellinger"),
    *("top_k_reverse_kl(3, whole)", "top_k_reverse_kl(3, renormalised)", "top_k_reverse_kl(3, stop_gradient)"),
    *("sampled_token", "sampled_token(-1)", "k3_reward", "k3_loss", "top_k_penalty"),
)
#: Those that move a token by something that does not vanish where T = P.
MOVES_AT_EQUALITY = ("top_k_reverse_kl(3, whole)",)
seeds = st.integers(0, 2**32 - 1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def random_pair(seed: int, V: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return log_softmax(rng.normal(0, spread, V)), log_softmax(rng.normal(0, spread, V))


def descent_by_autograd(
    spelling: str, student_logprob: np.ndarray, teacher_logprob: np.ndarray, given: dict[str, np.ndarray] | None = None
) -> np.ndarray:
    """Minus the gradient of the loss, written as it is written in the literature, by torch in float64."""
    torch = pytest.importorskip("torch")
    logits = torch.tensor(student_logprob, dtype=torch.float64, requires_grad=True)
    log_T = torch.tensor(teacher_logprob, dtype=torch.float64)
    log_P = torch.log_softmax(logits, dim=-1)
    P, T = log_P.exp(), log_T.exp()
    objective = objectives.parse(spelling)
    values = dict(objective.parameters)
    extra = {name: torch.tensor(value, dtype=torch.float64) for name, value in (given or {}).items()}

    def kl(log_A: object, log_B: object) -> object:
        return (log_A.exp() * (log_A - log_B)).sum()

    def expected(reward: object) -> object:
        """Policy gradient: sum over sampled tokens of P times a reward held fixed."""
        return -(P * reward.detach()).sum()

    def skewed(weight: float) -> object:
        return (weight * T + (1 - weight) * P).log()

    def jsd() -> object:
        beta = values["beta"]
        if beta in (0.0, 1.0):
            return kl(log_P, log_T) if beta else kl(log_T, log_P)
        return beta * kl(log_T, skewed(beta)) + (1 - beta) * kl(log_P, skewed(beta))

    def top_k() -> object:
        K = log_P.detach().topk(min(int(values["k"]), len(log_P))).indices
        if values["form"] == "whole":
            return kl(log_P[K], log_T[K])
        if values["form"] == "stop_gradient":
            return -(P[K] * (log_T - log_P)[K].detach()).sum()
        return kl(torch.log_softmax(logits[K], -1), torch.log_softmax(log_T[K], -1))

    losses = {
        "reverse_kl": lambda: kl(log_P, log_T),
        "forward_kl": lambda: kl(log_T, log_P),
        "jsd": jsd,
        "skewed_forward_kl": lambda: kl(log_T, skewed(values["a"])),
        "skewed_reverse_kl": lambda: kl(log_P, skewed(1 - values["a"])),
        "total_variation": lambda: (T - P).abs().sum() / 2,
        "squared_error": lambda: ((T - P) ** 2).sum() / 2,
        "chi2": ((T - P) ** 2 / P).sum,
        "hellinger": lambda: ((T.sqrt() - P.sqrt()) ** 2).sum() / 2,
        "top_k_reverse_kl": top_k,
        "sampled_token": lambda: expected(log_T - log_P + values["constant"]),
        "k3_reward": lambda: expected(-((log_T - log_P).exp() - (log_T - log_P) - 1)),
        # y ~ P is sampled, not differentiated; the loss of a sample is differentiated.
        "k3_loss": (P.detach() * ((log_T - log_P).exp() - (log_T - log_P) - 1)).sum,
        # The reward of every sampled y is the same number, whatever y is.
        "top_k_penalty": lambda: expected(torch.full_like(P, -1.0) * kl(log_P, log_T)),
        "minillm": lambda: expected(log_T - log_P + extra["later"]),
        "dr_grpo": lambda: expected(extra["p_succ"]),
    }
    losses[objective.name]().backward()
    return -logits.grad.numpy()


@pytest.mark.parametrize("V", [2, 9, 50])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_update_is_what_autograd_gives(spelling: str, V: int) -> None:
    for seed in range(5):
        log_P, log_T = random_pair(seed, V)
        expected = descent_by_autograd(spelling, log_P, log_T)
        size = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(objectives.update(spelling, log_P, log_T), expected, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("V", [2, 9, 50])
@pytest.mark.parametrize(("spelling", "need"), [("minillm", "later"), ("dr_grpo", "p_succ")])
def test_update_of_what_a_continuation_brings(spelling: str, need: str, V: int) -> None:
    for seed in range(5):
        log_P, log_T = random_pair(seed, V)
        given = {need: np.random.default_rng(seed).uniform(-1, 1, V)}
        expected = descent_by_autograd(spelling, log_P, log_T, given)
        np.testing.assert_allclose(objectives.update(spelling, log_P, log_T, given=given), expected, rtol=0, atol=1e-12)


def test_what_is_lacking_is_named() -> None:
    with pytest.raises(ValueError, match="'minillm' needs 'later'"):
        objectives.update("minillm", [0.0], [0.0])


def test_every_row_is_held_against_autograd() -> None:
    tried = {objectives.parse(spelling).name for spelling in SPELLINGS} | {"minillm", "dr_grpo"}
    assert tried == set(objectives.NAMES)


def test_any_phi_divergence() -> None:
    torch = pytest.importorskip("torch")
    log_P, log_T = random_pair(8, 30)
    logits = torch.tensor(log_P, requires_grad=True)
    r = (torch.tensor(log_T) - torch.log_softmax(logits, -1)).exp()
    (torch.softmax(logits, -1) * (r - 1) * r.log()).sum().backward()  # Jeffreys' divergence
    f = objectives.phi_divergence(lambda r: (r - 1) * np.log(r), lambda r: np.log(r) + (r - 1) / r, log_P, log_T)
    P = np.exp(log_P)
    np.testing.assert_allclose(P * (f - P @ f), -logits.grad.numpy(), rtol=0, atol=1e-12)


def test_the_same_divergence_under_two_names() -> None:
    log_P, log_T = random_pair(9, 30)
    for one, other in (
        ("skewed_forward_kl(0)", "forward_kl"),
        ("skewed_reverse_kl(0)", "reverse_kl"),
        ("sampled_token(3)", "reverse_kl"),
        ("k3_loss", "forward_kl"),
        ("top_k_reverse_kl(30, renormalised)", "reverse_kl"),
        ("top_k_reverse_kl(30, stop_gradient)", "reverse_kl"),
    ):
        first, second = objectives.update(one, log_P, log_T), objectives.update(other, log_P, log_T)
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-12 * max(1, np.abs(second).max()))
    phi = objectives.phi_divergence(lambda r: (r - 1) ** 2, lambda r: 2 * (r - 1), log_P, log_T)
    np.testing.assert_allclose(objectives.f("chi2", log_P, log_T), phi, rtol=1e-12)


@pytest.mark.parametrize("spelling", ["skewed_forward_kl(1)", "skewed_reverse_kl(1)", "top_k_penalty"])
def test_no_signal_is_a_zero_vector(spelling: str) -> None:
    log_P, log_T = random_pair(10, 30)
    assert not objectives.update(spelling, log_P, log_T).any()


@pytest.mark.parametrize("constant", [0.0, -1.0, 2.5])
def test_sampled_token_is_reverse_kl_in_the_mean(constant: float) -> None:
    log_P, log_T = random_pair(11, 30)
    each = np.array([objectives.sampled_token_update(log_P, log_T, np.arange(30) == y, constant) for y in range(30)])
    np.testing.assert_allclose(np.exp(log_P) @ each, objectives.update("reverse_kl", log_P, log_T), rtol=0, atol=1e-14)
    assert np.isnan(objectives.sampled_token_update(log_P, log_T, np.zeros(30, bool))).all()


def test_sampled_token_equals_autograd_of_its_loss() -> None:
    torch = pytest.importorskip("torch")
    log_P, log_T = random_pair(12, 9)
    logits = torch.tensor(log_P, requires_grad=True)
    ((log_T[4] - log_P[4] - 1.0) * torch.log_softmax(logits, -1)[4]).backward()
    update = objectives.sampled_token_update(log_P, log_T, np.arange(9) == 4, constant=-1.0)
    np.testing.assert_allclose(update, logits.grad.numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("beta", "scale"), [(1e-4, 1e4), (1 - 1e-4, 1e4)])
def test_jsd_near_an_end_is_divided_by_the_distance_to_it(beta: float, scale: float) -> None:
    log_P, log_T = random_pair(3, 9)
    expected = scale * descent_by_autograd(f"jsd({beta})", log_P, log_T)
    np.testing.assert_allclose(objectives.update("jsd", log_P, log_T, beta=beta), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("beta", "end"), [(1e-9, "forward_kl"), (1 - 1e-9, "reverse_kl")])
def test_jsd_tends_to_the_two_kls(beta: float, end: str) -> None:
    log_P, log_T = random_pair(4, 9)
    np.testing.assert_allclose(
        objectives.update("jsd", log_P, log_T, beta=beta), objectives.update(end, log_P, log_T), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("spelling", sorted(set(SPELLINGS) - set(MOVES_AT_EQUALITY)))
def test_a_teacher_equal_to_the_student_gives_exactly_zero(spelling: str) -> None:
    log_P, _ = random_pair(5, 50)
    for log in (log_P, log_P.astype(np.float32), np.log(np.full(7, 1 / 7))):
        assert not objectives.update(spelling, log, log).any()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_everything_stays_finite_where_probabilities_underflow(spelling: str) -> None:
    log_P = log_softmax(np.array([0.0, -5000.0, -800.0, -1.0, -np.inf, -np.inf]))
    log_T = log_softmax(np.array([-900.0, 0.0, -1e6, -2.0, -np.inf, -3.0]))
    for student, teacher in ((log_P, log_T), (log_T, log_P)):
        assert np.isfinite(objectives.f(spelling, student, teacher)).all()
        assert np.isfinite(objectives.fbar(spelling, student, teacher))
        assert np.isfinite(objectives.update(spelling, student, teacher)).all()
    assert objectives.fbar("forward_kl", log_P, log_T) == pytest.approx(1.0, abs=1e-12)


def test_known_means() -> None:
    """sum P log r = -KL(P‖T), sum P r = 1."""
    log_P, log_T = random_pair(6, 1000)
    KL = float((np.exp(log_P) * (log_P - log_T)).sum())
    assert objectives.fbar("reverse_kl", log_P, log_T) == pytest.approx(-KL, rel=1e-12)
    assert objectives.fbar("forward_kl", log_P, log_T) == pytest.approx(1.0, rel=1e-12)


def test_update_about_takes_the_mean_of_a_larger_vocabulary() -> None:
    log_P, log_T = random_pair(7, 20)
    for spelling in SPELLINGS:
        whole = objectives.update(spelling, log_P, log_T)
        fbar = objectives.fbar(spelling, log_P, log_T)
        top = dict(objectives.top_k(log_P, log_T, 3))
        top["in_top_k"] = top["in_top_k"][:4]
        about = objectives.update_about(spelling, log_P[:4], log_T[:4], fbar, given=top)
        np.testing.assert_allclose(about, whole[:4], atol=1e-15)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 40), st.floats(0.1, 20), st.sampled_from(SPELLINGS))
def test_updates_sum_to_zero_over_the_whole_vocabulary(seed: int, V: int, spread: float, spelling: str) -> None:
    log_P, log_T = random_pair(seed, V, spread)
    update, f = objectives.update(spelling, log_P, log_T), objectives.f(spelling, log_P, log_T)
    assert abs(update.sum()) <= 1e-12 * (np.exp(log_P) @ np.abs(f))


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 12), st.sampled_from(SPELLINGS))
def test_order_of_children_and_absent_children_change_nothing(seed: int, V: int, spelling: str) -> None:
    log_P, log_T = random_pair(seed, V)
    update = objectives.update(spelling, log_P, log_T)
    order = np.random.default_rng(seed).permutation(V)
    np.testing.assert_allclose(objectives.update(spelling, log_P[order], log_T[order]), update[order], atol=1e-14)
    padded = objectives.update(spelling, np.append(log_P, [np.nan] * 2), np.append(log_T, [np.nan, -1.0]))
    np.testing.assert_array_equal(np.isnan(padded), [*[False] * V, True, True])
    np.testing.assert_allclose(padded[:V], update, atol=1e-14)


def test_student_and_teachers_broadcast() -> None:
    rng = np.random.default_rng(8)
    log_P_NK, log_T_MNK = log_softmax(rng.normal(size=(4, 6))), log_softmax(rng.normal(size=(3, 4, 6)))
    update_MNK = objectives.update("jsd(0.3)", log_P_NK, log_T_MNK)
    assert update_MNK.shape == (3, 4, 6)
    np.testing.assert_array_equal(update_MNK[2, 1], objectives.update("jsd(0.3)", log_P_NK[1], log_T_MNK[2, 1]))
    assert objectives.fbar("jsd(0.3)", log_P_NK, log_T_MNK).shape == (3, 4)


def test_all_children_absent_gives_nan() -> None:
    nan = np.full(3, np.nan)
    assert np.isnan(objectives.update("reverse_kl", nan, nan)).all()
    assert np.isnan(objectives.fbar("reverse_kl", nan, nan))


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("reverse_kl", "reverse_kl"),
        (" jsd( 0.5 )", "jsd(0.5)"),
        ("jsd(beta=.25)", "jsd(0.25)"),
        ("jsd", "jsd(0.5)"),
        ("jsd()", "jsd(0.5)"),
    ],
)
def test_spellings(spelling: str, canonical: str) -> None:
    assert str(objectives.parse(spelling)) == canonical
    assert objectives.parse(canonical) == objectives.parse(spelling)


def test_a_parameter_may_come_in_the_spelling_or_by_name() -> None:
    log_P, log_T = random_pair(9, 5)
    np.testing.assert_array_equal(objectives.update("jsd(0.2)", log_P, log_T), objectives.update("jsd", log_P, log_T, beta=0.2))


@pytest.mark.parametrize("name", ["revers_kl", "REVERSE_KL", "reverse-kl", "reverse_kl(", "reverse_kl(0.5", "reversekl()"])
def test_an_unknown_name_is_named_beside_the_allowed_and_the_nearest(name: str) -> None:
    with pytest.raises(ValueError, match="did you mean 'reverse_kl'") as error:
        objectives.update(name, [0.0], [0.0])
    assert repr(name) in str(error.value)
    assert all(allowed in str(error.value) for allowed in objectives.NAMES)


@pytest.mark.parametrize(
    ("spelling", "complaint"),
    [
        ("reverse_kl(0.5)", "it takes no parameter"),
        ("jsd(gamma=0.5)", "has no 'gamma'"),
        ("jsd(0.5, 0.6)", "has no 'parameter 2'"),
        ("jsd(half)", "must be a number"),
        ("jsd(1.5)", "between 0 and 1"),
        ("jsd(nan)", "between 0 and 1"),
        ("top_k_reverse_kl(0)", "between 1 and"),
        ("top_k_reverse_kl(8, half)", "must be renormalised, whole, stop_gradient"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_sentence(spelling: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        objectives.f(spelling, [0.0], [0.0])


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="given twice"):
        objectives.parse("jsd(0.5)", beta=0.5)


def test_finite_sample_dr_grpo_without_two_outcomes_or_rollouts_is_undefined() -> None:
    log_P = np.log([0.5, 0.5])
    assert np.isnan(objectives.dr_grpo_sample(log_P, [3, 4], [3, 4], 1.0)).all()
    assert np.isnan(objectives.dr_grpo_sample(log_P, [0, 0], [0, 0], 0.5)).all()


def test_finite_sample_dr_grpo_is_the_sum_over_rollouts() -> None:
    P, n, n_success = np.array([0.6, 0.3, 0.1]), np.array([5, 4, 1]), np.array([3, 1, 1])
    R = np.concatenate([[1.0] * s + [0.0] * (k - s) for k, s in zip(n, n_success, strict=True)])
    r = np.repeat(np.arange(3), n)
    A = (R - R.mean()) / R.std()
    expected = sum(A[i] * ((r[i] == np.arange(3)) - P) for i in range(10)) / 10
    np.testing.assert_allclose(objectives.dr_grpo_sample(np.log(P), n, n_success, R.mean()), expected, atol=1e-15)
