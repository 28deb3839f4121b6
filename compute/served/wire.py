"""How servers are asked for log-probabilities of given tokens, and what of their answers is believed.

Three ways: vLLM's completions with `prompt_logprobs`, SGLang's `/generate`, and the older completions of OpenAI with
`echo` and `logprobs`, which many servers copy. Token ids go in; temperature is 1 and nothing is cut off, so that a
server that scales its log-probabilities gives the plain ones.

An answer comes from elsewhere: lengths, ids and numbers are checked, and a fault is an error, never a hole filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from compute.served.client import Request

#: Rounding may put a log-probability, or the sum of masses, a little above what it can be.
_SLACK = 1e-3
#: What servers write for minus infinity lies below this.
_FLOOR = -1e5
_BYTES_PER_LOGPROB = 256


@dataclass(frozen=True, slots=True)
class Told:
    """Something out of an answer, whatever it is: it may be long, and hold control characters and the key."""

    value: Any
    quote: str = "'"  #: around a text

    def shown(self, scrub: Callable[[str], str]) -> str:
        """For a sentence."""
        if self.value is None:
            return "nothing"
        if isinstance(self.value, str):
            return f"{self.quote}{scrub(self.value)}{self.quote}"
        try:
            return scrub(msgspec.json.encode(self.value).decode())
        except (RecursionError, OverflowError):
            return "something that is too large to show"


class Unusable(Exception):
    """What is wrong with an answer: a predicate, for a sentence that begins with the server.

    Its parts are words of ours and what the server `Told`.
    """

    def __init__(self, *parts: str | Told) -> None:
        super().__init__()
        self._parts = parts

    def predicate(self, scrub: Callable[[str], str]) -> str:
        """The words; `scrub` makes them of what the server told."""
        return "".join(part if isinstance(part, str) else part.shown(scrub) for part in self._parts)


@dataclass(frozen=True, slots=True)
class Row:
    """One position of an answer."""

    taken: float
    top_ids: list[int]
    top_logprobs: list[float]  #: falling
    further: dict[int, float]  #: other known tokens, the taken one among them


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says of the tokens from `start` on of a sequence: one row each."""

    rows: list[Row]
    texts: list[tuple[int, str]] = field(default_factory=list)  #: tokens as the server writes them


class Api(Protocol):
    """One way of asking."""

    def models(self) -> Request:
        """Asks what is served."""

    def model_name(self, answer: Any) -> tuple[str, int | None]:
        """The served model's name and its window where the server says."""

    def read(self, ids: Sequence[int], start: int, k: int, chosen: Sequence[int] = ()) -> Request:
        """Asks for the log-probabilities of `ids[start:]`, start > 0, and the k most likely tokens at each of them.

        `chosen` are tokens wanted besides at every position, where `chosen_when_reading` says that they can be had.
        """

    def answer(self, found: Any, ids: Sequence[int], start: int, k: int) -> Answer:
        """The answer to `read`. Raises `Unusable`."""

    def choose(self, ids: Sequence[int], tokens: Sequence[int]) -> Request | None:
        """Asks for the log-probabilities of `tokens` after `ids`; None where there is no such way."""

    def chosen(self, found: Any, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """The answer to `choose`. Raises `Unusable`."""

    @property
    def chosen_when_reading(self) -> bool:
        """Whether `read` takes chosen tokens."""


class Completions:
    """What vLLM and OpenAI-compatible servers have in common."""

    chosen_when_reading = False

    def __init__(self, model: str) -> None:
        self._model = model

    def models(self) -> Request:
        """See `Api`."""
        return Request("/models", most_bytes=16 << 20)

    def model_name(self, answer: Any) -> tuple[str, int | None]:
        """See `Api`."""
        entries = answer.get("data") if isinstance(answer, dict) else None
        served = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
        for one in served:
            if one.get("id") == self._model:
                window = one.get("max_model_len")
                return self._model, window if isinstance(window, int) and window > 0 else None
        names = sorted(name for one in served if isinstance(name := one.get("id"), str))[:8]
        others = [part for name in names for part in (", ", Told(name, ""))][1:] or ["none that it names"]
        raise Unusable(f"serves no model `{self._model}`, but ", *others, "; correct `served_model`.")

    def _body(self, ids: Sequence[int], **more: Any) -> dict[str, Any]:
        return {"model": self._model, "prompt": list(ids), "temperature": 1.0, "top_p": 1.0, "n": 1, "stream": False, **more}


class Vllm(Completions):
    """vLLM: `prompt_logprobs`; chosen tokens at a generated position through `logprob_token_ids`, where it has that."""

    def read(self, ids: Sequence[int], start: int, k: int, chosen: Sequence[int] = ()) -> Request:
        """See `Api`."""
        body = self._body(ids, max_tokens=1, prompt_logprobs=k, add_special_tokens=False, top_k=-1, min_p=0.0)
        return Request("/completions", body, _most_bytes(len(ids) * (k + 2)))

    def answer(self, found: Any, ids: Sequence[int], start: int, k: int) -> Answer:
        """See `Api`."""
        entries = _list(_choice(found).get("prompt_logprobs"), "prompt_logprobs", len(ids))
        _same_length(found, ids)
        rows, texts = [], []
        for token, entry in zip(ids[start:], entries[start:], strict=True):
            logprobs = {}
            for name, value in _dict(entry, "prompt_logprobs").items():
                logprobs[_token_id(name)] = _logprob(_dict(value, "prompt_logprobs").get("logprob"))
                if isinstance(text := value.get("decoded_token"), str):
                    texts.append((_token_id(name), text))
            rows.append(_row(token, logprobs, k))
        return Answer(rows, texts)

    def choose(self, ids: Sequence[int], tokens: Sequence[int]) -> Request | None:
        """See `Api`."""
        more = {"logprobs": 1, "logprob_token_ids": list(tokens), "return_tokens_as_token_ids": True, "top_k": -1, "min_p": 0.0}
        return Request("/completions", self._body(ids, max_tokens=1, **more), _most_bytes(len(tokens) + 2))

    def chosen(self, found: Any, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """See `Api`."""
        _same_length(found, ids)
        logprobs = _dict(_choice(found).get("logprobs"), "logprobs")
        (entry,) = _list(logprobs.get("top_logprobs"), "top_logprobs", 1)
        given = {_token_id(name.removeprefix("token_id:")): value for name, value in _dict(entry, "top_logprobs").items()}
        return _wanted(given, tokens)


class OpenAI(Completions):
    """The older completions of OpenAI: tokens come back as text, so one whose text two tokens share stays unknown."""

    def __init__(self, model: str, id_of_text: Mapping[str, int]) -> None:
        super().__init__(model)
        self._id_of_text = id_of_text

    def read(self, ids: Sequence[int], start: int, k: int, chosen: Sequence[int] = ()) -> Request:
        """See `Api`."""
        return Request("/completions", self._body(ids, max_tokens=1, echo=True, logprobs=k), _most_bytes(len(ids) * (k + 4)))

    def answer(self, found: Any, ids: Sequence[int], start: int, k: int) -> Answer:
        """See `Api`."""
        _same_length(found, ids)
        logprobs = _dict(_choice(found).get("logprobs"), "logprobs")
        # One token more than was sent: the one that it generated.
        taken, words, tops = (
            _list(logprobs.get(name), name, len(ids), len(ids) + 1) for name in ("token_logprobs", "tokens", "top_logprobs")
        )
        rows, texts = [], []
        for at in range(start, len(ids)):
            same = self._id(words[at]) if isinstance(words[at], str) else None
            if same is not None and same != ids[at]:
                back = Told(words[at])
                raise Unusable(f"has another tokenizer: token {ids[at]} comes back as ", back, f", the student's {same}.")
            entries = [(self._id(name), _logprob(value)) for name, value in _dict(tops[at], "top_logprobs").items()]
            entries.sort(key=lambda entry: -entry[1])
            own = _logprob(taken[at])
            # Behind a token that cannot be told, none is known to be among the most likely ones.
            sure = next((n for n, (token, _) in enumerate(entries) if token is None), len(entries))
            logprobs_known = {token: value for token, value in entries[:sure] if token is not None} | {ids[at]: own}
            asked = k if sure == len(entries) else min(k, sure)
            row = _row(ids[at], logprobs_known, asked)
            behind = {token: value for token, value in entries[sure:] if token is not None and token not in logprobs_known}
            rows.append(Row(row.taken, row.top_ids, row.top_logprobs, row.further | behind))
            if isinstance(words[at], str) and not words[at].startswith(("token_id:", "bytes:")):
                texts.append((ids[at], words[at]))
        return Answer(rows, texts)

    def choose(self, ids: Sequence[int], tokens: Sequence[int]) -> Request | None:
        """See `Api`."""
        return None

    def chosen(self, found: Any, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """See `Api`."""
        raise NotImplementedError("completions of OpenAI take no chosen tokens")

    def _id(self, name: str) -> int | None:
        if name.startswith("token_id:"):
            return _token_id(name.removeprefix("token_id:"))
        return self._id_of_text.get(name)


class Sglang:
    """SGLang's own `/generate`: `input_ids` in, triples of (log-probability, token, text) out, chosen tokens anywhere."""

    chosen_when_reading = True

    def __init__(self, model: str) -> None:
        self._model = model

    def models(self) -> Request:
        """See `Api`."""
        return Request("/get_model_info", most_bytes=16 << 20)

    def model_name(self, answer: Any) -> tuple[str, int | None]:
        """See `Api`."""
        name = answer.get("model_path") if isinstance(answer, dict) else None
        if not isinstance(name, str):
            raise Unusable("does not say which model it serves; is it SGLang, and `url` without /v1?")
        if self._model and name != self._model:
            raise Unusable("serves the model ", Told(name, "`"), f", not `{self._model}`; correct `served_model`.")
        return name, None

    def read(self, ids: Sequence[int], start: int, k: int, chosen: Sequence[int] = ()) -> Request:
        """See `Api`."""
        body: dict[str, Any] = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0, "top_p": 1.0},
            "return_logprob": True,
            "logprob_start_len": start - 1,  # the first one asked for has no log-probability
            "top_logprobs_num": k,
            "return_text_in_logprobs": True,
        }
        if chosen:
            body["token_ids_logprob"] = list(chosen)
        return Request("/generate", body, _most_bytes((len(ids) - start + 2) * (k + len(chosen) + 2)))

    def answer(self, found: Any, ids: Sequence[int], start: int, k: int) -> Answer:
        """See `Api`."""
        meta = self._meta(found, ids)
        length = len(ids) - start
        taken = _list(meta.get("input_token_logprobs"), "input_token_logprobs", length, length + 1)[-length:]
        tops = _list(meta.get("input_top_logprobs"), "input_top_logprobs", length, length + 1)[-length:] if k else [[]] * length
        extra = meta.get("input_token_ids_logprobs")
        extras = _list(extra, "input_token_ids_logprobs", length, length + 1)[-length:] if extra else [[]] * length
        rows, texts = [], []
        for token, own, top, further in zip(ids[start:], taken, tops, extras, strict=True):
            value, same, text = _triple(own)
            if same not in (token, 0):  # it writes 0 for the last token of the vocabulary
                raise Unusable(f"answered for token {same} where token {token} was sent.")
            if text is not None:
                texts.append((token, text))
            entries = sorted((_triple(one) for one in _list(top or [], "input_top_logprobs")), key=lambda one: -one[0])
            best = {one: logprob for logprob, one, _ in entries}
            others = {one: logprob for logprob, one, _ in map(_triple, _list(further or [], "input_token_ids_logprobs"))}
            _mass(best)
            rows.append(Row(value, list(best), list(best.values()), others | {token: value}))
        return Answer(rows, texts)

    def choose(self, ids: Sequence[int], tokens: Sequence[int]) -> Request | None:
        """See `Api`."""
        return self.read([*ids, tokens[0]], len(ids), 0, tokens)

    def chosen(self, found: Any, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """See `Api`."""
        (row,) = self.answer(found, [*ids, tokens[0]], len(ids), 0).rows
        return _wanted(row.further, tokens)

    def _meta(self, found: Any, ids: Sequence[int]) -> dict[str, Any]:
        found = found[0] if isinstance(found, list) and len(found) == 1 else found
        meta = _dict(_dict(found, "the answer").get("meta_info"), "meta_info")
        _count(meta.get("prompt_tokens"), ids)
        return meta


def _most_bytes(logprobs: int) -> int:
    return (4 << 20) + _BYTES_PER_LOGPROB * logprobs


def _choice(found: Any) -> dict[str, Any]:
    (choice,) = _list(_dict(found, "the answer").get("choices"), "choices", 1)
    return _dict(choice, "choices")


def _same_length(found: Any, ids: Sequence[int]) -> None:
    usage = _dict(found, "the answer").get("usage")
    if isinstance(usage, dict):
        _count(usage.get("prompt_tokens"), ids)


def _count(read: Any, ids: Sequence[int]) -> None:
    if isinstance(read, int) and read != len(ids):
        raise Unusable("read ", Told(read), f" tokens where {len(ids)} were sent: it adds or drops some.")


def _row(taken: int, logprobs: dict[int, float], k: int) -> Row:
    """A row whose entries are the k most likely tokens and the taken one, in any order."""
    if taken not in logprobs:
        raise Unusable(f"gave no log-probability of token {taken}, which was sent.")
    entries = sorted(logprobs.items(), key=lambda entry: -entry[1])
    # Of fewer than asked for, the last one may be there only because it was taken.
    n_top = k if len(entries) >= k else len(entries) - (entries[-1][0] == taken)
    top, others = entries[:n_top], entries[n_top:]
    _mass(dict(top))
    return Row(logprobs[taken], [token for token, _ in top], [value for _, value in top], dict(others) | {taken: logprobs[taken]})


def _mass(logprobs: dict[int, float]) -> None:
    total = sum(map(math.exp, logprobs.values()))
    if total > 1.0 + _SLACK:
        raise Unusable(f"gave probabilities that sum to {total:.4f}: they are not those of one distribution.")


def _wanted(given: Mapping[int, Any], tokens: Sequence[int]) -> dict[int, float]:
    missing = [token for token in tokens if token not in given]
    if missing:
        raise Unusable(f"gave no log-probability of {len(missing)} of {len(tokens)} chosen tokens.")
    return {token: _logprob(given[token]) for token in tokens}


def _triple(value: Any) -> tuple[float, int, str | None]:
    entry = _list(value, "a log-probability", 2, 3)
    text = entry[2] if len(entry) > 2 and isinstance(entry[2], str) else None
    return _logprob(entry[0]), _token_id(entry[1]), text


def _logprob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable("gave ", Told(value), " for a log-probability.")
    if not _FLOOR <= value <= _SLACK:
        raise Unusable("gave ", Told(value), " for a log-probability.")
    return min(float(value), 0.0)


def _token_id(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise Unusable("gave ", Told(value), " for a token.")
    return value


def _list(value: Any, name: str, *lengths: int) -> list[Any]:
    if not isinstance(value, list):
        raise Unusable("gave ", Told(value), f" for {name}, where a list belongs.")
    if lengths and len(value) not in lengths:
        raise Unusable(f"gave {len(value)} entries of {name} where {lengths[0]} belong.")
    return value


def _dict(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("gave ", Told(value), f" for {name}, where an object belongs.")
    return value
