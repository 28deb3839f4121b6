"""The truth, where a model is small enough: success probabilities by enumerating continuations (method.md 4, Oracle).

Continuations are explored in the order of their probability until what is unexplored weighs less than a
tolerance, which then bounds the error: the true value lies between `success` and `success + unexplored`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from compute.models import Model

Prefix = tuple[int, ...]
_BATCH = 256
_STRIDE = 64
#: Prefixes lighter than this share of the tolerance are left unexplored, and counted so.
_NEGLIGIBLE = 5e-4


@dataclass(frozen=True, slots=True)
class Exact:
    """What is known of a success probability: mass that surely succeeds, and mass not looked at."""

    success: float
    unexplored: float


class Oracle:
    """Enumerates the responses of one model to one prompt.

    `succeeds` grades a finished response. Next-token distributions are kept, so that overlapping enumerations share them.
    """

    def __init__(
        self, model: Model, prompt_ids: Sequence[int], max_response_tokens: int, succeeds: Callable[[Prefix], bool]
    ) -> None:
        self._model = model
        self._prompt = list(prompt_ids)
        self._limit = max_response_tokens
        self._succeeds = succeeds
        self._next: dict[Prefix, NDArray[np.float64]] = {}
        self._graded: dict[Prefix, bool] = {}
        self._solved: dict[Prefix, Exact] = {}
        self._solved_with = (np.inf, 0)  #: tolerance and most expansions
        #: Keys and values of every token read, one row each; `_place` says in which rows those of a prefix are.
        self._kept = torch.empty(0)
        self._n_kept = 0
        self._place: dict[Prefix, tuple[int, ...]] = {}

    def p_succ(self, prefixes: Sequence[Prefix], tolerance: float = 0.005, max_prefixes: int = 200_000) -> list[Exact]:
        """Success probability after each of `prefixes` (response tokens), down to `tolerance` of unexplored mass.

        Gives up a prefix after `max_prefixes` expansions; its `unexplored` says so.
        """
        if tolerance < self._solved_with[0] or max_prefixes > self._solved_with[1]:
            self._solved.clear()
            self._solved_with = (tolerance, max_prefixes)
        # The longest first: a search that meets a prefix whose answer is known takes that, and goes no further there.
        asked = set(prefixes) - self._solved.keys()
        for _, group in itertools.groupby(sorted(asked, key=len, reverse=True), key=len):
            searches = {prefix: _Search(prefix, tolerance) for prefix in group}
            while wanted := [(one, taken) for one in searches.values() if (taken := one.take(max_prefixes))]:
                open_ones = {prefix for _, taken in wanted for _, prefix in taken if not self._known(prefix)}
                self._look([prefix for prefix in open_ones if prefix not in self._next])
                for search, taken in wanted:
                    for mass, prefix in taken:
                        self._expand(search, mass, prefix)
            self._solved |= {prefix: search.result() for prefix, search in searches.items()}
        return [self._solved[prefix] for prefix in prefixes]

    def later(
        self, prefix: Prefix, teacher: Callable[[Sequence[Prefix]], NDArray[np.float64]], tolerance: float = 0.002
    ) -> Exact:
        """F of `minillm` after a prefix: the expected sum of -KL(P‖T) at this and all later positions, in nat.

        `teacher` gives log-probabilities [n, V] after n prefixes of like length. `unexplored` is the probability of the
        responses whose later positions were not looked at.
        """
        frontier: list[tuple[float, Prefix]] = [(-1.0, prefix)]
        total, unexplored = 0.0, 1.0
        while frontier and unexplored > tolerance:
            taken = [heapq.heappop(frontier) for _ in range(min(_BATCH, len(frontier)))]
            unexplored += sum(mass for mass, _ in taken)
            going = [(-mass, one) for mass, one in taken if not self._finished(one)]
            self._look([one for _, one in going if one not in self._next])
            for length in {len(one) for _, one in going}:
                group = [(mass, one) for mass, one in going if len(one) == length]
                for (mass, one), logt_V in zip(group, teacher([one for _, one in group]), strict=True):
                    P_V = self._next[one]
                    total -= mass * float(np.sum(P_V * (np.log(np.maximum(P_V, 1e-300)) - logt_V), where=P_V > 0))
                    unexplored += mass
                    for token in np.flatnonzero(mass * P_V > _NEGLIGIBLE * tolerance):
                        heapq.heappush(frontier, (-mass * float(P_V[token]), (*one, int(token))))
        return Exact(total, max(0.0, unexplored))

    def _known(self, prefix: Prefix) -> bool:
        return prefix in self._solved or self._finished(prefix)

    def _finished(self, prefix: Prefix) -> bool:
        return bool(prefix and prefix[-1] in self._model.end_ids) or len(prefix) >= self._limit

    def _expand(self, search: _Search, mass: float, prefix: Prefix) -> None:
        if prefix in self._solved:
            search.settle(mass, self._solved[prefix])
        elif self._finished(prefix):
            search.settle(mass, Exact(float(self._outcome(prefix)), 0.0))
        else:
            masses = mass * self._next[prefix]
            for token in np.flatnonzero(masses > _NEGLIGIBLE * search.tolerance):
                search.add(float(masses[token]), (*prefix, int(token)))

    def _outcome(self, prefix: Prefix) -> bool:
        """A response cut off at the length limit is a failure."""
        if prefix[-1] not in self._model.end_ids:
            return False
        if prefix not in self._graded:
            self._graded[prefix] = self._succeeds(prefix)
        return self._graded[prefix]

    @torch.inference_mode()
    def _look(self, prefixes: list[Prefix]) -> None:
        """Fetch the next-token distributions of `prefixes`."""
        waiting = sorted(prefixes, key=len)
        extending = [prefix for prefix in waiting if prefix and prefix[:-1] in self._place]
        for start in range(0, len(extending), _BATCH):
            self._extend(extending[start : start + _BATCH])
        reading = [prefix for prefix in waiting if prefix not in self._next]
        for _length, group in itertools.groupby(reading, key=len):
            self._read(list(group))

    def _read(self, batch: list[Prefix]) -> None:
        """One forward over whole prefixes of one length, prompt included; their keys and values are kept."""
        ids = torch.tensor([[*self._prompt, *prefix] for prefix in batch], device=self._model.device)
        cache = DynamicCache()
        hidden = self._model.decoder(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        kept = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])  # [layer, 2, B, H, T, D]
        for row, prefix in enumerate(batch):
            self._place[prefix] = self._keep(kept[:, :, row].permute(3, 0, 1, 2, 4))
        self._learn(batch, hidden[:, -1])

    def _extend(self, batch: list[Prefix]) -> None:
        """One forward over the last token of each prefix, on the keys and values kept of the tokens before it.

        Shorter prefixes are padded on the left, and the padding masked.
        """
        before = [self._place[prefix[:-1]] for prefix in batch]
        n_before = np.array([len(places) for places in before])
        widest = int(n_before.max())
        there = np.arange(widest + 1) >= widest - n_before[:, None]
        places = np.zeros((len(batch), widest), dtype=np.int64)
        places[there[:, :-1]] = np.concatenate(before)
        kept = self._kept[torch.from_numpy(places)].permute(2, 3, 0, 4, 1, 5)  # [layer, 2, B, H, T, D]
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(kept):
            cache.update(keys, values, layer)
        device = self._model.device
        hidden = self._model.decoder(
            input_ids=torch.tensor([prefix[-1:] for prefix in batch], device=device),
            position_ids=torch.from_numpy(n_before[:, None]).to(device),
            attention_mask=torch.from_numpy(there).to(device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        latest = torch.stack([torch.stack([layer.keys[:, :, -1], layer.values[:, :, -1]]) for layer in cache.layers])
        for prefix, own, place in zip(batch, before, self._keep(latest.permute(2, 0, 1, 3, 4)), strict=True):
            self._place[prefix] = (*own, place)
        self._learn(batch, hidden[:, -1])

    def _learn(self, batch: list[Prefix], hidden: torch.Tensor) -> None:
        found = torch.softmax(self._model.logits(hidden).double(), dim=-1).cpu().numpy()
        self._next.update(zip(batch, found, strict=True))

    def _keep(self, tokens: torch.Tensor) -> tuple[int, ...]:
        """Keep the keys and values of tokens [n, layer, 2, H, D]; the rows where they are."""
        start, end = self._n_kept, self._n_kept + len(tokens)
        if end > len(self._kept):
            room = torch.empty(max(1024, end), *tokens.shape[1:], dtype=tokens.dtype, device=tokens.device)
            self._kept = torch.cat([self._kept, room]) if start else room
        self._kept[start:end] = tokens
        self._n_kept = end
        return tuple(range(start, end))


class _Search:
    """The frontier of one enumeration: the heaviest prefixes first."""

    def __init__(self, root: Prefix, tolerance: float) -> None:
        self.tolerance = tolerance
        self._frontier: list[tuple[float, Prefix]] = [(-1.0, root)]
        self._success = 0.0
        self._failure = 0.0
        self._settled = 0.0
        self._answered = 0.0  #: mass of prefixes whose answer was known before
        self._expanded = 0

    def take(self, max_prefixes: int) -> list[tuple[float, Prefix]]:
        """The next prefixes to expand; none once the unexplored mass is within tolerance."""
        # What answered prefixes left open is theirs; of the rest, at most its share of the tolerance may stay open.
        ahead = 1.0 - self._settled
        done = self._unexplored() <= self.tolerance or ahead <= self.tolerance * (1.0 - self._answered)
        if done or self._expanded >= max_prefixes:
            return []
        taken = [heapq.heappop(self._frontier) for _ in range(min(_STRIDE, len(self._frontier)))]
        self._expanded += len(taken)
        return [(-mass, prefix) for mass, prefix in taken]

    def add(self, mass: float, prefix: Prefix) -> None:
        """One more prefix to look at."""
        heapq.heappush(self._frontier, (-mass, prefix))

    def settle(self, mass: float, known: Exact) -> None:
        """A prefix of which all is known that will be."""
        self._settled += mass
        self._answered += mass if known.unexplored else 0.0
        self._success += mass * known.success
        self._failure += mass * (1.0 - known.success - known.unexplored)

    def result(self) -> Exact:
        """What is known so far."""
        return Exact(self._success, self._unexplored())

    def _unexplored(self) -> float:
        return max(0.0, 1.0 - self._success - self._failure)
