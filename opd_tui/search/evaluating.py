"""Evaluates expressions over columns: numpy, all rows at once. A missing number makes what asks for it unknown.

Logic has three values (Kleene's): `unknown & false` is false, `unknown | true` is true, and everything else with an unknown in it
is unknown. A column that is not there at all is unknown in every row: evaluated over what is cheap to read, an expression says
which rows cannot match whatever the others hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from opd_tui.search.expression import Expression, Literal, Node, Operation, Reference

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]


class Truth(Struct, frozen=True, eq=False):
    """Where a condition holds, and where its opposite does; where neither does, it is unknown."""

    yes: Bool
    no: Bool


class Texts(Struct, frozen=True, eq=False):
    """A text in every row: `values[index]`."""

    values: Sequence[str]
    index: NDArray[np.integer[Any]]

    def take(self, rows: Any) -> Texts:
        """These rows."""
        return Texts(self.values, self.index[rows])


#: A column of numbers (NaN: missing), of flags (booleans) or of texts.
Column = NDArray[Any] | Texts
Columns = Mapping[Reference, Column]
_Value = Truth | Float | Texts | None  # None: not there

_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip
_COMPUTED: dict[str, Callable[[Any, Any], Any]] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
_TEXTUAL: dict[str, Callable[[str, str], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "~": lambda left, right: right.casefold() in left.casefold(),
}


def evaluate(expression: Expression, columns: Columns, n: int) -> Truth:
    """Where `expression` holds among `n` rows. References that `columns` lacks are unknown."""
    with np.errstate(all="ignore"):
        found = _Rows(columns, n).value(expression.root)
    assert isinstance(found, Truth)  # the parser has seen to it
    return found


class _Rows:
    def __init__(self, columns: Columns, n: int) -> None:
        self._columns, self._n = columns, n

    def value(self, node: Node) -> _Value:
        match node:
            case Reference():
                column = self._columns.get(node)
                if column is None:
                    return self._unknown() if node.kind == "flag" else None
                return Truth(column, ~column) if node.kind == "flag" else column  # type: ignore[arg-type,operator]
            case Literal(value, "flag"):
                return Truth(np.full(self._n, bool(value)), np.full(self._n, not value))
            case Literal(value, "text"):
                return Texts((str(value),), np.zeros(self._n, np.intp))
            case Literal(value):
                return np.full(self._n, float(value))
            case Operation(operator, (operand,)):
                return self._one(operator, self.value(operand))
            case Operation(operator, (left, right)):
                return self._two(operator, self.value(left), self.value(right))
        raise AssertionError(node)

    def _unknown(self) -> Truth:
        return Truth(np.zeros(self._n, np.bool_), np.zeros(self._n, np.bool_))

    def _one(self, operator: str, value: _Value) -> _Value:
        if isinstance(value, Truth):
            return Truth(value.no, value.yes)  # the one operator on conditions is !
        if value is None:
            return self._unknown() if operator == "known" else None
        assert isinstance(value, np.ndarray)
        if operator == "known":
            missing = np.isnan(value)
            return Truth(~missing, missing)
        found: Float = np.abs(value) if operator == "abs" else -value
        return found

    def _two(self, operator: str, left: _Value, right: _Value) -> _Value:
        if left is None or right is None:
            return None if operator in _COMPUTED else self._unknown()
        if isinstance(left, Truth) and isinstance(right, Truth):
            return _logic(operator, left, right)
        if isinstance(left, Texts) and isinstance(right, Texts):
            yes = _textual(_TEXTUAL[operator], left, right)
            return Truth(yes, ~yes)
        if operator in _COMPUTED:
            computed: Float = _COMPUTED[operator](left, right)
            return computed
        there, yes = ~(np.isnan(left) | np.isnan(right)), _COMPARED[operator](left, right)  # type: ignore[arg-type]
        return Truth(yes & there, ~yes & there)


def _logic(operator: str, left: Truth, right: Truth) -> Truth:
    if operator == "&":
        return Truth(left.yes & right.yes, left.no | right.no)
    if operator == "|":
        return Truth(left.yes | right.yes, left.no & right.no)
    same = Truth((left.yes & right.yes) | (left.no & right.no), (left.yes & right.no) | (left.no & right.yes))
    return same if operator == "==" else Truth(same.no, same.yes)


def _textual(holds: Callable[[str, str], bool], left: Texts, right: Texts) -> Bool:
    """Whether it holds in each row; every pair of texts is looked at once."""
    if not len(left.index):
        return np.zeros(0, np.bool_)
    pairs = left.index.astype(np.int64) * len(right.values) + right.index
    different, row = np.unique(pairs, return_inverse=True)
    lefts, rights = np.divmod(different, len(right.values))
    found = [holds(left.values[a], right.values[b]) for a, b in zip(lefts.tolist(), rights.tolist(), strict=True)]
    return np.array(found, np.bool_)[row]
