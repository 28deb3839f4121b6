"""Charts: the whole study on plots. Every mark opens the nodes behind it, and every node its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical

from opd_tui.charts import Chart, Mark, Study
from opd_tui.loader import CHARTS, Answer, Charted, Failed, Loader, Surveyed
from opd_tui.metrics import METRICS
from opd_tui.numbers import count, signed, signed_interval
from opd_tui.palette import Palette
from opd_tui.place import Place
from opd_tui.screens.groups import COLOUR, READ
from opd_tui.screens.guest import Guest, entitle
from opd_tui.session import Session
from opd_tui.text import Safe, fold, safe
from opd_tui.widgets.charted import MarkList, Matrix, NodeList
from opd_tui.widgets.lines import Panel, ink, span
from opd_tui.widgets.plot import Plot, draw
from opd_tui.widgets.rows import RowList
from opd_tui.widgets.strips import Hint

HINTS = (
    Hint("g/G", "chart"), Hint("↑↓", "mark"), Hint("enter", "nodes behind it"), Hint("esc", "back"), Hint("t/T", "teacher"),
    Hint("1-9", "objective"), Hint("?", "help"), Hint("q", "quit"),
)  # fmt: skip
NODE_HINTS = (
    Hint("↑↓", "node"), Hint("enter", "open its tokens"), Hint("esc", "back to the marks"), Hint("?", "help"), Hint("q", "quit"),
)  # fmt: skip
#: Charts whose places along the axis are numbers of the list.
NUMBERED = (Chart.OUTCOME, Chart.NULLS)
#: Charts of one teacher.
OF_ONE = (Chart.DEPTH, Chart.DIFFICULTY)


class Charts(Guest):
    """One chart at a time, with the list of its marks."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g,tab,right", "chart(1)", "next chart", group=READ),
        Binding("G,shift+tab,left", "chart(-1)", "previous chart", group=READ),
        Binding("t", "teacher(1)", "next teacher", group=COLOUR),
        Binding("T", "teacher(-1)", "previous teacher", group=COLOUR),
        *(Binding(str(number), f"objective({number - 1})", f"objective {number}", group=COLOUR) for number in range(1, 10)),
    ]

    def __init__(self, loader: Loader, palette: Palette, session: Session) -> None:
        super().__init__(loader, palette, session)
        self.chart = Chart.OUTCOME
        self.study: Study | None = None
        self.note = Safe("scoring the whole study …")
        self._waiting = True
        self._cursors: dict[Chart, int] = {}
        self.line, self.plot, self.matrix = Panel(id="chart-line"), Plot(id="chart"), Matrix(id="matrix")
        self.marks, self.nodes = MarkList(id="marks"), NodeList(id="nodes")
        self.box = Vertical(id="chart-box")

    def compose(self) -> ComposeResult:
        """Header, the line of charts, plot or matrix, the lists, keys."""
        yield self.header
        yield self.line
        with Container(id="charts"):
            with self.box:
                yield self.plot
                yield self.matrix
            yield self.marks
            yield self.nodes
        yield self.keys

    def on_mount(self) -> None:
        """Ask for the study."""
        super().on_mount()
        self.nodes.display = self.matrix.display = False
        self.marks.focus()
        self.loader.charts()

    @property
    def hints(self) -> Sequence[Hint]:
        """The keys that matter here."""
        return NODE_HINTS if self.nodes.display else HINTS

    @property
    def settled(self) -> bool:
        """Whether the study is there."""
        return not self._waiting

    def receive(self, answer: Answer) -> None:
        """The study, or why there is none; when it has grown, it is asked for again."""
        match answer:
            case Charted(study):
                self.study, self._waiting = study, False
                self.session.teacher = min(self.session.teacher, len(study.teachers) - 1)
                self.draw()
            case Failed(request, sentence) if request == CHARTS:
                self.note, self._waiting = safe(sentence), False
                self.draw()
            case Surveyed(overview) if overview.complete and not self._waiting:
                self._waiting = True
                self.loader.charts()

    # drawing

    def draw(self) -> None:
        """Another chart, teacher or objective."""
        if not self.is_mounted:
            return
        session, study = self.session, self.study
        is_matrix = self.chart is Chart.MATRIX
        self.matrix.display, self.plot.display = is_matrix, not is_matrix
        marks = study.marks(self.chart, session.teacher, session.objective) if study else ()
        self.marks.empty = self.note if study is None else Safe("nothing to draw here")
        self.marks.show(marks, self._cursors.get(self.chart, 0), numbered=self.chart in NUMBERED)
        self.draw_line()
        self.call_after_refresh(self.draw_plot)  # what was hidden has a size by then
        entitle(self.marks, Safe(f"marks {len(marks)}"))

    def draw_line(self) -> None:
        """Which charts there are, what the current one shows, and of what."""
        colours, session = self.palette.ink, self.session
        tabs = [
            span(f" {chart.title} ", ink(colours.accent, bold=True, reverse=True) if chart is self.chart else ink(colours.dim))
            for chart in Chart
        ]
        room = self.line.scrollable_size.width - 2
        self.line.show([tabs, [span(f" {fold(self._meaning, max(room, 20))[0]}", ink(colours.text))]])
        objectives = session.catalogue.objectives if session.catalogue else ()
        teacher = session.teacher_label if self.chart in OF_ONE else "all teachers"
        objective = objectives[session.objective] if session.objective < len(objectives) else ""
        of = f"{teacher} · {'all objectives' if self.chart is Chart.MATRIX else objective} "
        title = session.catalogue.title if session.catalogue else ""
        left = [span(" charts ", ink(colours.text, bold=True)), span(f" mean alignment over {title} ", ink(colours.dim))]
        self.header.set(left, [span(of, ink(colours.accent))])
        what = self.nodes.behind.label if self.nodes.display and self.nodes.behind else self.chart.title
        entitle(self.box, Safe(what))

    @property
    def _meaning(self) -> Safe:
        if self.study is None:
            return self.note
        if self.chart is Chart.DIFFICULTY:
            slope = self.study.slope(self.session.teacher, self.session.objective)
            number = f"{signed(slope.mean)} {signed_interval(slope.low, slope.high)}".rstrip()
            return Safe(f"slope {number}; {self.chart.meaning}")
        return Safe(self.chart.meaning)

    def draw_plot(self) -> None:
        """The marks again, with the current one."""
        marks, current = self.marks.marks, self.marks.cursor
        if not self.is_mounted:
            return
        if self.chart is Chart.MATRIX:
            if self.study is not None:
                self.matrix.matrix(self.study, marks, current)
            return
        draw(self.plot, marks, current, self.palette, numbered=self.chart in NUMBERED, shares=self.chart in OF_ONE)

    def on_resize(self) -> None:
        """What depends on the width is made anew."""
        self.call_after_refresh(self.draw)

    # keys

    @on(RowList.Moved, "#marks")
    def _mark_moved(self, message: RowList.Moved) -> None:
        self._cursors[self.chart] = message.row
        self.draw_plot()

    @on(RowList.Opened, "#marks")
    def _mark_opened(self, message: RowList.Opened) -> None:
        if self.study is not None:
            self._show_nodes(self.study, self.marks.marks[message.row])

    def _show_nodes(self, study: Study, mark: Mark) -> None:
        behind = study.behind(mark)
        if not len(behind):
            self.say("no node is behind this mark")
            return
        self.session.choose(metric=METRICS[0], teacher=mark.teacher, objective=mark.objective)
        self._list(self.nodes)
        self.nodes.show(study, behind)
        entitle(self.nodes, Safe(f"{count(len(behind))} nodes, worst first"), Safe("the most typical one is chosen"))
        self.draw_line()

    @on(RowList.Opened, "#nodes")
    def _node_opened(self, message: RowList.Opened) -> None:
        behind, question_id = self.nodes.behind, self.nodes.question_id(message.row)
        if behind is not None and question_id is not None:
            row = message.row
            self.dismiss(Place(question_id, int(behind.rollout_N[row]), int(behind.position_N[row])))

    def _list(self, shown: RowList) -> None:
        self.marks.display, self.nodes.display = shown is self.marks, shown is self.nodes
        self.set_focus(shown)
        self.keys.hints(self.hints)

    def action_back(self) -> None:
        """From the nodes to the marks, from there to Browse."""
        if self.nodes.display:
            self._list(self.marks)
            self.draw_line()
        else:
            self.dismiss(None)

    def action_chart(self, step: int) -> None:
        """The next chart."""
        if self.nodes.display:
            self._list(self.marks)
        self.chart = self.chart.after(step)
        self.draw()

    def action_teacher(self, step: int) -> None:
        """The next teacher: its own chart, or its mark among those of all."""
        if self.study is None:
            return
        teacher = (self.session.teacher + step) % len(self.study.teachers)
        self.session.choose(teacher=teacher)
        self._changed()

    def action_objective(self, objective: int) -> None:
        """This objective."""
        if self.study is None:
            return
        if objective >= len(self.study.objectives):
            self.say(f"there is no objective {objective + 1}: this study has {len(self.study.objectives)}")
            return
        self.session.choose(objective=objective)
        self._changed()

    def _changed(self) -> None:
        """Another teacher or objective: the cursor goes to its mark."""
        if self.nodes.display:
            self._list(self.marks)
        if self.study is not None and self.chart not in OF_ONE:
            marks = self.study.marks(self.chart, self.session.teacher, self.session.objective)
            wanted = self.session.teacher, self.session.objective
            places = (place for place, mark in enumerate(marks) if (mark.teacher, mark.objective) == wanted)
            self._cursors[self.chart] = next(places, 0)
        self.draw()
