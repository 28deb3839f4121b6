"""The names that an expression may use: one table, which documentation and completion are made of."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from msgspec import Struct

from opd_tui.metrics import Needs

#: What a name stands for at one place.
Kind = Literal["number", "flag", "text"]


class Level(IntEnum):
    """What an expression matches: the deepest level among its names."""

    QUESTION = 0
    ROLLOUT = 1
    TOKEN = 2
    NODE = 3

    @property
    def noun(self) -> str:
        """The word for it, in the plural."""
        return f"{self.name.lower()}s"


class Name(Struct, frozen=True):
    """One name. A number that a place does not have is missing, and a comparison with it is unknown."""

    key: str
    level: Level
    kind: Kind
    needs: Needs  #: what must be chosen besides: a teacher, or a teacher and an objective
    meaning: str


def _names(level: Level, *rows: tuple[str, Kind, Needs, str]) -> tuple[Name, ...]:
    return tuple(Name(key, level, kind, needs, meaning) for key, kind, needs, meaning in rows)


NAMES: tuple[Name, ...] = (
    *_names(
        Level.QUESTION,
        ("question", "text", "nothing", "id of the question"),
        ("number", "number", "nothing", "place of the question in the study, from 0"),
        ("success", "number", "nothing", "share of the initial rollouts that were correct"),
        ("n_rollouts", "number", "nothing", "initial rollouts that were sampled"),
        ("n_correct", "number", "nothing", "how many of them were correct"),
        ("left_out", "flag", "nothing", "the question was not scored: without success, demonstration or nodes, or not chosen"),
        ("teacher", "text", "teacher", "id of the teacher"),
        ("null", "flag", "teacher", "the teacher is a baseline that should earn nothing"),
        ("judged_only", "flag", "teacher", "the teacher was added later, and is judged only at nodes that others nominated"),
    ),
    *_names(
        Level.ROLLOUT,
        ("rollout", "number", "nothing", "index of the rollout"),
        ("correct", "flag", "nothing", "the grader accepted it"),
        ("incorrect", "flag", "nothing", "it did not"),
        ("truncated", "flag", "nothing", "it was cut off at the length limit"),
        ("path", "flag", "nothing", "a representative path: it may have nodes"),
        ("reward", "number", "nothing", "what the grader gave"),
        ("length", "number", "nothing", "tokens of the rollout"),
        ("n_nodes", "number", "nothing", "nodes along it"),
        ("mean_align", "number", "objective", "mean alignment of its decision points"),
        ("worst_align", "number", "objective", "their lowest alignment"),
    ),
    *_names(
        Level.TOKEN,
        ("position", "number", "nothing", "place of the token in its rollout, from 0"),
        ("depth", "number", "nothing", "position divided by the length of the rollout"),
        ("token", "text", "nothing", "the token as text; bytes that are no UTF-8 are U+FFFD"),
        ("token_id", "number", "nothing", "its id"),
        ("tool", "flag", "nothing", "a tool wrote it, not the student"),
        ("logprob", "number", "nothing", "log-probability under the student, in nat"),
        ("entropy", "number", "nothing", "entropy of the student, in nat"),
        ("teacher_logprob", "number", "teacher", "log-probability under the teacher"),
        ("teacher_entropy", "number", "teacher", "entropy of the teacher"),
        ("log_ratio", "number", "teacher", "teacher_logprob - logprob"),
        ("kl_st", "number", "teacher", "KL(P‖T), student to teacher"),
        ("kl_ts", "number", "teacher", "KL(T‖P), teacher to student"),
        ("js", "number", "teacher", "Jensen-Shannon divergence of the two"),
        ("l2", "number", "teacher", "Euclidean distance of the two distributions"),
        ("cosine", "number", "teacher", "cosine of the two distributions"),
    ),
    *_names(
        Level.NODE,
        ("align", "number", "objective", "cosine of the update with the ideal gradient; missing where it is no decision point"),
        ("gain", "number", "objective", "first-order gain in success per unit of the update"),
        ("p_positive", "number", "objective", "P(alignment > 0); missing where the study has too few scores to say it"),
        ("reliability", "number", "nothing", "expected cosine between the estimated and the true gradient"),
        ("advantage", "number", "teacher", "success that the teacher's choice among the kept children would add"),
        ("p_succ", "number", "nothing", "success after the child that the rollout took"),
        ("value", "number", "nothing", "the student's success from here"),
        ("success_range", "number", "nothing", "highest minus lowest p_succ of the kept children"),
        ("n", "number", "nothing", "least effective count of completions among the kept children; infinite where all are exact"),
        ("completions", "number", "nothing", "completions that were counted at its children"),
        ("n_kept", "number", "nothing", "children with counts enough"),
        ("n_children", "number", "nothing", "children, the rest of the vocabulary not among them"),
        ("decision", "flag", "nothing", "a decision point: two kept children or more, and success_range > 0"),
        ("nominated", "flag", "teacher", "the teacher nominated this position, or nobody had to"),
    ),
)  # fmt: skip
#: What exported rows, and the explorer's panes, call otherwise.
ALIASES = {
    "question_id": "question", "rollout_index": "rollout", "student_logprob": "logprob", "student_entropy": "entropy",
    "kl_student_teacher": "kl_st", "kl_teacher_student": "kl_ts", "alignment": "align", "teacher_advantage": "advantage",
    "success_rate_range": "success_range", "success_rate": "success", "n_tokens": "length",
    "rel": "reliability", "sr": "success_range", "v": "value", "adv": "advantage",
}  # fmt: skip
BY_KEY = {name.key: name for name in NAMES}
BY_KEY |= {alias: BY_KEY[key] for alias, key in ALIASES.items()}
#: What may stand before a parenthesis.
FUNCTIONS = {"abs": "size of a number", "known": "whether a number is there: known(align)"}
#: Words that are no names.
WORDS = {"and": "&", "or": "|", "not": "!"}
CONSTANTS = {"true": True, "false": False}
