"""Drawing tokens by keyed random numbers, on any device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_BLOCK = 256


def draw(logits: torch.Tensor, temperature: float, uniform_B: NDArray[np.float64]) -> NDArray[np.int64]:
    """One token per row of `logits` [B, V], float32: the inverse of the cumulative distribution at `uniform_B`.

    In two levels, blocks of tokens and then tokens of the block: sums of a block in float32, everything above in
    float64, so that a boundary lies within 1e-7 of its place. At temperature 0 the likeliest token.
    """
    if temperature == 0:
        likeliest: NDArray[np.int64] = logits.argmax(-1).cpu().numpy()
        return likeliest
    probabilities = torch.softmax(logits if temperature == 1 else logits / temperature, dim=-1)
    batch, vocabulary = probabilities.shape
    if vocabulary <= _BLOCK:
        return _draw_at_once(probabilities.double(), torch.as_tensor(uniform_B, device=logits.device))
    if vocabulary % _BLOCK:
        probabilities = torch.nn.functional.pad(probabilities, (0, -vocabulary % _BLOCK))
    blocks = probabilities.view(batch, -1, _BLOCK)
    ends = blocks.sum(-1).double().cumsum(-1)
    target = torch.as_tensor(uniform_B, device=logits.device) * ends[:, -1]
    block = (ends <= target[:, None]).sum(-1)
    row = torch.arange(batch, device=logits.device)
    before = torch.where(block > 0, ends[row, block - 1], 0.0)
    mass = blocks[row, block].double()
    token = (mass.cumsum(-1) + before[:, None] <= target[:, None]).sum(-1)
    # Sums in another order can end a rounding error short of the block's end: then its last token with mass it is.
    last = (torch.arange(_BLOCK, device=logits.device) * (mass > 0)).amax(-1)
    chosen: NDArray[np.int64] = (block * _BLOCK + torch.minimum(token, last)).cpu().numpy()
    return chosen


def _draw_at_once(mass: torch.Tensor, uniform_B: torch.Tensor) -> NDArray[np.int64]:
    """The same for a vocabulary of one block, in one level."""
    ends = mass.cumsum(-1)
    # The last end is the largest number there, so that a token is always found, and one with mass.
    token: NDArray[np.int64] = (ends <= (uniform_B * ends[:, -1])[:, None]).sum(-1).cpu().numpy()
    return token
