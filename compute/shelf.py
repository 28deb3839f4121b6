"""The models, engines and teachers that a study names, each loaded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from compute import models, scoring
from compute.demonstrations import Writer
from compute.engine import Engine
from compute.errors import StudyError
from compute.pipeline import TeacherRun
from compute.residence import Residence
from compute.served.teacher import open_served
from compute.study import ModelSettings, Study, Teacher
from compute.user_code import is_named, load_function


class Shelf:
    """Every model that a study names, loaded once however many teachers use it."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        device: str,
        student: Writer,
        note: Callable[[str], None],
        shared: Residence | None,
    ) -> None:
        self.student = student.model
        self._note, self._shared = note, shared
        #: by id: those who write demonstrations or summaries
        self.writers = {student.id: student}
        self._study, self._folder, self._device = study, folder, device
        self._models: dict[tuple[str, ...], models.Model] = {}

    def beside(self, folder: Path) -> Shelf:
        """The same models, for a teacher whose relative paths count from another folder."""
        other = Shelf(self._study, folder, self._device, self.writers[""], self._note, self._shared)
        other.writers, other._models = self.writers, self._models
        return other

    def model(self, name: str, settings: Teacher) -> models.Model:
        """The model `name` with the revision, dtype and device of a teacher."""
        facts = (models.locate(name, self._folder), settings.revision, settings.dtype, self._device or settings.device)
        if facts not in self._models:
            self._models[facts] = load_model(name, settings, self._folder, self._device, (), self._shared)
        return self._models[facts]

    def writer(self, name: str, settings: Teacher) -> Writer:
        """Who writes for a teacher: the student, or the model that it names."""
        if not name:
            return self.writers[""]
        # From the study's words alone: a study draws the same wherever its models lie.
        identity = f"{name}\0{settings.revision}\0{settings.dtype}".encode()
        found = hashlib.blake2b(identity, digest_size=4).hexdigest()
        if found not in self.writers:
            model = models.stopping(self.model(name, settings), self._study.sampling.stop)
            self.writers[found] = Writer(found, model, transformers_engine(self._study, model, self._note))
        return self.writers[found]


def load_model(
    name: str,
    settings: ModelSettings | Teacher,
    folder: Path,
    device: str,
    stop: Sequence[str],
    shared: Residence | None,
) -> models.Model:
    """Load a model; with `shared`, one that takes turns with the others there."""
    location = models.locate(name, folder)
    options: dict[str, Any] = {
        "revision": settings.revision,
        "dtype": settings.dtype,
        "device": device or settings.device,
        "trust_remote_code": settings.trust_remote_code,
    }
    model = models.load(location, stop=stop, **options)
    if shared is not None:
        shared.take_in(model, partial(models.load_network, location, **options))
    return model


def study_engine(study: Study, student: models.Model, folder: Path, note: Callable[[str], None]) -> Engine:
    """The engine that the study asks for. Raises `StudyError`."""
    if study.engine.kind == "vllm":
        from compute.engine.vllm import VllmEngine

        if study.student.trust_remote_code:
            raise StudyError("The engine vllm runs no code that comes with a model; `student.trust_remote_code` must be false.")
        return VllmEngine(
            student,
            dtype=study.student.dtype,
            revision=study.student.revision,
            slots=study.engine.slots,
            arguments=study.engine.vllm,
        )
    if is_named(study.engine.kind):
        return _users_engine(study, student, folder)
    if study.engine.kind != "transformers":
        raise StudyError(f"`engine.kind` = {study.engine.kind!r} is no engine; there is transformers, vllm, or FILE.py:FUNCTION.")
    return transformers_engine(study, student, note)


def _users_engine(study: Study, student: models.Model, folder: Path) -> Engine:
    try:
        engine = load_function(study.engine.kind, folder, "engine.kind")(student)
    except StudyError:
        raise
    except Exception as error:  # the user's own function
        raise StudyError(f"`engine.kind`: {study.engine.kind} failed: {type(error).__name__}: {error}") from error
    if not callable(getattr(engine, "complete", None)) or not isinstance(getattr(engine, "batch_shape", None), str):
        raise StudyError(f"`engine.kind`: what {study.engine.kind} gives is no engine; it needs `complete` and `batch_shape`.")
    return engine  # type: ignore[no-any-return]  # as far as can be seen before it is called


def transformers_engine(study: Study, model: models.Model, note: Callable[[str], None]) -> Engine:
    """transformers' engine with the settings of the study."""
    from compute.engine.transformers import open_engine

    limit = int(study.engine.memory_limit * 2**30) or None
    return open_engine(model, slots=study.engine.slots, memory_limit=limit, note=note)


def open_teacher(settings: Teacher, shelf: Shelf) -> TeacherRun:
    """A teacher, ready to score. Raises `StudyError` where its model does not fit."""
    if settings.kind == "served":
        log_probs = scoring.log_probs(shelf.student.logits)  # of the prompt's model, never asked: the server is
        return TeacherRun(settings, shelf.student, log_probs, served=open_served(settings, shelf.student.tokens.token_bytes))
    if settings.kind == "external":
        model = shelf.model(settings.model, settings)
        models.require_same_tokens(shelf.student, model)
        return TeacherRun(settings, model, scoring.log_probs(model.logits))
    temperature = settings.temperature if settings.kind == "temperature" else 1.0
    reads = settings.reads_demonstrations or settings.context == "other"
    return TeacherRun(
        settings,
        shelf.student,
        scoring.log_probs(shelf.student.logits, temperature),
        shelf.writer(settings.context_model, settings) if reads else None,
        shelf.writer(settings.summary_model, settings) if settings.summarised else None,
    )


def engine_name(study: Study, engine: Engine) -> str:
    """What runs the completions, with its version where that is not transformers' (which is named beside it)."""
    return f"{study.engine.kind} {getattr(engine, 'version', '')}".strip()
