"""What one person looks at: the place, and what it is coloured by. Knows nothing of Textual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from opd_tui.colouring import NO_COLOURING, Colouring
from opd_tui.metrics import METRICS, Metric
from opd_tui.place import NOWHERE, no_rollout, no_token
from opd_tui.text import Safe
from opd_tui.view import OWN, View
from opd_tui.walk import next_of, next_ranked, ranked, sign_flips

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from opd_tui.facts import Catalogue, Mean, NodeFacts, QuestionFacts, RolloutFacts, Score, TeacherLine, TokenFacts
    from opd_tui.overview import Overview
    from opd_tui.pages import RolloutPage
    from opd_tui.place import Place
    from opd_tui.questions import Questions
    from opd_tui.values import Sure

    #: Every teacher at a token, and over the study.
    Teachers = tuple[tuple[TeacherLine, ...], tuple[Mean | None, ...]]

#: Whether something is what a filter looks for; "maybe" until all is scanned.
Match = Literal["yes", "no", "maybe"]


class Session:
    """The state of the explorer."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.catalogue: Catalogue | None = None
        self.overview: Overview | None = None
        self.page: RolloutPage | None = None
        self.question_id: str | None = None
        self.rollout: int | None = None  #: index of the rollout that is wanted; `page` may still show the one before
        self.token = 0
        self.teacher = 0
        self.objective = 0
        self.view = OWN
        self._second: int | None = None  #: the teacher that was chosen to hold others against
        self._question: QuestionFacts | None = None
        self._where: Collection[tuple[str, int]] | None = None
        self._matching: frozenset[str] = frozenset()
        self._all_scanned = True  #: whether what does not match by now never will
        self._colouring: Colouring | None = None
        self._sure: dict[tuple[int, int], Sure] = {}  #: of the page, by teacher and objective: one goes to and fro
        self._lines_at: tuple[int | None, Teachers] | None = None  #: the last teacher lines, and the node that they are of
        self._walking_at: int | None = None

    # the lists

    @property
    def question(self) -> QuestionFacts | None:
        """The current question."""
        if self.catalogue is None or self.question_id is None:
            return None
        if self._question is None or self._question.id != self.question_id:
            self._question = self.catalogue.questions.get(self.question_id)
        return self._question

    def take(self, catalogue: Catalogue) -> None:
        """The store is open, or has grown."""
        self.catalogue = catalogue
        self._question = self._lines_at = None

    def look(self, view: View, catalogue: Catalogue, objective: int) -> None:
        """Everything is scored anew, under another view; what was said of the whole study under the one before is forgotten."""
        self.take(catalogue)
        self.view, self.overview, self.objective = view, None, objective
        self._changed()

    def survey(self, overview: Overview) -> None:
        """The study is scored, or some of it; all of it says how sure the page's signs are."""
        self.overview = overview
        self._changed()

    def questions_by(self, order: str) -> Questions | None:
        """The questions that match, in one of the orders of `opd_tui.widgets.lists.ORDERS`."""
        return self._questions_by(order, self._matching)

    def listed_questions(self, order: str) -> Questions | None:
        """The list of questions: those that match, and the current one even if it does not."""
        return self._questions_by(order, self._matching | {self.question_id} if self.question_id else self._matching)

    def _questions_by(self, order: str, ids: Collection[str]) -> Questions | None:
        if self.catalogue is None:
            return None
        questions = self.catalogue.questions
        if self._where is not None:
            questions = questions.among(ids)
        match order:
            case "success":
                return questions.by_success()
            case "name":
                return questions.by_name()
            case "alignment" if self.overview is not None:
                return questions.by_value(self.overview.mean_of_number(self.teacher, self.objective))
            case "worst" if self.overview is not None:
                return questions.by_value(self.overview.worst_of_number(self.teacher, self.objective))
            case _:
                return questions

    def score_of_question(self, question: QuestionFacts) -> Score | None:
        """Under the current teacher and objective."""
        if self.overview is None:
            return None
        return self.overview.question(question.number, self.teacher, self.objective)

    def score_of_rollout(self, rollout: RolloutFacts) -> Score | None:
        """Of the current question, under the current teacher and objective."""
        question = self.question
        if self.overview is None or question is None:
            return None
        return self.overview.rollout(question.number, rollout.index, self.teacher, self.objective)

    def narrow(self, where: Collection[tuple[str, int]] | None, *, all_scanned: bool = True) -> None:
        """Show only these questions and rollouts (-1: all of the question) in the lists; None: all.

        `all_scanned`: more of them may still come.
        """
        self._where, self._all_scanned = where, all_scanned
        self._matching = frozenset(question for question, _ in where or ())

    def match_of(self, question_id: str, rollout: int | None = None) -> Match:
        """Whether a question, or a rollout of it, is among what the lists show; "maybe" while more may still come."""
        where = self._where
        if where is None or (question_id in self._matching and (rollout is None or (question_id, NOWHERE) in where)):
            return "yes"
        if rollout is not None and (question_id, rollout) in where:
            return "yes"
        return "no" if self._all_scanned else "maybe"

    @property
    def is_narrowed(self) -> bool:
        """Whether the lists leave out what does not match."""
        return self._where is not None

    @property
    def matches_here(self) -> Match:
        """Whether the rollout that is wanted matches."""
        return "yes" if self.question_id is None else self.match_of(self.question_id, self.rollout)

    def shown_rollouts(self, question: QuestionFacts) -> Sequence[RolloutFacts]:
        """The rollouts that match."""
        return [rollout for rollout in question.rollouts if self.match_of(question.id, rollout.index) == "yes"]

    def listed_rollouts(self, question: QuestionFacts) -> Sequence[RolloutFacts]:
        """The list of rollouts: those that match, and the current one even if it does not."""
        return [
            rollout
            for rollout in question.rollouts
            if rollout.index == self.rollout or self.match_of(question.id, rollout.index) == "yes"
        ]

    def check(self, place: Place) -> None:
        """Raise ValueError, in one sentence, where a question has no such rollout or the rollout no such token."""
        question = self.catalogue.questions.get(place.question_id) if self.catalogue else None
        rollouts = question.rollouts if question else ()
        index = self.first_rollout(question) if place.rollout is None and question else place.rollout
        rollout = next((one for one in rollouts if one.index == index), None)
        if rollout is None and place.rollout is not None:
            raise ValueError(no_rollout(place, rollouts))
        if place.token is not None and rollout is not None and place.token >= rollout.n_tokens:
            raise ValueError(no_token(place, rollout))

    def first_rollout(self, question: QuestionFacts) -> int | None:
        """The rollout to begin with: one that matches and has nodes, if there is one."""
        shown = self.shown_rollouts(question) or question.rollouts
        first = min(shown, key=lambda rollout: (not rollout.n_nodes, rollout.index), default=None)
        return None if first is None else first.index

    def rollout_after(self, step: int) -> int | None:
        """Index of the rollout `step` places on in the list."""
        indices = [rollout.index for rollout in self.shown_rollouts(self.question)] if self.question else []
        if self.rollout is None:
            return None
        after = sum(index <= self.rollout for index in indices)
        place = after if step > 0 else after - 1 - (self.rollout in indices)
        return indices[place] if 0 <= place < len(indices) else None

    # the page

    def turn_to(self, page: RolloutPage, token: int | None) -> None:
        """Look at another page, at `token` or at its first node."""
        self.page = page
        self.question_id, self.rollout = page.question_id, page.index
        first = page.node_positions[0] if page.node_positions else 0
        self.token = min(max(first if token is None else token, 0), max(page.n_tokens - 1, 0))
        self.teacher = min(self.teacher, max(page.n_teachers - 1, 0))
        self.objective = min(self.objective, max(len(page.objectives) - 1, 0))
        self._changed()

    def leave(self) -> None:
        """There is no page to look at."""
        self.page, self.token = None, 0
        self._changed()

    def choose(
        self,
        *,
        metric: Metric | None = None,
        teacher: int | None = None,
        objective: int | None = None,
        second: int | None = None,
    ) -> None:
        """Colour by something else."""
        self.metric = metric or self.metric
        self.teacher = self.teacher if teacher is None else teacher
        self.objective = self.objective if objective is None else objective
        self._second = self._second if second is None else second
        self._chosen()

    def _chosen(self) -> None:
        self._colouring, self._walking_at, self._lines_at = None, None, None

    def _changed(self) -> None:
        self._sure = {}
        self._chosen()

    @property
    def n_teachers(self) -> int:
        """Teachers that the page knows."""
        return self.page.n_teachers if self.page else len(self.catalogue.teachers) if self.catalogue else 0

    @property
    def n_objectives(self) -> int:
        """Objectives of the study."""
        return len(self.catalogue.objectives) if self.catalogue else 0

    @property
    def teacher_label(self) -> Safe:
        """Name of the current teacher."""
        return self.label_of(self.teacher)

    def label_of(self, teacher: int) -> Safe:
        """Name of a teacher, as safe text."""
        teachers = self.catalogue.teachers if self.catalogue else ()
        return teachers[teacher].label if teacher < len(teachers) else Safe("")

    @property
    def second(self) -> int | None:
        """The teacher that the current one is held against: the one that was chosen, or the next. None: there is one only."""
        if self._second is not None and self._second != self.teacher and self._second < self.n_teachers:
            return self._second
        return (self.teacher + 1) % self.n_teachers if self.n_teachers > 1 else None

    @property
    def choice(self) -> Safe:
        """What the metric is about: teacher and objective, as far as it needs them."""
        if self.catalogue is None:
            return Safe("")
        objective = self.catalogue.objectives[self.objective] if self.objective < self.n_objectives else ""
        match self.metric.needs:
            case "nothing":
                return Safe("")
            case "teacher":
                return self.teacher_label
            case "objective":
                return Safe(f"{self.teacher_label} · {objective}")
            case "pair":
                second = self.label_of(self.second) if self.second is not None else Safe("no second teacher")
                return Safe(f"{self.teacher_label} − {second} · {objective}")
            case "all teachers":
                return Safe(objective)

    @property
    def support(self) -> str:
        """The support where it is not the study's own and the metric depends on it; else nothing."""
        depends = self.metric.needs in ("objective", "pair", "all teachers")
        return self.view.support if depends and self.view.support != OWN.support else ""

    @property
    def colouring(self) -> Colouring:
        """The metric at every token of the page."""
        if self.page is None:
            return NO_COLOURING
        if self._colouring is None:
            self._colouring = self.page.colouring(self.metric, self.teacher, self.objective, self.sure, self.second)
        return self._colouring

    @property
    def sure(self) -> Sure | None:
        """How sure the scores of the page's nodes are, under the current teacher and objective."""
        if self.page is None:
            return None
        chosen = self.teacher, self.objective
        if chosen not in self._sure:
            self._sure[chosen] = self.page.sure(*chosen, self.overview.prior if self.overview else None)
        return self._sure[chosen]

    @property
    def token_facts(self) -> TokenFacts | None:
        """The token under the cursor."""
        return self.page.token(self.token, self.teacher) if self.page and self.page.n_tokens else None

    @property
    def node_facts(self) -> NodeFacts | None:
        """The node before it, if there is one."""
        return self.page.node(self.token, self.teacher, self.objective, self.sure) if self.page and self.page.n_tokens else None

    def teacher_lines(self) -> Teachers:
        """Every teacher at this token, and over the study."""
        if self.page is None or self.catalogue is None:
            return (), ()
        at = self.token if self.token in self.page.row_of else None  # between nodes they are all the same
        if self._lines_at is None or self._lines_at[0] != at:
            lines = self.page.teacher_lines(self.catalogue.teachers, self.objective, self.token)
            means = (self.overview.mean(m, self.objective) if self.overview else None for m in range(len(lines)))
            self._lines_at = at, (lines, tuple(means))
        return self._lines_at[1]

    # where to go

    def node_after(self, step: int) -> int | None:
        """The next node, or the one before."""
        return next_of(self.page.node_positions, self.token, step) if self.page else None

    def worse(self, step: int) -> int | None:
        """Along the order from worst to best. The first step of a walk goes to its end, or on from there."""
        order = ranked(self.colouring, self.metric.worst_is_low)
        found = next_ranked(order, self._walking_at, step, self.token)
        self._walking_at = found if found is not None else self._walking_at
        return found

    def flip_after(self, step: int) -> int | None:
        """The next change of sign, or the one before."""
        return next_of(sign_flips(self.colouring), self.token, step) if self.metric.diverging else None

    def metric_after(self, step: int) -> Metric:
        """The next metric in the table."""
        return METRICS[(METRICS.index(self.metric) + step) % len(METRICS)]
