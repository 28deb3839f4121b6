"""Bytes from data become cells here, and nowhere else.

A terminal obeys what it is sent. Token bytes, prompts, answers, names of questions, models and teachers are
written by models and strangers, so every one of them passes `runs` before it is drawn: control characters,
bidi controls, invisible characters and bytes that are no UTF-8 come out as visible glyphs, combining marks stay
on their base, and every run knows how many cells it takes. Nothing is ever read as markup.

`Safe` marks text that went through. Widgets draw `Safe` text and their own literals, nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, NewType

from rich.cells import get_character_cell_size

#: Text without any control, bidi or invisible character.
Safe = NewType("Safe", str)


class Kind(IntEnum):
    """What a run is, so that it can be drawn apart from plain text."""

    TEXT = 0
    SPACE = 1
    NEWLINE = 2
    ESCAPE = 3  #: a glyph that stands for something which must not reach the terminal
    SPECIAL = 4  #: a special token, such as the end of the turn


class Run(NamedTuple):
    """Text of one kind from one token, or from several where they share a character (`first` to `last`)."""

    text: Safe
    width: int
    kind: Kind
    first: int
    last: int


#: Marks that may pile up on one base character; the next one gets a base of its own.
MAX_MARKS = 4
TAB = "→   "
MARK_BASE = "◌"
EMPTY = "∅"
ELLIPSIS = "…"

#: Characters that draw nothing although Unicode calls them letters, marks or symbols (Default_Ignorable, blanks).
_INVISIBLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800), (0x3164, 0x3164),
    (0xFFA0, 0xFFA0), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF),
)  # fmt: skip
#: Characters whose width depends on their neighbours, differently from terminal to terminal: flags, skin tones.
_QUARRELSOME = ((0x1F1E6, 0x1F1FF), (0x1F3FB, 0x1F3FF))
#: Controls, formats, surrogates, unassigned, private use, separators of lines and paragraphs.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
_READY = re.compile(rb"([ -~]{8,}(?=[ -~]|\Z))")  # printable ASCII, but for a last character, to which marks may belong
_PLAIN = re.compile(rb"( ?)([!-~]+)")
_VARIATION = {0xFE0E: "ᵛ", 0xFE0F: "ᵛ"}


@lru_cache(maxsize=16384)
def _glyph(char: str) -> tuple[str, int, Kind]:
    """What is drawn for one character: text, cells and kind. Zero cells: a mark that goes on what stands before."""
    code = ord(char)
    if char == " ":
        return "·", 1, Kind.SPACE
    if char == "\n":
        return "↵", 1, Kind.NEWLINE
    if char == "\t":
        return TAB, len(TAB), Kind.SPACE
    if code < 0x20:
        return chr(0x2400 + code), 1, Kind.ESCAPE
    if code == 0x7F:
        return "␡", 1, Kind.ESCAPE
    if code in _VARIATION:
        return _VARIATION[code], 1, Kind.ESCAPE
    if 0xDC80 <= code <= 0xDCFF:  # how "surrogateescape" hands over a byte that is no UTF-8
        label = f"⟨x{code - 0xDC00:02X}⟩"
        return label, len(label), Kind.ESCAPE
    category = unicodedata.category(char)
    if category in _FORBIDDEN or any(low <= code <= high for low, high in _INVISIBLE + _QUARRELSOME):
        label = f"⟨{code:02X}⟩"
        return label, len(label), Kind.ESCAPE
    if category == "Zs":
        return "⍽", 1, Kind.SPACE
    return char, get_character_cell_size(char), Kind.TEXT


def _characters(tokens: Sequence[bytes | str]) -> Iterator[tuple[str, int, int]]:
    """Every character with the first and the last token its bytes came from; a word of plain ASCII in one piece.

    All bytes are decoded as one, so a character whose bytes stand in several tokens is whole.
    """
    parts = [part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in tokens]
    start = 0
    for index, part in enumerate(parts):
        plain = _PLAIN.fullmatch(part)
        if plain is not None:  # it ends whatever came before, and nothing of it belongs to what comes after
            yield from _decoded(parts, start, index)
            if plain[1]:
                yield " ", index, index
            yield plain[2].decode(), index, index
            start = index + 1
    yield from _decoded(parts, start, len(parts))


def _decoded(parts: Sequence[bytes], start: int, stop: int) -> Iterator[tuple[str, int, int]]:
    """Every character of these parts."""
    owner = [index for index in range(start, stop) for _ in parts[index]]
    place = 0
    for char in b"".join(parts[start:stop]).decode("utf-8", "surrogateescape"):
        code = ord(char)
        length = 1 if code < 0x80 or 0xD800 <= code <= 0xDFFF else 2 if code < 0x800 else 3 if code < 0x10000 else 4
        yield char, owner[place], owner[place + length - 1]
        place += length


def runs(tokens: Sequence[bytes | str], special: Collection[int] = ()) -> list[Run]:
    """The one way from data to cells: what is drawn for `tokens`, in order.

    Spaces, tabs and line ends come out as visible glyphs with their kind; whoever draws may leave them blank.
    Every token has a run: one without bytes shows `∅`, one that only completes a character shares its run.
    `special` holds the places (not the ids) of special tokens.
    """
    found: list[Run] = []
    parts: list[tuple[str, int]] = []  # of the run that grows: each character, its marks, its cells
    grows: tuple[Kind, int, int] | None = None
    marks = 0
    seen = 0  # tokens below this one have a run

    def close() -> None:
        if parts and grows is not None:
            found.append(Run(Safe("".join(text for text, _ in parts)), sum(width for _, width in parts), *grows))
            parts.clear()

    for char, first, last in _characters(tokens):
        if len(char) > 1:  # plain text of one token
            close()
            found.extend(Run(Safe(EMPTY), 1, Kind.ESCAPE, empty, empty) for empty in range(seen, first))
            grows = (Kind.SPECIAL if first in special else Kind.TEXT), first, last
            parts += ((char[:-1], len(char) - 1), (char[-1], 1))
            marks, seen = 0, first + 1
            continue
        text, width, kind = _glyph(char)
        if width == 0:
            if parts and grows is not None and grows[0] is Kind.TEXT and marks < MAX_MARKS and seen >= first:
                base, cells_of_base = parts.pop()
                if last > grows[2]:  # the mark is of a later token: both share this one character
                    close()
                    grows = Kind.TEXT, grows[1], last
                parts.append((base + text, cells_of_base))
                marks, seen = marks + 1, max(seen, last + 1)
                continue
            text, width, marks = MARK_BASE + text, 1, 1
        else:
            marks = 0
        if first in special and kind is Kind.TEXT:
            kind = Kind.SPECIAL
        if grows != (kind, first, last) or kind is Kind.NEWLINE:
            close()
        found.extend(Run(Safe(EMPTY), 1, Kind.ESCAPE, empty, empty) for empty in range(seen, first))
        grows = kind, first, last
        parts.append((text, width))
        seen = max(seen, last + 1)
    close()
    found.extend(Run(Safe(EMPTY), 1, Kind.ESCAPE, empty, empty) for empty in range(seen, len(tokens)))
    return found


def safe(data: bytes | str) -> Safe:
    """`data` as one line of safe text: line ends and tabs as glyphs, spaces as spaces."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    pieces = _READY.split(raw)  # every second one is safe as it is, and most of long lines is in these
    return Safe("".join(piece.decode() if place % 2 else _one_line(piece) for place, piece in enumerate(pieces) if piece))


def _one_line(data: bytes) -> str:
    return "".join(blank(run) if run.kind is Kind.SPACE else run.text for run in runs([data]))


def token(data: bytes) -> Safe:
    """One token by itself, with its whitespace visible."""
    return Safe("".join(run.text for run in runs([data])))


def blank(run: Run) -> Safe:
    """The text of `run` with whitespace as blanks, of the same width."""
    return Safe(" " * run.width) if run.kind in (Kind.SPACE, Kind.NEWLINE) else run.text


def cells(text: str) -> int:
    """How many cells `text` takes."""
    if text.isascii():
        return len(text)
    return _short_cells(text) if len(text) <= _SHORT else sum(map(get_character_cell_size, text))


#: Characters of what stands in a column: numbers (whose minus is no ASCII), names, bars. They are measured again and again.
_SHORT = 24


@lru_cache(maxsize=4096)
def _short_cells(text: str) -> int:
    return sum(map(get_character_cell_size, text))


def cut(text: Safe, width: int) -> tuple[Safe, Safe]:
    """`text` in two, the first part of at most `width` cells. A character and its marks are never parted."""
    taken = 0
    for place, char in enumerate(text):
        size = get_character_cell_size(char)
        if size and taken + size > width:
            return Safe(text[:place]), Safe(text[place:])
        taken += size
    return text, Safe("")


def fit(text: Safe, width: int) -> Safe:
    """`text` in exactly `width` cells: padded, or cut with an ellipsis."""
    missing = width - cells(text)
    if missing < 0:
        if width <= 0:
            return Safe("")
        text = Safe(cut(text, width - 1)[0] + ELLIPSIS)
        missing = width - cells(text)
    return Safe(text + " " * missing) if missing else text


def fit_tail(text: Safe, width: int) -> Safe:
    """As `fit`, but what is cut off is the beginning: names of questions differ at their end."""
    if cells(text) <= width:
        return fit(text, width)
    tail = text
    while tail and cells(tail) > width - 1:
        tail = Safe(tail[1:])
    while tail and not get_character_cell_size(tail[0]):
        tail = Safe(tail[1:])
    return fit(Safe(ELLIPSIS + tail), width)


def paragraphs(data: bytes | str) -> tuple[Safe, ...]:
    """`data` as safe text, in two where it has a line end."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return tuple(safe(paragraph) for paragraph in raw.split(b"\n"))


def fold(text: Safe, width: int) -> list[Safe]:
    """`text` in lines of at most `width` cells, broken at spaces where there are any."""
    return list(folded(text, width))


def folded(text: Safe, width: int) -> Iterator[Safe]:
    """As `fold`, line by line: a text may be long, and whoever draws must not be held up by it."""
    width = max(width, 2)
    most = (width + 1) * (MAX_MARKS + 1)  # characters that are sure to be wider than a line
    start = 0
    while cells(window := Safe(text[start : start + most])) > width:
        head, _ = cut(window, width)
        gap = head.rfind(" ")
        broken = gap > width // 2
        yield Safe(window[:gap]) if broken else head
        start += gap + 1 if broken else len(head)
    yield Safe(text[start:])
