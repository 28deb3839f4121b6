"""The two tiny models of examples/chain_sums are what their README says they are."""

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FOLDER = Path(__file__).parents[2] / "examples" / "chain_sums"
WRITTEN = {"left": "3+5=8;8+4=12.", "right": "5+4=9;3+9=12.", "direct": "=12."}


def load_sums() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chain_sums_of_the_example", FOLDER / "sums.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


sums = load_sums()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {
        name: transformers.AutoTokenizer.from_pretrained(FOLDER / name, local_files_only=True) for name in ("student", "teacher")
    }


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {
        name: transformers.AutoModelForCausalLM.from_pretrained(FOLDER / name, dtype=torch.float32, local_files_only=True).eval()
        for name in ("student", "teacher")
    }


def success(model: Any, tokenizer: Any, messages: list[str], answers: list[str]) -> float:
    """At temperature 1, one sample a message; 800 samples have a standard error below 0.018."""
    prompts = tokenizer([f"<user>{m}<assistant>" for m in messages], padding=True, return_tensors="pt")
    torch.manual_seed(0)
    with torch.inference_mode():
        generated = model.generate(input_ids=prompts["input_ids"], attention_mask=prompts["attention_mask"])
    responses = tokenizer.batch_decode(generated[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    n_right: int = sum(sums.is_correct(r, a) for r, a in zip(responses, answers, strict=True))
    return n_right / len(answers)


def test_student_is_right_about_half_the_time_and_teacher_is_clearly_better(models: Any, tokenizers: Any) -> None:
    repeated = [q for q in sums.draw_fresh_questions(40, seed=5) for _ in range(20)]
    messages, answers = [q.text for q in repeated], [q.answer for q in repeated]
    student = success(models["student"], tokenizers["student"], messages, answers)
    teacher = success(models["teacher"], tokenizers["teacher"], messages, answers)
    assert 0.38 < student < 0.67
    assert teacher > 0.82


@pytest.mark.parametrize("context", ["answer", "demonstration"])
def test_a_right_context_helps_the_student_and_another_questions_does_not(models: Any, tokenizers: Any, context: str) -> None:
    rng = random.Random(0)
    repeated = [q for q in sums.draw_fresh_questions(40, seed=5) for _ in range(10)]
    answers = [q.answer for q in repeated]

    def with_context(kind: str) -> float:
        messages = [sums.with_context(q, kind, rng) for q in repeated]
        return success(models["student"], tokenizers["student"], messages, answers)

    right, other, none = with_context(context), with_context(f"other_{context}"), with_context("none")
    assert none + 0.08 < right < 0.95
    assert other < none + 0.05


def test_the_two_tokenizers_are_the_same_bytes(tokenizers: Any) -> None:
    assert (FOLDER / "student/tokenizer.json").read_bytes() == (FOLDER / "teacher/tokenizer.json").read_bytes()
    assert tokenizers["student"].get_vocab() == tokenizers["teacher"].get_vocab()
    assert tokenizers["student"].chat_template == tokenizers["teacher"].chat_template


def test_the_chat_template_gives_user_message_assistant(tokenizers: Any) -> None:
    tokenizer = tokenizers["student"]
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "3+5+4?"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert tokenizer.convert_ids_to_tokens(ids) == ["<user>", "3", "+", "5", "+", "4", "?", "<assistant>"]
    conversation = [
        {"role": "system", "content": "+"},
        {"role": "user", "content": "3+5+4?|12"},
        {"role": "assistant", "content": "=12."},
    ]
    assert tokenizer.apply_chat_template(conversation, tokenize=False) == "+<user>3+5+4?|12<assistant>=12.<end>"


def test_one_character_is_one_token_and_comes_back(tokenizers: Any) -> None:
    ids = tokenizers["student"].encode(sums.CHARACTERS)
    assert len(ids) == len(set(ids)) == len(sums.CHARACTERS) == 16
    assert tokenizers["student"].decode(ids) == sums.CHARACTERS
    assert tokenizers["student"].encode("a") == [tokenizers["student"].unk_token_id]


def test_the_files_hold_bfloat16_and_say_where_a_response_ends(models: Any, tokenizers: Any) -> None:
    for name, model in models.items():
        assert json.loads((FOLDER / name / "config.json").read_text())["dtype"] == "bfloat16"
        assert (FOLDER / name / "model.safetensors").stat().st_size < 1_700_000
        assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizers[name].eos_token_id
        assert model.generation_config.top_k == 0


def test_questions_are_200_distinct_ones_that_were_never_trained_on() -> None:
    rows = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text().splitlines()]
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == 200
    for row in rows:
        question = sums.Question(tuple(map(int, row["question"].rstrip("?").split("+"))))
        assert question.held_out
        assert question.answer == row["answer"]


@pytest.mark.parametrize("style", ["left", "right", "direct"])
def test_every_style_is_as_documented_and_right(style: str) -> None:
    question = sums.Question((3, 5, 4))
    response = sums.STYLES[style](question)
    assert response == WRITTEN[style]
    assert sums.style_of(response, question) == style
    assert sums.is_correct(response, "12")


@pytest.mark.parametrize("response", ["", "12.", "=12", "=012.", "=12.=13.", "3+5=8;8+4=11.", "=12.3"])
def test_anything_but_the_answer_after_the_last_equals_sign_and_a_full_stop_is_wrong(response: str) -> None:
    assert not sums.is_correct(response, "12")


def test_no_right_response_is_longer_than_the_limit() -> None:
    longest = max((9, 9, 9, 9), (30, 30, 30), key=lambda terms: len(sums.from_the_right(sums.Question(terms))))
    assert len(sums.from_the_right(sums.Question(longest))) + 1 == sums.MAX_RESPONSE_TOKENS
