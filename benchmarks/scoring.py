"""Scoring in chunks against scoring whole [T, V] arrays: `python -m benchmarks.scoring [--json]`.

The same formulas on both sides, for T = 1,024 tokens and the vocabularies of SmolLM2 (49,152) and Qwen (151,936), heads
in bfloat16 and float32. Figures: time and peak of extra memory as ratios to the whole arrays, and the largest difference.
Linux only: the peak is read from /proc.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import close, compare
from compute import scoring

T, WIDTH, TOP_K = 1024, 576, 64
CASES = ((49_152, torch.bfloat16), (49_152, torch.float32), (151_936, torch.bfloat16))


def kilobytes(name: str) -> int:
    rows = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == f"{name}:")


def extra_megabytes(side: Callable[[], object]) -> float:
    """Peak of resident memory in one go, above what was there before."""
    # So that freed arrays really go back, and what is seen is what was in use (glibc's M_MMAP_THRESHOLD, 1 MB).
    ctypes.CDLL(None).mallopt(-3, 1 << 20)
    side()
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    side()
    return (kilobytes("VmHWM") - before) / 1024


def _logits(head: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    return (states @ head.T).float()


def _score(
    sides: Sequence[scoring.LogProbs], states: Sequence[torch.Tensor], token_ids: NDArray[np.int64], chunk: int
) -> scoring.TeacherScores:
    student = scoring.score_student(sides[0], states[0], token_ids, TOP_K, chunk=chunk)
    top = student.topk_token_id_TC
    return scoring.score_teacher(sides[0], states[0], sides[1], states[1], token_ids, top, chunk=chunk)


def _work(score: Callable[[int], object], chunk: int) -> float:
    score(chunk)
    return T


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures: dict[str, float] = {}
    for vocabulary, dtype in CASES:
        # Spread as a trained model's: a few likely tokens, a long tail.
        heads = [torch.randn(vocabulary, WIDTH).mul_(0.12).to(dtype) for _ in range(2)]
        states = [torch.randn(T, WIDTH).to(dtype) for _ in range(2)]
        states[1] = (0.8 * states[0] + 0.6 * states[1]).to(dtype)
        heads[1] = (0.9 * heads[0] + 0.2 * heads[1]).to(dtype)
        sides = [scoring.log_probs(partial(_logits, head)) for head in heads]
        score = partial(_score, sides, states, np.arange(T) * 31 % vocabulary)
        chunked, whole = partial(_work, score, scoring.CHUNK), partial(_work, score, T)
        found = compare({"chunks": chunked, "whole": whole}, 3)
        megabytes = {"chunks": extra_megabytes(chunked), "whole": extra_megabytes(whole)}
        ours, theirs = score(scoring.CHUNK), score(T)
        ids = ("topk_token_id_TC", "topk_logprob_TC", "student_logprob_at_topk_TC")  # equal log-probs may change places
        difference = max(
            float(np.abs(getattr(ours, one.name) - getattr(theirs, one.name)).max())
            for one in fields(ours)
            if one.name not in ids
        )
        case = f"V={vocabulary} {str(dtype).removeprefix('torch.')}"
        if "--json" not in sys.argv:
            for name, side in found.items():
                print(
                    f"{case:24} {name:8} {side.wall_seconds:7.2f} s wall {side.cpu_seconds:7.2f} s CPU {megabytes[name]:8.0f} MB"
                )
        figures |= {
            f"{case}: CPU time": found["chunks"].cpu_seconds / found["whole"].cpu_seconds,
            f"{case}: memory": megabytes["chunks"] / megabytes["whole"],
            f"{case}: largest difference, in 1e-5": difference / 1e-5,
        }
    close("scoring", figures)


if __name__ == "__main__":
    main()
