"""What student and teacher say of every token, in chunks: no [T, V] array is ever kept.

Both sides come as last hidden states [T, d]; each chunk of rows goes through the language-model heads, and
everything exact is read off there (method.md 6): log-probabilities, entropies, divergences, top-K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compute.engine.memory import available, is_refusal, release, told
from compute.errors import ComputeError
from compute.models import Model
from store.schema import DIVERGENCES

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
#: From last hidden states [n, d] to log-probabilities [n, V], float32.
LogProbs = Callable[[torch.Tensor], torch.Tensor]

#: Rows that pass the heads together at most. Fewer are slower: weights are packed anew for each product. More gain nothing.
CHUNK = 64
_MIN_ROWS = 16
#: What a row takes while it is scored, for a vocabulary of 2^18 tokens: a dozen float32 arrays of that length.
_ROW_BYTES = 12 << 20


@dataclass(frozen=True, slots=True)
class StudentScores:
    """The student along one response of T tokens; C most likely tokens."""

    logprob_T: Float32
    entropy_T: Float32
    topk_token_id_TC: Int32
    topk_logprob_TC: Float32
    tail_mass_T: Float32


@dataclass(frozen=True, slots=True)
class TeacherScores:
    """One teacher along one response, beside the student; D divergences in the order of the schema."""

    logprob_T: Float32
    entropy_T: Float32
    divergence_TD: Float32
    topk_token_id_TC: Int32
    topk_logprob_TC: Float32
    student_logprob_at_topk_TC: Float32
    logprob_at_student_topk_TC: Float32
    tail_mass_T: Float32
    #: largest |P_j (l_j - lbar)| over tokens j, l = log T/P: the reverse-KL gradient (method.md 3.2)
    gradient_T: Float32
    #: largest |T_j - P_j| over tokens j
    difference_T: Float32


def log_probs(logits: Callable[[torch.Tensor], torch.Tensor], temperature: float = 1.0) -> LogProbs:
    """The log-probabilities at `temperature` behind a model's `logits`."""
    return lambda states: torch.log_softmax(logits(states) / temperature, dim=-1)


@torch.inference_mode()
def states(model: Model, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> torch.Tensor:
    """Last hidden states [T + 1, d] along a response: row t predicts response token t, the last row what would follow.

    Raises `ComputeError` where prompt and response are longer than the model's window.
    """
    return context_states(model, [prompt_ids], response_ids)[0]


@torch.inference_mode()
def context_states(model: Model, prompts: Sequence[Sequence[int]], response_ids: Sequence[int]) -> list[torch.Tensor]:
    """`states` of one response after several prompts, in one batch.

    Raises `ComputeError` where prompt and response are longer than the model's window.
    """
    length = max(map(len, prompts)) + len(response_ids)
    if model.window is not None and length > model.window:
        raise ComputeError(
            f"{length} tokens of prompt and response do not fit the window of {model.name}, {model.window} tokens."
        )
    hidden = _last_hidden(model, [[*prompt, *response_ids] for prompt in prompts])
    return [one[len(prompt) - 1 : len(prompt) + len(response_ids)] for one, prompt in zip(hidden, prompts, strict=True)]


@torch.inference_mode()
def batch_states(model: Model, prompt_ids: Sequence[int], responses: Sequence[Sequence[int]]) -> torch.Tensor:
    """Last hidden states [B, prompt + T, d] of several responses to one prompt, T the longest: row i predicts token i + 1.

    Shorter ones are padded on the right, which nothing before it sees.
    """
    return _last_hidden(model, [[*prompt_ids, *response] for response in responses])


def _last_hidden(model: Model, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Last hidden states [B, T, d] of a plain forward, T the longest row.

    It runs over a multiple of 16 tokens, where the window has them: what is left of one is rounded differently.
    """
    longest = max(map(len, rows))
    width = longest + -longest % _MIN_ROWS
    if model.window is not None:
        width = max(longest, min(width, model.window))
    with told(f"{len(rows)} x {longest} tokens of prompt and response in {model.name}", model.device):
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
        hidden: torch.Tensor = model.decoder(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[:, :longest]


@torch.inference_mode()
def kl_student_teacher(
    student: LogProbs, student_states: torch.Tensor, teacher: LogProbs, teacher_states: torch.Tensor
) -> Float32:
    """KL(P‖T) at each of n states of both sides, in nat."""

    def kl(rows: slice) -> tuple[torch.Tensor, ...]:
        logp, logt = rows_of(student, student_states, rows), rows_of(teacher, teacher_states, rows)
        logp = logp.to(logt.device)
        return (_product(logp.exp(), logp - logt).sum(-1).clamp_min(0.0).float(),)

    if not len(student_states):
        return np.empty(0, dtype=np.float32)
    found: Float32 = in_chunks(kl, len(student_states), chunk_on(teacher_states.device))[0]
    return found


@torch.inference_mode()
def score_student(
    log_probs: LogProbs, states: torch.Tensor, token_ids: NDArray[np.integer], top_k: int, *, chunk: int | None = None
) -> StudentScores:
    """Score a response of T tokens from its states [T, d] (row t predicts token t), `chunk` rows at once or as memory allows."""

    def score(rows: slice) -> tuple[torch.Tensor, ...]:
        logp = rows_of(log_probs, states, rows)
        taken = torch.as_tensor(token_ids[rows], dtype=torch.long, device=logp.device)
        top_logp, top_ids = logp.topk(min(top_k, logp.shape[-1]), dim=-1)
        return _at(logp, taken[:, None])[:, 0], _entropy(logp), top_ids.int(), top_logp, _tail(top_logp)

    return StudentScores(*in_chunks(score, len(token_ids), chunk or chunk_on(states.device)))


@torch.inference_mode()
def score_teacher(
    student: LogProbs,
    student_states: torch.Tensor,
    teacher: LogProbs,
    teacher_states: torch.Tensor,
    token_ids: NDArray[np.integer],
    student_topk_TC: Int32,
    *,
    chunk: int | None = None,
) -> TeacherScores:
    """Score the same T tokens under a teacher; states [T, d] of both sides, widths may differ; `chunk` as above."""
    top_k = student_topk_TC.shape[1]

    def score(rows: slice) -> tuple[torch.Tensor, ...]:
        logp, logt = rows_of(student, student_states, rows), rows_of(teacher, teacher_states, rows)
        logp = logp.to(logt.device)
        taken = torch.as_tensor(token_ids[rows], dtype=torch.long, device=logt.device)
        student_top = torch.as_tensor(student_topk_TC[rows], dtype=torch.long, device=logt.device)
        top_logt, top_ids = logt.topk(top_k, dim=-1)
        p, t = logp.exp(), logt.exp()
        # What is as large as the vocabulary is let go as soon as it was read off.
        ratio = logt - logp
        weighted = _product(p, ratio)
        kl_student_teacher = -weighted.sum(-1)
        gradient = weighted.add_(p * kl_student_teacher[:, None]).abs_().amax(-1)
        del weighted
        kl_teacher_student = _product(t, ratio).sum(-1)
        del ratio
        log_mean = (p + t).mul_(0.5).log_()
        js = 0.5 * (_product(p, logp - log_mean).sum(-1) + _product(t, logt - log_mean).sum(-1))
        del log_mean
        difference = t - p
        divergences = {
            "kl_student_teacher": kl_student_teacher.clamp_min(0.0),
            "kl_teacher_student": kl_teacher_student.clamp_min(0.0),
            "js": js.clamp_min(0.0),
            "l2": difference.norm(dim=-1),
            "cosine": (p * t).sum(-1) / (p.norm(dim=-1) * t.norm(dim=-1)),
        }
        return (
            _at(logt, taken[:, None])[:, 0],
            _entropy(logt),
            torch.stack([divergences[name] for name in DIVERGENCES], dim=-1),
            top_ids.int(),
            top_logt,
            _at(logp, top_ids),
            _at(logt, student_top),
            _tail(top_logt),
            gradient,
            difference.abs_().amax(-1),
        )

    return TeacherScores(*in_chunks(score, len(token_ids), chunk or chunk_on(teacher_states.device)))


@torch.inference_mode()
def exact(log_probs: LogProbs, states: torch.Tensor) -> NDArray[np.float64]:
    """Log-probabilities of the whole vocabulary [n, V] at a few rows of states [n, d], in float64."""
    found: NDArray[np.float64] = torch.log_softmax(rows_of(log_probs, states, slice(None)).double(), dim=-1).cpu().numpy()
    return found


def chunk_on(device: torch.device) -> int:
    """Rows to score at once: `CHUNK`, or fewer where the memory that is free on `device` may not hold them."""
    return max(_MIN_ROWS, min(CHUNK, available(device) // (_ROW_BYTES * _MIN_ROWS) * _MIN_ROWS))


def rows_of(log_probs: LogProbs, states: torch.Tensor, rows: slice) -> torch.Tensor:
    """Log-probabilities [n, V] at some rows of states. At least 16 pass the head, so that a row is the same in any chunk."""
    chosen = states[rows]
    n = len(chosen)
    if n < _MIN_ROWS:
        chosen = chosen[torch.arange(_MIN_ROWS, device=states.device) % n]
    return log_probs(chosen)[:n]


def in_chunks(score: Callable[[slice], tuple[torch.Tensor, ...]], length: int, chunk: int) -> tuple[NDArray[Any], ...]:
    """`score` of rows 0 to `length`, column by column; in chunks of half as many where memory is refused.

    Raises `ComputeError` where not even 16 rows fit.
    """
    parts: list[tuple[torch.Tensor, ...]] = []
    start = 0
    while start < length:
        try:
            parts.append(score(slice(start, min(start + chunk, length))))
            start += chunk
            continue
        except Exception as error:
            if not is_refusal(error):
                raise
            if chunk <= _MIN_ROWS:
                raise ComputeError(
                    "There is no memory to score 16 tokens at once; put student and teachers on devices of their own."
                ) from error
        # Here, where the error and what its frames held is gone.
        release()
        chunk = max(_MIN_ROWS, chunk // 2)
    return tuple(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))


def _at(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return values.gather(-1, ids)


def _product(mass: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """mass * value, 0 where there is no mass: log-ratios may be infinite there."""
    return torch.where(mass > 0, mass * value, 0.0)


def _entropy(logp: torch.Tensor) -> torch.Tensor:
    return -_product(logp.exp(), logp).sum(-1)


def _tail(top_logp: torch.Tensor) -> torch.Tensor:
    """Mass outside the top-K; sums that round above 1 leave none."""
    return (1.0 - top_logp.exp().sum(-1)).clamp_min(0.0)
