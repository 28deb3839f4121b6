"""What can go wrong on the way from a study file to a store."""

from __future__ import annotations


class ComputeError(Exception):
    """One sentence that says what went wrong, where, and what to do about it."""


class StudyError(ComputeError):
    """The study file, or something it names, is not as it must be."""


class Interrupted(ComputeError):
    """The run was asked to stop; everything finished is kept, and the same command goes on."""
