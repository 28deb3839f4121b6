"""Decoding in batches of one depth: for models that do not fit `compute.engine.transformers`.

All completions of one node form a batch of rows of equal length on the model's own cache, so that nothing is padded and
every kind of layer works: recurrent ones, learned positions, attention of their own. The node's prefix runs once and its
cache is copied to the rows. Finished rows leave the batch; rows of another depth cannot join it, which is what costs
speed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compute.engine import Completion, Launch, Tick
from compute.engine.drawing import draw
from compute.engine.memory import Budget, told
from compute.engine.slots import Schedule, whole
from compute.errors import StudyError
from compute.models import Model
from compute.sampling import uniforms

#: Below 16 rows matrix products may take other kernels, whose rounding moves about one draw in a thousand.
MIN_ROWS = 16
_FIRST_ROWS = 64


class BatchedEngine:
    """Runs one model's completions, any causal model with a cache. See `compute.engine.Engine`.

    The settings are those of `compute.engine.transformers.open_engine`.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int = 0,
        memory_limit: int | None = None,
        note: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.model = model
        self._budget = Budget(model.device, slots, MIN_ROWS, memory_limit, note)
        known = inspect.signature(model.decoder.forward).parameters
        #: what the decoder calls its cache
        self._cache_name = next((name for name in ("past_key_values", "cache_params") if name in known), "")
        self._position_name = next((name for name in ("position_ids",) if name in known), "")
        if not self._cache_name:
            raise StudyError(f"{model.name} has no cache that transformers knows, so its completions cannot be decoded.")

    @property
    def slots(self) -> int:
        """Completions that were decoded together at most, in the latest batch."""
        return self._budget.slots

    @property
    def batch_shape(self) -> str:
        """See `compute.engine.Engine.batch_shape`."""
        return f"up to {self._budget.most} completions together off one node"

    @torch.inference_mode()
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
        """Sample every launch off one spine, in the order of `launches`. See `compute.engine.Engine.complete`."""
        done: list[Completion | None] = [None] * len(launches)
        for depth in sorted({one.depth for one in launches}):
            chosen = [at for at, one in enumerate(launches) if one.depth == depth]
            found = self._complete_node(
                [*prompt_ids, *spine[:depth]], [launches[at] for at in chosen], max_response_tokens, temperature, tick
            )
            for at, one in zip(chosen, found, strict=True):
                done[at] = one
        return [one for one in done if one is not None]

    def _complete_node(
        self,
        prefix: list[int],
        launches: Sequence[Launch],
        max_response_tokens: int,
        temperature: float,
        tick: Tick | None,
    ) -> list[Completion]:
        """The completions of one node, all of the same depth."""
        depth = launches[0].depth
        with told(f"the prefix that completions share, {len(prefix)} tokens", self.model.device):
            cache, states = self._forward(np.array([prefix]), None, 0)
            at_node = states[-1:].expand(depth + 1, -1)  # only the row at `depth` is looked at
            first = first_tokens(self.model, at_node, launches, temperature)
        schedule = Schedule(
            launches,
            first,
            prompt=len(prefix) - depth,
            max_response_tokens=max_response_tokens,
            end_ids=self.model.end_ids,
        )

        def decode(slots: int) -> None:
            while schedule.n_left:
                schedule.open(max(MIN_ROWS, min(slots, whole(schedule.n_left))))
                schedule.refill()
                self._decode_batch(schedule, cache, len(prefix), temperature, tick)

        row_bytes = _row_bytes(self.model, len(prefix) + max_response_tokens - depth)
        shared_bytes = _cache_bytes(self.model, len(prefix))
        self._budget.run(decode, self._budget.rows(schedule.n_left, row_bytes, shared_bytes))
        return schedule.completions()

    def _decode_batch(self, schedule: Schedule, prefix: Any, length: int, temperature: float, tick: Tick | None) -> None:
        """Run the rows in the slots to their ends; `prefix` is the cache of the `length` tokens that they share."""
        cache = copy.deepcopy(prefix)
        _reorder(cache, np.zeros(len(schedule), dtype=np.int64), self.model.device)
        step = 0
        while schedule.n_active:
            idle = schedule.spare(MIN_ROWS)
            if idle is not None:
                _reorder(cache, idle, self.model.device)
            cache, states = self._forward(schedule.latest()[:, None], cache, length + step)
            drawn = draw(self.model.logits(states), temperature, schedule.uniforms())
            n_drawn = schedule.n_active
            schedule.append(drawn)
            step += 1
            if tick is not None:
                tick(n_drawn)

    def _forward(self, ids: NDArray[np.int64], cache: Any, start: int) -> tuple[Any, torch.Tensor]:
        """Run tokens [B, T] that begin at position `start`: the cache then, and the hidden states [B, d] of the last of them."""
        more: dict[str, Any] = {self._cache_name: cache}
        if self._position_name:
            positions = torch.arange(start, start + ids.shape[1], device=self.model.device)
            more[self._position_name] = positions[None].expand(ids.shape[0], -1)
        output = self.model.decoder(input_ids=torch.as_tensor(ids, device=self.model.device), use_cache=True, **more)
        return getattr(output, self._cache_name), output.last_hidden_state[:, -1]


def first_tokens(model: Model, states: torch.Tensor, launches: Sequence[Launch], temperature: float) -> NDArray[np.int64]:
    """The first token of each launch: the forced one, or a draw from its node's distribution.

    `states` [T + 1, d] are last hidden states along the spine: row t is the node of depth t.
    """
    tokens = np.array([-1 if one.forced is None else one.forced for one in launches], dtype=np.int64)
    drawn = np.flatnonzero(tokens < 0)
    for start in range(0, len(drawn), _FIRST_ROWS):
        chosen = drawn[start : start + _FIRST_ROWS]
        padded = np.resize(chosen, max(len(chosen), MIN_ROWS)).tolist()
        logits = model.logits(states[torch.as_tensor([launches[at].depth for at in padded], device=states.device)])
        for row, at in enumerate(padded):
            if launches[at].excluded:
                logits[row, list(launches[at].excluded)] = -torch.inf
        keys = np.array([launches[at].key for at in padded], dtype=np.uint64)
        tokens[chosen] = draw(logits, temperature, uniforms(keys, np.zeros(len(keys), dtype=np.int64)))[: len(chosen)]
    return tokens


def _reorder(cache: Any, rows: NDArray[np.int64], device: torch.device) -> None:
    """Make the cache hold these of its rows, one of them as often as it is named."""
    cache.reorder_cache(torch.as_tensor(rows, device=device))


def _row_bytes(model: Model, length: int) -> int:
    """What one row of `length` tokens takes at most: its cache, twice while rows are dropped, and what lives for one step."""
    config = model.network.config.get_text_config()
    wide = 4 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size) + 8 * config.hidden_size
    return 2 * _cache_bytes(model, length) + int(model.head.weight.element_size() * wide + 4 * 4 * model.vocab_size)


def _cache_bytes(model: Model, length: int) -> int:
    """What keys and values of `length` tokens take."""
    config = model.network.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None) or 1
    width = getattr(config, "head_dim", None) or config.hidden_size // (getattr(config, "num_attention_heads", None) or 1)
    return int(model.head.weight.element_size() * 2 * config.num_hidden_layers * heads * width * length)
