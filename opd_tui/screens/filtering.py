"""The filter of Browse: what was looked for, what it found so far, and how one walks from match to match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opd_tui.loader import Searched
from opd_tui.numbers import count
from opd_tui.place import NOWHERE, Place
from opd_tui.search.matches import Match, Matches
from opd_tui.search.names import Level
from opd_tui.search.query import Checked, Query, check
from opd_tui.text import Safe, safe
from opd_tui.view import OWN
from store.words import counted

if TYPE_CHECKING:
    from opd_tui.screens.browse_finding import BrowseFinding


@dataclass
class Filter:
    """A query and what it found so far."""

    query: Query
    checked: Checked
    search: int = -1  #: number of the search that fills it
    matches: Matches = field(default_factory=Matches)
    failed: str = ""  #: why it could not be run

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return bool(self.failed) or self.matches.complete

    @property
    def told(self) -> str:
        """How many there are, in words."""
        if self.failed:
            return self.failed
        matches = self.matches
        noun = self.checked.level.name.lower() if not self.query.is_text else "place"
        told = counted(matches.n, noun)
        if self.checked.level is not Level.QUESTION and matches.n:
            told += f" in {counted(len(matches.where), 'rollout')}" if noun != "rollout" else ""
            told += f" of {counted(len(matches.questions), 'question')}" if self.query.within is None else ""
        if len(matches.matches) < matches.n:
            told += f"; the first {count(len(matches.matches))} are listed"
        if not self.over:
            of = f" of {count(matches.n_questions)}" if matches.n_questions >= 0 else ""
            told += f" so far; {count(matches.n_done)}{of} questions scanned"
        return told


class Filtering:
    """Runs queries for one Browse screen. `applied` narrows its lists; `draft` is what is being typed."""

    def __init__(self, screen: BrowseFinding) -> None:
        self._screen = screen
        self.applied: Filter | None = None
        self.draft: Filter | None = None
        self._before: Filter | None = None  #: the applied one before, until the newer one has shown that it can be run
        self._renewed: Filter | None = None  #: the applied one over a store that has grown since
        self.typed = ""  #: the last text, also of a filter that is off
        self.listener: Callable[[], None] = _nobody

    # what is looked for

    def query(self, text: str, *, only_here: bool = False) -> Query:
        """`text` about what the session has chosen."""
        session = self._screen.session
        catalogue = session.catalogue
        teachers, objectives = (catalogue.teachers, catalogue.objectives) if catalogue else ((), ())
        page = session.page
        return Query(
            text,
            teachers[session.teacher].id if session.teacher < len(teachers) else "",
            objectives[session.objective] if session.objective < len(objectives) else "",
            (page.question_id, page.index) if only_here and page is not None else None,
            session.overview.prior if session.overview is not None and session.view == OWN else None,
        )

    def check(self, query: Query) -> Checked:
        """What it would match. Raises ExpressionError."""
        catalogue = self._screen.session.catalogue
        teachers = [teacher.id for teacher in catalogue.teachers] if catalogue else []
        return check(query, teachers, catalogue.objectives if catalogue else ())

    def type(self, query: Query, checked: Checked) -> None:
        """Look for something else, unless it is what was looked for last."""
        self.typed = query.text
        for known in (self.draft, self.applied):
            if known is not None and known.query == query and not known.failed:
                self.draft = known
                self._go_on(known)
                return
        self.draft = Filter(query, checked)
        self._start(self.draft)

    def _start(self, what: Filter) -> None:
        what.matches = Matches(order=what.matches.order, descending=what.matches.descending)
        what.search = self._screen.loader.search(what.query)

    def _go_on(self, what: Filter) -> None:
        """Begin again a search that another one has stopped."""
        if not what.over and what.search != self._screen.loader.newest_search:
            self._start(what)

    # what is found

    def receive(self, answer: Searched) -> None:
        """Take in a block."""
        for one in {id(one): one for one in (self.draft, self.applied, self._renewed) if one is not None}.values():
            if one.search == answer.search:
                one.matches.add(answer.found)
        renewed = self._renewed
        if renewed is not None and renewed.over:
            self._swap(renewed)
        if self.applied is not None and (self.applied.search == answer.search or self.applied is renewed):
            self._screen.show_narrowed()
        self.listener()

    def fail(self, sentence: str) -> None:
        """The newest search could not be run."""
        for one in (self.draft, self.applied, self._renewed):
            if one is not None and one.search == self._screen.loader.newest_search:
                one.failed = sentence
        if self.applied is not None and self.applied.failed:
            self.applied, self._before = self._before, None
            if self.applied is not None:
                self._go_on(self.applied)
            self._screen.show_narrowed()
        self._screen.say(sentence)
        self.listener()

    def _swap(self, renewed: Filter) -> None:
        before, self._renewed = self.applied, None
        if before is not None and before.matches.at is not None:
            here = before.matches.matches[before.matches.at]
            same = (i for i, one in enumerate(renewed.matches.matches) if one.place == here.place)
            renewed.matches.at = next(same, None)
        self.applied = renewed
        self.draft = renewed if self.draft is not None else None

    def renew(self) -> None:
        """The store has grown: run the filter again, and keep what there is until that is done."""
        if self.applied is not None and self.draft in (None, self.applied):
            applied = self.applied
            self._renewed = Filter(applied.query, applied.checked)
            self._renewed.matches.sort(applied.matches.order, applied.matches.descending)
            self._start(self._renewed)

    # what comes of it

    def apply(self) -> None:
        """What was typed narrows the lists from now on."""
        if self.draft is not None and not self.draft.failed:
            if self.draft is not self.applied:
                self._before = self.applied
            self.applied, self.draft = self.draft, None
        elif self.applied is not None:
            self._go_on(self.applied)
        self._screen.show_narrowed()

    def give_up(self) -> None:
        """What was typed comes to nothing; what narrows the lists goes on."""
        self.draft = None
        if self.applied is not None:
            self._go_on(self.applied)
        else:
            self._screen.loader.stop_search()

    def clear(self) -> None:
        """No filter."""
        self._screen.loader.stop_search()
        self.applied = self.draft = self._before = self._renewed = None
        self._screen.show_narrowed()

    @property
    def note(self) -> Safe:
        """The filter in a few words, for the header; "" where there is none."""
        if self.applied is None:
            return Safe("")
        matches = self.applied.matches
        at = f"{count(matches.at + 1)} of " if matches.at is not None else ""
        now = self.query("")
        other = (self.applied.query.teacher, self.applied.query.objective) != (now.teacher, now.objective)
        about = f" under {safe(self.applied.checked.about)}" if other and self.applied.checked.about else ""
        here = ", none here" if self._screen.session.matches_here == "no" else ""
        found = f"{count(matches.n)}{'' if self.applied.over else '…'}{here}"
        return Safe(f"/{at}{found}{about} {safe(self.applied.query.text.strip())}")

    def step(self, by: int) -> None:
        """To the next match or the one before."""
        if self.applied is None:
            self._screen.say("there is no filter: / finds questions, rollouts, tokens and nodes")
            return
        session, here = self._screen.session, None
        if session.question is not None and (page := session.page) is not None:
            there = (page.question_id, page.index) == (session.question_id, session.rollout)
            here = (session.question.number, page.index, self._screen.tokens.cursor) if there else None
        match = self.applied.matches.step(by, here)
        if match is None:
            what = "no further match" if self.applied.matches.n else "nothing matches"
            self._screen.say(f"{what}: {self.applied.told}")
        else:
            self.go(match)

    def go(self, match: Match) -> None:
        """To this match."""
        rollout = match.rollout if match.rollout != NOWHERE else None
        token = match.position if match.position != NOWHERE else None
        session = self._screen.session
        here = session.page
        if here is not None and token is not None and (here.question_id, here.index) == (match.question, rollout):
            self._screen.tokens.move(token)
        else:
            self._screen.go(Place(match.question, rollout, token))
        self._screen.show_header()


def _nobody() -> None:
    """Nobody listens."""
