"""Shared-prefix decoding on transformers.

One forward over prompt and spine gives the hidden states and the keys and values of every node. All
completions then decode together, whatever their depth: each row attends to the one shared prefix, masked
at its own depth, and to a small private cache of the tokens it wrote itself. A finished row's slot is taken
by the next launch. Nothing is padded and no prefix is copied.

It needs a model that calls transformers' attention interface, with standard rotary attention (the Llama, Qwen,
Mistral and Gemma families and their like). Whether a model fits is found by trying: `open_engine` falls back to
`compute.engine.batched` where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from compute.engine import Completion, Engine, Job, Launch, Tick, attention
from compute.engine.attention import Attention, Rows, Together, Unfit
from compute.engine.batched import MIN_ROWS, BatchedEngine, first_tokens
from compute.engine.drawing import draw
from compute.engine.flat import Program, called
from compute.engine.memory import Budget, told
from compute.engine.slots import GRAIN, Schedule, whole
from compute.errors import StudyError
from compute.models import Model

#: Largest relative difference of last hidden states between shared-prefix decoding and a plain forward, by bytes of a
#: number. What does not fit is off by a tenth and more; bfloat16 rounds to 1/256, over many layers.
_AGREEMENT = {8: 1e-6, 4: 1e-3, 2: 0.08}
_PROBE = 24
#: Tokens of the prefix that run together, without and with CUDA: each piece sees what lies before it, the last is filled up.
_PIECE = (64, 512)


def open_engine(
    model: Model, *, slots: int = 0, memory_limit: int | None = None, note: Callable[[str], None] = lambda _text: None
) -> Engine:
    """The fastest engine that this model's attention allows.

    `slots`: completions decoded together, 0 for as many as memory allows. `memory_limit`: bytes that decoding may
    take beside the weights. `note` is told, once each, of a fallback and of smaller batches.
    """
    try:
        return TransformersEngine(model, slots=slots, memory_limit=memory_limit, note=note)
    except StudyError as error:
        note(f"{error} Its completions are decoded in batches of one depth, which is exact and slower.")
    return BatchedEngine(model, slots=slots, memory_limit=memory_limit, note=note)


class TransformersEngine:
    """Runs one model's completions. See `compute.engine.Engine`, and `open_engine` for the settings.

    Raises `StudyError` where the model does not fit.
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
        before = model.decoder.config._attn_implementation  # transformers has no public getter
        reason = _unfit(model)
        if reason is not None:
            if model.decoder.config._attn_implementation != before:
                model.network.set_attn_implementation(before)
            raise StudyError(f"{model.name} does not fit shared-prefix decoding: {reason}.")
        self._program = _recorded(model)

    @property
    def slots(self) -> int:
        """Completions that were decoded together at most, in the latest call."""
        return self._budget.slots

    @property
    def room(self) -> int:
        """Completions that may run together at most."""
        return self._budget.most

    @property
    def batch_shape(self) -> str:
        """See `compute.engine.Engine.batch_shape`."""
        return f"up to {self._budget.most} completions together"

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
        job = Job(prompt_ids, spine, launches)
        return self.complete_jobs([job], max_response_tokens=max_response_tokens, temperature=temperature, tick=tick)[0]

    @torch.inference_mode()
    def complete_jobs(
        self, jobs: Sequence[Job], *, max_response_tokens: int, temperature: float = 1.0, tick: Tick | None = None
    ) -> list[list[Completion]]:
        """Several jobs in one batch, each with its own prefix: a job begins once there are slots for all of it.

        A completion is the same in whatever company its job runs.
        """
        groups = [self._group(job, max_response_tokens, temperature) if job.launches else None for job in jobs]
        there = [one for one in groups if one is not None]
        if there:
            n_left = sum(whole(one.schedule.n_left) for one in there)
            row_bytes, prefix_bytes = max(one.row_bytes for one in there), sum(_prefix_bytes(one.cache) for one in there)
            wanted = self._budget.rows(n_left, row_bytes, prefix_bytes)
            self._budget.run(lambda slots: self._decode(there, slots, temperature, tick), wanted)
        return [[] if one is None else one.schedule.completions() for one in groups]

    def _group(self, job: Job, max_response_tokens: int, temperature: float) -> _Group:
        kept = [*job.prompt_ids, *job.spine[: max(one.depth for one in job.launches)]]
        with told(f"the prefix that completions share, {len(kept)} tokens", self.model.device):
            cache, states = _prefix(self.model, kept)
            first = first_tokens(self.model, states[len(job.prompt_ids) - 1 :], job.launches, temperature)
        schedule = Schedule(
            job.launches,
            first,
            prompt=len(job.prompt_ids),
            max_response_tokens=max_response_tokens,
            end_ids=self.model.end_ids,
        )
        room = max_response_tokens - min(one.depth for one in job.launches)
        return _Group(cache, schedule, _row_bytes(self.model, cache, len(kept), room))

    def _decode(self, groups: Sequence[_Group], slots: int, temperature: float, tick: Tick | None) -> None:
        """Run what is left of all groups, in `slots` slots."""
        waiting = [one for one in reversed(groups) if one.schedule.n_left]
        running: list[tuple[Schedule, Rows]] = []
        while True:
            running = [(schedule, rows) for schedule, rows in running if schedule.refill()]
            free = slots - sum(len(schedule) for schedule, _ in running)
            while waiting and (not running or free >= max(MIN_ROWS, whole(waiting[-1].schedule.n_left))):
                group = waiting.pop()
                own = max(MIN_ROWS, min(free // GRAIN * GRAIN, whole(group.schedule.n_left)))
                group.schedule.open(own)
                group.schedule.refill()
                running.append((group.schedule, Rows(group.cache, own)))
                free -= own
            if not running:
                return
            for schedule, rows in running:
                idle = schedule.spare(MIN_ROWS)
                if idle is not None:
                    rows.shrink(idle)
                rows.look(schedule.kept(), schedule.own() - 1)
            schedules = [schedule for schedule, _ in running]
            latest = np.concatenate([one.latest() for one in schedules])
            position = np.concatenate([one.kept() + one.own() - 1 for one in schedules])
            uniform = np.concatenate([one.uniforms() for one in schedules])
            seen = running[0][1] if len(running) == 1 else Together([rows for _, rows in running])
            logits = self.model.logits(_step(self.model, seen, latest, position, self._program))
            drawn = draw(logits, temperature, uniform)
            n_drawn = sum(one.n_active for one in schedules)
            for schedule, own_drawn in zip(
                schedules, np.split(drawn, np.cumsum([len(one) for one in schedules])[:-1]), strict=True
            ):
                schedule.append(own_drawn)
            if tick is not None:
                tick(n_drawn)


@dataclass(frozen=True, slots=True)
class _Group:
    """A job under way: its prefix, and what of it runs and waits."""

    cache: Any
    schedule: Schedule
    row_bytes: int


def _prefix(model: Model, ids: Sequence[int]) -> tuple[Any, torch.Tensor]:
    """Keys and values of every layer, and last hidden states [S, d], of the shared prefix.

    Forwards of another length round differently. In pieces of one length, those of a token are the same whatever follows it.
    """
    piece = _PIECE[model.device.type == "cuda"]
    filled = torch.tensor([[*ids, *[0] * (-len(ids) % piece)]], device=model.device)
    cache = DynamicCache()
    hidden = []
    for start in range(0, filled.shape[1], piece):
        output = model.decoder(input_ids=filled[:, start : start + piece], past_key_values=cache, use_cache=True)
        hidden.append(output.last_hidden_state[0])
    cache.crop(len(ids) - filled.shape[1])
    return cache, torch.cat(hidden)[: len(ids)]


def _step(
    model: Model,
    rows: Attention,
    latest: NDArray[np.int64],
    position: NDArray[np.int64],
    program: Program | None = None,
) -> torch.Tensor:
    """Last hidden states [B, d] of every slot after its latest token, which stands at `position`; by `program`, if given."""
    ids, positions = (torch.as_tensor(one, device=model.device)[:, None] for one in (latest, position))
    return called(model.decoder, rows, ids, positions) if program is None else program(rows, ids, positions)


def _prefix_bytes(cache: Any) -> int:
    """What the shared keys and values take: as the model wrote them, and as `Rows` has them."""
    return 2 * sum(int(layer.keys.nbytes) + int(layer.values.nbytes) for layer in cache.layers)


def _row_bytes(model: Model, cache: Any, prefix: int, room: int) -> int:
    """What one slot takes at most: its own keys and values, and what lives for one step."""
    config = model.network.config.get_text_config()
    size = cache.layers[0].keys.element_size()
    own = sum(layer.keys.shape[1] * (layer.keys.shape[3] + layer.values.shape[3]) for layer in cache.layers) * (room + 16)
    scores = 4 * getattr(config, "num_attention_heads", 1) * (prefix + room + 32)
    wide = 4 * getattr(config, "intermediate_size", 4 * config.hidden_size) + 8 * config.hidden_size
    return int(size * (own + wide) + 4 * scores + 4 * 4 * model.vocab_size)


@torch.inference_mode()
def _unfit(model: Model) -> str | None:
    """Why this model cannot decode with a shared prefix, found by trying it on made-up tokens; None where it can."""
    config = model.network.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers of kind {', '.join(sorted(kinds))}"
    rope = getattr(config, "rope_parameters", None) or {}
    if any(one.get("rope_type") in ("dynamic", "longrope") for one in (rope, *rope.values()) if isinstance(one, dict)):
        return "its rotary positions are scaled by the longest row of a batch"
    try:
        model.network.set_attn_implementation(attention.NAME)
        if model.decoder.config._attn_implementation != attention.NAME:
            return "it does not use transformers' attention interface"
        return _disagreement(model)
    except Unfit as error:
        return str(error)
    except Exception as error:  # whatever a model raises here, the other way of decoding is there
        return f"trying it raised {type(error).__name__}"


def _disagreement(model: Model) -> str | None:
    """Compare two steps of rows at several depths with plain forwards over the same tokens."""
    ids = (np.arange(_PROBE) * 7919 + 13) % model.vocab_size
    depths = np.resize([_PROBE // 3, _PROBE // 2, _PROBE], MIN_ROWS)
    tokens = (np.arange(2 * MIN_ROWS).reshape(MIN_ROWS, 2) * 104729 + 5) % model.vocab_size
    cache, _states = _prefix(model, ids.tolist())
    rows = Rows(cache, MIN_ROWS)
    for step in (0, 1):
        rows.look(depths, np.full(MIN_ROWS, step))
        found = _step(model, rows, tokens[:, step], depths + step)
    for row in range(3):
        whole = torch.tensor([[*ids[: depths[row]].tolist(), *tokens[row].tolist()]], device=model.device)
        plain = model.decoder(input_ids=whole, use_cache=False).last_hidden_state[0, -1].float()
        difference = float((found[row].float() - plain).norm() / plain.norm())
        if not difference < _AGREEMENT[found.element_size()]:
            return f"tried, its states differ from a plain forward's by {difference:.1e} of their size"
    return None


@torch.inference_mode()
def _recorded(model: Model) -> Program | None:
    """The decode step as a program, where one can be recorded and gives the decoder's own numbers, bit for bit; else None.

    Tried on made-up tokens: with other numbers of rows, other tokens and other depths than it was recorded with.
    """
    cache, _states = _prefix(model, (np.arange(_PROBE) * 7919 % model.vocab_size).tolist())

    def states(n: int, program: Program | None) -> torch.Tensor:
        rows, depths = Rows(cache, n), np.arange(n) * 7 % _PROBE + 1
        rows.look(depths, np.zeros(n, dtype=np.int64))
        return _step(model, rows, (np.arange(n) * 104729 + n) % model.vocab_size, depths, program)

    try:
        ids = torch.arange(MIN_ROWS, device=model.device)[:, None]
        program = Program(model.decoder, ids % model.vocab_size, ids)
        same = all(torch.equal(states(n, program), states(n, None)) for n in (MIN_ROWS + GRAIN, 2 * MIN_ROWS))
    except Exception:  # whatever a model meets here, there is its decoder
        return None
    return program if same else None
