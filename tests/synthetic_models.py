"""Made-up models for made-up studies: a vocabulary, and distributions that a prefix determines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

END, USER, ASSISTANT = 0, 1, 2
SPECIALS = (b"<|end|>", b"<|user|>", b"<|assistant|>")
WORDS = (
    " the| sum| of| angles| is|180|,| so| x| +| 2|x| =| 30|.|\n|Wait| note| that| we| need| largest| smallest| side"
    "| answer| then| three| both| add| from| total|6|4|7| and| there| are| apples| cost| if| each|?| let| us| check"
)
HOSTILE = (
    b"[/b]", b"[red", b"\x1b[2J", b"\x1b]0;title\x07", b"\x80", b"\xe2\x80\xae", b"\xe2\x80\x8f", b"\xc2\x9b31m", b"\xc2\x85",
    "漢字".encode(), "한".encode(), b"\xf0\x9f", b"\x98\x80", b"\xf0\x9f\x91\xa9\xe2\x80\x8d", b"\xf0\x9f\x92\xbb", b"\t", b"\r",
    b"\x00", b"e\xcc\x81\xcc\x81\xcc\x81", b"\\", b"%s{}", b"\xef\xbf\xbd", b"\xff",
    bytes(range(0x20)) + b"\x7f", "".join(map(chr, range(0x80, 0xA0))).encode(), "\u2066\u2028\u200d\ufeff".encode(),
    "👨\u200d👩\u200d👧\U0001f1e9\U0001f1ea👍\U0001f3fd".encode(), b"A" * 200_000,
)  # fmt: skip


@dataclass(frozen=True)
class Token:
    """Distributions at one prefix: the student's log-probabilities, and each teacher's."""

    student_V: np.ndarray
    teacher_MV: np.ndarray


class Models:
    """A prefix, named by a running hash, determines all distributions."""

    def __init__(self, token_bytes: Sequence[bytes], seed: int, shortest: int) -> None:
        self.vocab_size = len(token_bytes)
        self.seed = seed
        self.shortest = shortest
        self.prior_V = np.full(self.vocab_size, -7.0)
        self.prior_V[len(SPECIALS) : self.vocab_size - 256] = 0.0
        self.prior_V[: len(SPECIALS)] = -12.0

    def at(self, prefix: int, position: int) -> Token:
        """Distributions after the prefix with this hash, `position` tokens into the response."""
        rng = np.random.default_rng((self.seed, prefix))
        noise = rng.normal(size=(3, self.vocab_size))
        logits = self.prior_V + 3.5 * noise[0]
        logits[END] = -9.0 + 1.5 * max(0, position - self.shortest)
        student = log_softmax(logits)
        teachers = [1.1 * student + 0.9 * noise[1], student + 0.6 * noise[2], student / 1.3]
        return Token(student, np.stack([log_softmax(teacher) for teacher in teachers]))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def extend(prefix: int, token: int) -> int:
    return (prefix * 6364136223846793005 + token * 2 + 1442695040888963407) % (1 << 64)


def vocabulary(hostile: bool = False) -> list[bytes]:
    """Specials, some words, the hostile pieces if asked for, and all single bytes."""
    words = [word.encode() for word in WORDS.split("|")]
    return [*SPECIALS, *words, *(HOSTILE if hostile else ()), *(bytes([byte]) for byte in range(256))]
