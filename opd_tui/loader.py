"""Reads the store in threads of its own and hands over one frozen message per answer.

Knows nothing of Textual: answers go to `deliver`, from whichever thread made them. numpy, TensorStore and the
store's reader are imported in the first job, so that the first paint waits for none of them. Three threads: one for
what a person waits for, one for the scores of the whole study, one for searches.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from msgspec import Struct

from opd_tui.imports import uncollected
from opd_tui.turns import go_on
from store.errors import StoreError

if TYPE_CHECKING:
    from compute.posterior import Prior
    from opd_tui.charts import Study
    from opd_tui.copying import Copying
    from opd_tui.export.job import Order
    from opd_tui.facts import Catalogue, Passage
    from opd_tui.overview import Overview
    from opd_tui.pages import RolloutPage
    from opd_tui.pairing import Comparison
    from opd_tui.place import Place
    from opd_tui.reading import Library
    from opd_tui.search.matches import Found
    from opd_tui.search.query import Query
    from opd_tui.state import Kept
    from opd_tui.view import View


#: Seconds after which a thread that reads or scores hands over to the one that draws, where that waits.
HAND_OVER = 0.001
#: Requests that are no page.
OPEN, POLL, SURVEY, PREFETCH, COMPARE, CHARTS, SEARCH, LOOK, COPY, EXPORT = 0, -1, -2, -3, -4, -5, -6, -7, -8, -9
#: Seconds without a request after which neighbours are read ahead: a screen is painted by then.
READ_AHEAD_AFTER = 0.4


class Opened(Struct, frozen=True):
    """The store is open. `kept`: how it was left the last time; `view`: what it is scored under."""

    catalogue: Catalogue
    kept: Kept | None
    view: View


class Polled(Struct, frozen=True):
    """The store was looked at again: what is in it now, or None where nothing is new."""

    catalogue: Catalogue | None


class Loaded(Struct, frozen=True):
    """The rollout that was asked for by `request`."""

    request: int
    page: RolloutPage


class Surveyed(Struct, frozen=True):
    """The study is scored, or some of it."""

    overview: Overview


class Searched(Struct, frozen=True):
    """A block of what the search with this number finds."""

    search: int
    found: Found


class Texts(Struct, frozen=True):
    """The passages that were asked for by `request`."""

    request: int
    title: str
    passages: tuple[Passage, ...]


class Looked(Struct, frozen=True):
    """Everything is scored under `view` from now on; with the rollout that was looked at, if there was one."""

    view: View
    catalogue: Catalogue
    page: RolloutPage | None


class Copied(Struct, frozen=True):
    """A text that is wanted on the clipboard, and in a file of this name."""

    what: str
    text: str
    file: str


class Exporting(Struct, frozen=True):
    """So many rows of an export are made, of about so many; with the sentence that ends it, at last."""

    done: int
    total: int
    sentence: str = ""


class Compared(Struct, frozen=True):
    """The two rollouts that were asked for."""

    comparison: Comparison


class Charted(Struct, frozen=True):
    """What charts of the whole study are drawn from."""

    study: Study


class Failed(Struct, frozen=True):
    """A job failed in a way that a person can understand. `request` is OPEN where the store as a whole cannot be read."""

    request: int
    sentence: str


class Broken(Struct, frozen=True):
    """A job failed in a way that only a programmer can understand."""

    error: Exception


Answer = (
    Opened | Polled | Loaded | Surveyed | Searched | Texts | Compared | Charted | Looked | Copied | Exporting | Failed | Broken
)
Deliver = Callable[[Answer], None]
Job = Callable[["Library"], Answer | None]


class Loader:
    """Answers to requests, in order; a request for a rollout that was overtaken by a later one is dropped."""

    def __init__(
        self,
        path: str,
        deliver: Deliver,
        at: str | None = None,
        *,
        restore: bool = False,
        fresh: bool = False,
        give_way: Callable[[], None] = go_on,
    ) -> None:
        """The store at `path`. What stands at `at`, or at its beginning, is read before anybody asks for it.

        `restore`: look up how the store was left the last time; `fresh`: its bookmarks alone. `give_way`: waits while somebody
        else goes first; the threads that score and search call it often.
        """
        self._give_way = give_way
        self._restore, self._fresh = restore, fresh
        self.path = path
        self._at = at
        self._deliver = deliver
        self._newest = self._pairs = 0
        self._search = 0  #: number of the newest search
        self._desk: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()
        self._survey: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()
        self._searches: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()

    def start(self) -> None:
        """Open the store. Answer: Opened, or Failed(OPEN)."""
        sys.setswitchinterval(HAND_OVER)
        threading.Thread(target=self._open, name="opd-tui-pages", daemon=True).start()

    def stop(self) -> None:
        """No more jobs."""
        self._newest = -1
        self._desk.put(None)
        self._survey.put(None)
        self._searches.put(None)

    def rollout(self, question_id: str, index: int, width: int) -> int:
        """Ask for a rollout, its lines broken at `width` cells, where that is known already.

        Answer: Loaded with the request returned here, unless another one is asked for before.
        """
        self._newest += 1
        request = self._newest

        def job(library: Library) -> Answer | None:
            if request != self._newest:
                return None
            page = library.rollout(question_id, index)
            page.flow.prepare(width)  # here, where it holds up no key
            return Loaded(request, page)

        def prefetch(library: Library) -> None:
            if request == self._newest:
                library.prefetch(question_id, index, width)

        self._desk.put((request, job))
        self._desk.put((PREFETCH, prefetch))
        return request

    def prompts(self, request: int, question_id: str, teacher: int) -> None:
        """Ask for what student and teacher were asked. Answer: Texts."""
        self._desk.put((request, lambda library: Texts(request, "prompts", library.prompts(question_id, teacher))))

    def completions(self, request: int, question_id: str, node: int, token_id: int) -> None:
        """Ask for the kept completions of a node's child. Answer: Texts."""
        self._desk.put((request, lambda library: Texts(request, "completions", library.completions(question_id, node, token_id))))

    def look(self, view: View, question_id: str | None, index: int | None) -> None:
        """Ask for everything to be scored under another view. Answer: Looked, or Failed(LOOK) and all stays as it was."""

        def job(library: Library) -> Answer:
            catalogue = library.look(view, question_id)
            page = library.rollout(question_id, index) if question_id is not None and index is not None else None
            return Looked(view, catalogue, page)

        self._desk.put((LOOK, job))

    def copy(self, what: Copying, place: Place, teacher: str, prior: Prior | None) -> None:
        """Ask for a token's text, or for its row of an export under a teacher. Answer: Copied."""
        self._desk.put((COPY, lambda library: Copied(*library.copied(what, place, teacher, prior))))

    def export(self, order: Order) -> None:
        """Ask for rows to be written to a file. Answers: Exporting, the last one with a sentence; or Failed(EXPORT)."""

        def job(library: Library) -> Answer:
            return library.export(order, lambda done, total: self._hand_over(Exporting(done, total)))

        self._survey.put((EXPORT, job))

    def compare(self, question_id: str, left: int, right: int | None) -> None:
        """Ask for two rollouts side by side; without `right`: the nearest of opposite outcome.

        Answer: Compared, unless other two are asked for before.
        """
        self._pairs += 1
        pair = self._pairs

        def job(library: Library) -> Answer | None:
            return Compared(library.comparison(question_id, left, right)) if pair == self._pairs else None

        self._desk.put((COMPARE, job))

    def poll(self) -> None:
        """Ask whether the store has grown. Answer: Polled."""
        self._desk.put((POLL, lambda library: Polled(library.catalogue() if library.refresh() else None)))

    def survey(self) -> None:
        """Ask for the whole study's scores. Answers: Surveyed, at last with all of it."""

        def job(library: Library) -> Answer | None:
            for overview in library.overviews():
                self._hand_over(Surveyed(overview))
            return None

        self._survey.put((SURVEY, job))

    def charts(self) -> None:
        """Ask for what charts are drawn from. Answer: Charted."""
        self._survey.put((CHARTS, lambda library: Charted(library.charts())))

    def search(self, query: Query) -> int:
        """Ask for what matches. Answers: Searched with the number returned here, block after block. Any search before stops."""
        self._search += 1
        search = self._search

        def job(library: Library) -> None:
            if search == self._search:
                for found in library.search(query):
                    if search != self._search or self._newest < 0:
                        return
                    self._hand_over(Searched(search, found))
                    self._give_way()

        self._searches.put((SEARCH, job))
        return search

    @property
    def newest_search(self) -> int:
        """Number of the only search that may still be under way."""
        return self._search

    def stop_search(self) -> None:
        """No more of the newest search."""
        self._search += 1

    def _open(self) -> None:
        try:
            with uncollected():
                from opd_tui.reading import Library

            library = Library(self.path, self._give_way)
            opened = self._opened(library)
            library.warm(self._at or (opened.kept.at(opened.catalogue.questions.ids) if opened.kept else None))
            answer: Answer = opened
        except StoreError as error:
            answer = Failed(OPEN, str(error))
        except Exception as error:
            answer = Broken(error)
        self._hand_over(answer)
        if isinstance(answer, Opened):
            for name, jobs in (("survey", self._survey), ("search", self._searches)):
                threading.Thread(target=self._work, args=(library, jobs), name=f"opd-tui-{name}", daemon=True).start()
            self._work(library, self._desk)

    def _opened(self, library: Library) -> Opened:
        """The lists, scored as they were left if the store still can."""
        catalogue = library.catalogue()
        kept = None
        if self._restore:
            from opd_tui.state import recall

            kept = recall(self.path, catalogue.study_hash)
            kept = kept.bookmarks_alone if kept and self._fresh else kept
        if kept is not None and kept.view != library.view:
            with suppress(StoreError):
                catalogue = library.look(kept.view, kept.question if kept.question in catalogue.questions.ids else None)
        return Opened(catalogue, kept, library.view)

    def _work(self, library: Library, jobs: SimpleQueue[tuple[int, Job] | None]) -> None:
        """Do jobs in order. Reading ahead waits until a person has what was asked for before their eyes."""
        ahead: Job | None = None
        while True:
            try:
                job = jobs.get(timeout=READ_AHEAD_AFTER if ahead else None)
            except Empty:
                assert ahead is not None
                self._do(library, PREFETCH, ahead)
                ahead = None
                continue
            if job is None:
                return
            if job[0] == PREFETCH:
                ahead = job[1]
            else:
                self._do(library, *job)

    def _do(self, library: Library, request: int, task: Job) -> None:
        try:
            answer = task(library)
        except StoreError as error:
            answer = Failed(request, str(error))
        except Exception as error:
            answer = Broken(error)
        if answer is not None:
            self._hand_over(answer)

    def _hand_over(self, answer: Answer) -> None:
        if self._newest >= 0:
            self._deliver(answer)
