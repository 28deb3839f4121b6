"""The picture of Browse: which panes there are, and what stands in them for a session."""

from __future__ import annotations

from asyncio import sleep
from time import monotonic

from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget

from opd_tui.palette import Palette
from opd_tui.screens.guest import entitle
from opd_tui.session import Session
from opd_tui.text import Safe, cells, fit, fit_tail, safe
from opd_tui.widgets.lines import Lines, ink, span
from opd_tui.widgets.lists import ORDERS, QuestionList, RolloutList
from opd_tui.widgets.node import NodePane
from opd_tui.widgets.strips import Bar, Hint, Keys, Legend, TeacherStrip, Track
from opd_tui.widgets.tokens import NO_NOTE, NO_TEXT, TokenView
from store.words import counted

HINTS = (
    Hint("n/N", "node"), Hint("]", "worst"), Hint("[", "best"), Hint("m", "metric"), Hint("t", "teacher"), Hint("c", "compare"),
    Hint("g", "charts"), Hint("?", "help"), Hint("tab", "pane"), Hint("q", "quit"), Hint("/", "filter"), Hint("1-9", "objective"),
    Hint("r/R", "rollout"), Hint("w", "sign"), Hint("s", "sort"), Hint("f/F", "match"), Hint(":", "go to"), Hint("p", "prompt"),
    Hint("u", "marks"), Hint("v", "spaces"), Hint("i", "teachers"), Hint("o", "any objective"), Hint("S", "support"),
    Hint("b", "bookmark"), Hint("y/Y", "copy"), Hint("x", "export"),
)  # fmt: skip
#: Below so many columns the header has no room for everything.
LEAST_HEADER = 64
#: Seconds between two redraws of the large panes while a key is held down.
FOLLOW_EVERY = 0.12


class BrowseView(Screen[None]):
    """Panes around a session. Every `show_*` draws what may have changed at its level, and all levels below."""

    def __init__(self, session: Session, palette: Palette, opening: str) -> None:
        """`opening`: what stands in the header until the store is open."""
        super().__init__()
        self.session = session
        self.palette = palette
        self._opening = opening
        self.following: Timer | None = None  #: until node and teachers show the token under the cursor
        self._followed_at = 0.0
        self.held_back = False  #: whether the app keeps it from being shown
        self._unveiling = False
        self.header, self.keys = Bar(id="header"), Keys(id="keys")
        self.questions, self.rollouts = QuestionList(id="questions"), RolloutList(id="rollouts")
        self.legend, self.tokens, self.track = Legend(id="legend"), TokenView(self._token_moved, id="tokens"), Track(id="track")
        self.node, self.teachers = NodePane(id="node"), TeacherStrip(id="teachers")

    def _compositor_refresh(self) -> None:
        """Not before there is something to show: under `batch_update` Textual draws a new screen, and throws it away.

        Nor twice: where a layout is due and all is to be drawn anyhow, Textual draws all of it after the layout and once more.
        """
        if not (self.held_back or (self._layout_required and self._repaint_required)):
            super()._compositor_refresh()

    def unveil(self) -> None:
        """Show it, where it is held back, in steps between which keys get their turn.

        It is laid out twice, since the first time shows which bars it takes; its lines are made pane by pane; then it is painted.
        """
        if self.held_back and not self._unveiling:
            self._unveiling = True
            self.call_after_refresh(self.call_after_refresh, self._paint_first)

    async def _paint_first(self) -> None:
        for pane in self.query(Widget):
            pane.render_lines(pane.outer_size.region)  # which are kept
            await sleep(0)
        self.held_back = False
        self.refresh()

    def compose(self) -> ComposeResult:
        """Header, lists, tokens, node, teachers, keys: all there before the store is open."""
        yield self.header
        with Container(id="body"):
            with Vertical(id="lists"):
                yield self.questions
                yield self.rollouts
            with Vertical(id="middle"):
                yield self.legend
                yield self.tokens
                yield self.track
            yield self.node
        yield self.teachers
        yield self.keys

    def on_mount(self) -> None:
        """The picture before there is anything to show."""
        self.use(self.palette)
        for widget, title in (
            (self.questions, "questions"),
            (self.rollouts, "rollouts"),
            (self.node, "node"),
            (self.teachers, "teachers"),
        ):
            widget.border_title = title
        self.header.set([span(f" opening {safe(self._opening)} …", ink(self.palette.ink.dim))])
        self.tokens.focus()

    def use(self, palette: Palette) -> None:
        """Draw everything in another palette."""
        self.palette = palette
        for widget in self.query(Lines):
            widget.use(palette)
        self.keys.hints(HINTS)
        if self.session.catalogue is not None:
            self.show_header()
            self.show_page()

    @property
    def is_narrow(self) -> bool:
        """Whether the lists come over the tokens."""
        return self.has_class("-narrow")

    def say(self, sentence: str) -> None:
        """Tell something in the last line, until the next key."""
        self.keys.say(safe(sentence))

    def _token_moved(self, token: int) -> None:
        self.session.token = token
        self.show_token()

    def show_header(self) -> None:
        """What is in the store, how far it is, and which rollout is shown."""
        catalogue = self.session.catalogue
        if catalogue is None:
            return
        colours = self.palette.ink
        n = len(catalogue.questions)
        count, state = f"{n} of {catalogue.n_planned} questions", "complete" if catalogue.complete else "live ●"
        if catalogue.n_chosen:
            count, state = counted(n, "question"), f"a slice of {catalogue.n_planned}"
        here = [span(f" {self._page_title} ", ink(colours.accent))] if self.is_narrow else []
        if here and self.note:  # before the name of the store, which would leave it no room
            here.append(span(f"{fit(self.note, min(cells(self.note), 18))} ", ink(colours.text)))
        title = [span(f" {catalogue.title} ", ink(colours.text, bold=True))]
        left = [
            *(here + title if self.note else title + here),
            span(f" {catalogue.student}", ink(colours.dim)),
            span(f" · {len(catalogue.teachers)} teachers", ink(colours.dim)),
            span(f" · {len(catalogue.objectives)} objectives", ink(colours.dim)),
        ]
        right = [span(f"{count}  ", ink(colours.dim)), span(f"{state} ", ink(colours.accent))]
        if self.size.width < LEAST_HEADER:  # where one is comes before how far the study is
            left, right = [*here, *title], right[1:]
        self.header.set(left, right)
        entitle(self.query_one("#middle"), self._page_title, self.note)

    @property
    def note(self) -> Safe:
        """The filter, in a few words."""
        return NO_NOTE

    def show_lists(self) -> None:
        """Both lists, their cursors where the session is."""
        session = self.session
        matching = session.questions_by(self.questions.order)
        listed = session.listed_questions(self.questions.order) if session.is_narrowed else matching
        if matching is None or listed is None or session.catalogue is None:
            return
        n = len(session.catalogue.questions)
        self.questions.show(listed, session.score_of_question, self.questions.order, session.question_id, session.match_of)
        order = f"by {self.questions.order}" if self.questions.order != ORDERS[0] else ""
        entitle(self.questions, Safe(f"questions {len(matching)}{f' of {n}' if len(matching) < n else ''}"), Safe(order))
        self.show_rollouts()

    def point_lists(self) -> None:
        """The session went to another question or rollout: the cursors of the lists go there."""
        if self.session.is_narrowed:
            self.show_lists()  # the current one stands in them whether or not it matches
        else:
            if self.session.question_id is not None:
                self.questions.point(self.session.question_id)
            self.show_rollouts()

    def show_rollouts(self) -> None:
        """The rollouts of the current question."""
        session, question = self.session, self.session.question
        if question is not None:
            n_matching, n = len(session.shown_rollouts(question)), len(question.rollouts)
            self.rollouts.show(session.listed_rollouts(question), session.score_of_rollout, session.rollout, session.matches_here)
            some = f"{n_matching} of {n} " if n_matching < n else ""
            entitle(self.rollouts, Safe(f"{some}rollouts of {fit_tail(question.label, 10).strip()}"))

    def show_page(self, note: Safe = NO_NOTE) -> None:
        """Another page: everything but the list of questions. `note`: why there is none."""
        session, page = self.session, self.session.page
        asked = page.question if page else ()
        self.node.expect(session.n_objectives, page.most_children if page else 0, page.n_candidates if page else 0)
        self.tokens.show(page.flow if page else NO_TEXT, session.colouring, session.token, asked, note or self._why_nothing)
        self.show_rollouts()
        self.show_header()
        self.show_colours()

    @property
    def _why_nothing(self) -> Safe:
        """Why there are no scores, or no tokens at all."""
        question, page = self.session.question, self.session.page
        if question is not None and question.left_out:
            return Safe(question.left_out)
        if question is not None and not question.rollouts:
            return Safe("no rollout of this question was kept")
        if page is not None and not page.node_positions:
            return Safe("this rollout is no representative path: it has no nodes")
        return NO_NOTE

    @property
    def _page_title(self) -> Safe:
        question, page = self.session.question, self.session.page
        if question is None:
            return Safe("")
        rollout = next((one for one in question.rollouts if page is not None and one.index == page.index), None)
        if rollout is None:
            return question.label
        cut_off = ", cut off" if rollout.truncated else ""
        if self.is_narrow:
            return Safe(f"{fit_tail(question.label, 20).strip()}/{rollout.index} {'✓' if rollout.correct else '✗'}{cut_off}")
        return Safe(f"{question.label} rollout {rollout.index} {'✓ correct' if rollout.correct else '✗ incorrect'}{cut_off}")

    def show_colours(self) -> None:
        """Another metric, teacher or objective."""
        session = self.session
        self.tokens.colour(session.colouring)
        n_nodes = len(session.page.node_positions) if session.page else 0
        self.track.track(session.colouring, session.metric.worst_is_low, n_nodes, session.token)
        self.show_token()

    def show_token(self) -> None:
        """Another token."""
        session = self.session
        self.legend.legend(session, session.colouring, session.token)
        self.track.point(session.token)
        self.follow()

    def follow(self) -> None:
        """Let node and teachers follow the cursor: at once, or as soon as a key that is held down allows."""
        if self.following is None:
            wait = self._followed_at + FOLLOW_EVERY - monotonic()
            if wait <= 0:
                self._catch_up()
            else:
                self.following = self.set_timer(wait, self._catch_up)

    def _catch_up(self) -> None:
        session = self.session
        self.following, self._followed_at = None, monotonic() if session.page else 0.0
        self.node.show_token(session.token_facts, session.node_facts, session.teacher_label, session.objective)
        self.show_teachers()

    def show_teachers(self) -> None:
        """The teachers at this token."""
        note = self.session.overview.note if self.session.overview else ""
        entitle(self.teachers, Safe("teachers"), Safe(note))
        self.teachers.teachers(*self.session.teacher_lines(), self.session.teacher)
