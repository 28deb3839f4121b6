"""What a person looks for: an expression, or a text. Plain Python; `opd_tui.search.searching` runs it where the store is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import Struct

from opd_tui.search.expression import Expression, ExpressionError, parse, unquote
from opd_tui.search.names import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compute.posterior import Prior

#: What begins with it is a text to look for, and no expression.
QUOTE = '"'
#: Names of numbers that a match has anyway.
PLACES = ("rollout", "position")


@dataclass(frozen=True, slots=True)
class Query:
    """An expression or a text, and what it is about."""

    text: str
    teacher: str  #: the chosen one, "" where there is none
    objective: str
    within: tuple[str, int] | None = None  #: one rollout, by question and index; None: all
    prior: Prior | None = field(default=None, compare=False)  #: how sure scores are, where the study has said it

    @property
    def is_text(self) -> bool:
        """Whether a text is looked for."""
        return self.text.lstrip().startswith(QUOTE)

    @property
    def wanted(self) -> str:
        r"""That text: what follows the first quote, but for one that closes it. `\n`, `\t`, `\"` and `\\` as in expressions."""
        text = self.text.lstrip()[1:]
        if text.endswith(QUOTE) and (len(text) - len(text[:-1].rstrip("\\"))) % 2:
            text = text[:-1]
        return unquote(text)


class Checked(Struct, frozen=True):
    """A query that can be run."""

    level: Level  #: what it matches
    value: str  #: name of the number that comes with each match, "" where there is none
    about: str  #: the chosen teacher and objective, as far as they matter; as in the store


def check(query: Query, teachers: Sequence[str], objectives: Sequence[str]) -> Checked:
    """See whether a query can be run. Raises ExpressionError."""
    if query.is_text:
        if not query.wanted:
            raise ExpressionError(1, "a text is wanted after the quote")
        return Checked(Level.TOKEN, "", "")
    expression = parse(query.text, teachers, objectives)
    value = str(expression.value or "")
    return Checked(expression.level, value if value not in PLACES else "", _about(expression, query))


def _about(expression: Expression, query: Query) -> str:
    parts = [query.teacher] if expression.needs_teacher else []
    return " · ".join([*parts, query.objective] if expression.needs_objective else parts)
