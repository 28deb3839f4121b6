"""Models that share memory: one of them at a time keeps its weights, and phases are ordered so that few are fetched twice.

A model that gives way keeps its head, which targets are found with, and its modules; its other weights are read again from
their files when it is next asked for anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from compute.models import Model


class Residence:
    """The models that take turns."""

    def __init__(self) -> None:
        self._load: dict[int, Callable[[], Any]] = {}
        self._guests: dict[int, Model] = {}
        self._awake: int | None = None

    def take_in(self, model: Model, load: Callable[[], Any]) -> None:
        """Let `model`, whose weights are there, take turns with the others; `load` gives its network anew."""
        guest = id(model.network)
        self._load[guest], self._guests[guest] = load, model
        self._give_way()
        self._awake = guest
        model.decoder.register_forward_pre_hook(lambda *_: self._wake(guest))

    def _wake(self, guest: int) -> None:
        if self._awake == guest:
            return
        self._give_way()
        fresh = dict(self._load[guest]().named_parameters())
        for name, weight in self._guests[guest].network.named_parameters():
            weight.data = fresh[name].data
        self._awake = guest

    def _give_way(self) -> None:
        if self._awake is None:
            return
        model = self._guests[self._awake]
        kept = {id(one) for one in model.head.parameters()}
        for weight in model.network.parameters():
            if id(weight) not in kept:
                weight.data = torch.empty(0, dtype=weight.dtype, device=weight.device)
        self._awake = None
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
