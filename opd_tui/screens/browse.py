"""Browse: the lists, the tokens, the node, the teachers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.widget import Widget

from opd_tui.colouring import NO_COLOURING
from opd_tui.imports import keep_what_is_there
from opd_tui.loader import (
    COPY,
    EXPORT,
    LOOK,
    POLL,
    SURVEY,
    Answer,
    Failed,
    Loaded,
    Loader,
    Looked,
    Opened,
    Polled,
    Surveyed,
    Texts,
)
from opd_tui.metrics import BY_KEY, METRICS, Metric
from opd_tui.palette import Palette
from opd_tui.place import Place, first_place
from opd_tui.screens.actions import BrowseActions
from opd_tui.screens.browse_view import HINTS
from opd_tui.screens.groups import COLOUR, MOVE, READ
from opd_tui.session import Session
from opd_tui.settings import DEFAULTS, Settings
from opd_tui.text import Safe, safe
from opd_tui.view import View
from opd_tui.walk import end_of_ranking
from opd_tui.widgets.lists import ORDERS, QuestionList, RolloutList
from opd_tui.widgets.node import NodePane
from opd_tui.widgets.strips import TeacherStrip, Track
from opd_tui.widgets.tokens import NO_NOTE, NO_TEXT

if TYPE_CHECKING:
    from opd_tui.facts import Catalogue
    from opd_tui.overview import Overview
    from opd_tui.pages import RolloutPage

#: Seconds until the store is looked at again: at first, and at most while nothing is new.
FIRST_LOOK, LAST_LOOK, BACK_OFF = 1.0, 20.0, 1.6
#: Seconds from the first page to the scoring of the study, which would be in the way of whoever draws that page.
SURVEY_AFTER = 0.25

NO_QUESTION = Safe("no question is finished yet: this fills as the study is computed")


class Browse(BrowseActions):
    """One store, from the list of questions down to the children of a node."""

    CSS_PATH = "../app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "node(1)", "next node", group=MOVE),
        Binding("N", "node(-1)", "previous node", group=MOVE),
        Binding("right_square_bracket", "worse(1)", "next worst", group=MOVE),
        Binding("left_square_bracket", "worse(-1)", "next best", group=MOVE),
        Binding("w", "flip(1)", "next change of sign", group=MOVE),
        Binding("W", "flip(-1)", "previous change of sign", group=MOVE),
        Binding("m", "metric(1)", "next metric", group=COLOUR),
        Binding("M", "metric(-1)", "previous metric", group=COLOUR),
        Binding("t", "teacher(1)", "next teacher", group=COLOUR),
        Binding("T", "teacher(-1)", "previous teacher", group=COLOUR),
        *(Binding(str(number), f"objective({number - 1})", f"objective {number}", group=COLOUR) for number in range(1, 10)),
        Binding("r", "rollout(1)", "next rollout", group=MOVE),
        Binding("R", "rollout(-1)", "previous rollout", group=MOVE),
        Binding("c", "compare", "compare with another rollout", group=READ),
        Binding("g", "charts", "charts of the whole study", group=READ),
        Binding("s", "sort", "sort questions", group=READ),
        Binding("u", "marks", "marks under tokens", group=COLOUR),
        Binding("v", "whitespace", "glyphs for whitespace", group=COLOUR),
        Binding("p", "prompts", "read the prompts", group=READ),
        Binding("L", "lists", "open or close the lists", group=MOVE),
        Binding("tab", "pane(1)", "next pane", group=MOVE),
        Binding("shift+tab", "pane(-1)", "previous pane", group=MOVE),
        Binding("question_mark", "help", "help", group=READ),
        Binding("escape", "back", "back", group=READ),
        Binding("q", "app.quit", "quit", group=READ),
    ]

    def __init__(
        self,
        loader: Loader,
        palette: Palette,
        at: str | None,
        teacher: str | None,
        metric: Metric | None,
        settings: Settings = DEFAULTS,
    ) -> None:
        """Where to begin, as the command line says; else as it was left, or as the settings say."""
        super().__init__(Session(metric or BY_KEY[settings.metric]), palette, loader, settings)
        self._metric_is_asked_for = metric is not None
        self._at = at
        self._wanted_teacher = teacher
        self._wanted_token: int | None = None
        self._request = self._answered = 0  #: numbers of the page that is awaited, and of the one that is there
        self._look_after = FIRST_LOOK
        self._surveying = self._survey_again = self._scored_once = False

    @property
    def settled(self) -> bool:
        """Whether everything that was asked for is there. For pictures and tests."""
        arrived = self.session.catalogue is not None and self._answered == self._request
        return arrived and not self._surveying and self.looking is None and self.following is None

    @property
    def shows_something(self) -> bool:
        """Whether the first page that was asked for is there, or there is none to ask for."""
        return self._answered == self._request

    # answers of the loader

    def receive(self, answer: Answer) -> None:
        """Take in what the loader found. Pages that nobody waits for any more are dropped."""
        if self.found(answer):
            return
        match answer:
            case Opened(catalogue, kept, view):
                self.session.view = view
                self.session.take(catalogue)
                self.settle_in(kept, metric_is_asked_for=self._metric_is_asked_for)
                self._at = self._at or (kept.at(catalogue.questions.ids) if kept else None)
                self._take(catalogue)
                self._begin()
                self._look_later()
            case Polled(catalogue):
                self._look_after = FIRST_LOOK if catalogue else min(self._look_after * BACK_OFF, LAST_LOOK)
                if catalogue is not None:
                    self._grow(catalogue)
                self._look_later()
            case Loaded(request, page) if request == self._request:
                self._answered = request
                self.session.turn_to(page, self._wanted_token)
                self._wanted_token = None
                self.show_page()
                if self.session.overview is None and not self._surveying:
                    self._surveying = True
                    self.set_timer(SURVEY_AFTER, self.loader.survey)
            case Surveyed(overview):
                self._take_scores(overview)
            case Texts(request, title, passages) if request == self._request:
                from opd_tui.screens.reader import Reader

                self.app.push_screen(Reader(title, self.palette, passages))
            case Looked(view, catalogue, page):
                self._take_view(view, catalogue, page)
            case Failed(request, sentence):
                self._failed(request, sentence)
            case _:
                self.receive_beside(answer)

    def _failed(self, request: int, sentence: str) -> None:
        """Say it, and go on as well as can be. Of pages that nobody waits for nothing is said."""
        if request not in (POLL, SURVEY, LOOK, COPY, EXPORT, self._request):
            return
        if request == LOOK:
            self.look_refused(sentence)
            return
        self.say(sentence)
        if request == POLL:
            self._look_after = LAST_LOOK
            self._look_later()
        elif request == SURVEY:
            self._surveying = False
        elif request == EXPORT:
            self.take_export(sentence)
        elif request == self._request != self._answered:
            self._answered = request
            self.session.leave()
            self.show_page(safe(sentence))

    def _take(self, catalogue: Catalogue) -> None:
        self.session.take(catalogue)
        self.show_header()
        self.show_lists()

    def _take_scores(self, overview: Overview) -> None:
        """The study is scored, or more of it than before. What was scored under another view is of no use any more."""
        if overview.view != self.session.view:
            self._survey_again = True
            self._surveying = not overview.complete
            if overview.complete:
                self._survey()
            return
        self.session.survey(overview)
        self.show_lists()
        if overview.complete:
            self._surveying = False
            if not self._scored_once:
                self._scored_once = True
                keep_what_is_there()
            self.show_colours()
            if self._survey_again:
                self._survey()
        self.show_teachers()

    def _take_view(self, view: View, catalogue: Catalogue, page: RolloutPage | None) -> None:
        """Everything is scored under another view: an objective that was added to it is the current one."""
        self.looking = None
        session = self.session
        added = view.objectives != session.view.objectives
        session.look(view, catalogue, len(catalogue.spellings) - 1 if added else session.objective)
        if page is not None and self._answered == self._request:
            session.turn_to(page, session.token)
        else:
            session.leave()  # another page is on its way
        self._take(catalogue)
        self.show_page()
        self._survey()

    def _begin(self) -> None:
        """Go to the place that was asked for, or to the first question that was scored."""
        catalogue = self.session.catalogue
        if catalogue is None:
            return
        ids = [teacher.id for teacher in catalogue.teachers]
        if self._wanted_teacher in ids:
            self.session.teacher = ids.index(self._wanted_teacher)
        elif self._wanted_teacher is not None:
            self.say(f"there is no teacher {self._wanted_teacher!r} in this store; it has {', '.join(ids)}")
        if not catalogue.questions:
            self.tokens.show(NO_TEXT, NO_COLOURING, 0, note=NO_QUESTION)
            return
        place, missing = first_place(catalogue.questions, self._at)
        if missing:
            self.say(missing)
        assert place is not None  # there is a question
        self.go(place)

    def _grow(self, catalogue: Catalogue) -> None:
        """The store has grown: the lists get longer, the cursor stays."""
        before = self.session.catalogue
        self._take(catalogue)
        if before is None or not before.questions:
            self._begin()
        elif len(before.teachers) != len(catalogue.teachers) and self.session.rollout is not None:
            self.open(self.session.rollout, self.session.token)
        self._survey()
        self.renew_filter()

    def _look_later(self) -> None:
        self.set_timer(self._look_after, self.loader.poll)

    def _survey(self) -> None:
        """Have the whole study scored, once at a time."""
        self._survey_again = self._surveying
        if not self._surveying:
            self._surveying = True
            self.loader.survey()

    # going somewhere

    def go(self, place: Place) -> None:
        """To a question, and a rollout and token of it where they are named."""
        self.session.question_id = place.question_id
        question = self.session.question
        if question is None:
            return
        index = self.session.first_rollout(question) if place.rollout is None else place.rollout
        self.session.rollout = index
        self.point_lists()
        if index is None:
            self._request = self._answered = 0
            self.session.leave()
            self.show_page()
        else:
            self.open(index, place.token)

    def open(self, index: int, token: int | None = None) -> None:
        """Another rollout of the same question."""
        if self.session.question_id is None:
            return
        self.session.rollout = index
        self._wanted_token = token
        self._request = self.loader.rollout(self.session.question_id, index, self.tokens.text_width)

    # what widgets say

    @on(Track.Pointed)
    def _track_pointed(self, message: Track.Pointed) -> None:
        self.tokens.move(message.token)

    @on(QuestionList.Moved, "#questions")
    def _question_moved(self, message: QuestionList.Moved | QuestionList.Opened) -> None:
        if self.questions.questions is not None:
            self.go(Place(self.questions.questions[message.row].id))

    @on(RolloutList.Moved, "#rollouts")
    def _rollout_moved(self, message: RolloutList.Moved | RolloutList.Opened) -> None:
        self.open(self.rollouts.rollouts[message.row].index)

    @on(QuestionList.Opened)
    def _row_opened(self, message: QuestionList.Opened) -> None:
        """Where the list was narrowed, its cursor may stand on a row without having moved there."""
        questions, rollouts = self.questions.questions, self.rollouts.rollouts
        if message.rows is self.questions and questions is not None:
            if questions[message.row].id != self.session.question_id:
                self._question_moved(message)
        elif message.rows is self.rollouts and rollouts[message.row].index != self.session.rollout:
            self._rollout_moved(message)
        self._enter(self.tokens)

    @on(TeacherStrip.Chosen)
    def _teacher_chosen(self, message: TeacherStrip.Chosen) -> None:
        self.action_teacher(message.by)

    @on(NodePane.Chosen)
    def _child_chosen(self, message: NodePane.Chosen) -> None:
        if self.session.question_id is not None:
            self.loader.completions(self._request, self.session.question_id, message.node, message.token_id)

    def heard(self) -> None:
        """A key was pressed: what was said has been read."""
        if self.keys.sentence is not None:
            self.keys.hints(HINTS)

    def on_resize(self) -> None:
        """What depends on the width is made anew."""
        self.call_after_refresh(self.show_header)
        self.call_after_refresh(self.show_token)

    # keys

    def _move(self, token: int | None, nothing: str) -> None:
        if token is None:
            self.say(nothing)
        else:
            self.tokens.move(token)

    def action_node(self, step: int) -> None:
        """To the next node."""
        self._move(self.session.node_after(step), "no node further on" if step > 0 else "no node before")

    def action_worse(self, step: int) -> None:
        """Along the ranking of the metric."""
        noun = "node" if self.session.metric.at_nodes else "token"
        self._move(self.session.worse(step), end_of_ranking(self.session.colouring, step, noun))

    def action_flip(self, step: int) -> None:
        """To the next change of sign."""
        signed = self.session.metric.diverging
        self._move(
            self.session.flip_after(step), "no change of sign there" if signed else f"{self.session.metric.label} has no sign"
        )

    def action_metric(self, step: int) -> None:
        """Colour by the next metric."""
        self.colour_by(self.session.metric_after(step))

    def colour_by(self, metric: Metric) -> None:
        """Colour by this metric."""
        self.session.choose(metric=metric)
        self.show_colours()

    def action_teacher(self, step: int) -> None:
        """The next teacher."""
        if self.session.n_teachers:
            self.session.choose(teacher=(self.session.teacher + step) % self.session.n_teachers)
            self.show_colours()
            self.show_lists()

    def action_objective(self, objective: int) -> None:
        """This objective."""
        if objective < self.session.n_objectives:
            self.session.choose(objective=objective)
            self.show_colours()
            self.show_lists()
        else:
            self.say(f"there is no objective {objective + 1}: this study has {self.session.n_objectives}")

    def show_page(self, note: Safe = NO_NOTE) -> None:
        """Another page, with its bookmarks."""
        super().show_page(note)
        self.show_bookmarks()

    def action_rollout(self, step: int) -> None:
        """The next rollout of the question."""
        index = self.session.rollout_after(step)
        if index is None:
            further = "no further rollout of this question"
            self.say(f"{further} matches: f and F go to matches" if self.session.is_narrowed else further)
        else:
            self.open(index)

    def action_sort(self) -> None:
        """The next order of the questions."""
        self.questions.order = ORDERS[(ORDERS.index(self.questions.order) + 1) % len(ORDERS)]
        self.show_lists()

    def action_marks(self) -> None:
        """Marks on or off."""
        self.tokens.set_marks(not self.tokens.marks)

    def action_whitespace(self) -> None:
        """Glyphs for whitespace on or off."""
        self.tokens.set_whitespace(not self.tokens.whitespace)

    def action_prompts(self) -> None:
        """Read what was asked."""
        if self.session.question_id is not None:
            self.loader.prompts(self._request, self.session.question_id, self.session.teacher)

    def action_compare(self) -> None:
        """This rollout beside the nearest one of opposite outcome."""
        question, page = self.session.question, self.session.page
        if question is None or page is None:
            self.say("there is no rollout here to compare")
        elif len(question.rollouts) < 2:
            self.say("this question has one rollout only: there is nothing to compare it with")
        else:
            from opd_tui.screens.compare import Compare

            self.app.push_screen(Compare(self.loader, self.palette, self.session), self._come_back)

    def action_charts(self) -> None:
        """The whole study on plots."""
        if self.session.catalogue is not None:
            from opd_tui.screens.charts import Charts

            self.app.push_screen(Charts(self.loader, self.palette, self.session), self._come_back)

    def _come_back(self, place: Place | None) -> None:
        """From Compare or Charts: their teacher, metric and objective stay; `place` is where to go."""
        self.show_lists()
        self.show_colours()
        if place is not None:
            self.go(place)

    def action_help(self) -> None:
        """All keys."""
        from opd_tui.screens.help import help_of

        panes = (self.tokens, self.node, self.teachers, self.questions, self.rollouts)
        self.app.push_screen(help_of(self.app, self, panes, self.palette))

    # panes

    def action_lists(self) -> None:
        """Open or close the lists, where they are not always there."""
        self._enter(self.tokens if self.questions.has_focus or self.rollouts.has_focus else self.questions)

    def action_pane(self, step: int) -> None:
        """The next pane."""
        panes: tuple[Widget, ...] = (self.tokens, self.node, self.teachers, self.questions, self.rollouts)
        place = panes.index(self.focused) if self.focused in panes else 0
        self._enter(panes[(place + step) % len(panes)])

    def _enter(self, pane: Widget) -> None:
        self.query_one("#lists").set_class(pane in (self.questions, self.rollouts), "-open")
        self.set_class(pane is self.node, "-at-node")
        self.set_class(pane is self.teachers, "-at-teachers")
        if pane.display:
            self.set_focus(pane)  # now: the next key may be waiting already
        else:  # in few lines it comes now, in place of others
            self.call_after_refresh(pane.focus)

    def action_back(self) -> None:
        """To the tokens; from there, the filter goes."""
        if self.focused is self.tokens:
            self.leave_filter()
        self._enter(self.tokens)

    def commands(self) -> Iterable[SystemCommand]:
        """What the command palette offers."""
        for _, binding in self._bindings:
            if not binding.action.startswith("objective("):
                yield SystemCommand(
                    binding.description, f"key {binding.key}", lambda action=binding.action: self.run_action(action)
                )
        for metric in METRICS:
            yield SystemCommand(f"colour by {metric.label}", metric.meaning, lambda metric=metric: self.colour_by(metric))
