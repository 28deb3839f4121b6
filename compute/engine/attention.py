"""Attention of many rows to one shared prefix, through transformers' attention interface.

The idea is that of bifurcated attention (arXiv 2403.08845) and Hydragen (arXiv 2402.05099), with rows of
different depth on one prefix. Axes: B slots, S positions of the prefix, L own tokens, H heads, G heads that share
a key, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: The name under which transformers knows it.
NAME = "opd_shared_prefix"
#: Widths are multiples of it, filled up with positions that nobody sees. Sums over them run in lanes of a vector
#: register; so a wider batch adds zeros at the end and changes no bit.
_WIDTH = 16
#: Products of fewer multiplications than this per row go through another kernel of torch, which rounds differently.
_SMALL = 400
#: Positions that one product sums over. MKL splits longer sums at places that depend on the length; these are split here.
_SPAN = 128


class Unfit(Exception):
    """The model's attention asks for something that shared-prefix decoding does not have."""


class Attention(Protocol):
    """What a decode step attends to."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        softcap: float | None,
        window: int | None,
        by: Callable[..., torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Attention of one new token per row: query [B, H, 1, D], key and value [B, H/G, 1, D], to [B, 1, H, D].

        `by`: what does it in place of `attended`.
        """
        ...


class Rows:
    """The device's side of one batch: the shared prefix, and what each slot wrote itself."""

    def __init__(self, cache: Any, slots: int) -> None:
        #: per layer [H/G, S, D]
        self.prefix_keys = [_filled(layer.keys[0]) for layer in cache.layers]
        self.prefix_values = [_filled(layer.values[0]) for layer in cache.layers]
        #: per layer [H/G, B, L, D]; L grows as rows do
        self._width = _own_width(min(one.shape[2] for one in (*self.prefix_keys, *self.prefix_values)))
        self.own_keys = [one.new_zeros(one.shape[0], slots, self._width, one.shape[2]) for one in self.prefix_keys]
        self.own_values = [one.new_zeros(one.shape[0], slots, self._width, one.shape[2]) for one in self.prefix_values]
        self.device = self.prefix_keys[0].device
        self._masks: dict[int | None, torch.Tensor] = {}

    def look(self, kept_B: NDArray[np.int64], own_B: NDArray[np.int64]) -> None:
        """Set what each row sees in the coming step: `kept_B` positions of the prefix, `own_B` own tokens before the new one."""
        more = (int(own_B.max()) // self._width + 1) * self._width - self.own_keys[0].shape[2]
        if more > 0:
            for layers in (self.own_keys, self.own_values):
                for at, one in enumerate(layers):
                    layers[at] = torch.nn.functional.pad(one, (0, 0, 0, more))
        self._own_B = torch.as_tensor(own_B, device=self.device)
        self._kept_B = torch.as_tensor(kept_B, device=self.device)
        #: where each row writes, in [B * L]
        self.place_B = torch.arange(len(own_B), device=self.device) * self.own_keys[0].shape[2] + self._own_B
        self._masks = {}

    def mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """What to add to scores: 0 where a row sees a position, else -inf; [B, 1, S + L]. `window` of sliding attention.

        Made once per step and window.
        """
        if window not in self._masks:
            prefix_S = torch.arange(self.prefix_keys[0].shape[1], device=self.device)[None]
            own_L = torch.arange(self.own_keys[0].shape[2], device=self.device)[None]
            kept, own = self._kept_B[:, None], self._own_B[:, None]
            hidden = torch.cat([prefix_S >= kept, own_L > own], dim=-1)
            if window is not None:
                hidden |= torch.cat([prefix_S <= kept + own - window, own_L <= own - window], dim=-1)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=self.device).masked_fill_(hidden, -torch.inf)
            self._masks[window] = mask[:, None]
        return self._masks[window]

    def shrink(self, kept: NDArray[np.int64]) -> None:
        """Keep only these slots."""
        chosen = torch.as_tensor(kept, device=self.device)
        for layers in (self.own_keys, self.own_values):
            for at, one in enumerate(layers):
                layers[at] = one.index_select(1, chosen)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        softcap: float | None,
        window: int | None,
        by: Callable[..., torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """See `Attention`. The new keys and values are kept."""
        if query.shape[2] != 1:
            raise Unfit("it does not decode one token at a time")
        return (by or attended)(
            query,
            key,
            value,
            self.prefix_keys[layer],
            self.prefix_values[layer],
            self.own_keys[layer],
            self.own_values[layer],
            self.place_B,
            self.mask(window, query.dtype),
            query.shape[3] ** -0.5 if scaling is None else scaling,
            softcap,
        )


class Together:
    """Rows of several prefixes in one batch: those of one prefix stand side by side, and nothing of them sees the others."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts
        self.sizes = [one.own_keys[0].shape[1] for one in parts]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        softcap: float | None,
        window: int | None,
        by: Callable[..., torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """See `Attention`."""
        pieces = (torch.split(one, self.sizes) for one in (query, key, value))
        return torch.cat(
            [rows.attend(layer, q, k, v, scaling, softcap, window, by) for rows, q, k, v in zip(self.parts, *pieces, strict=True)]
        )


def _own_width(head: int) -> int:
    """What own widths are multiples of where a head has this width: a divisor of `_SPAN`, so that no product is small."""
    width = _WIDTH
    while width < _SPAN and width * head < _SMALL:
        width *= 2
    return width


def _filled(one: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(one, (0, 0, 0, -one.shape[1] % _WIDTH)).contiguous()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    opd_rows: Attention | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a decode step to what `opd_rows` has; without it, as usual."""
    if opd_rows is None:
        if softcap is not None:
            return _capped(query, key, value, attention_mask, scaling, softcap), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)  # type: ignore[no-any-return]
    if any(kwargs.get(name) is not None for name in ("s_aux", "position_bias")):
        raise Unfit("its attention has sinks or position biases")
    layer: int = module.layer_idx  # type: ignore[assignment]  # every attention module of transformers has it
    return opd_rows.attend(layer, query, key, value, scaling, softcap, kwargs.get("sliding_window")), None


def attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prefix_keys: torch.Tensor,
    prefix_values: torch.Tensor,
    own_keys: torch.Tensor,
    own_values: torch.Tensor,
    place_B: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    softcap: float | None,
) -> torch.Tensor:
    """Attention of one layer, after the new keys and values are written. With what it calls, in the part of Python that
    torch's scripts know.
    """
    batch, heads, _new, width = query.shape
    shared = heads // key.shape[1]
    _write(own_keys, place_B, key)
    _write(own_values, place_B, value)
    kv_heads, positions, _width = prefix_keys.shape

    scaled = (query.view(batch, kv_heads, shared, width).transpose(0, 1) * scaling).contiguous()
    scores = torch.cat(
        [
            torch.bmm(scaled.view(kv_heads, batch * shared, width), prefix_keys.transpose(1, 2)).view(
                kv_heads, batch, shared, positions
            ),
            torch.bmm(scaled.view(kv_heads * batch, shared, width), own_keys.flatten(0, 1).transpose(1, 2)).view(
                kv_heads, batch, shared, own_keys.shape[2]
            ),
        ],
        dim=-1,
    )
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores += mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = _mixed(None, weights.view(kv_heads, batch * shared, -1)[..., :positions], prefix_values)
    mixed = _mixed(
        mixed.view(kv_heads * batch, shared, -1),
        weights.view(kv_heads * batch, shared, -1)[..., positions:],
        own_values.flatten(0, 1),
    )
    return mixed.view(kv_heads, batch, shared, -1).transpose(0, 1).reshape(batch, 1, heads, -1)


def _mixed(before: torch.Tensor | None, weights: torch.Tensor, values: torch.Tensor, span: int = _SPAN) -> torch.Tensor:
    """`before` and values [n, L, D] by weights [n, m, L], summed over L in spans of one length, the same in any company."""
    for start in range(0, values.shape[1], span):
        some, what = weights[..., start : start + span], values[:, start : start + span]
        before = torch.bmm(some, what) if before is None else torch.baddbmm(before, some, what)
    assert before is not None  # a prefix has at least one token
    return before


def _write(own: torch.Tensor, place_B: torch.Tensor, new: torch.Tensor) -> None:
    """Put new keys or values [B, H/G, 1, D] where each row goes on, in [H/G, B, L, D]."""
    own.flatten(1, 2).index_copy_(1, place_B, new[:, :, 0].transpose(0, 1))


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attention of a whole sequence with capped scores, which the fused kernel does not have: [1, H, T, D] to [1, T, H, D]."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is None:
        new, all_ = scores.shape[-2:]
        attention_mask = torch.ones(new, all_, dtype=torch.bool, device=query.device).tril(all_ - new)
    scores = scores.masked_fill(~attention_mask, -torch.inf) if attention_mask.dtype == torch.bool else scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
