"""What a study is, as typed, frozen settings: a section of its file each.

A field's description is written once, here; `template` prints it as the comment above the field in the file that
`opd-tui init` writes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from compute.allocation import Allocation

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
MOST_TEACHERS = 31
#: What a wording of a context must name: the teacher would not see it otherwise.
SLOTS: dict[str, tuple[str, ...]] = {
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
