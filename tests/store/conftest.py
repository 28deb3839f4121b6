"""Stores for the tests of the store: made once, copied where a test changes one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.schema import QuestionStatus
from store.writer import PartArrays
from tests.synthetic import question_record, write_store

ROOT = Path(__file__).resolve().parents[2]


#: In memory where the machine has such a place: a store is hundreds of files, and disks are slow to forget them.
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder for one test, gone right after it."""
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def records() -> list[PartArrays]:
    """The six questions of the default made-up study, each as a part of its own."""
    statuses = [QuestionStatus.SCORED] * 5 + [QuestionStatus.NO_SUCCESS]
    return [question_record(number, status=status) for number, status in enumerate(statuses)]


@pytest.fixture(scope="session")
def shared_store() -> Iterator[Path]:
    """A store of six questions in two parts. Not to be changed."""
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        yield write_store(Path(folder) / "S.zarr")


@pytest.fixture
def own_store(shared_store: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may harm."""
    return Path(shutil.copytree(shared_store, tmp_path / "S.zarr"))


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a process of its own."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run
