"""Finding in Browse: the filter with its matches, and going to a place by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from opd_tui.loader import SEARCH, Answer, Failed, Loader, Searched
from opd_tui.palette import Palette
from opd_tui.place import Place, parse_goto
from opd_tui.screens.browse_view import BrowseView
from opd_tui.screens.groups import FIND
from opd_tui.session import Session
from opd_tui.text import Safe, safe
from opd_tui.widgets.tokens import NO_NOTE

if TYPE_CHECKING:
    from opd_tui.screens.filtering import Filtering


class BrowseFinding(BrowseView):
    """What of Browse is about finding. Whoever goes somewhere is `Browse`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter and find", group=FIND),
        Binding("f", "match(1)", "next match", group=FIND),
        Binding("F", "match(-1)", "previous match", group=FIND),
        Binding("colon", "goto", "go to a place", group=FIND),
    ]

    def __init__(self, session: Session, palette: Palette, loader: Loader) -> None:
        super().__init__(session, palette, loader.path)
        self.loader = loader
        self._filtering: Filtering | None = None

    @property
    def filtering(self) -> Filtering:
        """The filter; its code is imported when somebody filters."""
        if self._filtering is None:
            from opd_tui.screens.filtering import Filtering

            self._filtering = Filtering(self)
        return self._filtering

    def go(self, place: Place) -> None:
        """To a question, and a rollout and token of it where they are named."""
        raise NotImplementedError  # as in `Lines.spans`

    def found(self, answer: Answer) -> bool:
        """Take in what a search has found; False for an answer that is about something else."""
        match answer:
            case Searched():
                self.filtering.receive(answer)
            case Failed(request, sentence) if request == SEARCH:
                self.filtering.fail(sentence)
            case _:
                return False
        return True

    @property
    def note(self) -> Safe:
        """The filter, in a few words."""
        return NO_NOTE if self._filtering is None else self._filtering.note

    def show_lists(self) -> None:
        """Both lists; and what the filter is about, where another teacher is chosen now."""
        super().show_lists()
        if self.note:
            self.show_header()

    def show_narrowed(self) -> None:
        """The filter has found more, or is another one."""
        applied = self.filtering.applied
        whole = applied is not None and applied.query.within is None
        if applied is not None and whole:
            self.session.narrow(applied.matches.where, all_scanned=applied.over)
        else:
            self.session.narrow(None)
        self.show_lists()
        self.show_header()

    def renew_filter(self) -> None:
        """The store has grown."""
        if self._filtering is not None:
            self._filtering.renew()

    def leave_filter(self) -> None:
        """No filter, if there is one."""
        if self._filtering is not None and self._filtering.applied is not None:
            self._filtering.clear()
            self.say("the filter is off: / has it again")

    def go_to(self, text: str) -> None:
        """To the place that was typed. Raises ValueError, in one sentence, where it is none."""
        catalogue = self.session.catalogue
        place = parse_goto(text, catalogue.questions.ids if catalogue else (), self._here)
        self.session.check(place)
        self.go(place)

    @property
    def _here(self) -> Place | None:
        session = self.session
        return None if session.question_id is None else Place(session.question_id, session.rollout, session.token)

    def action_filter(self) -> None:
        """Ask what to look for."""
        from opd_tui.screens.filter import Filter

        if self.session.catalogue is not None:
            self.app.push_screen(Filter(self.palette, self.filtering))

    def action_match(self, step: int) -> None:
        """The next match."""
        self.filtering.step(step)

    def action_goto(self) -> None:
        """Ask where to go."""
        from opd_tui.screens.goto import Goto

        if self.session.catalogue is not None:
            self.app.push_screen(Goto(self.palette, safe(str(self._here or "")), self.go_to))
