"""Shared-prefix decoding against `generate` per node and token, on the tiny student: `python -m benchmarks.decoding [--json]`.

The same work on both sides: completions of eight nodes of one response, two forced tokens each, eight samples.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.measure import medians, report
from compute import models
from compute.engine import Launch
from compute.engine.transformers import TransformersEngine
from compute.sampling import key
from compute.study import Chat

NODES, FORCED, SAMPLES, LIMIT = 8, (3, 7), 8, 32


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = models.load(str(Path(__file__).parent.parent / "examples" / "chain_sums" / "student"))
    engine = TransformersEngine(student)
    prompt = student.prompt_ids("3+5+4+6?", Chat())
    spine = engine.complete(prompt, (), [Launch(0, key(0, "b", "spine", (), -1, 1))], max_response_tokens=LIMIT)[
        0
    ].token_ids.tolist()
    depths = range(min(NODES, len(spine)))
    launches = [
        Launch(depth, key(0, "b", "child", spine[:depth], token, n), forced=token)
        for depth in depths
        for token in FORCED
        for n in range(SAMPLES)
    ]

    def shared() -> None:
        engine.complete(prompt, spine, launches, max_response_tokens=LIMIT)

    def generate() -> None:
        for depth in depths:
            for token in FORCED:
                ids = torch.tensor([[*prompt, *spine[:depth], token]])
                student.network.generate(
                    ids,
                    max_new_tokens=LIMIT - depth - 1,
                    do_sample=True,
                    num_return_sequences=SAMPLES,
                    eos_token_id=list(student.end_ids),
                    pad_token_id=0,
                )

    seconds = medians({"shared-prefix decoding": shared, "generate per node and token": generate}, 5)
    report("decoding", seconds, {"generate / shared": seconds["generate per node and token"] / seconds["shared-prefix decoding"]})


if __name__ == "__main__":
    main()
