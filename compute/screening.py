"""Screening: how difficult a question is for the student, from its initial rollouts (method.md 5)."""

from __future__ import annotations

from typing import Literal

Difficulty = Literal["easy", "medium", "hard", "unsolved"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard", "unsolved")


def difficulty(n_correct: int, n_rollouts: int) -> Difficulty:
    """The bin of a success rate p: easy p >= .8, medium .25 <= p < .8, hard 0 < p < .25, else unsolved."""
    if n_correct <= 0:
        return "unsolved"
    if 5 * n_correct >= 4 * n_rollouts:
        return "easy"
    return "medium" if 4 * n_correct >= n_rollouts else "hard"
