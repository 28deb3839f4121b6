"""Finished phases of questions in hand, beside the store, so that a crash costs only the phase it met."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from compute.demonstrations import Pool
from compute.engine import Completion
from compute.locks import WHOLE, Shard
from compute.pipeline import Responses
from compute.tasks import Grade, Question
from store import spool as files
from store.errors import StoreError
from store.parts import PartArrays, validate
from store.schema import FinishReason


class Spool:
    """The spool of one study beside its store. A file that is damaged counts as not there: its phase is done again."""

    def __init__(self, folder: Path, study_hash: str, shard: Shard = WHOLE, *, read_only: bool = False) -> None:
        #: begins the names of the parts
        self.run_id = study_hash[:8] if shard == WHOLE else f"{study_hash[:8]}-{shard.part_name}"
        self._read_only = read_only
        self._folder = folder / study_hash

    def remove(self) -> None:
        """Let go of everything, once the store has it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def record(self, question: Question) -> PartArrays | None:
        """The question's record, where it was finished."""
        with suppress(StoreError):
            arrays, facts = files.load(self._path(question, "record"))
            validate(arrays)  # one of an earlier schema is not
            said = facts.get("made_with")  # not there in the spool of an earlier version
            return replace(arrays, made_with=frozenset([str(said)] if said else []))
        return None

    def keep_record(self, question: Question, record: PartArrays) -> None:
        """Keep the question's record, and let go of the pieces before it that no other question reads."""
        files.save(self._path(question, "record"), record, {"question": question.id, "made_with": "; ".join(record.made_with)})
        for piece in (self._path(question, "rollouts"), *self._folder.glob(self._path(question, "completions-*").name)):
            piece.unlink(missing_ok=True)

    def drop_record(self, question: Question) -> None:
        """Let go of a record that the store has."""
        self._path(question, "record").unlink(missing_ok=True)

    def responses(self, question: Question, phase: str, make: Callable[[], Responses]) -> Responses:
        """The responses of a phase: as kept, or made and kept."""
        kept = self._load(question, phase)
        if kept is not None:
            return _responses(kept)
        made = make()
        self._save(question, phase, _arrays(made))
        return made

    def has(self, question: Question, phase: str) -> bool:
        """Whether a phase of a question is kept, or the whole record."""
        return self._path(question, phase).exists() or self._path(question, "record").exists()

    def leave_alone(self, question: Question) -> None:
        """Note that there is nothing to do for the question."""
        self._save(question, "alone", {"nothing": np.zeros(0, dtype=np.uint8)})
        self._path(question, "rollouts").unlink(missing_ok=True)

    def is_left_alone(self, question: Question) -> bool:
        """Whether `leave_alone` was called."""
        return self._path(question, "alone").exists()

    def keep_notes_alone(self) -> None:
        """Let go of everything but the notes of `leave_alone`."""
        for piece in self._folder.glob("*"):
            if not piece.name.endswith("-alone.npz"):
                piece.unlink(missing_ok=True)
        with suppress(OSError):  # there are notes
            self._folder.rmdir()

    def pool(self, question: Question, phase: str, make: Callable[[], Pool]) -> Pool:
        """The demonstrations of a phase: as kept, or made and kept."""
        kept = self._load(question, phase)
        if kept is not None:
            texts = tuple(bytes(piece.astype(np.uint8)).decode() for piece in _pieces(kept))
            n_correct = int(kept["n_correct"][0])
            return Pool(texts[:n_correct], texts[n_correct:])
        made = make()
        texts = (*made.correct, *made.wrong)
        arrays = {**_ragged([list(text.encode()) for text in texts]), "n_correct": np.array([len(made.correct)])}
        self._save(question, phase, arrays)
        return made

    def _path(self, question: Question, phase: str) -> Path:
        return self._folder / f"{question.number:06d}-{phase}.npz"

    def _load(self, question: Question, phase: str) -> dict[str, NDArray[Any]] | None:
        with suppress(StoreError):
            return dict(files.load(self._path(question, phase))[0].student)
        return None

    def _save(self, question: Question, phase: str, arrays: dict[str, NDArray[Any]]) -> None:
        if self._read_only:
            return
        files.save(self._path(question, phase), PartArrays(arrays), {"question": question.id})


def _ragged(sequences: Sequence[Sequence[int]]) -> dict[str, NDArray[Any]]:
    start = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in sequences], out=start[1:])
    return {"token_id": np.array([token for one in sequences for token in one], dtype=np.int32), "start": start}


def _pieces(arrays: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    return [arrays["token_id"][a:b] for a, b in zip(arrays["start"][:-1], arrays["start"][1:], strict=True)]


def _arrays(responses: Responses) -> dict[str, NDArray[Any]]:
    return {
        **_ragged([one.token_ids.tolist() for one in responses.completions]),
        "finish_reason": np.array([one.finish_reason for one in responses.completions], dtype=np.uint8),
        "reward": np.array([grade.reward for grade in responses.grades], dtype=np.float64),
        "correct": responses.correct,
    }


def _responses(arrays: dict[str, NDArray[Any]]) -> Responses:
    return Responses(
        tuple(
            Completion(tokens, FinishReason(int(reason)))
            for tokens, reason in zip(_pieces(arrays), arrays["finish_reason"], strict=True)
        ),
        tuple(Grade(float(reward), bool(correct)) for reward, correct in zip(arrays["reward"], arrays["correct"], strict=True)),
    )
