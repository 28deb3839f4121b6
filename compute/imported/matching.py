"""Which question of the study a rollout answers: by name, by the text that was asked, or by the prompt's tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec import Struct

from compute.imported.rollout import Rollout
from compute.tasks import Question
from compute.teachers import prompt_with


class Match(Struct, frozen=True):
    """A question, and whether it was asked as the study asks it."""

    question: Question
    same_prompt: bool


def _has_inside(text: str, question: str) -> bool:
    """Whether a prompt has a question in it, by itself: 1+2? is not asked by 21+2?"""
    return bool(question) and question in text and bool(re.search(rf"(?<!\S){re.escape(question)}(?!\S)", text))


class Questions:
    """The questions of a study, to be found by what a file says."""

    def __init__(
        self,
        questions: Sequence[Question],
        prompt_ids: Callable[[Question], tuple[int, ...]],
        shown: Callable[[Sequence[int]], str],
        system: str,
    ) -> None:
        self._system = system
        self._by_id = {one.id: one for one in questions}
        self._ids = {one.id: prompt_ids(one) for one in questions}
        self._by_ids = {self._ids[one.id]: one for one in questions}
        self._whole = {shown(self._ids[one.id]).strip(): one for one in questions}
        self._asked = {prompt_with(one.prompt, "").strip(): one for one in questions}
        #: the longest first, so that a question inside of another does not hide it
        self._texts = sorted(self._asked, key=len, reverse=True)
        self._found: dict[str, Question | None] = {}

    def match(self, rollout: Rollout) -> Match | None:
        """The question of a rollout, or None where the study has none such."""
        named = self._by_id.get(rollout.question_id) if rollout.question_id is not None else None
        if rollout.prompt_ids is not None:
            question = self._by_ids.get(rollout.prompt_ids) or named or self._by_text(rollout.prompt)
            return None if question is None else Match(question, self._ids[question.id] == rollout.prompt_ids)
        if rollout.prompt is None:
            return None if named is None else Match(named, True)
        question = self._by_text(rollout.prompt)
        if question is None and named is not None:
            return Match(named, False)
        return None if question is None else Match(question, self._as_study_asks(question, rollout))

    def _by_text(self, prompt: str | None) -> Question | None:
        """By the question alone, by the whole prompt, or by a prompt that has the question in it."""
        if prompt is None:
            return None
        text = prompt.strip()
        if text not in self._found:
            found = self._asked.get(text) or self._whole.get(text)
            if found is None:
                found = next((self._asked[one] for one in self._texts if _has_inside(text, one)), None)
            self._found[text] = found
        return self._found[text]

    def _as_study_asks(self, question: Question, rollout: Rollout) -> bool:
        """Whether the prompt, as far as the file tells, is that of the study."""
        text = (rollout.prompt or "").strip()
        if rollout.system is None:  # a prompt in one text, as the model read it
            return self._whole.get(text) is question
        return self._asked.get(text) is question and rollout.system == self._system
