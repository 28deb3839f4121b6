"""The tiny models, loaded once, and a small study computed once."""

from __future__ import annotations

import atexit
import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.warm import Warm

ROOT = Path(__file__).resolve().parent.parent
CHAIN_SUMS = ROOT / "examples" / "chain_sums"
#: The console script of the environment that runs the tests.
OPD_TUI = Path(sys.executable).with_name("opd-tui")

#: `make test-full` asks for the full numbers of what runs in small here.
FULL = os.environ.get("OPD_TUI_FAULTS") == "full"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
#: vLLM lives in an environment of its own: `make test-vllm`.
collect_ignore = [] if importlib.util.find_spec("vllm") else ["vllm"]
#: Trainers have environments of their own, too: `make test-trl`, `make test-verl`.
collect_ignore += [name for name in ("trl", "verl") if importlib.util.find_spec(name) is None]
#: A browser is asked for by `make test-chromium`.
collect_ignore += [] if importlib.util.find_spec("playwright") else ["chromium"]


#: Files that take longest. They come first, so that no worker is left with one at the end.
LONG = ("test_truth.py", "test_workers.py", "test_resume.py", "test_commands.py", "test_served_study.py", "test_plan.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: item.path.name not in LONG)


@cache
def warm() -> Warm:
    """One for every process that runs tests."""
    found = Warm()
    atexit.register(found.close)
    return found


def run_opd(*words: str | Path, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    """Run the command with no terminal: warm, or where `more` says how its process begins, as anybody would run it."""
    argv = [str(OPD_TUI), *map(str, words)]
    if not more:
        return warm().run(argv, cwd or Path.cwd(), 300)
    return subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False, **more
    )


def small_study(folder: Path, *, limit: int = 4, n_min: int = 24, per_part: int = 32) -> Path:
    """The built-in study, cut down, as a file in `folder`."""
    text = (CHAIN_SUMS / "study.toml").read_text()
    for key in ("student", "teacher"):
        text = text.replace(f'model = "{key}"', f'model = "{CHAIN_SUMS / key}"')
    text = text.replace('questions = "questions.jsonl"', f'questions = "{CHAIN_SUMS / "questions.jsonl"}"')
    for key, value in (
        ("limit = 24", f"limit = {limit}"),
        ("n_min = 50", f"n_min = {n_min}"),
        ("questions = 32", f"questions = {per_part}"),
    ):
        assert key in text
        text = text.replace(key, value)
    path = folder / "study.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def student():
    """The tiny student."""
    import torch

    from compute import models

    torch.set_num_threads(1)
    return models.load(str(CHAIN_SUMS / "student"))


@pytest.fixture(scope="session")
def teacher():
    """The tiny external teacher."""
    from compute import models

    return models.load(str(CHAIN_SUMS / "teacher"))


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six questions, computed by the command once for all tests that only read it."""
    folder = tmp_path_factory.mktemp("computed")
    done = run_opd("compute", small_study(folder, limit=6), "-o", folder / "s.zarr")
    assert done.returncode == 0, done.stderr
    return folder / "s.zarr"
