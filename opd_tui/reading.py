"""What the loader's threads read: the store's tables become pages and facts. Imported after the first paint."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import store
from compute.objectives import parse
from compute.scores import Scores, score
from compute.updates import takes_whole
from opd_tui.facts import Catalogue, Passage, TeacherFacts
from opd_tui.layout import Flow
from opd_tui.numbers import interval, prob
from opd_tui.pages import RolloutPage
from opd_tui.pairing import Comparison, Sketch, nearest, pair_nodes, shared_prefix
from opd_tui.place import Place, first_place
from opd_tui.questions import Questions
from opd_tui.text import Safe, paragraphs, runs, safe, token
from opd_tui.thrift import trim
from opd_tui.turns import go_on
from opd_tui.view import OWN, View
from store.errors import StoreError
from store.schema import REST_TOKEN, FinishReason
from store.tables import Nodes, TeacherInfo
from store.words import counted

if TYPE_CHECKING:
    from compute.posterior import Prior
    from opd_tui.charts import ChartPart, Study
    from opd_tui.copying import Copying
    from opd_tui.export.job import Order
    from opd_tui.loader import Exporting
    from opd_tui.overview import Overview, PartOverview
    from opd_tui.search.matches import Found
    from opd_tui.search.query import Query

Key = TypeVar("Key")
Value = TypeVar("Value")

#: Rollouts and questions kept at hand, so that going back is immediate.
KEPT_PAGES = 8
#: What decoded chunks may take: whatever is on a screen is kept as a page.
CACHE_BYTES = 12 << 20
#: Seconds between two answers while the study is being scored.
TELL_EVERY = 2.0
#: Paragraphs of the prompt that stand above the tokens.
SHOWN_PARAGRAPHS = 6

#: Completions of a child that are shown, right and wrong each.
MOST_READ = 100

#: How completions end, as a person reads it.
ENDINGS = {FinishReason.STOP: "ended by the student", FinishReason.LENGTH: "cut off at the length limit"}


class Library:
    """An open store with a few pages at hand. One thread asks for pages; another may ask for the overview meanwhile."""

    def __init__(self, path: str, give_way: Callable[[], None] = go_on) -> None:
        """The store at `path`. While it scores the whole study it calls `give_way` often."""
        self._path, self._give_way = path, give_way
        self.view = OWN  #: what is scored; `look` changes it
        self._store = store.open(path, cache_bytes=CACHE_BYTES)
        self._title = safe(os.path.basename(os.path.normpath(path)) or path)
        self._pages: OrderedDict[tuple[str, int], RolloutPage] = OrderedDict()
        self._scored: OrderedDict[str, tuple[Nodes, Scores]] = OrderedDict()
        self._label = _labels(self._store.vocab.bytes_of)
        self._questions = Questions(self._store.listing())
        self._chart_parts: dict[Hashable, ChartPart] = {}  #: by the same, once charts were asked for
        self._scored_parts: dict[Hashable, PartOverview] = {}  #: by part, what it depends on, and the teachers

    # what there is

    def refresh(self) -> bool:
        """Whether the store has grown. What was read of its questions is forgotten then: teachers may have come."""
        grown = self._store.refresh()
        if grown:
            self._pages.clear()
            self._scored.clear()
            self._questions = Questions(self._store.listing())
        return grown

    def catalogue(self) -> Catalogue:
        """The lists."""
        attributes = self._store.attributes
        return Catalogue(
            title=self._title,
            student=safe(os.path.basename(attributes.student.rstrip("/")) or attributes.student),
            teachers=tuple(_teacher(info, self._store.judged(info.id)[1] > 0) for info in self._store.teachers),
            objectives=tuple(safe(name) for name in self._objectives(self.view)),
            n_planned=len(attributes.question_ids),
            questions=self._questions,
            spellings=self._objectives(self.view),
            study_hash=attributes.study_hash,
            n_chosen=len(attributes.chosen),
        )

    def _objectives(self, view: View) -> tuple[str, ...]:
        """The study's, and the view's own after them."""
        names = self._store.attributes.objectives
        return (*names, *(name for name in view.objectives if name not in names))

    def _takes_whole(self, view: View) -> bool:
        return takes_whole(self._objectives(view), self._store.attributes.objectives)

    def look(self, view: View, question_id: str | None) -> Catalogue:
        """Score everything under `view` from now on. Raises StoreError, and leaves all as it was, where the store cannot.

        What it takes is tried on the nodes of a question.
        """
        try:
            view = View(tuple(str(parse(name)) for name in view.objectives), view.support)
        except ValueError as error:
            raise StoreError(str(error)) from None
        if question_id is not None:
            nodes = self._store.nodes(question_id, whole=self._takes_whole(view))
            self._score(nodes, view)
        self.view = view
        self._pages.clear()
        self._scored.clear()
        return self.catalogue()

    def _score(self, nodes: Nodes, view: View) -> Scores:
        attributes = self._store.attributes
        try:
            return score(nodes, n_sig=attributes.n_sig, support=view.support, objectives=self._objectives(view))
        except ValueError as error:  # an objective that asks for more than this store keeps
            raise StoreError(str(error)) from None

    def overviews(self) -> Iterator[Overview]:
        """The whole study, scored part by part: what there is so far every few seconds, and at last all of it.

        Parts that were scored before are not scored again.
        """
        from opd_tui.overview import Overview, prior_of, sampling, score_part

        opened, told, view = self._store, monotonic(), self.view  # another one may come meanwhile
        n_sig, objectives = opened.attributes.n_sig, self._objectives(view)
        teachers = tuple(one.id for one in opened.teachers)
        wanted = [(name, state, teachers, view) for name, state in opened.part_states().items()]
        every = sampling(opened.counts().n_nodes)
        known, self._scored_parts = self._scored_parts, {}
        for n_done, key in enumerate(wanted, 1):
            part = known.get(key)
            if part is None:
                nodes, paths = opened.study_nodes(teachers, whole=self._takes_whole(view), parts=[key[0]])
                part = score_part(nodes, paths, n_sig, every, view.support, objectives, self._give_way)
                del nodes, paths
                trim()
            self._scored_parts[key] = part
            if monotonic() - told >= TELL_EVERY and n_done < len(wanted):
                told = monotonic()
                yield Overview(list(self._scored_parts.values()), teachers, objectives, share=n_done / len(wanted), view=view)
        parts = list(self._scored_parts.values())
        prior = prior_of(parts, n_sig, view.support, objectives, self._give_way)
        trim()
        yield Overview(parts, teachers, objectives, prior=prior, view=view)

    def charts(self) -> Study:
        """The whole study for charts. Raises StoreError where it is too large, or nothing is scored yet."""
        from opd_tui.charts import MOST_SCORES, chart_part, study

        opened, view = self._store, self.view
        n_sig, n_nodes = opened.attributes.n_sig, opened.counts().n_nodes
        teachers = tuple(one.id for one in opened.teachers)
        if not n_nodes:
            raise StoreError("no node is measured yet: there is nothing to draw")
        if n_nodes * len(teachers) * len(self._objectives(view)) > MOST_SCORES:
            raise StoreError(f"{n_nodes:,} nodes are too many to draw here: `opd-tui report` takes the time for it")
        wanted = [(name, state, teachers, view) for name, state in opened.part_states().items()]
        known, self._chart_parts = self._chart_parts, {}
        for key in wanted:
            part = known.get(key)
            if part is None:
                nodes, paths = opened.study_nodes(teachers, whole=self._takes_whole(view), parts=[key[0]])
                part = chart_part(nodes, paths, n_sig, view.support, self._objectives(view), self._give_way)
            self._chart_parts[key] = part
        nulls = [teacher.id for teacher in opened.teachers if teacher.null]
        return study(list(self._chart_parts.values()), opened.listing(), n_sig, nulls)

    # pages

    def rollout(self, question_id: str, index: int) -> RolloutPage:
        """A rollout with its question's nodes, scored. Raises StoreError where there is none."""
        key = question_id, index
        page = self._pages.get(key) or self._read(question_id, index)
        return _keep(self._pages, key, page)

    def warm(self, at: str | None) -> None:
        """Have the page at hand that is wanted first, where it can be read."""
        with suppress(StoreError):
            place, _ = first_place(self._questions, at)
            if place is not None and place.rollout is not None:
                self.rollout(place.question_id, place.rollout)

    def prefetch(self, question_id: str, index: int, width: int) -> None:
        """Read the rollouts before and after this one in the list, and break their lines, in case one is asked for next."""
        at = self._questions.row(question_id) or 0
        near = [(row.id, rollout.index) for row in self._questions[max(at - 1, 0) : at + 2] for rollout in row.rollouts]
        if (question_id, index) in near:
            here = near.index((question_id, index))
            for neighbour in (*near[here + 1 : here + 2], *near[max(here - 1, 0) : here]):
                self.rollout(*neighbour).flow.prepare(width)

    def _read(self, question_id: str, index: int) -> RolloutPage:
        if question_id in self._scored:
            nodes, scores = _keep(self._scored, question_id, self._scored[question_id])
            rollout, question = self._store.rollout(question_id, index), self._store.question(question_id)
        else:
            page = self._store.page(question_id, index, whole=self._takes_whole(self.view))
            nodes, rollout, question = page.nodes, page.rollout, page.question
            scores = self._score(nodes, self.view)
            _keep(self._scored, question_id, (nodes, scores))
        ids = rollout.token_id_T.tolist()
        vocab = self._store.vocab
        asked = [line for line in paragraphs(question.prompt) if line.strip()]
        return RolloutPage(
            question_id=question_id,
            index=index,
            question=tuple(asked[-SHOWN_PARAGRAPHS:]),
            flow=Flow(
                runs([vocab.bytes_of(one) for one in ids], {place for place, one in enumerate(ids) if vocab.is_special(one)})
            ),
            rollout=rollout,
            nodes=nodes,
            scores=scores,
            n_sig=self._store.attributes.n_sig,
            objectives=tuple(safe(name) for name in scores.objectives),
            teachers=tuple(safe(name) for name in scores.teachers),
            label=self._label,
            row_of={int(nodes.position_N[row]): int(row) for row in rollout.node_P if nodes.position_N[row] < len(ids)},
        )

    # what leaves the explorer

    def copied(self, what: Copying, place: Place, teacher: str, prior: Prior | None) -> tuple[str, str, str]:
        """What it is, the text, and the name of a file for it: a token's bytes as text, or its row of an export."""
        from opd_tui.export.rows import one_row

        assert place.rollout is not None and place.token is not None
        page = self.rollout(place.question_id, place.rollout)
        if what == "text":
            text = self._store.vocab.bytes_of(int(page.rollout.token_id_T[place.token])).decode("utf-8", "replace")
            return "the token's text", text, "token.txt"
        row = one_row(self._store, page.rollout, page.nodes, page.scores, prior, place.token, teacher)
        is_node = "node with its token" if "children" in row else "token"
        return f"the {is_node} as JSON", json.dumps(row, ensure_ascii=False, allow_nan=False, indent=1) + "\n", "token.json"

    def export(self, order: Order, tell: Callable[[int, int], None]) -> Exporting:
        """Write rows to a file, and say so. Raises StoreError."""
        from opd_tui.export.job import carry_out

        return carry_out(self._path, order, tell)

    def comparison(self, question_id: str, left: int, right: int | None) -> Comparison:
        """Two rollouts of a question; without `right`: the nearest of opposite outcome. Raises StoreError where there is none."""
        rows = {row.index: row for row in self._store.line(question_id).rollouts}
        if right is None:
            sketches = [
                Sketch(row.index, row.correct, self._store.rollout(question_id, row.index, ()).token_id_T.tolist())
                for row in rows.values()
            ]
            here = [sketch for sketch in sketches if sketch.index == left]
            found = nearest(here[0], sketches) if here else None
            if found is None:
                raise StoreError(f"question {safe(question_id)} has one rollout only: there is nothing to compare it with")
            right = found.index
        one, other = self.rollout(question_id, left), self.rollout(question_id, right)
        return Comparison(
            left=one,
            right=other,
            n_shared=shared_prefix(one.rollout.token_id_T.tolist(), other.rollout.token_id_T.tolist()),
            node_pairs=pair_nodes(one.row_of, other.row_of),
            opposite=one.rollout.correct != other.rollout.correct,
            may_be_opposite=len({row.correct for row in rows.values()}) > 1,
        )

    def search(self, query: Query) -> Iterator[Found]:
        """What matches in the whole store, in blocks. Raises StoreError."""
        from opd_tui.search.searching import search

        return search(self._store, query)

    # texts

    def prompts(self, question_id: str, teacher: int) -> tuple[Passage, ...]:
        """What the student was asked, what a teacher was asked, and the reference answer."""
        question = self._store.question(question_id)
        passages = [Passage("the student's prompt", paragraphs(question.prompt))]
        if teacher < len(self._store.teachers):
            info = self._store.teachers[teacher]
            passages.append(
                Passage(f"the prompt of teacher {safe(info.id)}", paragraphs(self._store.teacher_prompt(question_id, info.id)))
            )
        return (*passages, Passage("reference answer", paragraphs(question.reference_answer)))

    def completions(self, question_id: str, node: int, token_id: int) -> tuple[Passage, ...]:
        """Kept completions that came by a child of a node, below a word on them: right ones first, the shortest of each first."""
        from opd_tui.after_child import after_child

        if question_id not in self._scored:
            nodes = self._store.nodes(question_id, whole=self._takes_whole(self.view))
            _keep(self._scored, question_id, (nodes, self._score(nodes, self.view)))
        nodes, scores = self._scored[question_id]
        rollouts = [
            self._store.rollout(question_id, row.index, ()) for row in self._store.line(question_id).rollouts if row.n_nodes
        ]
        found = after_child(nodes, rollouts, self._store.completions(question_id), node, token_id)
        child = "the rest" if token_id == REST_TOKEN else str(self._label(token_id))
        if not found:
            raise StoreError(f"no completion that went on with {child} was kept to be read")
        estimates, k = scores.estimates, nodes.token_NK[node].tolist().index(token_id)
        right = sum(one.correct for one, _ in found)
        among = interval(float(estimates.low_NK[node, k]), float(estimates.high_NK[node, k]))
        shown = (*found[:right][:MOST_READ], *found[right:][:MOST_READ])  # right ones come first
        those = f" Of either the shortest {MOST_READ} are shown." if len(shown) < len(found) else ""
        told = (
            Safe(f"Kept to be read: {counted(len(found), 'completion')} that came this way, {right} of them correct.{those}"),
            Safe("p_succ counts by their weights all that were drawn, so what was kept need not be in that proportion."),
        )
        passages = [Passage(f"after {child}: p_succ {prob(float(estimates.p_succ_NK[node, k]))} {among}", told)]
        for one, token_ids in shown:
            heading = (
                f"{'correct' if one.correct else 'incorrect'}, {counted(len(token_ids), 'token')}, {ENDINGS[one.finish_reason]}"
            )
            elsewhere = "" if one.launch_node == node else f", launched at token {int(nodes.position_N[one.launch_node])}"
            text = b"".join(self._store.vocab.bytes_of(int(one_id)) for one_id in token_ids)
            passages.append(Passage(f"{heading}, sample {one.sample}{elsewhere}", paragraphs(text), one.correct))
        return tuple(passages)


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> Value:
    """`value`, and `kept` with it as its latest entry."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > KEPT_PAGES:
        kept.popitem(last=False)
    return value


def _labels(bytes_of: Callable[[int], bytes]) -> Callable[[int], Safe]:
    """Token ids as safe text, the common ones kept at hand."""

    @lru_cache(maxsize=4096)
    def label(token_id: int) -> Safe:
        return token(bytes_of(token_id))

    return label


def _teacher(info: TeacherInfo, late: bool) -> TeacherFacts:
    kind = f"{info.kind}: {info.context}" if info.context else info.kind
    return TeacherFacts(info.id, safe(info.id), safe(info.description), info.null, late, safe(kind))
