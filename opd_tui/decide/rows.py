"""Rows of a decision as trainers take them; docs/decide.md has the lines that use them, and where names were looked up."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from compute.decisions.routing import Routing
from compute.decisions.weights import Weighing, token_weights
from compute.evidence import TOKEN_FEATURES, Evidence, token_features
from opd_tui.decide.hashes import Hashes
from store.errors import StoreError
from store.reader import Store
from store.schema import TokenSource
from store.tables import Question, Rollout

Row = dict[str, Any]
Format = Literal["plain", "trl", "verl", "tinker", "prime-rl", "skyrl"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: These take masks of 0 and 1, no weights between.
MASKS_ONLY: tuple[Format, ...] = ("prime-rl", "skyrl")


class Prompts(Struct, frozen=True):
    """How prompts of the study are written: as messages, or as text for a study without a chat template."""

    system: str
    plain: bool

    @classmethod
    def of(cls, opened: Store) -> Prompts:
        """As the study file says."""
        try:
            chat = tomllib.loads(opened.attributes.study).get("chat", {})
        except tomllib.TOMLDecodeError:
            chat = {}
        return cls(str(chat.get("system", "")), chat.get("template", "chat") == "plain")

    def written(self, prompt: str) -> Any:
        """The prompt of a question."""
        return prompt if self.plain else self.messages(prompt)

    def messages(self, prompt: str) -> list[dict[str, str]]:
        """The prompt of a question as messages, also where the study goes without a chat template."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": prompt}]


def routing_rows(opened: Store, found: Routing, format: Format) -> Iterator[Row]:
    """A row per routed question, in the study's order; `plain` has the questions without a teacher as well.

    A trainer gets only what it can follow: `trl` the routes to a context that stands after the question and is the same for
    all its rollouts, `verl`, `tinker` and `prime-rl` those to another model.
    """
    ids = {line.number: line.id for line in opened.questions()}
    kinds = {teacher.id: teacher.kind for teacher in opened.teachers}
    prompts = Prompts.of(opened)
    for route in found.routes:
        question_id = ids[route.question]
        if format == "plain":
            row = {name: getattr(route, name) for name in route.__struct_fields__ if name != "question"}
            yield {"question_id": question_id, **row}
            continue
        if route.teacher is None or not follows(format, kinds.get(route.teacher, "")):
            continue
        question = opened.question(question_id)
        row = {"question_id": question_id, "prompt": prompts.written(question.prompt)}
        if format == "trl":
            context = privileged_context(opened, question, route.teacher)
            if context is None:
                continue
            row |= {"privileged_context": context, "teacher": route.teacher}
        elif format == "verl":
            row |= {
                "prompt": prompts.messages(question.prompt),  # it takes no text
                "data_source": "opd-tui",
                "teacher_key": route.teacher,
                "reward_model": {"style": "rule", "ground_truth": question.reference_answer},
                "extra_info": {"question_id": question_id},
            }
        else:
            row |= {"teacher": route.teacher, "answer": question.reference_answer}
        if format == "tinker":  # its data sets of prompts hold texts
            row["prompt"] = question.prompt
        yield row


def follows(format: Format, kind: str) -> bool:
    """Whether a trainer can give a question to a teacher of this kind."""
    if format == "trl":
        return kind == "self"
    return kind == "external" or format not in ("verl", "tinker", "prime-rl")


def privileged_context(opened: Store, question: Question, teacher: str) -> str | None:
    """What a teacher's message has after the question; None where its context stands elsewhere or is each rollout's own."""
    if any(one.id == teacher and one.context == "feedback" for one in opened.teachers):
        return None
    theirs, ours = opened.teacher_prompt(question.id, teacher), opened.vocab.text(question.prompt_token_ids)
    whole = question.prompt in ours
    asked = question.prompt if whole else question.prompt.strip()  # many chat templates strip a message
    at = ours.rfind(asked) if asked else -1
    if at < 0:
        return None
    head, tail = ours[:at], ours[at + len(asked) :]
    if not (theirs.startswith(head) and theirs.endswith(tail) and len(theirs) >= len(head) + len(tail)):
        return None
    message, begin = theirs[len(head) : len(theirs) - len(tail)], asked if whole else question.prompt.lstrip()
    return message[len(begin) :] if message.startswith(begin) else None


class Weighted(Struct, frozen=True):
    """One rollout with a weight per token."""

    question: Question
    rollout: Rollout
    weight_T: NDArray[np.float64]
    asked: Row | None  #: prompt and context where the student with a context is the teacher; None where no trainer makes it


def weighted(opened: Store, evidence: Evidence, found: Weighing) -> Iterator[Weighted]:
    """Every rollout of the store, its tokens weighed; tokens that the student did not write have weight 0."""
    prompts = Prompts.of(opened)
    is_self = any(one.id == found.teacher and one.kind == "self" for one in opened.teachers)
    for line in opened.questions():
        question = opened.question(line.id)
        asked: Row | None = {}
        if is_self and line.rollouts:
            context = privileged_context(opened, question, found.teacher)
            asked = None if context is None else {"prompt": prompts.written(question.prompt), "privileged_context": context}
        weights = _by_rollout(evidence, found, line.number) if found.weight_N is not None else {}
        for row in line.rollouts:
            rollout = opened.rollout(line.id, row.index, [found.teacher])
            if found.weight_N is None:
                weight_T = token_weights(found.rule, _features(rollout, found), len(rollout))
            else:
                weight_T = np.zeros(len(rollout))
                at_P, value_P = weights.get(row.index, (np.zeros(0, np.int64), np.zeros(0)))
                weight_T[at_P] = value_P
            weight_T = np.where(rollout.token_source_T == TokenSource.MODEL, weight_T, 0.0)
            yield Weighted(question, rollout, weight_T, asked)


def _features(rollout: Rollout, found: Weighing) -> dict[str, NDArray[np.float64]]:
    position_T = np.arange(len(rollout))
    always = {"position": position_T.astype(np.float64), "depth": position_T / max(len(rollout), 1)}
    if found.rule.feature not in TOKEN_FEATURES:
        return always
    return {**always, **{name: value_MT[0] for name, value_MT in token_features(rollout, position_T).items()}}


def _by_rollout(evidence: Evidence, found: Weighing, number: int) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Positions and weights of the decision points of a question's rollouts."""
    assert found.weight_N is not None
    paths = evidence.paths
    rollouts = {}
    for path in np.flatnonzero(paths.question_L == number).tolist():
        node_P = paths.node_P[int(paths.start_L1[path]) : int(paths.start_L1[path + 1])]
        rollouts[int(paths.rollout_index_L[path])] = (evidence.nodes.position_N[node_P].astype(np.int64), found.weight_N[node_P])
    return rollouts


def weight_row(one: Weighted, found: Weighing, hashes: Hashes, format: Format) -> Row:
    """One rollout as a row of a format."""
    whole = found.by != "probability"
    weights = [int(w) if whole else round(float(w), 6) for w in one.weight_T.tolist()]
    prompt, tokens = one.question.prompt_token_ids.tolist(), one.rollout.token_id_T.tolist()
    key: Row = {"question_id": one.question.id, "rollout_index": one.rollout.index, "teacher": found.teacher}
    match format:
        case "trl":
            if one.asked is None:
                raise StoreError(
                    f"TRL puts one context after a question, the same for all its rollouts; what {found.teacher} reads is other."
                )
            row = {"prompt_ids": prompt, "completion_ids": tokens, "weights": weights, **one.asked}
        case "verl":
            row = {"prompts": prompt, "responses": tokens, "rollout_is_weights": weights}
        case "tinker":
            target = [*prompt, *tokens][1:]
            mask = [0] * (len(target) - len(tokens)) + weights[max(0, len(tokens) - len(target)) :]
            row = {"target_tokens": target, "mask": mask}
        case "prime-rl":
            row = {"prompt_ids": prompt, "completion_ids": tokens, "loss_mask": [bool(w) for w in weights]}
        case "skyrl":
            row = {"prompt_token_ids": prompt, "response_ids": tokens, "loss_masks": weights}
        case _:
            row = {"objective": found.objective, "first_position": 0, "token_ids": tokens, "weights": weights}
    return {**key, **row, "tokenizer_hash": hashes.tokenizer, "chat_template_hash": hashes.chat_template}
