"""What Browse can do beside going somewhere: choose teachers and objectives, copy, bookmark, export, and come back to it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from opd_tui.bookmarks import Bookmark, Bookmarks
from opd_tui.copying import Copying, keep
from opd_tui.export.job import PICTURES, ROWS, Format, Order, Teachers, What
from opd_tui.loader import Answer, Copied, Exporting, Loader
from opd_tui.metrics import BY_KEY
from opd_tui.palette import Palette
from opd_tui.place import Place
from opd_tui.screens.browse_finding import BrowseFinding
from opd_tui.screens.groups import COLOUR, KEEP
from opd_tui.session import Session
from opd_tui.settings import Settings
from opd_tui.state import SCHEMA, Kept, absolute
from opd_tui.text import safe
from opd_tui.view import SUPPORTS, View
from opd_tui.widgets.lists import ORDERS

if TYPE_CHECKING:
    from opd_tui.screens.teachers import Choice


class BrowseActions(BrowseFinding):
    """Dialogs over a session, and what they ask of the loader."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "teachers", "all teachers; there d: a second one", group=COLOUR),
        Binding("o", "objectives", "any objective", group=COLOUR),
        Binding("S", "support", "next support", group=COLOUR),
        Binding("y", "copy('text')", "copy the token's text", group=KEEP),
        Binding("Y", "copy('row')", "copy the node, or token, as JSON", group=KEEP),
        Binding("ctrl+y", "copy_place", "copy the place, for --at", group=KEEP),
        Binding("b", "bookmark", "bookmark, or none", group=KEEP),
        Binding("apostrophe", "bookmarks", "list of bookmarks", group=KEEP),
        Binding("x", "export", "export to a file", group=KEEP),
    ]

    def __init__(self, session: Session, palette: Palette, loader: Loader, settings: Settings) -> None:
        super().__init__(session, palette, loader)
        self.settings = settings
        self.bookmarks = Bookmarks()
        self.looking: View | None = None  #: the view that was asked for and is not there yet

    @property
    def place(self) -> Place | None:
        """Where the cursor is."""
        page = self.session.page
        return Place(page.question_id, page.index, self.session.token) if page is not None and page.n_tokens else None

    # teachers, objectives, supports

    def action_teachers(self) -> None:
        """All teachers, to choose from."""
        session, catalogue = self.session, self.session.catalogue
        if catalogue is None:
            return
        from opd_tui.screens.teachers import Teachers as Dialog

        overview, n = session.overview, min(session.n_teachers, len(catalogue.teachers))
        means = [overview.mean(m, session.objective) if overview else None for m in range(n)]
        about = catalogue.objectives[session.objective] if session.objective < len(catalogue.objectives) else ""
        dialog = Dialog(catalogue.teachers[:n], means, session.teacher, session.second, about, self.palette)
        self.app.push_screen(dialog, self._teacher_picked)

    def _teacher_picked(self, choice: Choice | None) -> None:
        if choice is None:
            return
        what, teacher = choice
        if what == "look":
            self.session.choose(teacher=teacher)
            self.show_lists()
        elif teacher == self.session.teacher:
            self.say("a teacher is not held against itself: choose another one")
            return
        else:
            self.session.choose(second=teacher, metric=BY_KEY["alignment-difference"])
        self.show_colours()

    def action_objectives(self, refused: str = "", why: str = "") -> None:
        """Any objective, scored live. `refused`: one that the store cannot be scored under, and why."""
        if self.session.catalogue is None:
            return
        from opd_tui.screens.objectives import Objectives

        dialog = Objectives(self.session.catalogue.spellings, self.session.objective, self.palette, refused, why)
        self.app.push_screen(dialog, self._objective_picked)

    def _objective_picked(self, spelling: str | None) -> None:
        catalogue = self.session.catalogue
        if spelling is None or catalogue is None:
            return
        if spelling in catalogue.spellings:
            self.session.choose(objective=catalogue.spellings.index(spelling))
            self.show_colours()
            self.show_lists()
        else:
            view = self.session.view
            self.look(View((*view.objectives, spelling), view.support))

    def look_refused(self, why: str) -> None:
        """The store cannot be scored so. An objective is asked for once more, as it was spelled."""
        asked, self.looking = self.looking, None
        added = asked.objectives[len(self.session.view.objectives) :] if asked else ()
        if added and self.app.screen is self:
            self.action_objectives(added[0], safe(why))
        else:
            self.say(why)

    def action_support(self) -> None:
        """The next way in which tokens that are no kept children take part."""
        view = self.session.view
        self.look(View(view.objectives, SUPPORTS[(SUPPORTS.index(view.support) + 1) % len(SUPPORTS)]))

    def look(self, view: View) -> None:
        """Have everything scored under another view."""
        if self.looking is None and self.session.catalogue is not None:
            self.looking = view
            page = self.session.page
            self.loader.look(view, page.question_id if page else self.session.question_id, page.index if page else None)

    # copies

    def action_copy(self, what: Copying) -> None:
        """Have the token's text, or its row of an export, copied."""
        session, place = self.session, self.place
        if place is None or session.catalogue is None:
            self.say("there is no token to copy")
            return
        prior = session.overview.prior if session.overview else None
        self.loader.copy(what, place, session.catalogue.teachers[session.teacher].id, prior)

    def action_copy_place(self) -> None:
        """Copy where the cursor is, as `--at` takes it."""
        if self.place is None:
            self.say("there is no place to copy")
        else:
            self.take_copy(Copied(f"the place {self.place}", str(self.place), "place.txt"))

    def take_copy(self, copied: Copied) -> None:
        """To the clipboard, as far as the terminal passes it on, and into a file."""
        self.app.copy_to_clipboard(copied.text)
        try:
            where = f"and is in {keep(copied.file, copied.text)}"
        except OSError as error:
            where = f"but no file could be written: {error.strerror}"
        self.say(f"{copied.what} went to the clipboard, if the terminal allows it, {where}")

    # bookmarks

    def action_bookmark(self) -> None:
        """Set a bookmark, or take it away."""
        place, facts = self.place, self.session.token_facts
        if place is None or place.rollout is None or place.token is None:
            self.say("there is no token to bookmark")
            return
        text = facts.label if facts else ""
        there = self.bookmarks.toggle(Bookmark(place.question_id, place.rollout, place.token, text))
        self.show_bookmarks()
        self.say(f"a bookmark is set at token {place.token}: ' lists them" if there else f"no bookmark at token {place.token}")

    def action_bookmarks(self) -> None:
        """All bookmarks, to go to."""
        from opd_tui.screens.bookmark_list import BookmarkList

        def done(one: Bookmark | None) -> None:
            self.show_bookmarks()
            if one is not None:
                self._go_if_there(one)

        self.app.push_screen(BookmarkList(self.bookmarks, self.palette), done)

    def _go_if_there(self, one: Bookmark) -> None:
        catalogue = self.session.catalogue
        if catalogue is None or one.question_id not in catalogue.questions.ids:
            self.say(f"question {one.question_id} is not in this store")
        else:
            self.go(one.place)

    def show_bookmarks(self) -> None:
        """Those of this rollout, beside its lines."""
        page = self.session.page
        self.tokens.flag(self.bookmarks.along(page.question_id, page.index) if page else frozenset())

    # files

    def action_export(self) -> None:
        """Write rows to a file."""
        if self.session.catalogue is None or self.place is None:
            self.say("there is nothing to export yet")
            return
        from opd_tui.screens.export_dialog import ExportDialog

        self.app.push_screen(ExportDialog(self.order, self.loader.export, self.palette))

    def order(self, what: What, teachers: Teachers, format: Format, out: str) -> Order:
        """An export, as the dialog asks for it. Rows are scored under the objectives that are shown."""
        session, place, catalogue = self.session, self.place, self.session.catalogue
        assert catalogue is not None and place is not None and place.token is not None  # there is a token under the cursor
        matching = session.questions_by(self.questions.order)
        listed = matching if matching is not None else catalogue.questions
        question = session.question
        rollouts = question.rollouts if question else ()
        n_rollouts, n_tokens = {
            "this token": (1, 1),
            "this rollout": (1, session.page.n_tokens if session.page else 0),
            "this question": (len(rollouts), sum(one.n_tokens for one in rollouts)),
            "everything in the list": (listed.n_kept, listed.n_tokens),
        }[what]
        everything = () if len(listed) == len(catalogue.questions.ids) else tuple(one.id for one in listed)
        one_teacher = teachers == "current teacher" or format in PICTURES
        return Order(
            what=what,
            questions=everything if what == "everything in the list" else (place.question_id,),
            rollouts=(place.rollout,) if what in ("this token", "this rollout") and place.rollout is not None else (),
            teachers=(catalogue.teachers[session.teacher].id,) if one_teacher else (),
            positions=(place.token, place.token + 1) if what == "this token" else None,
            objectives=catalogue.spellings if session.view.objectives and format in ROWS else (),
            format=format,
            out=out,
            n_rows=n_tokens * (1 if one_teacher else len(catalogue.teachers)),
            n_rollouts=n_rollouts,
            n_questions=len(listed) if what == "everything in the list" else 1,
        )

    def take_export(self, found: Exporting | str) -> None:
        """How far an export is, that it is done, or why it failed."""
        from opd_tui.screens.export_dialog import ExportDialog

        if isinstance(self.app.screen, ExportDialog):
            self.app.screen.progress(found)
        if isinstance(found, str) or found.sentence:
            self.say(found if isinstance(found, str) else found.sentence)

    def receive_beside(self, answer: Answer) -> None:
        """Take in what the loader made beside pages."""
        match answer:
            case Copied():
                self.take_copy(answer)
            case Exporting():
                self.take_export(answer)

    # where somebody left off

    def settle_in(self, kept: Kept | None, *, metric_is_asked_for: bool) -> None:
        """Arrange everything as the settings say, or as it was left."""
        session, catalogue = self.session, self.session.catalogue
        assert catalogue is not None  # the store is open
        marks = kept.marks if kept and kept.marks is not None else self.settings.marks
        whitespace = kept.whitespace if kept and kept.whitespace is not None else self.settings.whitespace
        order = kept.order if kept and kept.order in ORDERS else self.settings.order
        if marks != self.tokens.marks and not self.palette.needs_marks:
            self.tokens.set_marks(marks)
        self.tokens.set_whitespace(whitespace)
        self.questions.order = order
        if kept is None:
            return
        ids = [teacher.id for teacher in catalogue.teachers]
        session.choose(
            metric=BY_KEY.get(kept.metric or "") if not metric_is_asked_for else None,
            teacher=ids.index(kept.teacher) if kept.teacher in ids else None,
            second=ids.index(kept.second_teacher) if kept.second_teacher in ids else None,
            objective=catalogue.spellings.index(kept.objective) if kept.objective in catalogue.spellings else None,
        )
        self.bookmarks = Bookmarks(kept.bookmarks)

    def kept(self) -> Kept | None:
        """How everything is arranged now; None where no store was opened."""
        session, catalogue, place = self.session, self.session.catalogue, self.place
        if catalogue is None:
            return None
        teachers = [teacher.id for teacher in catalogue.teachers]
        named = dict(enumerate(teachers))
        objectives = dict(enumerate(catalogue.spellings))
        return Kept(
            schema=SCHEMA,
            study_hash=catalogue.study_hash,
            store=absolute(self.loader.path),
            question=place.question_id if place else None,
            rollout=place.rollout if place else None,
            token=place.token if place else None,
            metric=session.metric.key,
            teacher=named.get(session.teacher),
            second_teacher=named.get(session.second) if session.second is not None else None,
            objective=objectives.get(session.objective),
            objectives=session.view.objectives,
            support=session.view.support,
            order=self.questions.order,
            marks=self.tokens.marks,
            whitespace=self.tokens.whitespace,
            bookmarks=tuple(self.bookmarks.all),
        )
