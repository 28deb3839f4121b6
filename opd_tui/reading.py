"""What the loader's threads read: the store's tables become pages and facts. Imported after the first paint."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

import store
from compute.scores import Scores, score
from compute.updates import takes_whole
from opd_tui.facts import Catalogue, Passage, QuestionFacts, RolloutFacts, TeacherFacts
from opd_tui.matches import Found
from opd_tui.overview import Overview, no_overview, overview, score_study, study_means, study_prior
from opd_tui.pages import RolloutPage
from opd_tui.query import Query
from opd_tui.searching import search
from opd_tui.text import Safe, paragraphs, runs, safe, token
from store.errors import StoreError
from store.schema import REST_TOKEN, FinishReason, PathKind, QuestionStatus
from store.tables import Nodes, QuestionRow, TeacherInfo

Key = TypeVar("Key")
Value = TypeVar("Value")

#: Rollouts and questions kept at hand, so that going back is immediate.
KEPT_PAGES = 8
#: A study with more nodes is not scored as a whole: their table alone takes some 6 KB each.
MOST_NODES = 60_000
#: Paragraphs of the prompt that stand above the tokens.
SHOWN_PARAGRAPHS = 6

WHY_LEFT_OUT = {
    QuestionStatus.SCORED: "",
    QuestionStatus.NO_SUCCESS: "left out: no initial rollout was correct",
    QuestionStatus.NO_DEMONSTRATION: "left out: no demonstration, summary or hint for a teacher's context",
    QuestionStatus.NO_NODE: "left out: no position had two children to compare",
    QuestionStatus.NOT_SELECTED: "left out: not as difficult as the study asks for",
}


class Library:
    """An open store with a few pages at hand. One thread asks for pages; another may ask for the overview meanwhile."""

    def __init__(self, path: str) -> None:
        self._store = store.open(path)
        self._title = safe(os.path.basename(os.path.normpath(path)) or path)
        self._pages: OrderedDict[tuple[str, int], RolloutPage] = OrderedDict()
        self._scored: OrderedDict[str, tuple[Nodes, Scores]] = OrderedDict()
        self._label = _labels(self._store.vocab.bytes_of)

    # what there is

    def refresh(self) -> bool:
        """Whether the store has grown. What was read of its questions is forgotten then: teachers may have come."""
        grown = self._store.refresh()
        if grown:
            self._pages.clear()
            self._scored.clear()
        return grown

    def catalogue(self) -> Catalogue:
        """The lists."""
        attributes = self._store.attributes
        return Catalogue(
            title=self._title,
            student=safe(os.path.basename(attributes.student.rstrip("/")) or attributes.student),
            teachers=tuple(_teacher(info, self._store.judged(info.id)[1] > 0) for info in self._store.teachers),
            objectives=tuple(safe(name) for name in attributes.objectives),
            n_planned=len(attributes.question_ids),
            questions=tuple(_question(row) for row in self._store.questions()),
        )

    @property
    def _whole(self) -> bool:
        names = self._store.attributes.objectives
        return takes_whole(names, names)

    def overview(self) -> Overview:
        """The whole study, scored; none where its table of nodes would not fit beside everything else."""
        n_nodes = self._store.counts().n_nodes
        if n_nodes > MOST_NODES:
            return no_overview(n_nodes)
        nodes, paths = self._store.study_nodes(whole=self._whole)
        n_sig = self._store.attributes.n_sig
        scores = score_study(nodes, n_sig)
        return overview(nodes, paths, scores, study_means(nodes, paths, scores), study_prior(nodes, n_sig))

    # pages

    def rollout(self, question_id: str, index: int) -> RolloutPage:
        """A rollout with its question's nodes, scored. Raises StoreError where there is none."""
        key = question_id, index
        page = self._pages.get(key) or self._read(question_id, index)
        return _keep(self._pages, key, page)

    def prefetch(self, question_id: str, index: int) -> None:
        """Read the rollouts before and after this one in the list, in case one of them is asked for next."""
        rows = self._store.questions()
        at = next((place for place, row in enumerate(rows) if row.id == question_id), 0)
        near = [(row.id, rollout.index) for row in rows[max(at - 1, 0) : at + 2] for rollout in row.rollouts]
        if (question_id, index) in near:
            here = near.index((question_id, index))
            for neighbour in (*near[here + 1 : here + 2], *near[max(here - 1, 0) : here]):
                self.rollout(*neighbour)

    def _read(self, question_id: str, index: int) -> RolloutPage:
        if question_id in self._scored:
            nodes, scores = _keep(self._scored, question_id, self._scored[question_id])
            rollout, question = self._store.rollout(question_id, index), self._store.question(question_id)
        else:
            page = self._store.page(question_id, index, whole=self._whole)
            nodes, rollout, question = page.nodes, page.rollout, page.question
            scores = score(nodes, n_sig=self._store.attributes.n_sig, support="sliced")
            _keep(self._scored, question_id, (nodes, scores))
        ids = rollout.token_id_T.tolist()
        vocab = self._store.vocab
        asked = [line for line in paragraphs(question.prompt) if line.strip()]
        return RolloutPage(
            question_id=question_id,
            index=index,
            question=tuple(asked[-SHOWN_PARAGRAPHS:]),
            runs=tuple(
                runs([vocab.bytes_of(one) for one in ids], {place for place, one in enumerate(ids) if vocab.is_special(one)})
            ),
            rollout=rollout,
            nodes=nodes,
            scores=scores,
            n_sig=self._store.attributes.n_sig,
            objectives=tuple(safe(name) for name in nodes.objectives),
            label=self._label,
            row_of={int(nodes.position_N[row]): int(row) for row in rollout.node_P if nodes.position_N[row] < len(ids)},
        )

    def search(self, query: Query) -> Iterator[Found]:
        """What matches in the whole store, in blocks. Raises StoreError."""
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
        """Kept completions that left the tree at a node by a child, right ones first."""
        found = [one for one in self._store.completions(question_id) if (one.exit_node, one.exit_token) == (node, token_id)]
        child = "the rest" if token_id == REST_TOKEN else str(self._label(token_id))
        if not found:
            raise StoreError(f"no completion that left by {child} was kept to be read")
        passages = []
        for one in sorted(found, key=lambda one: (not one.correct, one.sample)):
            ending = ", cut off at the length limit" if one.finish_reason == FinishReason.LENGTH else ""
            heading = f"{'correct' if one.correct else 'incorrect'}, sample {one.sample}, {len(one.token_ids)} tokens{ending}"
            text = b"".join(self._store.vocab.bytes_of(int(token_id)) for token_id in one.token_ids)
            passages.append(Passage(heading, paragraphs(text), one.correct))
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
    return TeacherFacts(info.id, safe(info.id), safe(info.description), info.null, late)


def _question(row: QuestionRow) -> QuestionFacts:
    return QuestionFacts(
        id=row.id,
        label=safe(row.id),
        number=row.number,
        n_rollouts=row.n_rollouts,
        n_correct=row.n_correct,
        left_out=WHY_LEFT_OUT[row.status],
        rollouts=tuple(
            RolloutFacts(
                index=one.index,
                correct=one.correct,
                truncated=one.finish_reason == FinishReason.LENGTH,
                representative=one.path_kind != PathKind.NONE,
                n_tokens=one.n_tokens,
                n_nodes=one.n_nodes,
            )
            for one in row.rollouts
        ),
    )
