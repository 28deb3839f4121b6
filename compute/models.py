"""Models in transformers' format: loading, their tokens as bytes, and what must fit together."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compute.errors import ComputeError, StudyError

if TYPE_CHECKING:
    import torch

    from compute.study import Chat


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenizer's vocabulary as raw bytes, and which ids are special."""

    token_bytes: tuple[bytes, ...]
    special_ids: tuple[int, ...]

    def digest(self) -> str:
        """A hash of id -> bytes: equal digests mean that token ids mean the same."""
        state = hashlib.blake2b(digest_size=16)
        for piece in self.token_bytes:
            state.update(len(piece).to_bytes(4, "little") + piece)
        return state.hexdigest()


@dataclass(frozen=True, slots=True)
class Model:
    """A causal language model, its parts that we call, and its tokenizer."""

    name: str
    tokenizer: Any
    tokens: Tokens
    network: Any  #: the whole model
    decoder: Any  #: everything below the language-model head
    head: Any
    device: torch.device
    end_ids: tuple[int, ...]  #: tokens that end a response

    @property
    def vocab_size(self) -> int:
        """Tokens that the tokenizer knows; rows of the head beyond it are padding."""
        return len(self.tokens.token_bytes)

    @property
    def window(self) -> int | None:
        """Positions that the model was made for, where its configuration says."""
        found = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        return found if isinstance(found, int) else None

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits in float32 [n, vocab_size] of last hidden states [n, d], padding cut off."""
        import torch

        logits: torch.Tensor = self.head(states)[..., : self.vocab_size].float()
        cap = getattr(self.network.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def text(self, ids: Sequence[int]) -> str:
        """The tokens as text, special tokens left out, broken UTF-8 replaced."""
        special = self.tokens.special_ids
        pieces = (self.tokens.token_bytes[one] for one in ids if one not in special)
        return b"".join(pieces).decode("utf-8", "replace")

    def shown(self, ids: Sequence[int]) -> str:
        """The tokens as text with special tokens visible."""
        return b"".join(self.tokens.token_bytes[one] for one in ids).decode("utf-8", "replace")

    def prompt_ids(self, prompt: str, chat: Chat) -> list[int]:
        """The tokens of a prompt, through the chat template where the study says so."""
        if chat.template == "plain":
            return list(self.tokenizer(prompt)["input_ids"])
        messages = [{"role": "system", "content": chat.system}] if chat.system else []
        messages.append({"role": "user", "content": prompt})
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **chat.arguments)
        except Exception as error:  # the template is the model's own program
            raise StudyError(
                f'The chat template of {self.name} failed: {error}; [chat] template = "plain" does without.'
            ) from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def locate(model: str, folder: Path) -> str:
    """The model's folder where there is one (relative to `folder`), else the name as it is, for the hub."""
    here = (folder / model).expanduser()
    return str(here.resolve()) if here.is_dir() else model


def weights_digest(location: str) -> str:
    """A quick fingerprint of a model folder's weights: their sizes and samples of their bytes. Empty for hub names."""
    folder = Path(location)
    if not folder.is_dir():
        return ""
    state = hashlib.blake2b(digest_size=16)
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        state.update(f"{file.name}\x00{size}\x00".encode())
        with file.open("rb") as data:
            for place in range(16):
                data.seek(size * place // 16)
                state.update(data.read(65536))
    return state.hexdigest()


def load(
    location: str,
    *,
    revision: str = "",
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    stop: Sequence[str] = (),
) -> Model:
    """Load a model and its tokenizer for inference.

    Raises `StudyError` where there is no such model, it has no weights, or the device is not there.
    """
    torch, _ = _libraries()
    folder = Path(location)
    if not folder.is_dir() and (location.startswith((".", "/", "~")) or location.count("/") > 1):
        raise StudyError(f"There is no model folder {location}.")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise StudyError(f"The model folder {folder} has no config.json, so it is no model in transformers' format.")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise StudyError(f"The model folder {folder} has no weights (*.safetensors).")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise StudyError(f"The device `{device}` cannot be used: {str(error).splitlines()[0]}") from None
    tokenizer = _fetch("AutoTokenizer", location, revision, trust_remote_code)
    network = load_network(location, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    tokens = read_tokens(tokenizer)
    return Model(
        name=location,
        tokenizer=tokenizer,
        tokens=tokens,
        network=network,
        decoder=network.get_decoder(),
        head=network.get_output_embeddings(),
        device=place,
        end_ids=_end_ids(network, tokenizer, tokens, stop),
    )


def load_network(
    location: str, *, revision: str = "", dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False
) -> Any:
    """The network alone, for inference. Raises `StudyError` where it cannot be loaded."""
    torch, _ = _libraries()
    options = {"dtype": getattr(torch, dtype), "use_safetensors": True, "attn_implementation": "sdpa"}
    network = _fetch("AutoModelForCausalLM", location, revision, trust_remote_code, **options)
    return network.to(torch.device(device)).eval().requires_grad_(False)


def _fetch(kind: str, location: str, revision: str, trust_remote_code: bool, **options: Any) -> Any:
    _, transformers = _libraries()
    try:
        return getattr(transformers, kind).from_pretrained(
            location, revision=revision or None, trust_remote_code=trust_remote_code, **options
        )
    except Exception as error:  # whatever transformers meets while loading concerns this model
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise StudyError(f"The model `{location}` cannot be loaded: {what[0]}") from error


def stopping(model: Model, stop: Sequence[str]) -> Model:
    """The same model, whose responses also end with a token that contains one of `stop`. Raises `StudyError` where none does."""
    return replace(model, end_ids=_end_ids(model.network, model.tokenizer, model.tokens, stop))


def require_same_tokens(student: Model, teacher: Model) -> None:
    """Token by token comparison needs the same id -> bytes. Raises `StudyError` with the first difference."""
    ours, theirs = student.tokens.token_bytes, teacher.tokens.token_bytes
    if ours == theirs:
        return
    first = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    a = repr(ours[first]) if first < len(ours) else "nothing"
    b = repr(theirs[first]) if first < len(theirs) else "nothing"
    raise StudyError(
        f"The tokenizers of student {student.name} and teacher {teacher.name} differ: token {first} is {a} in one "
        f"and {b} in the other ({len(ours)} and {len(theirs)} tokens); scores per token need the same tokenizer."
    )


def read_tokens(tokenizer: Any) -> Tokens:
    """The raw bytes of every token of a fast tokenizer: byte-level, byte-fallback or plain text pieces."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    kinds = _kinds(backend.get("decoder")) | _kinds(backend.get("pre_tokenizer"))
    added = {int(token): entry for token, entry in tokenizer.added_tokens_decoder.items()}
    pieces = tokenizer.get_vocab()
    by_id = {number: piece for piece, number in pieces.items()}
    size = max(by_id) + 1
    token_bytes = []
    for number in range(size):
        piece = by_id.get(number, "")
        if number in added:
            token_bytes.append(added[number].content.encode("utf-8", "replace"))
        elif "ByteLevel" in kinds:
            token_bytes.append(_byte_level(piece))
        elif "ByteFallback" in kinds or "Metaspace" in kinds:
            token_bytes.append(_sentence_piece(piece))
        else:
            token_bytes.append(piece.encode("utf-8", "replace"))
    special = sorted({number for number, entry in added.items() if entry.special} | set(tokenizer.all_special_ids))
    return Tokens(tuple(token_bytes), tuple(special))


def _kinds(component: Any) -> set[str]:
    """The names of a tokenizer component and all its parts."""
    if not isinstance(component, dict):
        return set()
    kinds = {str(component.get("type"))}
    for part in (*component.get("decoders", ()), *component.get("pretokenizers", ())):
        kinds |= _kinds(part)
    return kinds


def _byte_level(piece: str) -> bytes:
    """Byte-level BPE writes each byte as one printable character."""
    byte_of = _byte_of_character()
    if all(character in byte_of for character in piece):
        return bytes(byte_of[character] for character in piece)
    return piece.encode("utf-8", "replace")


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """Printable Latin-1 stands for itself; the other bytes are numbered from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _sentence_piece(piece: str) -> bytes:
    """Sentence-piece vocabularies write a space as ▁ and a lone byte as <0xNN>."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode("utf-8", "replace")


def _end_ids(network: Any, tokenizer: Any, tokens: Tokens, stop: Sequence[str]) -> tuple[int, ...]:
    """End tokens of the model, and tokens that contain one of the study's stop strings."""
    ends: set[int] = set()
    for source in (network.generation_config.eos_token_id, network.config.get_text_config().eos_token_id, tokenizer.eos_token_id):
        if source is not None:
            ends |= set(source) if isinstance(source, list) else {source}
    for word in stop:
        wanted = word.encode()
        found = {number for number, piece in enumerate(tokens.token_bytes) if wanted in piece}
        if not found:
            raise StudyError(f"`sampling.stop`: no single token contains {word!r}, so it would never stop a response.")
        ends |= found
    if not ends:
        raise StudyError(f"{tokenizer.name_or_path} names no end token, so responses would never end; add `sampling.stop`.")
    return tuple(sorted(ends))


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ComputeError(
            f"Computing needs the package `{error.name}`; install the extra: pip install 'opd-tui[compute]'."
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers
