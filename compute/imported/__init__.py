"""Rollouts that a trainer wrote, as the initial rollouts of a study.

One small file per format turns a line of its file into a `Rollout`; `lines` reads a whole file, `matching` finds each
rollout's question, `tokens` makes the student's tokens of it, `checks` compares what the file says with what the student
says, and `setup` puts them where sampled rollouts would be. The readers are pure: no model is loaded for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compute.imported import openai, prime_rl, trl, verifiers, verl
from compute.imported.rollout import BadLine, Rollout

#: By the name that `--from` takes. A line may hold several rollouts, or none.
FORMATS: dict[str, Callable[[Mapping[str, Any]], list[Rollout]]] = {
    "verl": verl.read,
    "trl": trl.read,
    "prime-rl": prime_rl.read,
    "verifiers": verifiers.read,
    "openai": openai.read,
}

__all__ = ["FORMATS", "BadLine", "Rollout"]
