"""Whether imported rollouts are the student's own: what their file says of them against what the student says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from compute import scoring
from compute.imported.tokens import Tokenised
from compute.pipeline import Bench
from compute.tasks import Question

#: Nat by which a log-probability of another engine in bfloat16 may differ.
TOLERANCE = 0.25
#: Share of what was compared that may differ; beyond it the rollouts are another policy's.
MOST = 0.02


class Placed(Struct, frozen=True):
    """A rollout with its question, its line, and how it was asked."""

    line: int
    question: Question
    tokenised: Tokenised
    same_prompt: bool
    reward: float | None


class Comparison(Struct, frozen=True):
    """What was compared, what differed, and the worst place."""

    n_prompts: int = 0
    n_other_prompts: int = 0
    n_texts: int = 0
    n_other_texts: int = 0
    n_other_tokens: int = 0  #: rollouts whose text the student's tokenizer cuts otherwise than they were sampled: allowed
    n_logprobs: int = 0
    n_other_logprobs: int = 0
    mean_difference: float = float("nan")
    worst_difference: float = float("nan")
    worst_place: str = ""
    other_prompt_line: int = 0
    other_text_line: int = 0

    @property
    def too_many(self) -> bool:
        """Whether so much differs that these are not the student's rollouts of these questions."""
        pairs = (
            (self.n_other_prompts, self.n_prompts),
            (self.n_other_texts, self.n_texts),
            (self.n_other_logprobs, self.n_logprobs),
        )
        return any(other > MOST * of for other, of in pairs if of)

    def sentences(self) -> tuple[str, ...]:
        """What a person must know of it."""
        found = []
        if self.n_other_prompts:
            found.append(
                f"{self.n_other_prompts} of {self.n_prompts} prompts are not the study's (first on line "
                f"{self.other_prompt_line}): see [chat] and `task.prompt`."
            )
        if self.n_other_texts:
            found.append(
                f"{self.n_other_texts} of {self.n_texts} texts are not what their tokens come to (first on line "
                f"{self.other_text_line})."
            )
        if self.n_other_tokens:
            found.append(
                f"{self.n_other_tokens} texts would be cut into other tokens than were sampled; the sampled ones are taken."
            )
        if self.n_logprobs:
            found.append(
                f"{self.n_other_logprobs} of {self.n_logprobs} log-probabilities differ from the student's by more than "
                f"{TOLERANCE} nat (mean difference {self.mean_difference:.3f}, worst {self.worst_difference:.3f} at "
                f"{self.worst_place})."
            )
        else:
            found.append(
                "The file has no log-probabilities of the student, so nothing shows that this student wrote these rollouts."
            )
        return tuple(found)


def compare(bench: Bench, placed: Sequence[Placed]) -> Comparison:
    """Compare everything that the file says; the student reads each rollout that has log-probabilities."""
    differences: list[float] = []
    worst, place = -1.0, ""
    for one in placed:
        said_T = one.tokenised.logprob_T
        known_T = np.isfinite(said_T)
        if not known_T.any():
            continue
        ids = one.tokenised.completion.token_ids
        prompt = bench.prompt_ids(bench.student, one.question, "")
        states = scoring.states(bench.student, prompt, ids.tolist())[:-1]
        own_T = scoring.score_student(bench.student_log_probs, states, ids, 1).logprob_T
        gap_T = np.where(known_T, np.abs(own_T - said_T), -1.0)
        differences += gap_T[known_T].tolist()
        if gap_T.max() > worst:
            at = int(gap_T.argmax())
            worst, place = (
                float(gap_T.max()),
                f"line {one.line}, token {at} of the response: {said_T[at]:.3f} against {own_T[at]:.3f}",
            )
        bench.tick(0)
    other_prompts = [one.line for one in placed if not one.same_prompt]
    other_texts = [one.line for one in placed if not one.tokenised.same_text]
    found = np.array(differences)
    return Comparison(
        n_prompts=len(placed),
        n_other_prompts=len(other_prompts),
        n_texts=len(placed),
        n_other_texts=len(other_texts),
        n_other_tokens=sum(not one.tokenised.canonical for one in placed),
        n_logprobs=len(found),
        n_other_logprobs=int((found > TOLERANCE).sum()),
        mean_difference=float(found.mean()) if len(found) else float("nan"),
        worst_difference=worst if len(found) else float("nan"),
        worst_place=place,
        other_prompt_line=other_prompts[0] if other_prompts else 0,
        other_text_line=other_texts[0] if other_texts else 0,
    )
