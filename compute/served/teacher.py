"""A teacher behind a server: what it was found to give, and its word on responses and nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import ComputeError, StudyError
from compute.served.client import Client, Request, ServerError, read_key
from compute.served.known import Array, Known, pack, with_tokens
from compute.served.wire import Answer, Api, OpenAI, Row, Sglang, Unusable, Vllm
from compute.study import Teacher

#: Chosen tokens are asked for along a whole response where that is no more numbers than this.
_MOST_CHOSEN = 1 << 18
#: How many of the most likely tokens are asked for: a vocabulary as small as this in whole, else what the study keeps and
#: the usual limits of servers.
_SMALL = 128
_TOP = (20, 5, 1)
_PROBE_TOKENS = 48

Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server gives, found out before the run."""

    server: str
    model: str  #: as the server calls it
    api: str
    top_k: int  #: most likely tokens at a position
    whole: bool  #: whether that is the whole vocabulary, so that nothing is lacking
    chosen: bool  #: whether chosen tokens can be asked for; else they are asked for one by one
    difference: float  #: largest difference in nat between two answers to the same question
    n_texts: int  #: tokens whose text was compared with the student's tokenizer; 0: the server shows none
    window: int | None

    def sentence(self, teacher: str) -> str:
        """One for people."""
        top = "all" if self.whole else f"the {self.top_k} most likely"
        chosen = "chosen ones too" if self.chosen else "chosen ones one by one"
        lacking = "" if self.whole else "; entropy, divergences and most means over the vocabulary stay NaN"
        texts = f"{self.n_texts} tokens read alike" if self.n_texts else "it shows no texts, so its tokenizer is taken on trust"
        return (
            f"Teacher {teacher}: {self.model} at {self.server} gives log-probabilities of {top} tokens, {chosen}; two answers "
            f"differ by {self.difference:.1g} nat; {texts}{lacking}."
        )


def make_api(kind: str, model: str, token_bytes: Sequence[bytes]) -> Api:
    """The way of asking named `kind`: vllm, sglang or openai. Raises `StudyError`."""
    match kind:
        case "vllm":
            return Vllm(model)
        case "sglang":
            return Sglang(model)
        case "openai":
            return OpenAI(model, _unique_texts(token_bytes))
    raise StudyError(f"There is no `api` named {kind!r}; allowed: vllm, sglang, openai.")


def open_served(settings: Teacher, token_bytes: Sequence[bytes]) -> ServedTeacher:
    """The teacher that a study's section describes; `token_bytes` are the student's. Raises `StudyError` for want of a key."""
    key = read_key(settings.key_env, f"Teacher {settings.id}")
    client = Client(settings.url, key=key, concurrency=settings.concurrency)
    api = make_api(settings.api, settings.served_model, token_bytes)
    return ServedTeacher(settings.id, client, api, token_bytes, tolerance=settings.tolerance)


class ServedTeacher:
    """Asks one server about token sequences. All errors are `ComputeError`s that name the teacher and the server."""

    def __init__(self, name: str, client: Client, api: Api, token_bytes: Sequence[bytes], *, tolerance: float) -> None:
        self.name = name
        self._client, self._api, self._token_bytes, self._tolerance = client, api, token_bytes, tolerance
        self.vocab_size = len(token_bytes)
        self._capabilities: Capabilities | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What `examine` found."""
        assert self._capabilities is not None, "examine comes first"
        return self._capabilities

    def examine(self, probes: Sequence[Sequence[int]], top_k: int, tick: Tick | None = None) -> Capabilities:
        """Find out what the server gives, from a few token sequences of at least two tokens; `top_k` is what the study keeps.

        Raises `StudyError` where it is not the same model twice, or its tokens are not the student's.
        """
        model, window = self._understand(self._call(self._api.models(), tick), self._api.model_name)
        sequences = [list(one[-_PROBE_TOKENS:]) for one in probes if len(one) > 1]
        if not sequences:
            raise StudyError(f"{self._who}: no question of the study has a prompt of two tokens to try it with.")
        wanted = self.vocab_size if self.vocab_size <= _SMALL else max(top_k, _TOP[0])
        top_k = self._most(sequences[0], wanted, tick)
        alone = [self._answers([one], top_k, tick)[0] for one in sequences]
        together = self._answers([*sequences, *sequences], top_k, tick)
        n_texts = self._compare_texts([pair for one in alone for pair in one.texts])
        difference = max(
            self._difference(first, again, ids)
            for ids, first, again in zip([*sequences, *sequences], [*alone, *alone], together, strict=True)
        )
        known = pack([(row.top_ids, row.top_logprobs, row.further) for one in alone for row in one.rows], self.vocab_size)
        given = int(known.n_top_T.min())
        if not given:
            raise StudyError(f"{self._who} gives no most likely tokens beside the taken one, so it cannot be compared with.")
        self._capabilities = Capabilities(
            server=self._client.name,
            model=self._client.scrub(model, 200),
            api=type(self._api).__name__.lower(),
            top_k=given,
            whole=given == self.vocab_size,
            chosen=self._try_chosen(sequences[0], alone[0].rows[-1], tick),
            difference=difference,
            n_texts=n_texts,
            window=window,
        )
        return self._capabilities

    def read(
        self,
        prompt_ids: Sequence[int],
        response_ids: Sequence[int],
        also_TC: NDArray[np.integer] | None = None,
        tick: Tick | None = None,
    ) -> Reading:
        """The server's word on every token of a response, and where that can be had on the tokens `also_TC` at each of them."""
        self._fits(len(prompt_ids) + len(response_ids))
        ids = [*prompt_ids, *response_ids]
        chosen: list[int] = []
        if also_TC is not None and self._api.chosen_when_reading and self.capabilities.chosen and not self.capabilities.whole:
            wanted = np.unique(also_TC).tolist()
            chosen = wanted if len(wanted) * len(response_ids) <= _MOST_CHOSEN else []
        start = len(prompt_ids)
        found = self._call(self._api.read(ids, start, self.capabilities.top_k, chosen), tick)
        answer = self._answer(found, ids, start, self.capabilities.top_k)
        known = pack([(row.top_ids, row.top_logprobs, row.further) for row in answer.rows], self.vocab_size)
        return Reading(self, tuple(prompt_ids), tuple(response_ids), known)

    def next_tokens(self, reading: Reading, depth: int, tokens: Sequence[int], tick: Tick | None = None) -> Mapping[int, float]:
        """Log-probabilities of `tokens` after the response's first `depth` tokens: chosen, or each as if it were taken.

        With them comes something that was known before: an answer that disagrees is refused.
        """
        prefix = [*reading.prompt_ids, *reading.response_ids[:depth]]
        self._fits(len(prefix) + 1)
        if self.capabilities.chosen:
            check = int(reading.known.token_id_TC[depth, 0])
            wanted = list(dict.fromkeys([*tokens, check]))
            request = self._api.choose(prefix, wanted)
            assert request is not None
            found = self._understand(self._call(request, tick), lambda one: self._api.chosen(one, prefix, wanted))
            self._same(float(reading.known.logprob_TC[depth, 0]), found[check])
            return {token: found[token] for token in tokens}
        start = len(reading.prompt_ids)
        asked = [[*prefix, token] for token in tokens]
        calls = self._calls([self._api.read(ids, start, 1) for ids in asked], tick)
        before = reading.taken_logprobs(depth)
        logprobs = {}
        for token, ids, call in zip(tokens, asked, calls, strict=True):
            rows = self._answer(call, ids, start, 1).rows
            for earlier, row in zip(before, rows, strict=False):
                self._same(earlier, row.taken)
            logprobs[token] = rows[-1].taken
        return logprobs

    @property
    def _who(self) -> str:
        return f"Teacher {self.name}: {self._client.name}"

    def _fits(self, length: int) -> None:
        window = self.capabilities.window
        if window is not None and length + 1 > window:  # it generates one token more
            raise ComputeError(f"{self._who}: {length} tokens of prompt and response do not fit its window, {window} tokens.")

    def _call(self, request: Request, tick: Tick | None) -> Any:
        (found,) = self._calls([request], tick)
        return found

    def _calls(self, requests: Sequence[Request], tick: Tick | None) -> list[Any]:
        try:
            return self._client.calls(requests, tick)
        except ServerError as error:
            raise ServerError(f"Teacher {self.name}: {error}", error.status) from None

    def _understand(self, found: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return read(found)
        except Unusable as error:
            raise ServerError(f"{self._who} {error.predicate(self._client.scrub)}") from None

    def _answer(self, found: Any, ids: Sequence[int], start: int, top_k: int) -> Answer:
        answer: Answer = self._understand(found, lambda one: self._api.answer(one, ids, start, top_k))
        return answer

    def _answers(self, sequences: Sequence[Sequence[int]], top_k: int, tick: Tick | None) -> list[Answer]:
        calls = self._calls([self._api.read(ids, 1, top_k) for ids in sequences], tick)
        return [self._answer(found, ids, 1, top_k) for found, ids in zip(calls, sequences, strict=True)]

    def _most(self, ids: Sequence[int], wanted: int, tick: Tick | None) -> int:
        """The most tokens that the server lets itself be asked for, of what is wanted and a few usual limits."""
        tries = [wanted, *(k for k in _TOP if k < wanted)]
        for k in tries:
            try:
                self._answers([ids], k, tick)
            except ServerError as error:
                if error.status not in (400, 422) or k == tries[-1]:
                    raise
            else:
                return k
        raise AssertionError("the last try returns or raises")

    def _difference(self, first: Answer, again: Answer, ids: Sequence[int]) -> float:
        """The largest difference between two answers. Raises where it is beyond tolerance."""
        largest = 0.0
        for token, one, other in zip(ids[1:], first.rows, again.rows, strict=True):
            pairs = [(token, one.taken, other.taken)]
            theirs = dict(zip(other.top_ids, other.top_logprobs, strict=True))
            pairs += [(top, a, theirs[top]) for top, a in zip(one.top_ids, one.top_logprobs, strict=True) if top in theirs]
            for which, a, b in pairs:
                if abs(a - b) > self._tolerance:
                    raise StudyError(
                        f"{self._who} answers the same question differently: the log-probability of token {which} was {a:.4f}, "
                        f"then {b:.4f} (`tolerance` {self._tolerance:g}); its scores would be noise. Is it one model, with "
                        "fixed weights, behind that address?"
                    )
                largest = max(largest, abs(a - b))
        return largest

    def _same(self, before: float, now: float) -> None:
        if abs(before - now) > self._tolerance:
            raise ComputeError(
                f"{self._who} is not the model it was: a log-probability was {before:.4f} and is {now:.4f} now "
                f"(`tolerance` {self._tolerance:g}); the run stops, so that two models do not pass for one."
            )

    def _compare_texts(self, texts: Sequence[tuple[int, str]]) -> int:
        """How many tokens' texts were compared. Raises at the first that the student's tokenizer writes otherwise."""
        n_compared = 0
        for token, text in dict.fromkeys(texts):
            if token >= self.vocab_size:
                continue
            try:
                ours = self._token_bytes[token].decode()
            except UnicodeDecodeError:
                continue  # a piece of a character, which no text can show
            # A tokenizer may drop the space before a lone token, and special tokens whole.
            if not text.strip() or not ours.strip() or "\N{REPLACEMENT CHARACTER}" in text:
                continue
            if ours.strip() != text.strip():
                raise StudyError(
                    f"{self._who} has another tokenizer: token {token} is {ours!r} for the student and "
                    f"'{self._client.scrub(text)}' there; scores per token need the same one."
                )
            n_compared += 1
        return n_compared

    def _try_chosen(self, ids: Sequence[int], last: Row, tick: Tick | None) -> bool:
        """Whether chosen tokens can be had: tried on tokens whose log-probabilities are known."""
        wanted = [token for token in last.top_ids if token < self.vocab_size][:4]
        request = self._api.choose(ids[:-1], wanted)
        if request is None:
            return False
        try:
            found = self._api.chosen(self._call(request, tick), ids[:-1], wanted)
        except Unusable:
            return False
        except ServerError as error:
            if error.status in (400, 422):
                return False
            raise
        known = dict(zip(last.top_ids, last.top_logprobs, strict=True))
        return all(abs(found[token] - known[token]) <= self._tolerance for token in wanted)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the server said of one response to one prompt."""

    teacher: ServedTeacher
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    known: Known

    def row(self, depth: int) -> Array:
        """Log-probabilities of the whole vocabulary after `depth` tokens of the response, [V]; NaN where unknown."""
        return self.known.row(depth, self.teacher.vocab_size)

    def row_with(self, depth: int, tokens: Sequence[int], row_V: Array, tick: Tick | None = None) -> Array:
        """`row_V` with `tokens` known as well: those that it lacks are asked for."""
        missing = [token for token in dict.fromkeys(tokens) if np.isnan(row_V[token])]
        return with_tokens(row_V, self.teacher.next_tokens(self, depth, missing, tick)) if missing else row_V

    def taken_logprobs(self, depth: int) -> list[float]:
        """Log-probabilities of the response's first `depth` tokens."""
        taken_T1 = np.array(self.response_ids[:depth], dtype=np.int64)[:, None]
        return [float(value) for value in self.known[:depth].at(taken_T1)[:, 0]]


def _unique_texts(token_bytes: Sequence[bytes]) -> dict[str, int]:
    """Text -> token, of the texts that one token alone has."""
    found: dict[str, int] = {}
    shared: set[str] = set()
    for token, piece in enumerate(token_bytes):
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            continue
        if text in found:
            shared.add(text)
        found[text] = token
    return {text: token for text, token in found.items() if text not in shared}
