"""Schema 2: every array that a store keeps, as one table.

A store is a Zarr v3 hierarchy::

    S.zarr/zarr.json                 the study, its hash, its models (see `RootAttributes` in store.tables)
    S.zarr/vocab/                    the tokens as bytes
    S.zarr/student/<part>/           what the student wrote, and how often its continuations succeeded
    S.zarr/teacher/<id>/<part>/      what one teacher says of the same tokens

A *part* holds whole questions, is written once and never changed. Inside a part, ragged things are
contiguous and carry offsets (``*_start``, one longer than what they index). Every reference to a
question, rollout or node is a row of this part. Text is bytes with offsets. NaN or -1 means absent.

Axes, as suffixes of names elsewhere in the code: Q question, R rollout, T token, C candidate (top-K),
N node, K child, G group of completions, M teacher, D divergence, O objective, E extra.

With four teachers and a top-K of 16 the arrays by token and by extra take 213 bytes a token of real text (docs/architecture.md).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import numpy as np
from msgspec import Struct

SCHEMA_MAJOR = 2
SCHEMA_MINOR = 0

#: Order of the last axis of a teacher's `divergence` array (method.md 6).
DIVERGENCES = ("kl_student_teacher", "kl_teacher_student", "js", "l2", "cosine")
#: Stored bits of mantissa that `divergence` is rounded to, out of 23: a relative error of at most 2^-12.
DIVERGENCE_BITS = 11
#: Stored bits of mantissa that log-probabilities of a top-K by token are rounded to, out of float16's 10. These columns are
#: nearly half of a store, no score is made of them, and two bits less save 21 bytes a token. A relative error of at most 2^-9
#: (and float16's own 2^-11): 0.02 nat at -10; of a probability at most 0.001. What gradients are made of stays float32: the
#: log-probabilities of taken tokens, of children, and of a node's top-K.
TOPK_BITS = 8

#: Between the bins of log r = log T/P in which a teacher's `rest_moment` sums up the tokens that are no child.
RATIO_EDGES = (-8.0, -5.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
#: Order of the last axis of `rest_moment`: what is known of the rest of the vocabulary, each entry one float32.
REST_MOMENTS = (
    *(f"log of the sum of P over bin {b}" for b in range(len(RATIO_EDGES) + 1)),
    *(f"log of the sum of T over bin {b}" for b in range(len(RATIO_EDGES) + 1)),
    *(f"mean of log r over bin {b}, weighted by P" for b in range(len(RATIO_EDGES) + 1)),
    *("log of the sum of P T", "log of the sum of P^2", "log of the sum of T^2 / P"),
)

#: `child_token_id` of the child that stands for the whole rest of the vocabulary.
REST_TOKEN = -2
#: `child_token_id` beyond a node's last child, and any other absent token.
ABSENT_TOKEN = -1
#: `group_exit_token` of completions that followed a path to its very end: they belong to no stratum. It, or a lower value
#: that also names the child they took there (`path_end`), for several children of one node may lead to ends.
PATH_END_TOKEN = -3


def path_end(token: int) -> int:
    """The exit token of completions that took the on-path child `token` and followed it to the path's end."""
    return PATH_END_TOKEN - 1 - token


#: A row number that points nowhere.
NOWHERE = -1
#: `child_outcome` where the outcome is not known exactly.
UNKNOWN_OUTCOME = 255


class ChildKind(IntEnum):
    """What a child of a node is (method.md 3, Counting).

    Each child names one stratum of completions, except END, which needs none.
    """

    ABSENT = 0
    #: A token off the paths. Its stratum: everything that continues with it.
    CANDIDATE = 1
    #: The next token of a path. Its stratum is the *gap*: completions that take this token
    #: and leave the path before the next targeted node, or before the path's end.
    ON_PATH = 2
    #: All tokens that are no other child, together.
    REST = 3
    #: A token off the paths that ends the response, so that its outcome is exact.
    END = 4


class ForcedKind(IntEnum):
    """How a completion was launched at its node."""

    NONE = 0  #: nothing forced: an initial rollout, launched at the root
    TOKEN = 1  #: the child's token was forced
    REST = 2  #: the first token was drawn from the student restricted to the rest
    GAP = 3  #: the on-path token was forced, and then an exit from the gap was drawn


class PathKind(IntEnum):
    """Why a rollout is in the store."""

    NONE = 0  #: an initial rollout that is no representative path
    CORRECT = 1  #: a representative path, graded correct
    INCORRECT = 2


class FinishReason(IntEnum):
    """Why a response ended."""

    STOP = 0  #: the student ended it
    LENGTH = 1  #: cut off at the length limit; counts as a failure


class TokenSource(IntEnum):
    """Who wrote a token."""

    MODEL = 0
    TOOL = 1


class QuestionStatus(IntEnum):
    """Whether a question was scored, or why it was left out (method.md 5)."""

    SCORED = 0
    NO_SUCCESS = 1  #: no initial rollout was correct
    NO_DEMONSTRATION = 2  #: a teacher's context could not be had
    NO_NODE = 3  #: no position had two children to compare
    NOT_SELECTED = 4  #: easier or more difficult than the study asks for


#: How the bytes of a chunk are packed before crc32c is put on them.
Packing = Literal["shuffle", "bitshuffle"]


class ArraySpec(Struct, frozen=True):
    """One array of the schema. `dims` names its axes; `chunk` is the chunk length of the first axis."""

    dtype: str
    dims: tuple[str, ...]
    chunk: int
    doc: str
    #: Axis whose rows the values name; negative values name none. They shift when parts are put together.
    refers: str = ""
    #: Axis that the values cut into pieces (offsets, one more than pieces, from 0 to the axis' length).
    bounds: str = ""
    #: Integer that stands for absent, and pads the second axis. Floats are always padded with NaN.
    absent: int = 0

    @property
    def fill(self) -> int | float:
        """What stands where there is nothing: also the Zarr fill value."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else self.absent

    @property
    def packing(self) -> Packing:
        """Identifiers and offsets pack better bit by bit, floats byte by byte."""
        return "shuffle" if np.dtype(self.dtype).kind == "f" else "bitshuffle"


def _text(axis: str, name: str, doc: str) -> dict[str, ArraySpec]:
    """A ragged column of UTF-8 texts: bytes and offsets."""
    return {
        name: ArraySpec("u1", (f"{name}_byte",), 65536, f"{doc} (UTF-8 bytes)"),
        f"{name}_start": ArraySpec(
            "i8", (f"{axis}_bound",), 1024, f"offsets of {name}, one more than {axis}s", bounds=f"{name}_byte"
        ),
    }


def _bounds(axis: str, of: str, name: str, chunk: int = 1024) -> ArraySpec:
    doc = f"where the {of} of each {axis} begin in `{name}` arrays; one more than {axis}s"
    return ArraySpec("i8", (f"{axis}_bound",), chunk, doc, bounds=name)


VOCAB: dict[str, ArraySpec] = {
    "token_bytes": ArraySpec("u1", ("token_byte",), 1 << 18, "raw bytes of all tokens (pieces need not be valid UTF-8)"),
    "token_start": ArraySpec("u4", ("vocab_bound",), 1 << 16, "offsets of token_bytes", bounds="token_byte"),
    "special_ids": ArraySpec("i4", ("special",), 1024, "ids of special tokens"),
}

STUDENT: dict[str, ArraySpec] = {
    # questions
    **_text("question", "question_id", "name of the question, unique in the study"),
    **_text("question", "prompt", "the student's prompt as text, special tokens included"),
    **_text("question", "reference_answer", "what the grader compares with"),
    "prompt_token_id": ArraySpec("i4", ("prompt_token",), 2048, "the student's prompt as tokens"),
    "prompt_token_start": _bounds("question", "prompt tokens", "prompt_token"),
    "question_number": ArraySpec("i4", ("question",), 1024, "place of the question in the study's list"),
    "question_status": ArraySpec("u1", ("question",), 1024, "QuestionStatus"),
    "question_n_rollouts": ArraySpec("i4", ("question",), 1024, "initial rollouts sampled"),
    "question_n_correct": ArraySpec("i4", ("question",), 1024, "initial rollouts graded correct"),
    "question_n_truncated": ArraySpec("i4", ("question",), 1024, "initial rollouts cut off at the length limit"),
    "rollout_start": _bounds("question", "rollouts", "rollout"),
    "node_start": _bounds("question", "nodes", "node"),
    "group_start": _bounds("question", "groups", "group"),
    "completion_start": _bounds("question", "kept completions", "completion"),
    # rollouts
    "rollout_index": ArraySpec("i4", ("rollout",), 1024, "number of the rollout among the question's initial rollouts"),
    "reward": ArraySpec("f4", ("rollout",), 1024, "what the grader gave"),
    "correct": ArraySpec("u1", ("rollout",), 1024, "1 where the reward counts as success"),
    "finish_reason": ArraySpec("u1", ("rollout",), 1024, "FinishReason"),
    "path_kind": ArraySpec("u1", ("rollout",), 1024, "PathKind"),
    "token_start": _bounds("rollout", "tokens", "token"),
    "path_node_start": _bounds("rollout", "targeted nodes", "path_node"),
    "path_node": ArraySpec(
        "i4",
        ("path_node",),
        1024,
        "rows of the targeted nodes along the rollout, in order of depth",
        refers="node",
        absent=NOWHERE,
    ),
    # tokens of rollouts
    "token_id": ArraySpec("i4", ("token",), 2048, "the token"),
    "token_source": ArraySpec("u1", ("token",), 2048, "TokenSource"),
    "logprob": ArraySpec("f4", ("token",), 2048, "log-probability of the token under the student, nat"),
    "entropy": ArraySpec("f2", ("token",), 2048, "entropy of the student's next-token distribution, nat"),
    "topk_token_id": ArraySpec(
        "i4", ("token", "candidate"), 2048, "the student's most likely tokens, falling", absent=ABSENT_TOKEN
    ),
    "topk_logprob": ArraySpec(
        "f2",
        ("token", "candidate"),
        2048,
        "their log-probabilities under the student, nat, rounded to TOPK_BITS stored bits of mantissa (relative error at most "
        "2^-9 + 2^-11)",
    ),
    "tail_mass": ArraySpec("f2", ("token",), 2048, "probability outside the student's top-K"),
    # targeted nodes of the path trie, shared prefixes once
    "node_position": ArraySpec("i4", ("node",), 1024, "tokens of the response before the node"),
    "node_parent": ArraySpec("i4", ("node",), 1024, "row of the targeted node above, or -1", refers="node", absent=NOWHERE),
    "node_nominated_by": ArraySpec(
        "u4",
        ("node",),
        1024,
        "bit m: teacher m of the part's nominators (the study's teachers, where it names none) nominated the position; 0: a fork",
    ),
    "child_token_id": ArraySpec(
        "i4", ("node", "child"), 256, "the child's token, REST_TOKEN or ABSENT_TOKEN", absent=ABSENT_TOKEN
    ),
    "child_kind": ArraySpec("u1", ("node", "child"), 256, "ChildKind"),
    "child_logprob": ArraySpec(
        "f4", ("node", "child"), 256, "log-probability under the student, nat; for the rest, of all of it"
    ),
    "child_nominated_by": ArraySpec(
        "u4", ("node", "child"), 256, "bit m: teacher m gives the child more than tau; bit 31: the student does"
    ),
    "child_next": ArraySpec(
        "i4", ("node", "child"), 256, "on-path: row of the next targeted node, or -1", refers="node", absent=NOWHERE
    ),
    "child_continue_logprob": ArraySpec(
        "f4",
        ("node", "child"),
        256,
        "on-path: log-probability of staying on the path until the next targeted node or the path's end, given the child; "
        "its complement is the gap",
    ),
    "child_outcome": ArraySpec(
        "u1",
        ("node", "child"),
        256,
        "exact outcome of the path's end or of an end token: 0, 1, or UNKNOWN_OUTCOME",
        absent=UNKNOWN_OUTCOME,
    ),
    "node_topk_logprob": ArraySpec(
        "f4", ("node", "candidate"), 256, "log-probabilities of the student's most likely tokens at the node, falling, nat"
    ),
    # completions, counted by launch and exit
    "group_launch_node": ArraySpec(
        "i4",
        ("group",),
        1024,
        "row of the node where they were launched, or -1 for the question's root",
        refers="node",
        absent=NOWHERE,
    ),
    "group_forced_kind": ArraySpec("u1", ("group",), 1024, "ForcedKind"),
    "group_forced_token": ArraySpec(
        "i4", ("group",), 1024, "the forced token; for a gap its on-path token; else ABSENT_TOKEN", absent=ABSENT_TOKEN
    ),
    "group_exit_node": ArraySpec(
        "i4", ("group",), 1024, "row of the node whose child names the stratum, or -1", refers="node", absent=NOWHERE
    ),
    "group_exit_token": ArraySpec(
        "i4", ("group",), 1024, "that child's token, REST_TOKEN, PATH_END_TOKEN or lower", absent=ABSENT_TOKEN
    ),
    "group_half": ArraySpec("u1", ("group",), 1024, "parity of the sample number within launch and forced token"),
    "group_n": ArraySpec("i4", ("group",), 1024, "completions"),
    "group_n_success": ArraySpec("i4", ("group",), 1024, "of them correct"),
    "group_n_truncated": ArraySpec("i4", ("group",), 1024, "of them cut off at the length limit"),
    # completions kept so that a person can read them
    "completion_launch_node": ArraySpec("i4", ("completion",), 1024, "as group_launch_node", refers="node", absent=NOWHERE),
    "completion_forced_kind": ArraySpec("u1", ("completion",), 1024, "ForcedKind"),
    "completion_exit_node": ArraySpec("i4", ("completion",), 1024, "as group_exit_node", refers="node", absent=NOWHERE),
    "completion_exit_token": ArraySpec("i4", ("completion",), 1024, "as group_exit_token", absent=ABSENT_TOKEN),
    "completion_sample": ArraySpec("i4", ("completion",), 1024, "number of the sample within launch and forced token"),
    "completion_position": ArraySpec("i4", ("completion",), 1024, "tokens of the path before the completion's own tokens"),
    "completion_correct": ArraySpec("u1", ("completion",), 1024, "1 where graded as success"),
    "completion_finish_reason": ArraySpec("u1", ("completion",), 1024, "FinishReason"),
    "completion_token_start": _bounds("completion", "tokens", "completion_token"),
    "completion_token_id": ArraySpec("i4", ("completion_token",), 4096, "the completion's own tokens, the forced one first"),
}

TEACHER: dict[str, ArraySpec] = {
    **_text("question", "teacher_prompt", "the teacher's prompt as text, its context included"),
    # tokens of rollouts
    "logprob": ArraySpec("f4", ("token",), 2048, "log-probability of the rollout's token under the teacher, nat"),
    "entropy": ArraySpec("f2", ("token",), 2048, "entropy of the teacher's distribution, nat"),
    "divergence": ArraySpec(
        "f4",
        ("token", "divergence"),
        2048,
        "distances of student and teacher, in the order of DIVERGENCES, rounded to DIVERGENCE_BITS stored bits of mantissa "
        "(relative error at most 2^-12)",
    ),
    # the teacher's top-K: see store.teacher_topk
    "logprob_at_student_topk": ArraySpec(
        "f2",
        ("token", "candidate"),
        2048,
        "the teacher's log-probabilities of the student's top-K, nat, rounded as topk_logprob; of a token outside of the "
        "teacher's top-K the next lower such number where it would equal one inside",
    ),
    "topk_n": ArraySpec(
        "u2", ("token",), 2048, "how many of the teacher's most likely tokens are known; 0 where it was not asked"
    ),
    "extra_start": _bounds("token", "extras", "extra", 2048),
    "extra_token_id": ArraySpec(
        "i4", ("extra",), 2048, "those of the teacher's top-K that are not in the student's, falling within a token"
    ),
    "extra_logprob": ArraySpec("f2", ("extra",), 2048, "their log-probabilities under the teacher, nat, rounded as topk_logprob"),
    "extra_student_logprob": ArraySpec(
        "f2", ("extra",), 2048, "their log-probabilities under the student, nat, rounded as topk_logprob"
    ),
    "tail_mass": ArraySpec("f2", ("token",), 2048, "probability outside the teacher's top-K"),
    # targeted nodes
    "child_logprob": ArraySpec(
        "f4", ("node", "child"), 256, "log-probability under the teacher, nat; for the rest, of all of it"
    ),
    "node_topk_logprob": ArraySpec(
        "f4", ("node", "candidate"), 256, "log-probabilities under the teacher of the student's node_topk tokens, nat"
    ),
    "rest_moment": ArraySpec(
        "f4", ("node", "moment"), 256, "sums over the tokens that are no child, in the order of REST_MOMENTS"
    ),
    "child_gap_kl": ArraySpec(
        "f4",
        ("node", "child"),
        256,
        "on-path: expected sum of KL(P‖T) over the positions between this child and the next targeted node, nat",
    ),
    "later_n": ArraySpec("i4", ("node", "child"), 256, "completions of the child's stratum that the teacher read to the end"),
    "later_sum": ArraySpec(
        "f4", ("node", "child"), 256, "sum over them of -KL(P‖T), itself summed over all positions after their first token, nat"
    ),
    "later_sum_squares": ArraySpec("f4", ("node", "child"), 256, "sum of the squares of the same, nat^2"),
    "fbar": ArraySpec("f4", ("node", "objective"), 256, "sum_k P_k f_k over the whole vocabulary, per objective of the study"),
}
