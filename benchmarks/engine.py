"""Shared-prefix decoding against `generate`: `python -m benchmarks.engine [--json] [--model FOLDER] [--dtype bfloat16]`.

The work of one targeted response: a prefix of about 130 tokens, two nodes, eight forced tokens each, eight completions
of every one: 128 rows, up to `--limit` tokens, ended by an end token or, for models of words, by a newline. Three ways, in turn:
`generate` for each node and token (eight samples at once), one `generate` of all rows padded on the left, the engine.
Figures are useful tokens (a row's own ones up to its end) per CPU second, as ratios. And 32 initial rollouts of each of eight
questions: all in one batch against one question after the other.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import close, compare
from compute import models, scoring
from compute.engine import Engine, Job, Launch, complete_jobs
from compute.engine.transformers import TransformersEngine
from compute.sampling import key

FORCED, SAMPLES = 8, 8
TINY = Path(__file__).parent.parent / "examples" / "chain_sums" / "student"
TERMS = (4, 9, 2, 3, 7, 5, 8, 1, 6, 4, 3, 9, 2, 5, 7, 6, 8, 4, 1, 3)
TINY_ASKED = f"<user>{'+'.join(map(str, TERMS))}?<assistant>"
TINY_SOLVED = ";".join(f"{sum(TERMS[:n])}+{TERMS[n]}={sum(TERMS[: n + 1])}" for n in range(1, len(TERMS)))[:88]
SMOL_ASKED = """Problem: 3 + 5 + 4
Solution: 3 + 5 = 8. 8 + 4 = 12. Answer: 12

Problem: 9 + 2 + 6 + 1
Solution: 9 + 2 = 11. 11 + 6 = 17. 17 + 1 = 18. Answer: 18

Problem: 4 + 9 + 2 + 3
Solution:"""
SMOL_SOLVED = " 4 + 9 = 13. 13 + 2 = 15. 15 + 3 = 18. Answer: 18"


@dataclass(frozen=True)
class Work:
    """128 completions off one spine."""

    model: models.Model
    prompt: list[int]
    spine: list[int]
    launches: list[Launch]
    response_tokens: int

    def room(self, launch: Launch) -> int:
        """Tokens that a completion may have of its own."""
        return self.response_tokens - launch.depth

    def shared(self, engine: Engine) -> int:
        done = engine.complete(self.prompt, self.spine, self.launches, max_response_tokens=self.response_tokens)
        return sum(len(one.token_ids) for one in done)

    def per_child(self) -> int:
        return sum(self.generate([one], SAMPLES) for one in self.launches[::SAMPLES])

    def padded(self) -> int:
        return self.generate(self.launches, 1)

    def generate(self, launches: list[Launch], samples: int) -> int:
        rows = [[*self.prompt, *self.spine[: one.depth], one.forced] for one in launches]
        longest = max(map(len, rows))
        found = self.model.network.generate(
            torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
            attention_mask=torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
            max_new_tokens=max(map(self.room, launches)) - 1,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=samples,
            eos_token_id=list(self.model.end_ids),
            pad_token_id=0,
        )[:, longest:].numpy()
        ends = np.isin(found, self.model.end_ids)
        lengths = np.where(ends.any(1), ends.argmax(1) + 1, found.shape[1])
        rooms = np.repeat([self.room(one) for one in launches], samples)
        return int(np.minimum(1 + lengths, rooms).sum())


def rollouts(job: Work, engine: Engine, n_together: int) -> int:
    """Free completions off eight prompts, which differ in their lengths."""
    jobs = [
        Job(job.prompt[: len(job.prompt) - 3 * n], (), [Launch(0, key(0, f"q{n}", "rollout", (), -1, s)) for s in range(32)])
        for n in range(8)
    ]
    done = [
        complete_jobs(engine, jobs[start : start + n_together], max_response_tokens=job.response_tokens - len(job.spine) + 16)
        for start in range(0, 8, n_together)
    ]
    return sum(len(one.token_ids) for batch in done for of_job in batch for one in of_job)


def work(model: models.Model, limit: int) -> Work:
    """Two nodes of a worked solution after solved examples, and their eight most likely tokens that do not end the response."""
    asked, solved = (SMOL_ASKED, SMOL_SOLVED) if model.vocab_size > 1000 else (TINY_ASKED, TINY_SOLVED)
    prompt, spine = (model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, solved))
    logits = model.logits(scoring.states(model, prompt, spine))
    logits[:, list(model.end_ids)] = -torch.inf
    launches = []
    for depth in (len(spine) - 16, len(spine) - 8):
        for token in logits[depth].topk(FORCED).indices.tolist():
            launches += [Launch(depth, key(0, "bench", "child", spine[:depth], token, n), forced=token) for n in range(SAMPLES)]
    return Work(model, prompt, spine, launches, len(spine) - 16 + limit)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--json", action="store_true")
    words.add_argument("--model", type=Path, default=TINY)
    words.add_argument("--dtype", default="float32")
    words.add_argument("--limit", type=int, default=64)
    words.add_argument("--repeats", type=int, default=5)
    chosen = words.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = models.load(str(chosen.model), dtype=chosen.dtype)
    if model.vocab_size > 1000:
        lines = tuple(at for at, piece in enumerate(model.tokens.token_bytes) if b"\n" in piece)
        model = replace(model, end_ids=tuple(sorted({*model.end_ids, *lines})))
    job = work(model, chosen.limit)
    plain = models.load(str(chosen.model), dtype=chosen.dtype)
    engine = TransformersEngine(model)
    usual = replace(job, model=replace(plain, end_ids=model.end_ids))
    sides = {
        "generate per node and token": usual.per_child,
        "one padded generate": usual.padded,
        "shared-prefix decoding": lambda: job.shared(engine),
        "rollouts, question by question": lambda: rollouts(job, engine, 1),
        "rollouts of eight together": lambda: rollouts(job, engine, 8),
    }
    found = compare(sides, chosen.repeats)
    rate = {name: side.work_per_cpu_second for name, side in found.items()}
    ours = rate["shared-prefix decoding"]
    if not chosen.json:
        print(f"{'':32} {'tokens':>8} {'wall s':>8} {'CPU s':>8} {'tokens / CPU s':>15}")
        for name, side in found.items():
            print(f"{name:32} {side.work:8.0f} {side.wall_seconds:8.2f} {side.cpu_seconds:8.2f} {side.work_per_cpu_second:15.0f}")
    figures = {f"against {name}": ours / rate[name] for name in ("generate per node and token", "one padded generate")}
    together = rate["rollouts of eight together"] / rate["rollouts, question by question"]
    close("engine", figures | {"rollouts of eight together": together})


if __name__ == "__main__":
    main()
