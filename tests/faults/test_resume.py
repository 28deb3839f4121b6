"""A run that was killed and started again stores what one that never stopped does, bit for bit."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import FULL, OPD_TUI, run_opd, small_study
from tests.stored import stored

N = 5 if FULL else 3


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    # small parts, so that a kill can meet a publication too
    return small_study(tmp_path_factory.mktemp("resume"), limit=N, n_min=10, per_part=2)


@pytest.fixture(scope="module")
def whole(study: Path) -> tuple[dict[str, str], float]:
    """What a run that never stopped stores, and the seconds it took."""
    started = time.monotonic()
    done = run_opd("compute", study, "-o", study.with_name("whole.zarr"))
    assert done.returncode == 0, done.stderr
    return stored(study.with_name("whole.zarr")), time.monotonic() - started


def start(study: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([OPD_TUI, "compute", study, "-o", out], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(process: subprocess.Popen[bytes], words: str) -> None:
    """Read the log until it says `words`."""
    assert process.stderr is not None
    for line in process.stderr:
        if words.encode() in line:
            return
    raise AssertionError(f"the run ended without saying {words!r}")


@pytest.mark.parametrize("moment", range(5 if FULL else 1))
def test_killed_at_a_random_moment_and_started_again(study, whole, tmp_path, moment):
    undisturbed, seconds = whole
    out = tmp_path / "s.zarr"
    draw = random.Random(moment)
    process = start(study, out)
    wait_for(process, f" {moment % 4} of {N} questions")
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=draw.uniform(0.0, 0.1) * seconds)  # a question takes about that long
    assert process.poll() is None
    process.kill()
    process.communicate()
    done = run_opd("compute", study, "-o", out)
    assert done.returncode == 0, done.stderr
    assert stored(out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1] if FULL else [signal.SIGTERM])
def test_a_signal_ends_it_with_130_and_keeps_what_is_finished(study, whole, tmp_path, number):
    out = tmp_path / "s.zarr"
    process = start(study, out)
    wait_for(process, f" 1 of {N} questions")
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.decode().splitlines()[-1].startswith(f"Interrupted (stopped by {number.name}). What is finished is kept")
    info = run_opd("info", out, "--json")
    assert info.returncode == 0
    assert '"complete": false' in info.stdout
    if number is not signal.SIGTERM:
        return  # one of them is enough to see it go on
    assert run_opd("compute", study, "-o", out).returncode == 0
    assert stored(out) == whole[0]
    assert not out.with_name("s.zarr.work").exists()
