"""What goes over the wire: of every frame only the cells that differ from what the terminal shows already.

Textual draws the changed region of a widget whole, and every stretch of it with all of its style: several times the bytes
that a terminal needs, which a slow SSH line feels. `Wire` keeps what the terminal shows and the style that it writes in, and
passes on the rest. What it does not know it passes on as it is, and forgets what that may have touched.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rich.cells import cell_len

#: A move of the cursor, a change of style, anything else that is no text, and text.
_PIECES = re.compile(
    r"\x1b\[(\d+);(\d+)H"
    r"|\x1b\[([\d;]*)m"
    r"|(\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\[]|[\x00-\x1f\x7f])"
    r"|([^\x00-\x1f\x7f]+)"
)
#: Synchronised output: changes nothing that is shown.
_HARMLESS = frozenset(("\x1b[?2026h", "\x1b[?2026l"))
#: Unchanged cells that are cheaper to draw again than to jump over.
_JUMP = 4
#: What switches an attribute off.
_OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "7": "27", "9": "29"}
_UNKNOWN = "\x00"

#: Attributes, foreground and background, each as parameters of SGR; "" is the terminal's own.
Style = tuple[str, str, str]
PLAIN: Style = ("", "", "")


class Wire:
    """A filter on the way to one terminal."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[list[str], list[Style]]] = {}  #: characters and styles of every row
        self._style: Style | None = None  #: what the terminal writes in; None: unknown
        self._at: tuple[int, int] | None = None  #: row and column of its cursor, from 1; None: unknown

    def forget(self) -> None:
        """The terminal was cleared or resized, or somebody else wrote to it: everything is drawn anew."""
        self._rows = {}
        self._style = self._at = None

    def thrifty(self, data: str) -> str:
        """What to send so that the terminal shows what it would after `data`."""
        out: list[str] = []
        style = PLAIN
        place = self._at
        for match in _PIECES.finditer(data):
            row, column, parameters, other, text = match.groups()
            if text is not None:
                place = self._text(out, place, style, text)
            elif parameters is not None:
                style = _changed(style, parameters)
            elif row is not None:
                place = int(row), int(column)
            elif other == "\n":
                place = None  # every line names its place
            else:
                if place is not None:
                    self._move(out, place)
                if other not in _HARMLESS:
                    self._say(out, PLAIN)
                    self.forget()
                    place = None
                out.append(other)
        if place is not None:
            self._move(out, place)
        return "".join(out)

    def _text(self, out: list[str], place: tuple[int, int] | None, style: Style, text: str) -> tuple[int, int] | None:
        """Send what is new of a text; where it ends. Terminals differ in the cells that some characters take: sent whole."""
        if place is None:
            self._say(out, style)
            out.append(text)
            self._rows, self._at = {}, None
            return None
        y, x = place
        width = len(text) if text.isascii() else cell_len(text)
        characters, styles = self._row(y, x + width)
        cells = slice(x - 1, x - 1 + width)
        if width != len(text) or not (text.isascii() or all(cell_len(one) == 1 for one in text)):
            self._move(out, place)
            self._say(out, style)
            out.append(text)
            characters[x - 1 : x + width] = [_UNKNOWN] * (width + 1)
            self._at = None
            return y, x + width
        new, before, before_styles = list(text), characters[cells], styles[cells]
        if new != before or before_styles != [style] * width:
            differs = [i for i in range(width) if new[i] != before[i] or before_styles[i] != style]
            first = 0
            for at, i in enumerate(differs, 1):
                if at == len(differs) or differs[at] - i > _JUMP:
                    start, stop = differs[first], i + 1
                    self._move(out, (y, x + start))
                    self._say(out, style)
                    out.append(text[start:stop])
                    self._at = y, x + stop
                    first = at
            characters[cells], styles[cells] = new, [style] * width
        return y, x + width

    def _row(self, y: int, width: int) -> tuple[list[str], list[Style]]:
        characters, styles = self._rows.setdefault(y, ([], []))
        missing = width + 1 - len(characters)
        if missing > 0:
            characters.extend([_UNKNOWN] * missing)
            styles.extend([PLAIN] * missing)
        return characters, styles

    def _move(self, out: list[str], place: tuple[int, int]) -> None:
        if self._at == place:
            return
        if self._at is not None and self._at[0] == place[0] and self._at[1] < place[1]:
            out.append(f"\x1b[{place[1] - self._at[1]}C")
        else:
            out.append(f"\x1b[{place[0]};{place[1]}H")
        self._at = place

    def _say(self, out: list[str], style: Style) -> None:
        if self._style != style:
            out.append(_transition(self._style, style))
            self._style = style


@lru_cache(maxsize=4096)
def _changed(style: Style, parameters: str) -> Style:
    """The style after an SGR sequence."""
    attributes, foreground, background = style
    codes = (parameters or "0").split(";")
    while codes:
        code = codes.pop(0) or "0"
        if code in ("38", "48"):
            length = 4 if codes[:1] == ["2"] else 2
            colour = ";".join([code, *codes[:length]])
            del codes[:length]
            foreground, background = (colour, background) if code == "38" else (foreground, colour)
        elif code == "0":
            attributes, foreground, background = PLAIN
        elif code == "39" or 30 <= int(code) <= 37 or 90 <= int(code) <= 97:
            foreground = "" if code == "39" else code
        elif code == "49" or 40 <= int(code) <= 47 or 100 <= int(code) <= 107:
            background = "" if code == "49" else code
        else:
            attributes = f"{attributes};{code}".strip(";")
    return attributes, foreground, background


@lru_cache(maxsize=4096)
def _transition(before: Style | None, after: Style) -> str:
    """The shortest SGR sequence from one style to another."""
    if after == PLAIN:
        return "\x1b[m"
    whole = ";".join(part for part in after if part)
    if before is None:
        return f"\x1b[0;{whole}m"
    had, has = ([code for code in style[0].split(";") if code] for style in (before, after))
    gone = [code for code in had if code not in has]
    off = {_OFF.get(code, "") for code in gone}
    if "" in off or off & {_OFF.get(code) for code in has}:  # one that cannot be switched off alone
        return f"\x1b[0;{whole}m"
    parts = [*sorted(off), *(code for code in has if code not in had)]
    parts += [now or default for was, now, default in zip(before[1:], after[1:], ("39", "49"), strict=True) if was != now]
    return min(f"\x1b[{';'.join(parts)}m", f"\x1b[0;{whole}m", key=len)
