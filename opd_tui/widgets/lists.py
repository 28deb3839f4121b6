"""The lists of questions and of a question's rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opd_tui.numbers import signed
from opd_tui.widgets.rows import Cell, Column, RowList

#: Orders of the list of questions, in the order in which `s` goes through them.
ORDERS = ("study order", "success", "alignment", "worst", "name")

_NAN = float("nan")

if TYPE_CHECKING:
    from opd_tui.facts import QuestionFacts, RolloutFacts, Score
    from opd_tui.questions import Questions
    from opd_tui.session import Match

    #: None: not scored yet.
    ScoreOfQuestion = Callable[[QuestionFacts], Score | None]
    ScoreOfRollout = Callable[[RolloutFacts], Score | None]
    #: Whether a question is what a filter looks for.
    MatchOf = Callable[[str], Match]


def unscored(_: object) -> Score | None:
    """No scores yet."""
    return None


def _matches(_: str) -> Match:
    """Without a filter."""
    return "yes"


def _no_match(match: Match, dim: str) -> tuple[Cell, Cell]:
    """Two cells in place of numbers: that the filter does not look for this row, once that is known."""
    return (Cell("no", dim), Cell("match", dim)) if match == "no" else (Cell("…", dim), Cell("", dim))


def _mean(score: Score | None) -> float:
    return score.mean if score else _NAN


class QuestionList(RowList):
    """All questions that are in the store."""

    def __init__(self, *, id: str | None = None) -> None:
        columns = (Column("id", side="left", keep="tail"), Column("pass", 5), Column("align", 5), Column("worst", 5))
        super().__init__(columns, "no question is finished yet", id=id)
        self.questions: Questions | None = None
        self.order = ORDERS[0]
        self._score: ScoreOfQuestion = unscored
        self._match: MatchOf = _matches

    def show(
        self, questions: Questions, score: ScoreOfQuestion, order: str, current: str | None, match: MatchOf = _matches
    ) -> None:
        """Show `questions`, which are in `order`; the cursor goes to, or stays on, the question `current`.

        Those that do not `match` are dim.
        """
        self._score, self.order, self.questions, self._match = score, order, questions, match
        self.set_count(len(questions), self._row(current))

    def point(self, current: str) -> None:
        """The cursor goes to the question `current`."""
        self.move(self._row(current), tell=False)

    def _row(self, question_id: str | None) -> int:
        row = self.questions.row(question_id) if self.questions is not None and question_id is not None else None
        return self.cursor if row is None else row

    def cells(self, row: int) -> Sequence[Cell]:
        """Name, success, mean and worst alignment."""
        assert self.questions is not None
        question = self.questions[row]
        passed = Cell(f"{question.n_correct}/{question.n_rollouts}")
        dim = self.palette.ink.dim
        match = self._match(question.id)
        if match != "yes":
            return (Cell(question.label, dim), Cell(passed.text, dim), *_no_match(match, dim))
        if question.left_out:
            return (Cell(question.label, dim), passed, Cell("left", dim), Cell("out  ", dim))
        score = self._score(question)
        values = (_mean(score), score.worst if score else _NAN)
        mean, worst = (Cell(signed(value), self.palette.sign(value)) for value in values)
        return (Cell(question.label), passed, mean, worst)


class RolloutList(RowList):
    """The rollouts of one question."""

    def __init__(self, *, id: str | None = None) -> None:
        columns = (Column("no", side="left"), Column("tokens", 6), Column("align", 5), Column("nodes", 5))
        super().__init__(columns, "no rollouts", id=id)
        self.rollouts: Sequence[RolloutFacts] = ()
        self._score: ScoreOfRollout = unscored
        self._current: int | None = None
        self._match: Match = "yes"

    def show(self, rollouts: Sequence[RolloutFacts], score: ScoreOfRollout, current: int | None, match: Match = "yes") -> None:
        """Show `rollouts`, the cursor on the one with index `current`, which is dim where it does not `match`."""
        self.rollouts, self._score, self._current, self._match = rollouts, score, current, match
        places = (place for place, rollout in enumerate(rollouts) if rollout.index == current)
        self.set_count(len(rollouts), next(places, 0))

    def cells(self, row: int) -> Sequence[Cell]:
        """Index and outcome, length, mean alignment, nodes. A plus: cut off at that length. Rollouts without nodes are dim."""
        rollout = self.rollouts[row]
        mean = _mean(self._score(rollout))
        colours = self.palette.ink
        outcome = f"{rollout.index} {'✓' if rollout.correct else '✗'}"
        length = f"{rollout.n_tokens}{'+' if rollout.truncated else ''}"
        if rollout.index == self._current and self._match != "yes":
            return (Cell(outcome, colours.dim), Cell(length, colours.dim), *_no_match(self._match, colours.dim))
        return (
            Cell(outcome, colours.good if rollout.correct else colours.bad),
            Cell(length, None if rollout.n_nodes else colours.dim),
            Cell(signed(mean), self.palette.sign(mean)),
            Cell(str(rollout.n_nodes) if rollout.n_nodes else "none", None if rollout.n_nodes else colours.dim),
        )
