"""What says that token ids of a store mean the same elsewhere: hashes of its tokenizer and of its chat template."""

from __future__ import annotations

import hashlib

from msgspec import Struct

from store.reader import Store

NO_TEMPLATE = "This store does not say which chat template it was made with: see for yourself that prompts are the same."


class Hashes(Struct, frozen=True):
    """Hexadecimal BLAKE2b of 16 bytes."""

    tokenizer: str  #: of every token's length (4 bytes, little-endian) and bytes, in the order of ids
    chat_template: str | None  #: of the template's text; "" where the study went without; None where the store does not say

    @classmethod
    def of(cls, opened: Store) -> Hashes:
        """From the store's provenance; the tokenizer's from its vocabulary where that does not say."""
        provenance = opened.attributes.provenance
        tokens, template = provenance.get("tokens"), provenance.get("chat_template")
        return cls(
            tokens if isinstance(tokens, str) and tokens else _of_vocabulary(opened),
            template if isinstance(template, str) else None,
        )


def _of_vocabulary(opened: Store) -> str:
    state = hashlib.blake2b(digest_size=16)
    vocab = opened.vocab
    for token in range(len(vocab)):
        piece = vocab.bytes_of(token)
        state.update(len(piece).to_bytes(4, "little") + piece)
    return state.hexdigest()
