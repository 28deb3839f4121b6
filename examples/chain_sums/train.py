"""Train the two tiny models of this folder, a student and a better teacher, in one run on one core.

python examples/chain_sums/train.py train       both models, questions.jsonl, and what they measure
python examples/chain_sums/train.py questions   questions.jsonl alone
python examples/chain_sums/train.py measure     what the saved models measure
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import transformers
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sums import (
    CHARACTERS,
    CONTEXTS,
    MAX_RESPONSE_TOKENS,
    STYLES,
    Question,
    StyleMix,
    draw_fresh_questions,
    draw_question,
    is_correct,
    style_of,
    with_context,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
PAD, END, USER, ASSISTANT, UNKNOWN = SPECIAL_TOKENS = ("<pad>", "<end>", "<user>", "<assistant>", "<unknown>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<user>{{ message.content }}"
    "{% elif message.role == 'assistant' %}<assistant>{{ message.content }}<end>"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

BATCH = 64
MUON_LEARNING_RATE = 6e-3  # the matrices; Muon reaches a given success in about half of AdamW's steps here
ADAMW_LEARNING_RATE = 3e-3  # the embedding and the norms
WARM_UP_STEPS = 30
DECAY_SHARE = 0.3
STUDENT_STYLES = StyleMix(left=0.45, right=0.30, direct=0.25)
TEACHER_STYLES = StyleMix(left=0.35, right=0.60, direct=0.05)  # the teacher comes to prefer what the student is worse at
CONTEXT_SHARES = {"answer": 0.30, "demonstration": 0.35, "other_answer": 0.15, "other_demonstration": 0.20}
IGNORED = -100  # the label that transformers leaves out of the loss

transformers.utils.logging.disable_progress_bar()
console = Console()
app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0], pretty_exceptions_enable=False)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One character is one token; whatever is not in the vocabulary is `<unknown>`, so that nothing vanishes silently."""
    ids = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Untrained, 790,528 parameters; by default it samples from its own distribution, unfiltered."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_RESPONSE_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def prompt_text(message: str) -> str:
    """What the chat template makes of one user message and the generation prompt."""
    return f"{USER}{message}{ASSISTANT}"


@dataclass(frozen=True)
class Example:
    """Token ids; only the response is scored."""

    prompt: list[int]
    response: list[int]


def draw_example(rng: random.Random, tokenizer: PreTrainedTokenizerFast, mix: StyleMix, context: str) -> Example:
    """A training question with its context, and a right response whose style owes nothing to the context."""
    question = draw_question(rng, held_out=False)
    message = with_context(question, context, rng)
    response = STYLES[mix.draw(rng)](question)
    return Example(tokenizer.encode(prompt_text(message)), tokenizer.encode(response + END))


def collate(examples: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Rows padded on the right; causal attention keeps the padding out of everything that is scored."""
    width = max(len(e.prompt) + len(e.response) for e in examples)
    input_ids = torch.full((len(examples), width), pad_id)
    labels = torch.full((len(examples), width), IGNORED)
    for row, e in enumerate(examples):
        end = len(e.prompt) + len(e.response)
        input_ids[row, :end] = torch.tensor(e.prompt + e.response)
        labels[row, len(e.prompt) : end] = torch.tensor(e.response)
    return {"input_ids": input_ids, "labels": labels}


def draw_batch(rng: random.Random, tokenizer: PreTrainedTokenizerFast, mix: StyleMix) -> list[dict[str, torch.Tensor]]:
    """Half without, half with a context: two pieces, because their lengths differ by three."""
    contexts = rng.choices(list(CONTEXT_SHARES), weights=list(CONTEXT_SHARES.values()), k=BATCH // 2)
    pieces = (["none"] * (BATCH // 2), contexts)
    return [collate([draw_example(rng, tokenizer, mix, c) for c in piece], tokenizer.pad_token_id) for piece in pieces]


def learning_rate_factor(step: int, total: int) -> float:
    """Warm-up, a plateau, a linear end. A student saved on the plateau does not depend on how many steps follow."""
    return min((step + 1) / WARM_UP_STEPS, (total - step) / (DECAY_SHARE * total), 1.0)


def build_optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MUON_LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=ADAMW_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def training_steps(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, total: int, mix_at: Callable[[int], StyleMix]
) -> Iterator[tuple[int, float]]:
    """Yields (steps done, loss) after every step."""
    rng = random.Random(seed)
    optimizers = build_optimizers(model)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: learning_rate_factor(step, total)) for o in optimizers]
    model.train()
    for step in range(total):
        pieces = draw_batch(rng, tokenizer, mix_at(step))
        n_scored = sum(int((piece["labels"] != IGNORED).sum()) for piece in pieces)
        loss = 0.0
        for piece in pieces:
            piece_loss = model(**piece, num_items_in_batch=torch.tensor(n_scored)).loss
            piece_loss.backward()
            loss += piece_loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        yield step + 1, loss


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights in bfloat16, configurations, tokenizer and chat template, in transformers' own format."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for its owner alone
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """The saved weights, computed with in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


@torch.inference_mode()
def sample(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, messages: list[str], seed: int, rows: int = 512
) -> list[str]:
    """One response at temperature 1 for every message; one that does not end within the limit comes back unfinished."""
    torch.manual_seed(seed)
    responses: list[str] = []
    for start in range(0, len(messages), rows):
        prompts = tokenizer([prompt_text(m) for m in messages[start : start + rows]], padding=True, return_tensors="pt")
        generated = model.generate(input_ids=prompts["input_ids"], attention_mask=prompts["attention_mask"])
        responses += tokenizer.batch_decode(generated[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return responses


@torch.inference_mode()
def next_token_distributions(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, messages: list[str], responses: list[str]
) -> torch.Tensor:
    """Probabilities [token, vocabulary] at every token of the responses, the end token included."""
    rows = [
        Example(tokenizer.encode(prompt_text(m)), tokenizer.encode(r + END)) for m, r in zip(messages, responses, strict=True)
    ]
    batch = collate(rows, tokenizer.pad_token_id)
    scored = batch["labels"][:, 1:] != IGNORED
    logits: torch.Tensor = model(input_ids=batch["input_ids"]).logits[:, :-1]
    return logits[scored].softmax(-1)


@dataclass(frozen=True)
class Measured:
    """Figures of one model at temperature 1."""

    success: dict[str, float]  # by context
    share_undecided: float  # questions with both outcomes, without a context
    by_style: dict[str, tuple[float, float]]  # style -> (share of responses, success), without a context
    mean_entropy: float  # nats, along sampled responses
    share_branching: float  # next-token distributions with more than one token above 0.02
    mean_candidates: float  # tokens above 0.02, a distribution
    mean_length: float  # tokens, the end token included


def measure(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[Question], samples: int, seed: int
) -> Measured:
    """Sample every question under every context, and look at the distributions along the responses without one."""
    rng = random.Random(seed)
    repeated = [question for question in questions for _ in range(samples)]
    success: dict[str, float] = {}
    for context in reversed(CONTEXTS):  # `none` last: the rest of the figures are about it
        messages = [with_context(question, context, rng) for question in repeated]
        responses = sample(model, tokenizer, messages, seed)
        outcomes = [is_correct(r, q.answer) for q, r in zip(repeated, responses, strict=True)]
        success[context] = sum(outcomes) / len(outcomes)

    counts = torch.tensor(outcomes).view(len(questions), samples).sum(1)
    styles = [style_of(r, q) for q, r in zip(repeated, responses, strict=True)]
    by_style = {}
    for style in (*STYLES, "unclear"):
        chosen = [outcome for outcome, s in zip(outcomes, styles, strict=True) if s == style]
        by_style[style] = (len(chosen) / len(styles), sum(chosen) / max(len(chosen), 1))
    probability = next_token_distributions(model, tokenizer, messages[::samples], responses[::samples])
    candidates = (probability > 0.02).sum(-1).float()
    return Measured(
        success=success,
        share_undecided=((counts > 0) & (counts < samples)).float().mean().item(),
        by_style=by_style,
        mean_entropy=torch.special.entr(probability).sum(-1).mean().item(),
        share_branching=(candidates > 1).float().mean().item(),
        mean_candidates=candidates.mean().item(),
        mean_length=len(probability) / len(questions),
    )


def print_measured(measured: dict[str, Measured], questions: int, samples: int) -> None:
    """One column a model."""
    table = Table("", *measured, title=f"{questions} fresh questions x {samples} samples at temperature 1")
    for context in CONTEXTS:
        table.add_row(f"success, context: {context}", *(f"{m.success[context]:.3f}" for m in measured.values()))
    table.add_row("questions strictly between 0 and 1", *(f"{m.share_undecided:.3f}" for m in measured.values()))
    for style in (*STYLES, "unclear"):
        table.add_row(f"style {style}: share, success", *("{:.3f}, {:.3f}".format(*m.by_style[style]) for m in measured.values()))
    table.add_row("mean next-token entropy (nats)", *(f"{m.mean_entropy:.3f}" for m in measured.values()))
    table.add_row("more than one token above 0.02", *(f"{m.share_branching:.3f}" for m in measured.values()))
    table.add_row("tokens above 0.02", *(f"{m.mean_candidates:.2f}" for m in measured.values()))
    table.add_row("tokens in a response", *(f"{m.mean_length:.1f}" for m in measured.values()))
    console.print(table)


Out = Annotated[Path, typer.Option(help="Folder that holds student/, teacher/ and questions.jsonl.")]


@app.command("questions")
def write_questions(out: Out = HERE, count: int = 200, seed: int = 1) -> None:
    """Write questions.jsonl: questions that no model was trained on."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"q{i:03d}", "question": q.text, "answer": q.answer} for i, q in enumerate(draw_fresh_questions(count, seed))]
    (out / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@app.command("measure")
def measure_saved(out: Out = HERE, count: int = 500, samples: int = 8, seed: int = 2) -> None:
    """Print what the saved models measure on fresh questions."""
    torch.set_num_threads(1)
    questions = draw_fresh_questions(count, seed)
    measured = {name: measure(*load(out / name), questions, samples, seed) for name in ("student", "teacher")}
    print_measured(measured, count, samples)


@app.command()
def train(
    out: Out = HERE,
    seed: int = 0,
    steps_student: Annotated[int, typer.Option(min=1, help="The step after which the student is saved.")] = 400,
    steps_teacher: Annotated[int, typer.Option(min=1, help="The last step; the teacher is saved after it.")] = 900,
) -> None:
    """Train both models, write questions.jsonl, and print what the models measure."""
    if steps_student >= steps_teacher:
        raise typer.BadParameter("the student is the earlier checkpoint: --steps-student must be below --steps-teacher")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} steps/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("training", total=steps_teacher, rate=0.0)
        steps = training_steps(
            model, tokenizer, seed, steps_teacher, lambda step: STUDENT_STYLES if step < steps_student else TEACHER_STYLES
        )
        for done, loss in steps:
            rate = progress.tasks[0].finished_speed or progress.tasks[0].speed or 0.0
            progress.update(bar, completed=done, description=f"loss {loss:.3f}", rate=rate)
            if done == steps_student:
                save(model, tokenizer, out / "student")
    save(model, tokenizer, out / "teacher")
    write_questions(out)
    measure_saved(out)


if __name__ == "__main__":
    app()
