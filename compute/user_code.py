"""Functions of the user's own, named in a study as FILE.py:FUNCTION: graders and engines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compute.errors import StudyError


def is_named(text: str) -> bool:
    """Whether `text` has the form FILE.py:FUNCTION."""
    path, colon, function = text.rpartition(":")
    return bool(colon and function and path.endswith(".py"))


def load_function(named: str, folder: Path, key: str) -> Callable[..., Any]:
    """The function that `named` (see `is_named`) names, its file relative to `folder`. `key` is the study's, for errors.

    Runs the file. Raises `StudyError` where there is no such file or function.
    """
    path, _, function = named.rpartition(":")
    file = folder / path
    spec = importlib.util.spec_from_file_location(f"opd_tui_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise StudyError(f"`{key}`: there is no file {file}.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own file
        raise StudyError(f"`{key}`: {file} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise StudyError(f"`{key}`: {file} has no function `{function}`.")
    return found  # type: ignore[no-any-return]  # its type is the user's promise; a wrong result is caught where it is used
