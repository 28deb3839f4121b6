"""Compare: two rollouts of one question beside each other, and where they part."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical

from opd_tui.loader import COMPARE, Answer, Compared, Failed, Loader, Surveyed
from opd_tui.pairing import Fork
from opd_tui.palette import Palette
from opd_tui.screens.groups import COLOUR, MOVE, READ
from opd_tui.screens.guest import Guest, entitle
from opd_tui.session import Session
from opd_tui.side_by_side import LEFT, RIGHT, SideBySide
from opd_tui.text import Safe, fit_tail, safe
from opd_tui.walk import end_of_ranking
from opd_tui.widgets.lines import ink, span
from opd_tui.widgets.sides import ForkPane, Here, SideTokens
from opd_tui.widgets.strips import Hint, Legend, Track
from store.words import counted

SIDES = (LEFT, RIGHT)
HINTS = (
    Hint("tab", "side"), Hint("r/R", "right"), Hint("e/E", "left"), Hint("L", "lock"), Hint("f", "fork"),
    Hint("enter", "open"), Hint("esc", "back"), Hint("?", "help"), Hint("o", "opposite"), Hint("m", "metric"),
    Hint("t", "teacher"), Hint("1-9", "objective"), Hint("n/N", "node"), Hint("]", "worst"), Hint("[", "best"), Hint("w", "sign"),
)  # fmt: skip


class Compare(Guest):
    """The current rollout on the left; on the right the nearest one of opposite outcome, or any other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,shift+tab", "side", "the other side", group=MOVE),
        Binding("r", "other(1, 1)", "next rollout on the right", group=READ),
        Binding("R", "other(1, -1)", "previous rollout on the right", group=READ),
        Binding("e", "other(0, 1)", "next rollout on the left", group=READ),
        Binding("E", "other(0, -1)", "previous rollout on the left", group=READ),
        Binding("o", "opposite", "nearest rollout of opposite outcome on the right", group=READ),
        Binding("L", "lock", "how both sides move together", group=MOVE),
        Binding("f", "fork", "to the fork", group=MOVE),
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
        Binding("u", "marks", "marks under tokens", group=COLOUR),
        Binding("v", "whitespace", "glyphs for whitespace", group=COLOUR),
        Binding("enter", "open", "open this place in Browse", group=READ),
    ]

    def __init__(self, loader: Loader, palette: Palette, session: Session) -> None:
        super().__init__(loader, palette, session)
        self.two = SideBySide(session)
        self._asked: tuple[str, int, int | None] | None = None  #: question, left and right rollout that are awaited
        self._begin_at: int | None = session.token  #: where one stood in Browse, until that is shown
        self.legend = Legend(id="legend")
        self.sides = (
            SideTokens(partial(self._moved, LEFT), id="left-tokens"),
            SideTokens(partial(self._moved, RIGHT), id="right-tokens"),
        )
        self.heres = (Here(id="left-here"), Here(id="right-here"))
        self.tracks = (Track(id="left-track"), Track(id="right-track"))
        self.boxes = (Vertical(id="left", classes="side"), Vertical(id="right", classes="side"))
        self.fork = ForkPane(id="fork")

    def compose(self) -> ComposeResult:
        """Header, legend, both sides, the fork, keys."""
        yield self.header
        yield self.legend
        with Container(id="sides"):
            for side in SIDES:
                with self.boxes[side]:
                    yield self.sides[side]
                    yield self.heres[side]
                    yield self.tracks[side]
        yield self.fork
        yield self.keys

    def on_mount(self) -> None:
        """Ask for the default pair."""
        super().on_mount()
        self.header.set([span(" comparing …", ink(self.palette.ink.dim))])
        entitle(self.fork, Safe("fork"))
        self.sides[LEFT].focus()
        page = self.session.page
        if page is not None:
            self._asked = page.question_id, page.index, None
            self.call_after_refresh(self._ask, *self._asked)  # columns are as wide as the panes, which have no width before

    @property
    def hints(self) -> Sequence[Hint]:
        """The keys that matter here."""
        return HINTS

    @property
    def settled(self) -> bool:
        """Whether the pair that was asked for is there."""
        return self._asked is None

    def _ask(self, question_id: str, left: int, right: int | None) -> None:
        self._asked = question_id, left, right
        self.loader.compare(question_id, left, right)

    def receive(self, answer: Answer) -> None:
        """A pair, or how sure signs are."""
        match answer:
            case Compared(both):
                pair = both.left.question_id, both.left.index, both.right.index
                if self._asked in (pair, (*pair[:2], None)):
                    by_default = self._asked == (*pair[:2], None)
                    self._asked = None
                    self.two.show(both, self._begin_at)
                    self._begin_at = None
                    self.draw()
                    if by_default and not both.opposite:
                        self.say("no rollout of opposite outcome here: this is the nearest other one")
            case Failed(request, sentence) if request == COMPARE:
                self._asked = None
                self.say(sentence)
            case Surveyed():
                self.two.surveyed()
                self.draw_colours()

    # drawing

    def draw(self) -> None:
        """Another pair."""
        both = self.two.both
        if both is None:
            return
        for side in SIDES:
            page = self.two.page(side)
            assert page is not None
            self.sides[side].part_at(both.n_shared)
            asked = () if self.has_class("-narrow") else page.question
            self.sides[side].show(page.flow, self.two.colouring(side), self.two.cursors[side], asked)
            outcome = "✓ correct" if page.rollout.correct else "✗ incorrect"
            entitle(self.boxes[side], Safe(f"rollout {page.index} {outcome} {page.n_tokens} tokens"))
        self.draw_header()
        self.draw_colours()

    def draw_header(self) -> None:
        """What is compared, and how it is locked."""
        both, colours = self.two.both, self.palette.ink
        if both is None:
            return
        name = fit_tail(safe(both.left.question_id), 24).strip()
        left = [
            span(" compare ", ink(colours.text, bold=True)),
            span(f" {name} ", ink(colours.accent)),
            span(f" {both.left.index} {'✓' if both.left.rollout.correct else '✗'} | ", ink(colours.dim)),
            span(f"{both.right.index} {'✓' if both.right.rollout.correct else '✗'} ", ink(colours.dim)),
            span(f" {counted(both.n_shared, 'token')} shared", ink(colours.dim)),
        ]
        self.header.set(left, [span("lock ", ink(colours.dim)), span(f"{self.two.lock.value} ", ink(colours.accent))])

    def draw_colours(self) -> None:
        """Another metric, teacher or objective."""
        two, both = self.two, self.two.both
        if both is None:
            return
        for side in SIDES:
            page, colouring = two.page(side), two.colouring(side)
            assert page is not None
            self.sides[side].colour(colouring)
            self.tracks[side].track(colouring, self.session.metric.worst_is_low, len(page.node_positions), two.cursors[side])
        fork, catalogue = two.fork, self.session.catalogue
        entitle(self.fork, self._fork_title(fork))
        teachers = catalogue.teachers if catalogue else ()
        self.fork.fork(fork, (both.left.rollout.correct, both.right.rollout.correct), teachers, self.session.teacher)
        self.draw_cursors()

    def _fork_title(self, fork: Fork | None) -> Safe:
        if fork is None:
            return Safe("no fork")
        catalogue, objective = self.session.catalogue, self.session.objective
        objectives = catalogue.objectives if catalogue else ()
        node = f"node {fork.number}" if fork.number is not None else "no node here, so no estimate"
        reason = f", no decision point: {fork.reason}" if fork.reason else ""
        title = f"fork at token {fork.position} · {node}{reason}"
        return Safe(f"{title} · {objectives[objective]}" if objective < len(objectives) and not reason else title)

    def draw_cursors(self) -> None:
        """Another token on either side."""
        two = self.two
        for side in SIDES:
            self.heres[side].here(two.page(side), two.cursors[side], two.colouring(side), self.session.metric, side == two.active)
            self.tracks[side].point(two.cursors[side])
        self.legend.legend(self.session, two.colouring(two.active), two.cursors[two.active])

    def on_resize(self) -> None:
        """What depends on the width is made anew."""
        self.call_after_refresh(self.draw_header)
        self.call_after_refresh(self.draw_colours)

    # moving

    def _moved(self, side: int, token: int) -> None:
        self.two.turn(side)
        self._bring_along(token)
        self.draw_cursors()

    def _bring_along(self, token: int) -> None:
        """The active side goes to `token`; the other one comes along, its cursor on the same line of the window."""
        there = self.two.move(token)
        if there is not None:
            self.sides[1 - self.two.active].move(there, tell=False)
            self.call_after_refresh(self._level)

    def _level(self) -> None:
        self.sides[1 - self.two.active].put_cursor_on_row(self.sides[self.two.active].cursor_row)

    @on(Track.Pointed)
    def _pointed(self, message: Track.Pointed) -> None:
        for side in SIDES:
            if message.track is self.tracks[side]:
                self.sides[side].move(message.token)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The side that has the focus gets the keys."""
        if event.widget in self.sides:
            self.two.turn(RIGHT if event.widget is self.sides[RIGHT] else LEFT)
            self.draw_cursors()

    def _move(self, token: int | None, nothing: str) -> None:
        if token is None:
            self.say(nothing)
        else:
            self.sides[self.two.active].move(token)

    # keys

    def action_side(self) -> None:
        """The keys go to the other side."""
        self.set_focus(self.sides[1 - self.two.active])

    def action_lock(self) -> None:
        """The next way of moving together; the other side comes along at once."""
        self.two.lock = self.two.lock.next
        self._bring_along(self.two.cursors[self.two.active])
        self.draw_header()
        self.draw_cursors()

    def action_fork(self) -> None:
        """Both cursors to where the two part."""
        if self.two.both is None:
            return
        self.two.to_fork()
        for side in SIDES:
            self.sides[side].move(self.two.cursors[side], tell=False)
        self.draw_cursors()

    def action_other(self, side: int, step: int) -> None:
        """Another rollout on one side."""
        both = self.two.both
        if both is None:
            return
        question_id, left, right = self._asked or (both.left.question_id, both.left.index, both.right.index)
        pair = left, both.right.index if right is None else right
        index = self.two.other_rollout(pair, side, step)
        if index is None:
            self.say("this question has no third rollout")
        else:
            self._ask(question_id, *((pair[LEFT], index) if side == RIGHT else (index, pair[RIGHT])))

    def action_opposite(self) -> None:
        """The default again: the nearest rollout of opposite outcome on the right."""
        if self.two.both is not None:
            self._ask(self.two.both.left.question_id, self.two.both.left.index, None)

    def action_node(self, step: int) -> None:
        """To the next node of this side."""
        self._move(self.two.node_after(step), "no node further on" if step > 0 else "no node before")

    def action_worse(self, step: int) -> None:
        """Along the ranking of the metric on this side."""
        noun = "node" if self.session.metric.at_nodes else "token"
        self._move(self.two.worse(step), end_of_ranking(self.two.colouring(self.two.active), step, noun))

    def action_flip(self, step: int) -> None:
        """To the next change of sign on this side."""
        metric = self.session.metric
        self._move(self.two.flip_after(step), "no change of sign there" if metric.diverging else f"{metric.label} has no sign")

    def action_metric(self, step: int) -> None:
        """Colour by the next metric."""
        self.two.choose(metric_step=step)
        self.draw_colours()

    def action_teacher(self, step: int) -> None:
        """The next teacher."""
        if self.two.n_teachers:
            self.two.choose(teacher=(self.session.teacher + step) % self.two.n_teachers)
            self.draw_colours()

    def action_objective(self, objective: int) -> None:
        """This objective."""
        if objective < self.session.n_objectives:
            self.two.choose(objective=objective)
            self.draw_colours()
        else:
            self.say(f"there is no objective {objective + 1}: this study has {self.session.n_objectives}")

    def action_marks(self) -> None:
        """Marks on or off."""
        on = not self.sides[LEFT].marks
        for side in self.sides:
            side.set_marks(on)

    def action_whitespace(self) -> None:
        """Glyphs for whitespace on or off."""
        on = not self.sides[LEFT].whitespace
        for side in self.sides:
            side.set_whitespace(on)

    def action_open(self) -> None:
        """To this place in Browse."""
        self.dismiss(self.two.place)
