"""The decode step as one recorded program.

A decoder is a hundred small modules, and calling them from Python takes a fifth of a step where its matrices are small.
What they do to one new token per row is recorded once, as torch's own list of operations, and run from there without
Python. The weights in it are the model's own, not copies. Attention, whose widths change from step to step, is one
operation of that list, which calls back here.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from compute.engine.attention import Attention, attended

#: torch says nothing of their types.
_jit: Any = torch.jit
_library: Any = torch.library

_now = threading.local()


def called(decoder: Any, rows: Attention, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Last hidden states [B, d] after tokens [B, 1] at positions [B, 1]: the step as a call of the decoder."""
    hidden: torch.Tensor = decoder(
        input_ids=ids,
        position_ids=positions,
        # A mask, so that none is built; ours is in `rows`.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device),
        use_cache=False,
        opd_rows=rows,
    ).last_hidden_state[:, 0]
    return hidden


class Program:
    """The same step as a program, recorded with these tokens and positions; for any number of rows.

    Raises what torch and the model raise where it cannot be recorded, and where what the decoder does depends on
    numbers that it computes: a program would repeat what these tokens led to.
    """

    def __init__(self, decoder: Any, ids: torch.Tensor, positions: torch.Tensor) -> None:
        with warnings.catch_warnings(), _attending(None):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", _jit.TracerWarning)
            _jit.TracerWarning.ignore_lib_warnings()  # torch itself looks at sizes of weights only
            # A module, not a function: torch keeps recorded functions, and the weights in them, for good.
            self._recorded: Any = _jit.trace(_Called(decoder).eval(), (ids, positions), check_trace=False)

    def __call__(self, rows: Attention, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """See `called`."""
        # Step by step: operations that torch has fused may round differently.
        with _attending(rows), _jit.optimized_execution(False):
            hidden: torch.Tensor = self._recorded(ids, positions)
        return hidden


class _Called(torch.nn.Module):
    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return called(self.decoder, _Recorder(), ids, positions)


class _Recorder:
    """Stands for the rows while a step is recorded."""

    def attend(self, *arguments: Any) -> torch.Tensor:
        """See `Attention`."""
        hidden: torch.Tensor = torch.ops.opd_tui.attend(*arguments)
        return hidden


def _attend(
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    rows: Attention | None = _now.rows
    if rows is None:  # while it is recorded
        return query.new_zeros(len(query), 1, query.shape[1], value.shape[3])
    return rows.attend(layer, query, key, value, scaling, softcap, window, by=_script())


@contextmanager
def _attending(rows: Attention | None) -> Iterator[None]:
    """Let recorded attention go to `rows`."""
    _now.rows = rows
    try:
        yield
    finally:
        _now.rows = None


@functools.cache
def _script() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _jit.script(attended)


_library.define(
    "opd_tui::attend",
    "(int layer, Tensor query, Tensor key, Tensor value, float? scaling, float? softcap, int? window) -> Tensor",
)
_library.impl("opd_tui::attend", "default", _attend)
