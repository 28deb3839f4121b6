"""Shared-prefix decoding on transformers.

One forward over prompt and spine gives the hidden states and the keys and values of every node. All
completions then decode together, whatever their depth: each row attends to the one shared prefix, masked
at its own depth, and to a small private cache of the tokens it wrote itself. A finished row's slot is taken
by the next launch. Nothing is padded and no prefix is copied.

The idea is that of bifurcated attention (arXiv 2403.08845) and Hydragen (arXiv 2402.05099), with rows of
different depth on one spine. It needs a model that calls transformers' attention interface, with standard
rotary attention (Llama, Qwen2, Qwen3, Mistral and their like).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from compute.engine import Completion, Launch, Tick
from compute.engine.slots import Schedule
from compute.errors import StudyError
from compute.models import Model
from compute.sampling import uniforms

_ATTENTION = "opd_shared_prefix"
#: Below 16 rows matrix products take other kernels, whose rounding moves about one draw in a thousand.
MIN_ROWS = 16
_DRAW_BLOCK = 256
_ROOM = 32


class _Rows:
    """The device's side of one `complete`: the shared prefix, and what each slot wrote itself.

    B slots, S positions of the prefix, L own tokens, H heads, D width of a head.
    """

    def __init__(self, cache: Any, slots: int) -> None:
        #: per layer [Hkv, S, D]
        self.prefix_keys = [layer.keys[0] for layer in cache.layers]
        self.prefix_values = [layer.values[0] for layer in cache.layers]
        #: per layer [B, Hkv, room, D], `room` grows as rows do
        self.own_keys = [keys.new_zeros(slots, keys.shape[0], _ROOM, keys.shape[2]) for keys in self.prefix_keys]
        self.own_values = [keys.new_zeros(slots, keys.shape[0], _ROOM, keys.shape[2]) for keys in self.prefix_values]
        self.device = self.prefix_keys[0].device

    def look(self, kept_B: NDArray[np.int64], own_B: NDArray[np.int64]) -> None:
        """Set what each row sees in the coming step: `kept_B` positions of the prefix, `own_B` own tokens before the new one."""
        width = int(own_B.max()) + 1
        room = self.own_keys[0].shape[2]
        if width > room:
            more = -(-width // _ROOM) * _ROOM - room
            self.own_keys = [torch.nn.functional.pad(one, (0, 0, 0, more)) for one in self.own_keys]
            self.own_values = [torch.nn.functional.pad(one, (0, 0, 0, more)) for one in self.own_values]
        self.own_B = torch.as_tensor(own_B, device=self.device)
        self.kept_B = torch.as_tensor(kept_B, device=self.device)
        self.row_B = torch.arange(len(own_B), device=self.device)
        self.width = width

    def hidden(self, window: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Where a row may not look: [B, S] of the prefix and [B, L] of its own tokens. `window`: of sliding-window attention."""
        prefix_S = torch.arange(self.prefix_keys[0].shape[1], device=self.device)[None]
        own_L = torch.arange(self.width, device=self.device)[None]
        kept, own = self.kept_B[:, None], self.own_B[:, None]
        not_shared, not_own = prefix_S >= kept, own_L > own
        if window is not None:
            not_shared = not_shared | (prefix_S <= kept + own - window)
            not_own = not_own | (own_L <= own - window)
        return not_shared, not_own

    def shrink(self, kept: NDArray[np.int64]) -> None:
        """Keep only these slots."""
        chosen = torch.as_tensor(kept, device=self.device)
        self.own_keys = [one[chosen] for one in self.own_keys]
        self.own_values = [one[chosen] for one in self.own_values]


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    opd_rows: _Rows | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one new token per row: query [B, H, 1, D], key and value [B, Hkv, 1, D]; without rows, as usual."""
    if opd_rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)  # type: ignore[no-any-return]
    rows = opd_rows
    layer: int = module.layer_idx  # type: ignore[assignment]  # every attention module of transformers has it
    batch, heads, _one, width = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    rows.own_keys[layer][rows.row_B, :, rows.own_B] = key[:, :, 0]
    rows.own_values[layer][rows.row_B, :, rows.own_B] = value[:, :, 0]
    own_keys, own_values = rows.own_keys[layer][:, :, : rows.width], rows.own_values[layer][:, :, : rows.width]
    prefix_keys, prefix_values = rows.prefix_keys[layer], rows.prefix_values[layer]
    shared = prefix_keys.shape[1]

    grouped = query.view(batch, kv_heads, group, width) * (width**-0.5 if scaling is None else scaling)
    flat = grouped.transpose(0, 1).reshape(kv_heads, batch * group, width)
    shared_scores = (flat @ prefix_keys.transpose(1, 2)).view(kv_heads, batch, group, shared).transpose(0, 1)
    own_scores = grouped @ own_keys.transpose(2, 3)
    not_shared, not_own = rows.hidden(kwargs.get("sliding_window"))
    scores = torch.cat(
        [
            shared_scores.float().masked_fill(not_shared[:, None, None], -torch.inf),
            own_scores.float().masked_fill(not_own[:, None, None], -torch.inf),
        ],
        dim=-1,
    )
    weights = torch.softmax(scores, dim=-1).to(query.dtype)
    shared_weights = weights[..., :shared].transpose(0, 1).reshape(kv_heads, batch * group, shared)
    mixed = (shared_weights @ prefix_values).view(kv_heads, batch, group, width).transpose(0, 1)
    mixed = mixed + weights[..., shared:] @ own_values
    return mixed.reshape(batch, 1, heads, width), None


AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


class TransformersEngine:
    """Runs one model's states and completions. See `compute.engine.Engine`."""

    def __init__(self, model: Model, *, slots: int = 128) -> None:
        self.model = model
        self.slots = max(slots, MIN_ROWS)
        model.network.set_attn_implementation(_ATTENTION)
        if model.decoder.config._attn_implementation != _ATTENTION:  # transformers has no public getter
            raise StudyError(f"{model.name} does not use transformers' attention interface, which shared-prefix decoding needs.")

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
        if not launches:
            return []
        kept = [*prompt_ids, *spine[: max(one.depth for one in launches)]]
        cache = DynamicCache()
        states = self.model.decoder(
            input_ids=torch.tensor([kept], device=self.model.device), past_key_values=cache, use_cache=True
        ).last_hidden_state[0, len(prompt_ids) - 1 :]
        schedule = Schedule(
            launches,
            self._first_tokens(states, launches, temperature),
            prompt=len(prompt_ids),
            max_response_tokens=max_response_tokens,
            end_ids=self.model.end_ids,
        )
        schedule.open(max(MIN_ROWS, min(self.slots, len(launches))))
        rows = _Rows(cache, len(schedule))
        while schedule.refill():
            idle = schedule.spare(MIN_ROWS)
            if idle is not None:
                rows.shrink(idle)
            rows.look(schedule.kept(), schedule.own() - 1)
            logits = self._step(schedule, rows)
            schedule.append(_draw(logits, temperature, uniforms(schedule.keys(), schedule.own())))
            if tick is not None:
                tick(schedule.n_active)
        return schedule.completions()

    def _step(self, schedule: Schedule, rows: _Rows) -> torch.Tensor:
        """Next-token logits [B, V] of every slot after its latest token."""
        device = self.model.device
        hidden = self.model.decoder(
            input_ids=torch.as_tensor(schedule.latest(), device=device)[:, None],
            position_ids=torch.as_tensor(schedule.kept() + schedule.own() - 1, device=device)[:, None],
            attention_mask=torch.ones(
                1, 1, 1, 1, dtype=torch.bool, device=device
            ),  # a ready mask, so that none is built; ours is in `rows`
            use_cache=False,
            opd_rows=rows,
        ).last_hidden_state[:, 0]
        return self.model.logits(hidden)

    def _first_tokens(self, states: torch.Tensor, launches: Sequence[Launch], temperature: float) -> NDArray[np.int64]:
        """The first token of each launch: the forced one, or a draw from its node's distribution."""
        tokens = np.array([-1 if one.forced is None else one.forced for one in launches], dtype=np.int64)
        drawn = np.flatnonzero(tokens < 0)
        for start in range(0, len(drawn), self.slots):
            chosen = drawn[start : start + self.slots]
            padded = np.resize(chosen, max(len(chosen), MIN_ROWS)).tolist()
            logits = self.model.logits(states[torch.as_tensor([launches[at].depth for at in padded], device=states.device)])
            for row, at in enumerate(padded):
                if launches[at].excluded:
                    logits[row, list(launches[at].excluded)] = -torch.inf
            keys = np.array([launches[at].key for at in padded], dtype=np.uint64)
            tokens[chosen] = _draw(logits, temperature, uniforms(keys, np.zeros(len(keys), dtype=np.int64)))[: len(chosen)]
        return tokens


def _draw(logits: torch.Tensor, temperature: float, uniform_B: NDArray[np.float64]) -> NDArray[np.int64]:
    """One token per row of `logits` [B, V]: the inverse of the cumulative distribution at `uniform_B`.

    In two levels, blocks and then tokens of the block, with sums in float64: exact, and cheap for a large V.
    """
    probabilities = torch.softmax(logits / temperature, dim=-1)
    batch, vocabulary = probabilities.shape
    blocks = -(-vocabulary // _DRAW_BLOCK)
    padded = (
        torch.nn.functional.pad(probabilities, (0, blocks * _DRAW_BLOCK - vocabulary)).view(batch, blocks, _DRAW_BLOCK).double()
    )
    ends = padded.sum(-1).cumsum(-1)
    target = torch.as_tensor(uniform_B, device=logits.device) * ends[:, -1]
    block = (ends <= target[:, None]).sum(-1)
    row = torch.arange(batch, device=logits.device)
    before = torch.where(block > 0, ends[row, block - 1], 0.0)
    inside = padded[row, block].cumsum(-1) + before[:, None]
    token = (inside <= target[:, None]).sum(-1)
    # Sums in another order can end a rounding error short of the block's end: then its last token with mass it is.
    last = _DRAW_BLOCK - 1 - (padded[row, block].flip(-1) > 0).int().argmax(-1)
    chosen: NDArray[np.int64] = (block * _DRAW_BLOCK + torch.minimum(token, last)).cpu().numpy()
    return chosen
