"""A teacher behind a server says what the same model says here, where it can be known, and NaN where it cannot."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from compute import objectives, scoring
from compute.engine import Launch
from compute.engine.transformers import TransformersEngine
from compute.errors import ComputeError, Interrupted, StudyError
from compute.sampling import key
from compute.served.bounds import bounds
from compute.served.client import Client, Patience, ServerError, read_key
from compute.served.known import fbar_of, needed_tokens, pack, rest_logprob
from compute.served.scores import score_served
from compute.served.teacher import ServedTeacher, make_api
from compute.study import Chat
from store.schema import ABSENT_TOKEN, DIVERGENCES
from tests.conftest import CHAIN_SUMS
from tests.served_teacher import full, running

TOP_K = 8
HASTE = Patience(timeout=20.0, first=0.02, longest=0.1, total=3.0)
KINDS = ("vllm", "sglang", "openai")


@pytest.fixture(scope="module")
def address():
    """The servers of the tests, all in one process that ends with this one."""
    with running(CHAIN_SUMS / "teacher") as address:
        yield address


@pytest.fixture
def served(address, student):
    """Makes teachers."""
    clients = []

    def make(manner, kind="vllm", *, secret="", tolerance=1e-3, haste=HASTE, concurrency=4):
        base = f"{address}/{manner}" + ("" if kind == "sglang" else "/v1")
        clients.append(Client(base, key=secret, patience=haste, concurrency=concurrency))
        pieces = student.tokens.token_bytes
        return ServedTeacher("T", clients[-1], make_api(kind, "tiny", pieces), pieces, tolerance=tolerance)

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def prompt(student):
    return student.prompt_ids("3+5+4?", Chat())


@pytest.fixture(scope="module")
def response(student, prompt):
    launches = [Launch(0, key(0, "served", "rollout", (), -1, n)) for n in range(4)]
    found = TransformersEngine(student).complete(prompt, (), launches, max_response_tokens=32)
    return max((one.token_ids for one in found), key=len)


@pytest.fixture(scope="module")
def local(student, teacher, prompt, response):
    """Scores of student and local teacher, and the teacher's whole distributions."""
    ours, theirs = (scoring.states(one, prompt, response.tolist())[:-1] for one in (student, teacher))
    log_probs = scoring.log_probs(student.logits)
    mine = scoring.score_student(log_probs, ours, response, TOP_K)
    scores = scoring.score_teacher(log_probs, ours, scoring.log_probs(teacher.logits), theirs, response, mine.topk_token_id_TC)
    whole = torch.log_softmax(teacher.logits(theirs).double(), -1).numpy()
    return log_probs, ours, mine, scores, whole


def examined(teacher, prompt, response):
    teacher.examine([prompt, [*prompt, *response.tolist()]], TOP_K)
    return teacher


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_names_the_whole_vocabulary_lacks_nothing(served, kind, prompt, response, local):
    log_probs, ours, mine, expected, whole = local
    teacher = examined(served("all", kind), prompt, response)
    assert teacher.capabilities.whole
    reading = teacher.read(prompt, response.tolist())
    found = score_served(log_probs, ours, reading.known, response, mine.topk_token_id_TC)
    for name in expected.__dataclass_fields__:
        if name != "topk_token_id_TC":
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-5, err_msg=name)
    np.testing.assert_allclose(reading.row(3), whole[3], atol=2e-5)


@pytest.mark.parametrize("k", [5, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_most_likely_tokens_give_is_exact_and_the_rest_nan(served, kind, k, prompt, response, local):
    log_probs, ours, mine, expected, whole = local
    teacher = examined(served(f"top{k}", kind), prompt, response)
    assert (teacher.capabilities.top_k, teacher.capabilities.whole, teacher.capabilities.chosen) == (k, False, False)
    reading = teacher.read(prompt, response.tolist())
    found = score_served(log_probs, ours, reading.known, response, mine.topk_token_id_TC)
    np.testing.assert_allclose(found.logprob_T, expected.logprob_T, atol=2e-5)
    n_top = min(k, TOP_K)
    np.testing.assert_allclose(found.topk_logprob_TC[:, :n_top], expected.topk_logprob_TC[:, :n_top], atol=2e-5)
    assert (found.topk_token_id_TC[:, :n_top] != ABSENT_TOKEN).all()
    np.testing.assert_array_equal(found.topk_token_id_TC[:, n_top:], ABSENT_TOKEN)
    assert np.isnan(found.topk_logprob_TC[:, n_top:]).all()
    np.testing.assert_allclose(found.tail_mass_T, 1 - np.exp(np.sort(whole, axis=-1)[:, -n_top:]).sum(-1), atol=2e-5)
    known = ~np.isnan(found.logprob_at_student_topk_TC)
    assert known.any()
    assert not known.all()
    np.testing.assert_allclose(found.logprob_at_student_topk_TC[known], expected.logprob_at_student_topk_TC[known], atol=2e-5)
    assert np.isnan(found.entropy_T).all()
    assert np.isnan(found.divergence_TD).all()


def test_what_is_nan_lies_between_its_bounds(served, student, prompt, response, local):
    log_probs, ours, mine, expected, _ = local
    reading = examined(served("top5"), prompt, response).read(prompt, response.tolist())
    found = score_served(log_probs, ours, reading.known, response, mine.topk_token_id_TC)
    limits = bounds(found.student_logprob_at_topk_TC, found.topk_logprob_TC, student.vocab_size)
    assert (limits.entropy_low <= expected.entropy_T + 1e-4).all()
    assert (expected.entropy_T <= limits.entropy_high + 1e-4).all()
    assert (limits.divergence_low <= expected.divergence_TD + 1e-4).all()
    assert (expected.divergence_TD <= limits.divergence_high + 1e-4).all()
    bounded = [DIVERGENCES.index(name) for name in ("js", "l2", "cosine")]
    assert np.isfinite(limits.divergence_high[:, bounded]).all()
    # The teacher is sure of most tokens, where little is left to the tail: there the bounds say something.
    assert np.median(limits.entropy_high - limits.entropy_low) < 0.05


def test_bounds_hold_for_any_pair_of_distributions_and_close_on_whole_ones():
    rng = np.random.default_rng(0)
    for _ in range(300):
        size, k = 30, int(rng.integers(1, 30))
        logp, logt = (np.log(rng.dirichlet(np.full(size, rng.uniform(0.02, 2.0))) + 1e-12) for _ in range(2))
        logp, logt = (one - np.log(np.exp(one).sum()) for one in (logp, logt))
        p, t, top = np.exp(logp), np.exp(logt), np.argsort(-logt)
        mean = np.log((p + t) / 2)
        truth = {
            "kl_student_teacher": p @ (logp - logt),
            "kl_teacher_student": t @ (logt - logp),
            "js": 0.5 * (p @ (logp - mean) + t @ (logt - mean)),
            "l2": np.linalg.norm(p - t),
            "cosine": p @ t / np.linalg.norm(p) / np.linalg.norm(t),
        }
        for given, closed in ((top[:k], False), (top, True)):
            limits = bounds(logp[given], logt[given], size)
            assert limits.entropy_low - 1e-9 <= -(t @ logt) <= limits.entropy_high + 1e-9
            for low, high, name in zip(limits.divergence_low, limits.divergence_high, DIVERGENCES, strict=True):
                assert low - 1e-9 <= truth[name] <= high + 1e-9, name
                assert not closed or high - low < 1e-6


@pytest.mark.parametrize(("manner", "chosen"), [("top5", False), ("chosen5", True)])
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_missing_children_are_asked_for_and_exact(served, kind, manner, chosen, student, prompt, response, local):
    *_, whole = local
    teacher = examined(served(manner, kind), prompt, response)
    assert teacher.capabilities.chosen is chosen
    reading = teacher.read(prompt, response.tolist())
    for depth in (0, 4, len(response) - 1):
        row = reading.row(depth)
        children = [int(token) for token in np.argsort(row)[:3]] + [0, 15]
        assert np.isnan(row).any()
        filled = reading.row_with(depth, children, row)
        np.testing.assert_allclose(filled[children], whole[depth][children], atol=5e-5)
        rest = np.delete(whole[depth], children)
        if np.exp(rest).sum() > 1e-3:
            np.testing.assert_allclose(rest_logprob(filled, children), np.log(np.exp(rest).sum()), atol=5e-3)


def test_where_chosen_tokens_can_be_had_the_students_top_is_known_along_the_response(served, prompt, response, local):
    log_probs, ours, mine, expected, _ = local
    teacher = examined(served("chosen5", "sglang"), prompt, response)
    reading = teacher.read(prompt, response.tolist(), also_TC=mine.topk_token_id_TC)
    found = score_served(log_probs, ours, reading.known, response, mine.topk_token_id_TC)
    np.testing.assert_allclose(found.logprob_at_student_topk_TC, expected.logprob_at_student_topk_TC, atol=5e-5)


def test_means_over_the_vocabulary_are_exact_or_nan():
    rng = np.random.default_rng(1)
    logp, logt = (np.log(rng.dirichlet(np.ones(40))) for _ in range(2))
    row = np.where(np.isin(np.arange(40), np.argsort(-logt)[:10]), logt, np.nan)
    assert fbar_of("forward_kl", logp, row) == pytest.approx(float(objectives.fbar("forward_kl", logp, logt)), abs=1e-9)
    assert fbar_of("k3_loss", logp, row) == 1.0
    assert fbar_of("top_k_penalty", logp, row) == 0.0
    for name in ("reverse_kl", "jsd(0.5)", "total_variation", "squared_error", "chi2", "hellinger", "k3_reward", "minillm"):
        assert np.isnan(fbar_of(name, logp, row)), name
    for form in ("renormalised", "whole", "stop_gradient"):
        name = f"top_k_reverse_kl(6, {form})"
        assert np.isnan(fbar_of(name, logp, row))
        filled = row.copy()
        filled[needed_tokens([name, "reverse_kl"], logp)] = logt[needed_tokens([name, "reverse_kl"], logp)]
        assert fbar_of(name, logp, filled) == pytest.approx(float(objectives.fbar(name, logp, logt)), abs=1e-9)
    assert fbar_of("reverse_kl", logp, logt) == pytest.approx(float(objectives.fbar("reverse_kl", logp, logt)))


def test_a_rest_smaller_than_rounding_has_no_log_probability():
    logt = np.log(np.array([0.6, 0.4 - 1e-6, 0.5e-6, 0.5e-6]))
    row = np.array([logt[0], logt[1], np.nan, np.nan])
    assert np.isnan(rest_logprob(row, [0, 1]))
    assert rest_logprob(logt, [0, 1]) == pytest.approx(np.log(1e-6), abs=1e-6)
    assert rest_logprob(np.where(np.arange(4) < 2, logt, np.nan), [0]) == pytest.approx(np.log(0.4), abs=1e-5)


def test_padding_of_the_head_ends_the_top():
    known = pack([([3, 9, 1], [-0.5, -1.5, -3.0], {2: -5.0})], vocab_size=8)
    assert known.n_top_T.tolist() == [1]
    np.testing.assert_array_equal(known.row(0, 8)[[3, 1, 2]], [-0.5, -3.0, -5.0])
    assert np.isnan(known.row(0, 8)).sum() == 5


def test_a_server_that_answers_differently_twice_is_refused(served, prompt, response):
    with pytest.raises(StudyError, match="answers the same question differently"):
        examined(served("drift"), prompt, response)


def test_a_server_that_turns_into_another_model_stops_the_run(served, prompt, response):
    teacher = examined(served("turns"), prompt, response)
    reading = teacher.read(prompt, response.tolist())
    depths = [depth for depth in range(len(response)) for _ in range(8)]
    with pytest.raises(ComputeError, match="is not the model it was"):
        list(map(partial(teacher.next_tokens, reading, tokens=[3]), depths))


@pytest.mark.parametrize("kind", KINDS)
def test_another_tokenizer_is_refused(served, kind, prompt, response):
    with pytest.raises(ComputeError, match="has another tokenizer: token"):
        examined(served("other", kind), prompt, response)


def test_a_server_that_fails_every_third_call_gives_the_same_in_the_end(served, prompt, response, local):
    *_, whole = local
    reading = examined(served("flaky"), prompt, response).read(prompt, response.tolist())
    np.testing.assert_allclose([reading.row(at) for at in range(len(response))], whole, atol=2e-5)


def test_patience_ends_with_a_reason(served, prompt, response):
    with pytest.raises(ServerError, match=r"Teacher T: 127\.0\.0\.1:\d+ answered 503.*out of order.* tries in .* seconds"):
        examined(served("broken", haste=Patience(first=0.01, longest=0.05, total=0.4)), prompt, response)
    nobody = Client("http://127.0.0.1:9/v1", patience=Patience(first=0.01, longest=0.02, total=0.1))
    with pytest.raises(ServerError, match="refuses connections"):
        nobody.call(make_api("vllm", "tiny", ()).models())
    nobody.close()


def test_waits_double_up_to_a_limit_and_obey_the_server():
    patience = Patience(first=1.0, longest=8.0)
    for attempt, most in enumerate((1.0, 2.0, 4.0, 8.0, 8.0)):
        delays = [patience.delay(attempt, 0.0) for _ in range(200)]
        assert most / 2 <= min(delays) < max(delays) <= most
    assert patience.delay(0, 20.0) == 20.0


def test_a_stop_ends_waiting_calls_at_once(served, prompt, response):
    teacher = served("broken", haste=Patience(first=30.0, longest=60.0, total=300.0))

    def stop(n):
        raise Interrupted("stopped by a test")

    with pytest.raises(Interrupted):
        teacher.examine([prompt], TOP_K, tick=stop)


def test_the_key_opens_the_door_and_stays_secret(served, prompt, response, monkeypatch):
    monkeypatch.setenv("TEST_SERVED_KEY", "sesame")
    secret = read_key("TEST_SERVED_KEY", "Teacher T")
    assert examined(served("key", secret=secret), prompt, response).capabilities.whole
    with pytest.raises(ServerError, match=r"answered 401: .*not with Bearer \*\*\*") as caught:
        examined(served("key", secret="abracadabra"), prompt, response)
    assert "abracadabra" not in str(caught.value)
    with pytest.raises(StudyError, match="TEST_SERVED_NONE"):
        read_key("TEST_SERVED_NONE", "Teacher T")
    monkeypatch.setenv("TEST_SERVED_KEY", "se\r\nsame")
    with pytest.raises(StudyError, match="cannot be a key") as caught:
        read_key("TEST_SERVED_KEY", "Teacher T")
    assert "same" not in str(caught.value)


#: Every character of it has another form in some JSON.
TRICKY = 'op/"xyzzy\\q'


def clean(text):
    """Whether neither the key nor a piece of it, nor a control, is in a text."""
    pieces = {TRICKY[at : at + 3] for at in range(len(TRICKY) - 2)}
    return text.isprintable() and not [piece for piece in pieces if piece in text]


@pytest.mark.parametrize("how", ["raw", "json", "unicode", "twice", "far", "cut"])
def test_a_refusal_that_holds_the_key_is_shown_without_it(served, how, prompt, response):
    with pytest.raises(ServerError, match="answered 403: ") as caught:
        examined(served(f"refuses/{how}", secret=TRICKY), prompt, response)
    told = str(caught.value)
    assert clean(told), told
    assert "u00" not in told
    assert "***" in told or how == "cut"


@pytest.mark.parametrize(
    ("manner", "kind"),
    [*((manner, kind) for manner in ("leaks", "texts") for kind in KINDS), ("tokens", "vllm"), ("tokens", "sglang")],
)
def test_an_answer_that_holds_the_key_is_shown_without_it(served, manner, kind, prompt, response):
    with pytest.raises(ComputeError) as caught:
        examined(served(manner, kind, secret=TRICKY), prompt, response)
    told = str(caught.value)
    assert clean(told), told
    assert "***" in told


def test_what_is_kept_of_a_server_holds_neither_key_nor_controls(address, student, prompt, response):
    client = Client(f"{address}/leaks", key=TRICKY, patience=HASTE)
    pieces = student.tokens.token_bytes
    teacher = examined(ServedTeacher("T", client, make_api("sglang", "", pieces), pieces, tolerance=1e-3), prompt, response)
    client.close()
    assert teacher.capabilities.model == f"[2J{'m' * 90}***"
    assert clean(teacher.capabilities.sentence("T"))


def served_threads():
    return [one for one in threading.enumerate() if one.name.startswith("served")]


def test_a_stop_while_it_connects_ends_the_calls_even_where_the_connection_comes_to_stand_later():
    def stop(n):
        raise Interrupted("stopped by a test")

    def ended(seconds):
        end = time.monotonic() + seconds
        while served_threads() and time.monotonic() < end:
            served_threads()[0].join(0.1)
        return not served_threads()

    assert ended(10.0)
    for accepts in (False, True):
        with full() as (address, server):
            client = Client(address, patience=Patience(timeout=300.0, connect=5.0))
            with pytest.raises(Interrupted):
                client.calls([make_api("vllm", "tiny", ()).models()], tick=stop)
            client.close()
            assert len(served_threads()) == 1
            server.settimeout(10.0)
            accepted = [server.accept() for _ in range(2)] if accepts else []
            assert ended(20.0)
            for connection, _ in accepted:
                connection.close()


def test_a_client_that_is_closed_leaves_no_connection_open(address):
    gc.collect()  # what others left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client = Client(f"{address}/all/v1", patience=HASTE, concurrency=4)
        client.calls([make_api("vllm", "tiny", ()).models()] * 8)
        client.close()
        for thread in served_threads():
            thread.join(10.0)
        del client
        gc.collect()
    assert not [one for one in caught if issubclass(one.category, ResourceWarning)]


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        ("nan", "no JSON"),
        ("positive", "gave 0.7 for a log-probability"),
        ("text", "gave '-0.5' for a log-probability"),
        ("mass", "probabilities that sum to"),
        ("lacks", "gave no log-probability of token"),
        ("short", "entries of prompt_logprobs"),
    ],
)
def test_answers_that_cannot_be_are_refused(served, lie, sentence, prompt, response):
    with pytest.raises(ServerError, match=sentence):
        examined(served(f"lies/{lie}"), prompt, response)


def test_a_server_that_reads_other_tokens_than_were_sent_is_refused(served, prompt, response):
    for kind in KINDS:
        if kind != "sglang":
            with pytest.raises(ServerError, match="it adds or drops some"):
                examined(served("bos", kind), prompt, response)


def test_a_wrong_model_name_and_a_long_response_say_so(served, address, student, prompt, response):
    pieces = student.tokens.token_bytes
    client = Client(f"{address}/top20/v1", patience=HASTE)
    with pytest.raises(ServerError, match="serves no model `other`, but tiny; correct `served_model`"):
        ServedTeacher("T", client, make_api("vllm", "other", pieces), pieces, tolerance=1e-3).examine([prompt], TOP_K)
    client.close()
    teacher = examined(served("all"), prompt, response)
    with pytest.raises(ComputeError, match="do not fit its window, 128 tokens"):
        teacher.read(prompt, [3] * 130)
