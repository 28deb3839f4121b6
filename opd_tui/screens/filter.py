"""Filter: an expression or a text, and the list of what matches while the store is scanned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.suggester import Suggester
from textual.timer import Timer
from textual.widgets import Input

from opd_tui.palette import Palette
from opd_tui.screens.filtering import Filtering
from opd_tui.screens.prompted import Line, Prompted
from opd_tui.screens.reader import SheetScreen
from opd_tui.search.expression import ExpressionError
from opd_tui.search.matches import ORDERS
from opd_tui.search.names import CONSTANTS, FUNCTIONS, NAMES, WORDS, Level
from opd_tui.search.query import Checked
from opd_tui.text import fold, safe
from opd_tui.widgets.lines import Panel, Spans, ink, ljust, span
from opd_tui.widgets.match_list import MatchList
from opd_tui.widgets.rows import RowList
from opd_tui.widgets.strips import Hint, Keys

#: Seconds after the last key until a scan begins.
AFTER_TYPING = 0.25
#: Lines of the note under what is typed.
NOTE_LINES = 2
EXAMPLE = 'incorrect & align < -0.5 & n > 20, or "text'
KEYS = (
    Hint("enter", "go there"), Hint("esc", "back"), Hint("↓", "list"), Hint("s S", "sort"), Hint("f1", "names"),
    Hint("ctrl+r", "this rollout only"), Hint("/", "line"),
)  # fmt: skip


class Filter(Prompted):
    """Asks what to look for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "here", "this rollout only"),
        Binding("f1", "names", "names"),
        Binding("down", "list", "to the list", show=False),
        Binding("tab", "other", "line or list", show=False),
        Binding("shift+tab", "other", "line or list", show=False),
        Binding("s", "sort", "sort", show=False),
        Binding("S", "reverse", "sort the other way", show=False),
        Binding("slash", "line", "to the line", show=False),
    ]

    def __init__(self, palette: Palette, filtering: Filtering) -> None:
        super().__init__(palette)
        self._filtering = filtering
        applied = filtering.applied
        self._only_here = applied is not None and applied.query.within is not None
        self._timer: Timer | None = None
        self._error = ""
        self._checked: Checked | None = None
        self._begun = False
        self._going = False  #: enter was pressed before anything was found

    def compose(self) -> ComposeResult:
        """A line, what is said of it, the list of matches."""
        with Vertical(id="filter"):
            yield Line(self._filtering.typed, EXAMPLE, NameSuggester(), id="filter-line")
            yield Panel(id="filter-note")
            yield MatchList(id="matches")
            yield Keys(id="filter-keys")

    def on_mount(self) -> None:
        """What was looked for last is there again."""
        super().on_mount()
        self._filtering.listener = self.show
        self._entitle()
        self.call_after_refresh(self._begin)

    def on_unmount(self) -> None:
        """Nobody listens any more."""
        self._filtering.listener = lambda: None

    def _begin(self) -> None:
        self._begun = True
        self.query_one(Keys).hints(KEYS)
        self._type()

    def _entitle(self) -> None:
        box = self.query_one("#filter")
        box.border_title = "find in this rollout" if self._only_here else "find in the whole store"

    @property
    def _text(self) -> str:
        return self.query_one(Line).value

    @property
    def settled(self) -> bool:
        """Whether nothing more comes of what was typed. For tests."""
        draft = self._filtering.draft
        return self._begun and self._timer is None and (self._checked is None or (draft is not None and draft.over))

    # typing

    @on(Input.Changed)
    def _changed(self) -> None:
        """See at once whether it can be read; look for it when the keys pause."""
        self._going = False
        self._check()
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(AFTER_TYPING, self._type)
        self.show()

    def _check(self) -> None:
        self._error, self._checked = "", None
        if self._text.strip():
            try:
                self._checked = self._filtering.check(self._filtering.query(self._text, only_here=self._only_here))
            except ExpressionError as error:
                self._error = str(error)

    def _type(self) -> None:
        self._timer = None
        self._check()
        if self._checked is not None:
            self._filtering.type(self._filtering.query(self._text, only_here=self._only_here), self._checked)
        self.show()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if not self._text.strip():
            self._filtering.clear()
            self.dismiss()
            return
        if self._timer is not None:
            self._timer.stop()
            self._type()
        self._going = self._checked is not None
        self.show()

    # what is found

    def show(self) -> None:
        """Draw what is known by now."""
        if not self.is_mounted:
            return
        draft, rows = self._filtering.draft, self.query_one(MatchList)
        waiting = self._timer is not None or draft is None or self._checked is None
        self._note(waiting)
        if draft is None:
            return
        if not waiting and self._going and (draft.matches.matches or draft.over):
            self._going = False
            if draft.matches.matches:
                self._go(rows.cursor if rows.matches is draft.matches else draft.matches.at or 0)
                return
        at = draft.matches.at or 0
        cursor = rows.cursor if rows.matches is draft.matches else at
        empty = "nothing matches" if draft.over else "nothing yet"
        rows.show(draft.matches, draft.checked.level, draft.checked.value, cursor, empty)
        reverse = ", reversed" if draft.matches.descending else ""
        rows.border_subtitle = f"by {self._spoken(draft.matches.order)}{reverse}"
        rows.redraw_changed()

    def _spoken(self, order: str) -> str:
        draft = self._filtering.draft
        return safe(draft.checked.value or order) if draft is not None and order == "value" else order

    def _note(self, waiting: bool) -> None:
        colours = self.palette.ink
        note = self.query_one("#filter-note", Panel)
        width = max(note.scrollable_size.width, 10)
        draft = self._filtering.draft
        if self._error:
            text, style = self._error, ink(colours.bad, bold=True)
        elif self._checked is None:
            text, style = 'names with f1; a text begins with "; an empty line takes the filter away', ink(colours.dim)
        elif waiting or draft is None:
            text, style = f"matches {self._checked.level.noun}", ink(colours.dim)
        else:
            about = f" under {draft.checked.about}" if draft.checked.about else ""
            text, style = draft.told + about, ink(colours.bad if draft.failed else colours.text)
        lines: list[Spans] = [[span(line, style)] for line in fold(safe(text), width)[:NOTE_LINES]]
        note.show([*lines, *[[]] * (NOTE_LINES - len(lines))])

    # keys

    def action_here(self) -> None:
        """This rollout only, or the whole store."""
        self._only_here = not self._only_here
        self._entitle()
        self._type()

    def action_names(self) -> None:
        """Every name."""
        self.app.push_screen(Names(self.palette))

    def action_list(self) -> None:
        """From the line to the list."""
        self.query_one(MatchList).focus()

    def action_line(self) -> None:
        """From the list to the line."""
        self.query_one(Line).focus()

    def action_other(self) -> None:
        """From one to the other."""
        if self.query_one(Line).has_focus:
            self.action_list()
        else:
            self.action_line()

    def action_sort(self) -> None:
        """By the next column."""
        draft = self._filtering.draft
        if draft is None:
            return
        orders = [order for order in ORDERS if self._has(order)]
        place = orders.index(draft.matches.order) if draft.matches.order in orders else -1
        draft.matches.sort(orders[(place + 1) % len(orders)])
        self._sorted()

    def _has(self, order: str) -> bool:
        draft = self._filtering.draft
        assert draft is not None
        if order == "value":
            return bool(draft.checked.value)
        return draft.checked.level >= {"rollout": Level.ROLLOUT, "token": Level.TOKEN, "text": Level.TOKEN}.get(order, 0)

    def action_reverse(self) -> None:
        """By the same column, the other way round."""
        draft = self._filtering.draft
        if draft is not None:
            draft.matches.sort(draft.matches.order, not draft.matches.descending)
            self._sorted()

    def _sorted(self) -> None:
        self.query_one(MatchList).move(0, tell=False)
        self.show()

    @on(RowList.Opened, "#matches")
    def _opened(self, message: RowList.Opened) -> None:
        self._go(message.row)

    def _go(self, row: int) -> None:
        """Leave for a match: the filter is on from now."""
        draft = self._filtering.draft
        if draft is not None and row < len(draft.matches.matches):
            draft.matches.at = row
            self._filtering.apply()
            self.dismiss()
            self._filtering.go(draft.matches.matches[row])

    def action_leave(self) -> None:
        """Back to where one was. A line that can be read is the filter from now on, an empty one takes it away."""
        if not self._text.strip():
            self._filtering.clear()
            self.dismiss()
            return
        if self._text != self._filtering.typed:  # a key may be ahead of what the line tells
            self._type()
        if self._checked is not None:
            self._filtering.apply()
        else:
            self._filtering.give_up()
        self.dismiss()


class NameSuggester(Suggester):
    """Goes on with the name that has begun."""

    def __init__(self) -> None:
        super().__init__(use_cache=False)
        self._names = [name.key for name in NAMES] + [f"{name}(" for name in FUNCTIONS] + [*WORDS, *CONSTANTS]

    async def get_suggestion(self, value: str) -> str | None:
        """The line with its last name whole; None where there is no such name, and in a text."""
        begun = re.search(r"(?<![\w.)\]])[A-Za-z_]+$", value)  # never glued to a number or a bracket that are complete
        if begun is None or value.count('"') % 2 or value.count("'") % 2:
            return None
        name = next((name for name in self._names if name.startswith(begun[0].casefold()) and name != begun[0]), None)
        return None if name is None or begun[0] in self._names else value + name[len(begun[0]) :]


class Names(SheetScreen):
    """Every name of the language, by level."""

    def __init__(self, palette: Palette) -> None:
        super().__init__("what an expression may say", palette)

    def lines(self) -> Sequence[Spans]:
        """How expressions are written, then the names."""
        colours = self.palette.ink
        head = ink(colours.accent, bold=True)
        found: list[Spans] = [[span("how it is written", head)]]
        for key, does in SYNTAX:
            found += self._row(key, does)
        for level in Level:
            found += [[], [span(level.noun, head)]]
            for name in NAMES:
                if name.level is level:
                    found += self._row(name.key, name.meaning)
        return found

    def _row(self, key: str, does: str) -> list[Spans]:
        text, dim = ink(self.palette.ink.text), ink(self.palette.ink.dim)
        first, *rest = fold(safe(does), self.width - 21)
        return [[ljust(f"  {key}", 20, text), span(first, dim)], *([span(" " * 20), span(line, dim)] for line in rest)]


SYNTAX = (
    ("&  |  !", "and, or, not; ( ) group"),
    ("< <= > >= == !=", "compare numbers; -0.5 < align < 0 for both at once"),
    ('token ~ "wait"', "a text holds a text, upper and lower case alike"),
    ("+ - * / abs(x)", "numbers"),
    ("known(align)", "whether there is such a number here: what is missing is neither < 0 nor !(… < 0)"),
    ("align[teacher]", "of a teacher or objective that is not the chosen one; align[teacher, objective]"),
    ('"wait', "not an expression: every place of a text, over the borders of tokens"),
)
