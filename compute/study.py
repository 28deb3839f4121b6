"""The study file: what a study is, as typed, frozen settings, and where its faults are explained.

A field's description is written once, here; `compute.template` prints it as the comment above the field
in the file that `opd-tui init` writes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from compute import objectives
from compute.allocation import Allocation
from compute.errors import StudyError
from compute.explain import explain

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Dtype = Literal["float32", "bfloat16", "float16"]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+()-]{0,63}$")]


class General(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the study is called, and what its store is prepared for."""

    name: Annotated[str, Meta(description="What the study is about, for people.")]
    seed: Annotated[int, Meta(description="Every random draw follows from it, and from what is drawn.")] = 0
    objectives: Annotated[
        tuple[str, ...],
        Meta(description="Distillation objectives whose mean over the whole vocabulary is kept; these can be switched live."),
    ] = ("reverse_kl", "forward_kl")


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model in transformers' format."""

    model: Annotated[str, Meta(description="Folder (relative to this file) or name on the model hub.")]
    revision: Annotated[str, Meta(description="Revision on the hub; empty for the default.")] = ""
    dtype: Annotated[Dtype, Meta(description="float32 gives the same store bit for bit however it is computed.")] = "float32"
    device: Annotated[str, Meta(description="cpu, cuda, cuda:1, ...")] = "cpu"
    trust_remote_code: Annotated[
        bool, Meta(description="Run Python code that comes with the model. Off unless you have read it.")
    ] = False


class Sampling(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Initial rollouts. Temperature is 1 and top-p is off: P must be the distribution that is sampled from."""

    n_rollouts: Annotated[Positive, Meta(description="Initial rollouts per question (the paper: 200).")] = 32
    max_response_tokens: Annotated[
        Positive, Meta(description="Length limit of a whole response; one cut off there counts as a failure.")
    ] = 256
    stop: Annotated[tuple[str, ...], Meta(description="A response also ends with a token that contains one of these.")] = ()


class Chat(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a prompt becomes tokens."""

    template: Annotated[
        Literal["chat", "plain"],
        Meta(description="chat: through the tokenizer's chat template; plain: the text as it is, for base models."),
    ] = "chat"
    system: Annotated[str, Meta(description="System prompt; empty for none.")] = ""
    arguments: Annotated[
        dict[str, bool | int | str], Meta(description="Arguments of the chat template, such as enable_thinking.")
    ] = field(default_factory=dict)


class Task(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The questions and how answers to them are graded."""

    questions: Annotated[
        str, Meta(description="JSONL file with one question a line (relative to this file); or use reasoning_gym.")
    ] = ""
    reasoning_gym: Annotated[str, Meta(description="Name of a reasoning-gym task that makes the questions.")] = ""
    reasoning_gym_arguments: Annotated[
        dict[str, Any], Meta(description="Arguments of the reasoning-gym task; its size follows from skip and limit.")
    ] = field(default_factory=dict)
    prompt: Annotated[
        str,
        Meta(
            description="What the model is asked. {field} takes a field of the question; {context} is where a teacher's context "
            "goes (default: the end)."
        ),
    ] = "{question}"
    id_field: Annotated[str, Meta(description="Field with the question's name; empty: its line number.")] = "id"
    answer_field: Annotated[str, Meta(description="Field with the reference answer.")] = "answer"
    grader: Annotated[
        str,
        Meta(
            description="exact, number, boolean, choice, reasoning_gym, or FILE.py:FUNCTION with (response, answer, question) -> "
            "reward."
        ),
    ] = "exact"
    answer_pattern: Annotated[
        str,
        Meta(description="Regular expression; the grader sees its first group where it matched last. Empty: the whole response."),
    ] = ""
    success_at: Annotated[float, Meta(description="Reward from which a response counts as correct.")] = 1.0
    skip: Annotated[Count, Meta(description="Questions to leave out at the start.")] = 0
    limit: Annotated[Count, Meta(description="Questions to take; 0 for all.")] = 0


class Teacher(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One teacher: another model, the student with a privileged context, or a null to compare with."""

    id: Annotated[Name, Meta(description="Short name: letters, digits and ._+()-")]
    kind: Annotated[
        Literal["external", "self", "temperature"],
        Meta(
            description="external: another model; self: the student with a context; temperature: the student, sharpened or "
            "flattened (a null)."
        ),
    ]
    model: Annotated[str, Meta(description="external: folder (relative to this file) or name on the hub.")] = ""
    revision: str = ""
    dtype: Dtype = "float32"
    device: str = "cpu"
    trust_remote_code: bool = False
    context: Annotated[
        Literal["", "answer", "1c", "other"],
        Meta(description="self: answer (the reference's), 1c (a correct demonstration), other (another question's, a null)."),
    ] = ""
    context_template: Annotated[
        str, Meta(description="Wording of the context with {answer} or {demonstration}; empty for the built-in one.")
    ] = ""
    temperature: Annotated[float, Meta(gt=0.0, description="temperature: of the student's distribution.")] = 1.0
    nominates: Annotated[
        bool | None, Meta(description="Whether it takes part in choosing positions; default: unless it is a null.")
    ] = None

    @property
    def null(self) -> bool:
        """Whether this teacher is a baseline that should earn nothing of itself (method.md 4)."""
        return self.kind == "temperature" or self.context == "other"

    @property
    def takes_part(self) -> bool:
        """Whether this teacher nominates positions and candidates."""
        return self.nominates if self.nominates is not None else not self.null


class Demonstrations(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Correct responses that teachers may read (method.md 5)."""

    temperature: Annotated[float, Meta(gt=0.0, description="Temperature at which they are sampled.")] = 0.7
    max_tries: Annotated[Positive, Meta(description="Tries per question before it is left out.")] = 60


class Targeting(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which positions and tokens are estimated, and with how many completions (method.md 3)."""

    first_window: Annotated[
        Positive, Meta(description="Tokens in the first depth window; each further one is twice as wide.")
    ] = 50
    k: Annotated[Count, Meta(description="Positions per window with the largest |P_j (l_j - lbar)|.")] = 4
    r: Annotated[Count, Meta(description="Positions per window with the largest |T_j - P_j|.")] = 4
    tau: Annotated[Share, Meta(description="A token is a candidate where student or teacher gives it more.")] = 0.02
    n_min: Annotated[
        Positive, Meta(description="Completions per child; what they come to is shared out as `allocation` says.")
    ] = 100
    n_sig: Annotated[Positive, Meta(description="Effective completions from which a child is kept.")] = 20
    n_paths: Annotated[Positive, Meta(description="Representative paths of either outcome.")] = 2
    allocation: Annotated[
        Allocation,
        Meta(
            description="neyman: where they make the ideal gradient most certain, n_sig a candidate at least; uniform: n_min "
            "forced at every child, as in the paper and as its counting needs; shares: n_min a candidate, its share for a gap."
        ),
    ] = "neyman"
    budget_completions: Annotated[
        Count, Meta(description="Completions per question; 0: as many as n_min at every child makes.")
    ] = 0
    budget_tokens: Annotated[Count, Meta(description="The same in tokens, as far as the initial rollouts tell; 0 for none.")] = 0


class Keep(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is stored beside the counts."""

    rollouts: Annotated[
        Literal["paths", "all"],
        Meta(description="Rollouts stored token by token: the representative paths, or all initial ones."),
    ] = "paths"
    completions: Annotated[
        Literal["all", "sample", "counts"], Meta(description="Completions stored to be read: all, up to 8 per child, or none.")
    ] = "sample"
    top_k: Annotated[Positive, Meta(description="Most likely tokens kept per position, of student and teacher.")] = 16
    minillm_completions: Annotated[
        Positive,
        Meta(description="Completions per child that every teacher reads to the end, where `study.objectives` has minillm."),
    ] = 8


class Parts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When finished questions are published. Changes nothing in what they hold."""

    questions: Annotated[Positive, Meta(description="Questions in a part.")] = 16
    minutes: Annotated[float, Meta(gt=0.0, description="A part is published after so long, however few it holds.")] = 5.0


class Engine(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How completions are run."""

    slots: Annotated[int, Meta(ge=16, description="Completions decoded together.")] = 128
    threads: Annotated[Count, Meta(description="CPU threads; 0 for the default of torch.")] = 0


class Study(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole study file."""

    study: General
    student: ModelSettings
    task: Task
    teacher: tuple[Teacher, ...] = ()
    sampling: Sampling = Sampling()
    chat: Chat = Chat()
    demonstrations: Demonstrations = Demonstrations()
    targeting: Targeting = Targeting()
    keep: Keep = Keep()
    parts: Parts = Parts()
    engine: Engine = Engine()


def load(path: Path) -> Study:
    """Read and check the study file at `path`.

    Raises `StudyError` with the file, the key, what is allowed and the nearest name.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"There is no study file {path}; `opd-tui init` writes one.") from None
    except OSError as error:
        raise StudyError(f"The study file {path} cannot be read: {error.strerror}.") from None
    return parse(data, path)


def parse(data: bytes, path: Path) -> Study:
    """As `load`, from the file's bytes; `path` is named in errors."""
    try:
        raw = msgspec.toml.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is not valid TOML: {error}") from None
    try:
        study = msgspec.convert(raw, Study)
    except msgspec.ValidationError as error:
        raise StudyError(f"{path}: {explain(error, Study, raw)}") from None
    _check(study, path)
    return study


def _check(study: Study, path: Path) -> None:
    """What types alone cannot say."""
    task = study.task
    if bool(task.questions) == bool(task.reasoning_gym):
        raise StudyError(f"{path}: [task] needs either `questions` (a JSONL file) or `reasoning_gym` (a task name).")
    for name in study.study.objectives:
        try:
            objectives.parse(name)
        except ValueError as error:
            raise StudyError(f"{path}: `study.objectives`: {error}") from None
    _check_teachers(study, path)
    if study.targeting.budget_completions and study.targeting.budget_tokens:
        raise StudyError(f"{path}: [targeting] takes `budget_completions` or `budget_tokens`, not both.")
    if study.chat.template == "plain":
        if study.chat.system or study.chat.arguments:
            raise StudyError(f'{path}: [chat] `system` and `arguments` mean nothing with template = "plain".')
        if any(teacher.context for teacher in study.teacher) and "{context}" not in task.prompt:
            raise StudyError(
                f'{path}: with [chat] template = "plain", `task.prompt` must say where a teacher\'s context goes: {{context}}.'
            )


def _check_teachers(study: Study, path: Path) -> None:
    """What the kind of a teacher asks for."""
    seen: set[str] = set()
    for number, teacher in enumerate(study.teacher):
        where = f"{path}: `teacher[{number}]` ({teacher.id})"
        if teacher.id.lower() in seen:
            raise StudyError(f"{where}: another teacher has this id; ids differ by more than case.")
        seen.add(teacher.id.lower())
        if teacher.kind == "external" and not teacher.model:
            raise StudyError(f"{where}: an external teacher needs `model`.")
        if teacher.kind != "external" and teacher.model:
            raise StudyError(f"{where}: only an external teacher has a `model`; this one is the student.")
        if teacher.kind == "self" and not teacher.context:
            raise StudyError(f"{where}: a self teacher needs a `context`: answer, 1c or other.")
        if teacher.kind != "self" and teacher.context:
            raise StudyError(f"{where}: only a self teacher has a `context`.")
        if teacher.kind != "temperature" and teacher.temperature != 1.0:
            raise StudyError(f"{where}: only a temperature teacher has a `temperature`; this one would ignore it.")
        if teacher.context_template and not teacher.context:
            raise StudyError(f"{where}: `context_template` words a `context`, and this teacher has none.")
        if teacher.kind == "temperature" and teacher.temperature == 1.0:
            raise StudyError(f"{where}: at `temperature` 1 the teacher is the student, and every score is undefined.")
        slot = "{answer}" if teacher.context == "answer" else "{demonstration}"
        if teacher.context_template and slot not in teacher.context_template:
            raise StudyError(f"{where}: `context_template` has no {slot}, so the teacher would not see it.")
    if len(study.teacher) > 31:
        raise StudyError(f"{path}: {len(study.teacher)} teachers, at most 31 fit one study.")


def fingerprint(study: Study, contents: Any) -> str:
    """The study's hash: of every setting that changes results, and of `contents`, what it names (questions, weights).

    Where it runs (devices, slots, threads, size of parts) is left out, so that a study can move and go on.
    """
    settings = msgspec.to_builtins(study)
    for section in ("parts", "engine"):
        del settings[section]
    for model in (settings["student"], *settings["teacher"]):
        del model["device"]
    text = msgspec.json.encode([settings, contents], order="deterministic")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
