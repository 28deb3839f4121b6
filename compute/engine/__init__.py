"""Engines: what runs a student's completions. The interface is here, one supplier per module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from store.schema import FinishReason

#: Called with the number of tokens just sampled; raises to stop the run.
Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """One completion to sample: the spine's first `depth` tokens are kept, then the model goes on.

    `forced` is its first token; without one, the first token is drawn from the model restricted to what
    is not `excluded`. `key` names its random numbers (`compute.sampling.key`).
    """

    depth: int
    key: int
    forced: int | None = None
    excluded: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of a launch: its own tokens, the forced one first, an end token last where it ended."""

    token_ids: NDArray[np.int32]
    finish_reason: FinishReason
    tool_T: NDArray[np.bool_] | None = None  #: of an imported response: tokens that a tool or the environment wrote

    @property
    def has_tool(self) -> bool:
        """Whether somebody else than the student wrote a part of it, so that it cannot be continued from here."""
        return self.tool_T is not None and bool(self.tool_T.any())

    @property
    def truncated(self) -> bool:
        """Whether it was cut off at the length limit."""
        return self.finish_reason is FinishReason.LENGTH


@dataclass(frozen=True, slots=True)
class Job:
    """Completions off one spine: a response to a prompt, or nothing."""

    prompt_ids: Sequence[int]
    spine: Sequence[int]
    launches: Sequence[Launch]


class Engine(Protocol):
    """What the pipeline needs of a student: completions off a spine of tokens."""

    @property
    def batch_shape(self) -> str:
        """How completions were decoded together, in words for the store: what results may depend on beside the keys."""

    def complete(
        self,
        prompt_ids: Sequence[int],
        spine: Sequence[int],
        launches: Sequence[Launch],
        *,
        max_response_tokens: int,
        temperature: float = 1.0,
        tick: Tick | None = None,
    ) -> list[Completion]:
        """Sample every launch off one spine (a response, or nothing), in the order of `launches`.

        The length limit is on the whole response: kept tokens and own ones together.
        """


def complete_jobs(
    engine: Engine, jobs: Sequence[Job], *, max_response_tokens: int, temperature: float = 1.0, tick: Tick | None = None
) -> list[list[Completion]]:
    """The completions of several jobs: in one batch where the engine can do that, else one job after the other."""
    together = getattr(engine, "complete_jobs", None)
    if together is not None:
        found: list[list[Completion]] = together(
            jobs, max_response_tokens=max_response_tokens, temperature=temperature, tick=tick
        )
        return found
    return [
        engine.complete(
            one.prompt_ids,
            one.spine,
            one.launches,
            max_response_tokens=max_response_tokens,
            temperature=temperature,
            tick=tick,
        )
        for one in jobs
    ]
