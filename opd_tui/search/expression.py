"""Expressions that questions, rollouts, tokens and nodes can match: `incorrect & align < -0.5 & n > 20`.

    or   |        and   &        not   !        < <= > >= == != ~        + -        * /        -        abs( ) known( )

from the loosest to the tightest. Names are in `opd_tui.search.names`; `align[teacher, objective]` is that of a teacher or
objective that is not the chosen one. Pure: text in, a tree out; `opd_tui.search.evaluating` evaluates it. Numbers may be missing
(an alignment where nothing was measured): a comparison with a missing number is neither true nor false but unknown, and so is
its opposite; what is unknown does not match.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct

from opd_tui.search.names import BY_KEY, CONSTANTS, FUNCTIONS, WORDS, Kind, Level, Name

#: Bounds: nobody writes more by hand, and evaluation stays shallow.
MAX_LENGTH, MAX_PARTS, MAX_DEPTH = 1000, 200, 40


class ExpressionError(ValueError):
    """An expression that cannot be read. `position` is the place in the text, from 0."""

    def __init__(self, position: int, what: str) -> None:
        super().__init__(f"character {position + 1}: {what}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Reference:
    """A name, of the chosen teacher and objective (None) or of others."""

    name: Name
    teacher: str | None = None
    objective: str | None = None
    position: int = field(default=0, compare=False)

    @property
    def kind(self) -> Kind:
        """What it stands for."""
        return self.name.kind

    def __str__(self) -> str:
        chosen = [part for part in (self.teacher, self.objective) if part is not None]
        return f"{self.name.key}[{', '.join(chosen)}]" if chosen else self.name.key


class Literal(Struct, frozen=True):
    """A number, a text, true or false."""

    value: float | str | bool
    kind: Kind
    position: int = 0


class Operation(Struct, frozen=True):
    """An operator or function with its operands."""

    operator: str
    operands: tuple[Node, ...]
    kind: Kind
    position: int


Node = Reference | Literal | Operation


class Expression(Struct, frozen=True):
    """A condition that can be evaluated."""

    text: str
    root: Node
    references: tuple[Reference, ...]  #: every name once, in the order of the text

    @property
    def level(self) -> Level:
        """What it matches."""
        return max((one.name.level for one in self.references), default=Level.QUESTION)

    @property
    def value(self) -> Reference | None:
        """The first number in it: what matches can be sorted by."""
        return next((one for one in self.references if one.kind == "number"), None)

    @property
    def needs_teacher(self) -> bool:
        """Whether it is about the chosen teacher."""
        return any(one.name.needs != "nothing" and one.teacher is None for one in self.references)

    @property
    def needs_objective(self) -> bool:
        """Whether it is about the chosen objective."""
        return any(one.name.needs == "objective" and one.objective is None for one in self.references)


def parse(text: str, teachers: Sequence[str] = (), objectives: Sequence[str] = ()) -> Expression:
    """Read an expression over a store that has these teachers and objectives. Raises ExpressionError, and nothing else."""
    return _Parser(text, teachers, objectives).expression()


class _Token(NamedTuple):
    kind: str  # "number", "name", "string", "operator" or "end"
    text: str
    start: int
    stop: int


_TOKEN = re.compile(
    r"""(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<operator>&&|\|\||<=|>=|==|!=|[<>=&|!~()+\-*/\[\],≤≥≠−])""",
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"\s*")
_PLAIN = re.compile(r"[^\"',\[\]]*")
_ALIASES = {"&&": "&", "||": "|", "=": "==", "≤": "<=", "≥": ">=", "≠": "!=", "−": "-"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}

#: How tightly operators with a left side bind.
_BINDING = {
    "|": 1, "&": 2, **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "~"), 4), "+": 5, "-": 5, "*": 6, "/": 6,
}  # fmt: skip
_NOT, _COMPARE, _NEGATE = 3, 4, 7
_AN_OPERAND = "a name, a number, a text in quotes, ! or ( is wanted here"


def unquote(text: str) -> str:
    r"""What a text in quotes stands for: `\n`, `\t` and `\r` are whitespace, any other character after `\` is itself."""
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), text)


class _Parser:
    """A Pratt parser: `_read(binding)` reads as much as binds more tightly than `binding`."""

    def __init__(self, text: str, teachers: Sequence[str], objectives: Sequence[str]) -> None:
        self._text, self._teachers, self._objectives = text, tuple(teachers), tuple(objectives)
        self._references: dict[Reference, None] = {}
        self._depth = self._parts = 0
        self._next = _Token("end", "", 0, 0)

    def expression(self) -> Expression:
        """All of the text."""
        if len(self._text) > MAX_LENGTH:
            raise ExpressionError(MAX_LENGTH, f"an expression has at most {MAX_LENGTH} characters")
        self._step(0)
        if self._next.kind == "end":
            raise ExpressionError(0, "a condition is wanted, such as incorrect & align < -0.5")
        root = self._read(0)
        if self._next.kind != "end":
            raise self._instead(self._next, "an operator such as &, | or < is wanted here")
        if root.kind != "flag":
            hint = "compare it, as in align < 0" if root.kind == "number" else 'compare it, as in token ~ "wait"'
            raise ExpressionError(0, f"this is a {root.kind}, not a condition; {hint}")
        return Expression(self._text, root, tuple(self._references))

    # tokens

    def _step(self, place: int) -> None:
        """Read the token at `place`."""
        start = self._skip(place)
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ExpressionError(start, f"an expression has at most {MAX_PARTS} parts")
        found = _TOKEN.match(self._text, start)
        if found is not None:
            self._next = _Token(found.lastgroup or "", found[0], start, found.end())
        elif start == len(self._text):
            self._next = _Token("end", "", start, start)
        elif self._text[start] in "\"'":
            raise ExpressionError(start, "this text does not end; close it with the same quote")
        else:
            raise ExpressionError(start, f"{self._text[start]!r} has no meaning here")

    def _skip(self, place: int) -> int:
        found = _SPACE.match(self._text, place)
        return found.end() if found else place

    @property
    def _operator(self) -> str:
        """The operator that comes next, "" where none does."""
        token = self._next
        if token.kind == "name":
            return WORDS.get(token.text.lower(), "")
        return _ALIASES.get(token.text, token.text) if token.kind == "operator" else ""

    def _take(self) -> _Token:
        token = self._next
        self._step(token.stop)
        return token

    @staticmethod
    def _instead(token: _Token, what: str) -> ExpressionError:
        there = "the end" if token.kind == "end" else repr(token.text)
        return ExpressionError(token.start, f"{what}, not {there}")

    # the grammar

    def _read(self, binding: int) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(self._next.start, f"this is nested more than {MAX_DEPTH} deep")
        left = self._operand()
        while _BINDING.get(self._operator, 0) > binding:
            operator, token = self._operator, self._take()
            if operator in ("&", "|"):
                right = self._read(_BINDING[operator])
                left = Operation(operator, (self._wanted(left, "flag"), self._wanted(right, "flag")), "flag", token.start)
            elif _BINDING[operator] == _COMPARE:
                left = self._comparison(left, operator, token)
            else:
                right = self._read(_BINDING[operator])
                left = Operation(operator, (self._wanted(left, "number"), self._wanted(right, "number")), "number", token.start)
        self._depth -= 1
        return left

    def _operand(self) -> Node:
        token, operator = self._next, self._operator
        if operator == "!":
            self._take()
            return Operation("!", (self._wanted(self._read(_NOT), "flag"),), "flag", token.start)
        if operator in ("-", "+"):
            self._take()
            inner = self._wanted(self._read(_NEGATE), "number")
            return Operation("negate", (inner,), "number", token.start) if operator == "-" else inner
        if operator == "(":
            self._take()
            inner = self._read(0)
            self._close()
            return inner
        if token.kind == "number":
            return Literal(float(self._take().text), "number", token.start)
        if token.kind == "string":
            return Literal(unquote(self._take().text[1:-1]), "text", token.start)
        if token.kind == "name" and not operator:
            return self._name()
        raise self._instead(token, _AN_OPERAND)

    def _comparison(self, left: Node, operator: str, token: _Token) -> Node:
        """`a < b`, and `a < b < c` for both at once."""
        found: Node | None = None
        while True:
            right = self._read(_COMPARE)
            one = self._compare(left, operator, right, token)
            found = one if found is None else Operation("&", (found, one), "flag", token.start)
            operator, left = self._operator, right
            if _BINDING.get(operator) != _COMPARE:
                return found
            token = self._take()

    def _compare(self, left: Node, operator: str, right: Node, token: _Token) -> Operation:
        if left.kind != right.kind:
            raise ExpressionError(token.start, f"a {left.kind} cannot be compared with a {right.kind}")
        if operator == "~" and left.kind != "text":
            raise ExpressionError(token.start, f"~ looks for a text in a text, not in a {left.kind}")
        if operator not in ("==", "!=", "~") and left.kind != "number":
            raise ExpressionError(token.start, f"{operator} compares numbers; a {left.kind} is compared with == or !=")
        return Operation(operator, (left, right), "flag", token.start)

    def _wanted(self, node: Node, kind: Kind) -> Node:
        if node.kind == kind:
            return node
        if kind == "flag":
            hint = "compare it, as in align < 0" if node.kind == "number" else 'compare it, as in token ~ "wait"'
            raise ExpressionError(_start(node), f"a condition is wanted here, and this is a {node.kind}; {hint}")
        raise ExpressionError(_start(node), f"a number is wanted here, and this is a {node.kind}")

    def _close(self) -> None:
        if self._operator != ")":
            raise self._instead(self._next, "a ) is wanted here")
        self._take()

    # names

    def _name(self) -> Node:
        token = self._next
        key = token.text.lower()
        after = self._skip(token.stop)
        follows = self._text[after : after + 1]
        if key in CONSTANTS:
            self._take()
            return Literal(CONSTANTS[key], "flag", token.start)
        if key in FUNCTIONS and follows == "(":
            self._take()
            self._take()
            inner = self._wanted(self._read(0), "number")
            self._close()
            return Operation(key, (inner,), "flag" if key == "known" else "number", token.start)
        name = BY_KEY.get(key)
        if name is None:
            raise ExpressionError(token.start, f"there is no name {token.text!r}{_nearest(key, (*BY_KEY, *FUNCTIONS))}")
        selectors: list[tuple[str, int]] = []
        if follows in ("[", "("):
            selectors = self._selectors(after, "]" if follows == "[" else ")")
        else:
            self._take()
        reference = self._select(name, selectors, token.start)
        self._references.setdefault(reference)
        return reference

    def _selectors(self, place: int, closing: str) -> list[tuple[str, int]]:
        """What stands between brackets: texts in quotes or, in square brackets, as they are."""
        found: list[tuple[str, int]] = []
        while True:
            start = self._skip(place + 1)
            quoted = _TOKEN.match(self._text, start)
            if quoted is not None and quoted.lastgroup == "string":
                text, stop = unquote(quoted[0][1:-1]), quoted.end()
            elif closing == "]" and (plain := _PLAIN.match(self._text, start)):
                text, stop = plain[0].strip(), plain.end()
            else:
                raise ExpressionError(start, "a teacher or an objective in quotes is wanted here")
            found.append((text, start))
            place = self._skip(stop)
            here = self._text[place : place + 1]
            if here == closing:
                self._step(place + 1)
                return found
            if here != "," or len(found) == 2:
                raise ExpressionError(place, f"a {closing} is wanted here")

    def _select(self, name: Name, selectors: list[tuple[str, int]], position: int) -> Reference:
        if not selectors:
            return Reference(name, position=position)
        if name.needs == "nothing":
            raise ExpressionError(selectors[0][1], f"{name.key} is the same for every teacher; leave the brackets out")
        if len(selectors) == 2 and name.needs == "teacher":
            raise ExpressionError(selectors[1][1], f"{name.key} has a teacher but no objective")
        (first, at), second = selectors[0], selectors[1] if len(selectors) == 2 else None
        if second is None and name.needs == "objective" and first in self._objectives and first not in self._teachers:
            return Reference(name, None, first, position)
        teacher = self._known(first, at, self._teachers, "teacher") if first or second is None else None
        objective = self._known(*second, self._objectives, "objective") if second and second[0] else None
        return Reference(name, teacher, objective, position)

    @staticmethod
    def _known(text: str, at: int, known: Sequence[str], what: str) -> str:
        if text not in known:
            raise ExpressionError(at, f"there is no {what} {text!r}{_nearest(text, known)}")
        return text


def _start(node: Node) -> int:
    """Where `node` begins in the text."""
    start = node.position
    while isinstance(node, Operation):
        node = node.operands[0]
        start = min(start, node.position)
    return start


def _nearest(name: str, known: Sequence[str], at_most: int = 8) -> str:
    import difflib  # only for mistakes

    close = difflib.get_close_matches(name[:60], known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = f" and {len(known) - at_most} more" if len(known) > at_most else ""
    return f"; there is {', '.join(known[:at_most]) or 'none'}{more}"
