"""The study file: what a study is, as typed, frozen settings, and where its faults are explained.

A field's description is written once, here; `compute.template` prints it as the comment above the field
in the file that `opd-tui init` writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

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
Bin = Literal["easy", "medium", "hard"]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+()-]{0,63}$")]


class General(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the study is called, and what its store is prepared for."""

    name: Annotated[str, Meta(description="What the study is about, for people.")]
    seed: Annotated[int, Meta(description="Every random draw follows from it, and from what is drawn.")] = 0
    objectives: Annotated[
        tuple[str, ...],
        Meta(description="Distillation objectives whose mean over the whole vocabulary is kept; these can be switched live."),
    ] = ("reverse_kl", "forward_kl")
    nulls: Annotated[
        bool,
        Meta(
            description="Add the null teachers that the study does not list itself: the student at temperature 0.7 and 1.3, and, "
            "where a teacher reads demonstrations, another question's demonstration."
        ),
    ] = True


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
        str, Meta(description="JSONL file with one question a line (relative to this file); or use dataset or reasoning_gym.")
    ] = ""
    dataset: Annotated[
        str, Meta(description="Data set that the library `datasets` reads: name on the hub, or folder (relative to this file).")
    ] = ""
    dataset_config: Annotated[str, Meta(description="Configuration of the data set, such as main; empty for its only one.")] = ""
    dataset_revision: Annotated[str, Meta(description="Revision of the data set on the hub; empty for the default.")] = ""
    split: Annotated[str, Meta(description="Split of the data set.")] = "test"
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
    choices_field: Annotated[
        str, Meta(description="choice: field with the choices; the answer is a letter, an index from 0, or the text of one.")
    ] = "choices"
    grader: Annotated[
        str,
        Meta(
            description="exact, number, math, boolean, choice, reasoning_gym, or FILE.py:FUNCTION, which takes (response, "
            "answer, question) and gives a reward, or (reward, what to say of the response)."
        ),
    ] = "exact"
    answer_pattern: Annotated[
        str,
        Meta(description="Regular expression; the grader sees its first group where it matched last. Empty: the whole response."),
    ] = ""
    success_at: Annotated[float, Meta(description="Reward from which a response counts as correct.")] = 1.0
    only: Annotated[
        tuple[str, ...], Meta(description="Names of the questions to take, before skip and limit count; empty for all.")
    ] = ()
    leave_out: Annotated[tuple[str, ...], Meta(description="Names of questions to leave out, before skip and limit count.")] = ()
    skip: Annotated[Count, Meta(description="Questions to leave out at the start.")] = 0
    limit: Annotated[Count, Meta(description="Questions to take; 0 for all (of reasoning-gym, which has no end, 100).")] = 0
    difficulty: Annotated[
        tuple[Bin, ...],
        Meta(
            description="Questions to score, by the share of right initial rollouts: easy (.8 and more), medium (.25 to .8), "
            "hard (above 0, below .25). Empty: all that were ever answered right."
        ),
    ] = ()


#: Each has a bit of `node_nominated_by`, and the student one.
_MOST_TEACHERS = 31
#: What a wording of a context must name: the teacher would not see it otherwise.
_SLOTS: dict[str, tuple[str, ...]] = {
    "1c": ("demonstration",),
    "1c1w": ("demonstration", "wrong"),
    "sum-1c": ("summary",),
    "sum-1c1w": ("summary",),
    "answer": ("answer",),
    "hint": ("hint",),
    "feedback": ("feedback",),
    "other": ("demonstration",),
}
#: Contexts that are made of responses to the question itself.
DEMONSTRATED = frozenset({"1c", "1c1w", "sum-1c", "sum-1c1w"})


class Teacher(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One teacher: another model, the student with a privileged context, or a null to compare with."""

    id: Annotated[Name, Meta(description="Short name: letters, digits and ._+()-")]
    kind: Annotated[
        Literal["external", "served", "self", "temperature"],
        Meta(
            description="external: another model; served: another model behind a server; self: the student with a context; "
            "temperature: the student, sharpened or flattened (a null)."
        ),
    ]
    model: Annotated[str, Meta(description="external: folder (relative to this file) or name on the hub.")] = ""
    url: Annotated[
        str, Meta(description="served: address of the server, such as http://localhost:8000/v1; of SGLang without /v1.")
    ] = ""
    served_model: Annotated[str, Meta(description="served: name of the model there; of SGLang it may be empty.")] = ""
    api: Annotated[
        Literal["vllm", "sglang", "openai"],
        Meta(description="served: how it is asked; openai: completions with echo and logprobs, as older servers have them."),
    ] = "vllm"
    key_env: Annotated[str, Meta(description="served: environment variable that holds the key; empty for none.")] = ""
    concurrency: Annotated[Positive, Meta(description="served: calls at a time.")] = 8
    tolerance: Annotated[
        float,
        Meta(gt=0.0, description="served: nat by which two answers to one question may differ; bfloat16 needs some tenths."),
    ] = 0.25
    context: Annotated[
        Literal["", "1c", "1c1w", "sum-1c", "sum-1c1w", "answer", "hint", "feedback", "other"],
        Meta(
            description="self: what it reads after the question. 1c: a correct demonstration; 1c1w: a correct and a wrong one; "
            "sum-1c, sum-1c1w: a summary of those; answer: the reference's; hint: a field of the question; feedback: what the "
            "grader says of the rollout; other: another question's demonstration (a null)."
        ),
    ] = ""
    context_template: Annotated[
        str,
        Meta(
            description="Wording of the context with {demonstration}, {wrong}, {summary}, {answer}, {hint}, {feedback}, or a "
            "field of the question; empty for the built-in one."
        ),
    ] = ""
    context_model: Annotated[
        str, Meta(description="Model that writes the demonstrations: folder or name on the hub; empty for the student.")
    ] = ""
    summary_model: Annotated[
        str, Meta(description="sum-1c, sum-1c1w: model that summarises: folder or name on the hub; empty for the student.")
    ] = ""
    summary_template: Annotated[
        str,
        Meta(
            description="sum-1c, sum-1c1w: what the summariser is asked, with {prompt}, {demonstration}, {wrong}, or a field of "
            "the question; empty for the built-in wording."
        ),
    ] = ""
    hint_field: Annotated[str, Meta(description="hint: field of the question that holds it.")] = "hint"
    revision: Annotated[str, Meta(description="Of the models named here: revision on the hub; empty for the default.")] = ""
    dtype: Annotated[Dtype, Meta(description="Of the models named here.")] = "float32"
    device: Annotated[str, Meta(description="Of the models named here: cpu, cuda, cuda:1, ...")] = "cpu"
    trust_remote_code: Annotated[bool, Meta(description="Of the models named here: run Python code that is with them.")] = False
    temperature: Annotated[float, Meta(gt=0.0, description="temperature: of the student's distribution.")] = 1.0
    nominates: Annotated[
        bool | None, Meta(description="Whether it takes part in choosing positions; default: unless it is a null.")
    ] = None

    @property
    def null(self) -> bool:
        """Whether this teacher is a baseline that should earn nothing of itself (method.md 4)."""
        return self.kind == "temperature" or self.context == "other"

    @property
    def reads_demonstrations(self) -> bool:
        """Whether its context is made of responses to this very question."""
        return self.context in DEMONSTRATED

    @property
    def reads_wrong(self) -> bool:
        """Whether a wrong response is among them."""
        return self.context.endswith("1w")

    @property
    def summarised(self) -> bool:
        """Whether a model summarises them first."""
        return self.context.startswith("sum-")

    @property
    def takes_part(self) -> bool:
        """Whether this teacher nominates positions and candidates."""
        return self.nominates if self.nominates is not None else not self.null


class Demonstrations(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Graded responses that teachers may read (method.md 5)."""

    temperature: Annotated[float, Meta(gt=0.0, description="Temperature at which they and their summaries are sampled.")] = 0.7
    max_tries: Annotated[Positive, Meta(description="Tries per question before it is left out.")] = 60
    summary_tokens: Annotated[Positive, Meta(description="Length limit of a summary.")] = 256


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

    kind: Annotated[
        str,
        Meta(
            description="transformers: runs everywhere, in float32 the same bit for bit; vllm: the extra of that name; or "
            "FILE.py:FUNCTION, which takes the student's model and gives an engine (docs/engine.md)."
        ),
    ] = "transformers"
    vllm: Annotated[
        dict[str, bool | int | float | str],
        Meta(description="Further arguments of vllm.LLM, such as gpu_memory_utilization, max_model_len, enforce_eager."),
    ] = field(default_factory=dict)
    slots: Annotated[Count, Meta(description="Completions decoded together, at least 16; 0 for as many as memory allows.")] = 0
    memory_limit: Annotated[
        float, Meta(ge=0.0, description="GiB that decoding may take beside the weights; 0 for whatever is free.")
    ] = 0.0
    threads: Annotated[Count, Meta(description="CPU threads; 0 for the default of torch.")] = 0
    resident: Annotated[
        Literal["all", "one"],
        Meta(description="Models whose weights are in memory: all, or one at a time, a phase for all questions of a part."),
    ] = "all"


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


class _TeacherFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file with one teacher, for `opd-tui add-teacher`."""

    teacher: tuple[Teacher, ...]


def parse_teacher(text: str, path: Path) -> Teacher:
    """The one teacher of a file that `opd-tui add-teacher` takes; `path` is named in errors. Raises `StudyError`."""
    try:
        raw = msgspec.toml.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise StudyError(f"{path} is not valid TOML: {error}") from None
    try:
        teachers = msgspec.convert(raw, _TeacherFile).teacher
    except msgspec.ValidationError as error:
        raise StudyError(f"{path}: {explain(error, _TeacherFile, raw)}") from None
    if len(teachers) != 1:
        raise StudyError(f"{path} has {len(teachers)} teachers; a file for add-teacher has one [[teacher]] table.")
    _check_teacher(teachers[0], f"{path}: `teacher[0]` ({teachers[0].id})")
    return teachers[0]


def with_added(study: Study, added: Sequence[Teacher], where: str) -> Study:
    """The study with teachers that were added to its store, after its own. Raises `StudyError`, naming `where`."""
    taken = {teacher.id.lower(): "the study has" for teacher in study.teacher}
    for teacher in added:
        if teacher.id.lower() in taken:
            raise StudyError(f"{where}: {taken[teacher.id.lower()]} a teacher of the id {teacher.id} already; give it another.")
        taken[teacher.id.lower()] = "there is"
    _check_plain(study, added, where)
    if len(study.teacher) + len(added) > _MOST_TEACHERS:
        raise StudyError(f"{where}: {len(study.teacher) + len(added)} teachers, at most {_MOST_TEACHERS} fit one store.")
    return msgspec.structs.replace(study, teacher=(*study.teacher, *added))


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
    if sum(map(bool, (task.questions, task.dataset, task.reasoning_gym))) != 1:
        raise StudyError(
            f"{path}: [task] needs either `questions` (a JSONL file), `dataset` (a name or folder), "
            "or `reasoning_gym` (a task name)."
        )
    if not task.dataset and (task.dataset_config or task.dataset_revision):
        raise StudyError(f"{path}: [task] `dataset_config` and `dataset_revision` mean nothing without `dataset`.")
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
        _check_plain(study, study.teacher, str(path))


def _check_plain(study: Study, teachers: Iterable[Teacher], where: str) -> None:
    """Whether the study has a place for the contexts of teachers where its prompts are plain text."""
    plain = study.chat.template == "plain" and "{context}" not in study.task.prompt
    if plain and any(teacher.context for teacher in teachers):
        raise StudyError(
            f'{where}: with [chat] template = "plain", `task.prompt` must say where a teacher\'s context goes: {{context}}.'
        )


def _check_teachers(study: Study, path: Path) -> None:
    """What the kind of a teacher asks for."""
    seen: set[str] = set()
    for number, teacher in enumerate(study.teacher):
        where = f"{path}: `teacher[{number}]` ({teacher.id})"
        if teacher.id.lower() in seen:
            raise StudyError(f"{where}: another teacher has this id; ids differ by more than case.")
        seen.add(teacher.id.lower())
        _check_teacher(teacher, where)
    if len(study.teacher) > _MOST_TEACHERS:
        raise StudyError(f"{path}: {len(study.teacher)} teachers, at most {_MOST_TEACHERS} fit one study.")


def _check_teacher(teacher: Teacher, where: str) -> None:
    """What the kind of one teacher asks for."""
    if teacher.kind == "external" and not teacher.model:
        raise StudyError(f"{where}: an external teacher needs `model`.")
    if teacher.kind != "external" and teacher.model:
        raise StudyError(f"{where}: only an external teacher has a `model`; this one is the student.")
    _check_served(teacher, where)
    if teacher.kind == "self" and not teacher.context:
        raise StudyError(f"{where}: a self teacher needs a `context`: {', '.join(_SLOTS)}.")
    if teacher.kind != "self" and teacher.context:
        raise StudyError(f"{where}: only a self teacher has a `context`.")
    if teacher.kind != "temperature" and teacher.temperature != 1.0:
        raise StudyError(f"{where}: only a temperature teacher has a `temperature`; this one would ignore it.")
    if teacher.context_template and not teacher.context:
        raise StudyError(f"{where}: `context_template` words a `context`, and this teacher has none.")
    if teacher.kind == "temperature" and teacher.temperature == 1.0:
        raise StudyError(f"{where}: at `temperature` 1 the teacher is the student, and every score is undefined.")
    _check_context(teacher, where)


def _check_served(teacher: Teacher, where: str) -> None:
    """What a teacher behind a server asks for. Its address stands in the store: a key must not."""
    if teacher.kind != "served":
        if teacher.url or teacher.served_model or teacher.key_env:
            raise StudyError(f"{where}: `url`, `served_model` and `key_env` belong to a served teacher.")
        return
    parts = urlsplit(teacher.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StudyError(f"{where}: a served teacher needs `url`, such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise StudyError(
            f"{where}: `url` may hold no name, password or query, because it is stored; name a variable in `key_env`."
        )
    if not teacher.served_model and teacher.api != "sglang":
        raise StudyError(f"{where}: a served teacher needs `served_model`, the model's name there.")


def _check_context(teacher: Teacher, where: str) -> None:
    """What the context of a teacher asks for, and what it would ignore."""
    for slot in _SLOTS.get(teacher.context, ()):
        if teacher.context_template and f"{{{slot}}}" not in teacher.context_template:
            raise StudyError(f"{where}: `context_template` has no {{{slot}}}, so the teacher would not see it.")
    if teacher.summary_template:
        for slot in ("demonstration", "wrong") if teacher.reads_wrong else ("demonstration",):
            if f"{{{slot}}}" not in teacher.summary_template:
                raise StudyError(f"{where}: `summary_template` has no {{{slot}}}, so the summariser would not see it.")
    if teacher.context_model and not (teacher.reads_demonstrations or teacher.context == "other"):
        raise StudyError(f"{where}: `context_model` writes demonstrations, and this teacher reads none.")
    if (teacher.summary_model or teacher.summary_template) and not teacher.summarised:
        raise StudyError(f"{where}: `summary_model` and `summary_template` belong to the contexts sum-1c and sum-1c1w.")
    if teacher.hint_field != "hint" and teacher.context != "hint":
        raise StudyError(f'{where}: `hint_field` belongs to the context "hint".')


def with_nulls(study: Study, n_questions: int) -> Study:
    """The study with the null teachers that `study.nulls` asks for and that it does not list (method.md 4).

    Another question's demonstration needs a teacher whose demonstrations it can be compared with, whose wording and
    writer it takes, and a second question.
    """
    if not study.study.nulls:
        return study
    temperatures = {teacher.temperature for teacher in study.teacher if teacher.kind == "temperature"}
    nulls = [
        Teacher(id=f"null-t{temperature}", kind="temperature", temperature=temperature)
        for temperature in (0.7, 1.3)
        if temperature not in temperatures
    ]
    demonstrated = sorted((one for one in study.teacher if one.reads_demonstrations), key=lambda one: one.context != "1c")
    if demonstrated and n_questions > 1 and all(one.context != "other" for one in study.teacher):
        like = demonstrated[0]
        nulls.append(
            Teacher(
                id="null-other",
                kind="self",
                context="other",
                context_template=like.context_template if like.context == "1c" else "",
                context_model=like.context_model,
                revision=like.revision,
                dtype=like.dtype,
                device=like.device,
                trust_remote_code=like.trust_remote_code,
            )
        )
    taken = {teacher.id.lower() for teacher in study.teacher}
    for null in nulls:
        if null.id in taken:
            raise StudyError(
                f"Teacher {null.id}: a null of this id is added to every study; rename it, or set `study.nulls` = false."
            )
    if len(study.teacher) + len(nulls) > _MOST_TEACHERS:
        raise StudyError(
            f"{len(study.teacher)} teachers and {len(nulls)} nulls, and at most {_MOST_TEACHERS} fit one study; leave some out, "
            "or set `study.nulls` = false."
        )
    return msgspec.structs.replace(study, teacher=(*study.teacher, *nulls))


def fingerprint(study: Study, contents: Any) -> str:
    """The study's hash: of every setting that changes results, and of `contents`, what it names (questions, weights).

    Where it runs (devices, slots, threads, size of parts) is left out, so that a study can move and go on.
    """
    settings = msgspec.to_builtins(study)
    for section in ("parts", "engine"):
        del settings[section]
    del settings["student"]["device"]
    for teacher in settings["teacher"]:
        _leave_out_place(teacher)
    return _digest([settings, contents])


def teacher_fingerprint(teacher: Teacher, contents: Any) -> str:
    """The hash of one added teacher, as `fingerprint` is that of a study; `contents` are the digests of its models' weights."""
    settings = msgspec.to_builtins(teacher)
    _leave_out_place(settings)
    return _digest([settings, contents])


def _leave_out_place(teacher: dict[str, Any]) -> None:
    """Take out of a teacher's settings where it runs."""
    where = ("device", "url", "key_env", "concurrency", "tolerance")
    for key in where if teacher["kind"] == "served" else (*where, "served_model", "api"):
        del teacher[key]


def _digest(found: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(found, order="deterministic"), digest_size=16).hexdigest()
