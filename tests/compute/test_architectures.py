"""Small models of many architectures, random weights: which decode with a shared prefix, and that both ways are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from compute import scoring
from compute.engine import Launch
from compute.engine.attention import Rows
from compute.engine.batched import BatchedEngine
from compute.engine.transformers import TransformersEngine, _prefix, _step, open_engine
from compute.errors import StudyError
from compute.models import Model, Tokens
from compute.sampling import key
from tests.compute.engine_suite import free, greedy, logits_of, tokens
from tests.conftest import FULL

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FIT = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen2, some layers with a window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "mistral, window": ("Mistral", {"sliding_window": 7, "head_dim": 8}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2, capped scores and windows": (
        "Gemma2",
        {
            "head_dim": 16,
            "sliding_window": 7,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 10.0,
        },
    ),
    "gemma3, alternating windows": (
        "Gemma3Text",
        {
            "head_dim": 16,
            "sliding_window": 7,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "phi3": ("Phi3", {"pad_token_id": 0}),
    "olmo2": ("Olmo2", {}),
    "granite, scaled": ("Granite", {"attention_multiplier": 0.2, "residual_multiplier": 0.5}),
}
#: Those that differ most from each other: windows, scores that are capped, ones that are scaled, norms of queries and keys.
TRIED = tuple(FIT) if FULL else ("qwen3", "mistral, window", "gemma2, capped scores and windows", "granite, scaled")
UNFIT = {
    "mamba, recurrent": ("Mamba", {"state_size": 8, "expand": 2}),
    "falcon-h1, recurrent beside attention": (
        "FalconH1",
        {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "head_dim": 8, "mamba_chunk_size": 16},
    ),
    "gpt-oss, attention with sinks": (
        "GptOss",
        {
            "head_dim": 8,
            "sliding_window": 7,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "bloom, position biases": ("Bloom", {"n_layer": 4, "n_head": 6}),
}


def build(name: str, more: dict) -> Model:
    """A model with random weights, the same every time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = getattr(transformers, f"{name}Config")(**(SIZES | more))
    family = name.removesuffix("Text")
    network = getattr(transformers, f"{family}ForCausalLM")(config).eval().requires_grad_(False)
    return Model(
        name=name,
        tokenizer=None,
        tokens=Tokens(tuple(bytes([at]) for at in range(VOCABULARY)), ()),
        network=network,
        decoder=network.get_decoder(),
        head=network.get_output_embeddings(),
        device=torch.device("cpu"),
        end_ids=(2,),
    )


PROMPT = [5, 9, 33, 70, 12, 44, 8, 61]
SPINE = [17, 3, 88, 54, 23, 90, 41, 6, 72, 35, 19, 64]
DEPTHS = (0, 4, 12)
LIMIT = 40


def launches(each: int) -> list[Launch]:
    return [Launch(depth, key(0, "q", "a", SPINE[:depth], -1, n)) for depth in DEPTHS for n in range(each)]


def assert_greedy(engine, model) -> None:
    found = tokens(engine.complete(PROMPT, SPINE, launches(2), max_response_tokens=LIMIT, temperature=0.0))
    for at, depth in enumerate(DEPTHS):
        assert found[2 * at : 2 * at + 2] == [greedy(model, [*PROMPT, *SPINE[:depth]], LIMIT - depth)] * 2


def assert_any_slots(make, model) -> None:
    work = launches(27)  # 81: one over five times 16
    expected = tokens(make(model, 128).complete(PROMPT, SPINE, work, max_response_tokens=LIMIT))
    assert len({tuple(one) for one in expected}) > 40
    found = tokens(make(model, 16).complete(PROMPT, SPINE, work[::-1], max_response_tokens=LIMIT))
    assert found[::-1] == expected


def assert_any_company(make, model) -> None:
    """The logits behind every draw, bit for bit: all depths together, with fewer slots, each depth alone, and beside others."""
    work = launches(27)
    settings = {"max_response_tokens": LIMIT}
    expected = logits_of(make(model, 128), [(PROMPT, SPINE, work)], **settings)
    assert len(expected) > 500
    ways = {
        "16 slots": logits_of(make(model, 16), [(PROMPT, SPINE, work)], **settings),
        "each depth alone": logits_of(
            make(model, 128), [(PROMPT, SPINE, [one for one in work if one.depth == depth]) for depth in DEPTHS], **settings
        ),
    }
    others = [([*PROMPT, *PROMPT[::-1], 3], (), free(20, name="b")), ([7, 9], (), free(40, name="c"))]
    ways["beside other jobs"] = logits_of(
        make(model, 256), [others[0], (PROMPT, SPINE, work), others[1]], together=True, **settings
    )
    for name, found in ways.items():
        both = expected.keys() & found.keys()
        assert len(both) > 400
        assert sum(expected[at] != found[at] for at in both) == 0, name


@pytest.mark.parametrize("name", TRIED)
def test_decoding_with_a_shared_prefix_is_exact(name):
    model, plain = build(*FIT[name]), build(*FIT[name])
    notes = []
    engine = open_engine(model, slots=64, note=notes.append)
    assert isinstance(engine, TransformersEngine), notes
    assert notes == []
    assert_greedy(engine, plain)
    assert_any_slots(lambda one, slots: TransformersEngine(one, slots=slots), model)
    assert_any_company(lambda one, slots: TransformersEngine(one, slots=slots), model)


@pytest.mark.parametrize("name", TRIED)
@torch.inference_mode()
def test_states_of_a_prefix_do_not_depend_on_what_follows(name):
    model = build(*FIT[name])
    TransformersEngine(model)
    ids = ((np.arange(120) * 61 + 13) % VOCABULARY).tolist()
    cache, states = _prefix(model, ids)
    scored = scoring.states(model, ids[:1], ids[1:])
    for n in (1, 5, 15, 16, 17, 40, 64, 65, 119):
        shorter, found = _prefix(model, ids[:n])
        assert torch.equal(found, states[:n])
        for layer, one in zip(shorter.layers, cache.layers, strict=True):
            assert torch.equal(layer.keys, one.keys[:, :, :n])
            assert torch.equal(layer.values, one.values[:, :, :n])
        assert torch.equal(scoring.states(model, ids[:1], ids[1:n]), scored[:n])
        assert torch.equal(scoring.batch_states(model, ids[:1], [ids[1:n], ids[1:5]])[0, :n], scored[:n])


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2, capped scores and windows"])
@torch.inference_mode()
def test_long_prefixes_and_long_completions_do_not_depend_on_company(name):
    """Sums over more positions than a matrix product adds up in one go: 250 of a prefix, 320 own ones."""
    family, more = FIT[name]
    model = build(family, more | {"max_position_embeddings": 1024})
    TransformersEngine(model)
    ids = ((np.arange(700) * 61 + 13) % VOCABULARY).tolist()
    (alone, states), (longer, all_states) = _prefix(model, ids[:250]), _prefix(model, ids)
    assert torch.equal(states, all_states[:250])

    def own_states(cache, neighbours, ahead):
        """Of 16 rows, step by step, beside `neighbours` that are `ahead` tokens longer."""
        n = 16 + neighbours
        rows, own = Rows(cache, n), np.zeros(n, dtype=int)
        for step in range(ahead + 320):
            rows.look(np.full(n, 250), own)
            found = _step(model, rows, (np.arange(n) * 7 + own * 13 + 1) % VOCABULARY, 250 + own)
            own[0 if step >= ahead else 16 :] += 1
            if step >= ahead:
                yield found[:16]

    for step, (one, other) in enumerate(zip(own_states(alone, 0, 0), own_states(longer, 5, 70), strict=True)):
        assert torch.equal(one, other), step


def test_the_window_is_not_padded_beyond():
    """Learned positions end where the window ends."""
    model = build("OPT", {"ffn_dim": 80, "max_position_embeddings": 21, "word_embed_proj_dim": 48})
    assert scoring.states(model, PROMPT, SPINE[:11]).shape == (12, 48)
    assert scoring.batch_states(model, PROMPT, [SPINE[:11], SPINE[:2]]).shape == (2, 19, 48)


@pytest.mark.parametrize("name", TRIED)
@torch.inference_mode()
def test_distributions_are_those_of_a_plain_forward(name):
    """At every node of a spine, and after own tokens of rows of different depth."""
    model, plain = build(*FIT[name]), build(*FIT[name])
    TransformersEngine(model)
    cache, hidden = _prefix(model, [*PROMPT, *SPINE])
    expected = torch.softmax(plain.network(torch.tensor([[*PROMPT, *SPINE]])).logits[0], -1)
    np.testing.assert_allclose(torch.softmax(model.logits(hidden), -1), expected, atol=1e-5)
    depths = np.resize([2, 5, 11], 18)
    own = (np.arange(18 * 20).reshape(18, 20) * 37 + 5) % VOCABULARY
    rows = Rows(cache, 18)
    for step in range(20):
        rows.look(len(PROMPT) + depths, np.full(18, step))
        found = torch.softmax(model.logits(_step(model, rows, own[:, step], len(PROMPT) + depths + step)), -1)
    for row in (0, 1, 2, 17):
        whole = torch.tensor([[*PROMPT, *SPINE[: depths[row]], *own[row].tolist()]])
        expected = torch.softmax(plain.network(whole).logits[0, -1], -1)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_decoded_in_batches_and_said_once(name):
    model, plain = build(*UNFIT[name]), build(*UNFIT[name])
    with pytest.raises(StudyError, match="does not fit shared-prefix decoding"):
        TransformersEngine(model)
    notes = []
    engine = open_engine(model, slots=64, note=notes.append)
    assert isinstance(engine, BatchedEngine)
    assert_greedy(engine, plain)
    assert_any_slots(lambda one, slots: BatchedEngine(one, slots=slots), model)
    assert len(notes) == 1
    assert "batches of one depth" in notes[0]
    states = scoring.states(model, PROMPT, SPINE)
    expected = plain.network(torch.tensor([[*PROMPT, *SPINE]])).logits[0, len(PROMPT) - 1 :]
    np.testing.assert_allclose(torch.softmax(model.logits(states), -1), torch.softmax(expected, -1), atol=1e-5)


def test_positions_scaled_by_the_longest_row_do_not_fit():
    model = build("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}})
    with pytest.raises(StudyError, match="longest row"):
        TransformersEngine(model)
