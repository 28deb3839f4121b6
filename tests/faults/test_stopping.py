"""A signal ends a run in the same way whenever it comes, and what ends with a run is its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from compute.errors import Interrupted
from compute.stopping import SIGNALS, check, signals, signals_at_once
from compute.watch import guard
from tests.conftest import run_opd, small_study
from tests.faults.test_workers import gone, start, wait_for

SLEEPER = (sys.executable, "-c", "print('here', flush=True); import time; time.sleep(600)")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_models_load_ends_the_run_with_130_and_the_usual_sentence(tmp_path, number):
    out = tmp_path / "s.zarr"
    process = start(small_study(tmp_path), out)
    wait_for(process, "Loading models")
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines() == [
        f"Interrupted (stopped by {number.name}). What is finished is kept in {out}; the same command goes on."
    ]


@pytest.mark.full
def test_a_signal_while_workers_load_ends_them_all(tmp_path):
    process = start(small_study(tmp_path), tmp_path / "s.zarr", "--workers", "2")
    wait_for(process, "is ready")
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines()[-1].startswith("Interrupted (stopped by SIGTERM). What is finished is kept")
    assert gone(process.pid)


def end_at_once():
    with signals_at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not end it")


def test_a_signal_ends_what_is_in_no_step_and_one_that_came_before_is_not_forgotten():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        end_at_once()
    with signals_at_once():
        with signals():
            os.kill(os.getpid(), signal.SIGUSR1)  # noted: the step in hand goes on
        with signals(), pytest.raises(Interrupted, match="stopped by SIGUSR1"):
            check()
    with signals():
        check()  # another run knows nothing of it
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_was_started_before_the_guard_is_left_alone():
    context = multiprocessing.get_context("spawn")
    watched, watching = context.Pipe(duplex=False)
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as before:
        assert before.stdout.readline()
        guardian = context.Process(target=guard, args=(watched, os.getpid()), daemon=True)
        guardian.start()
        watched.close()
        with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as after:
            assert after.stdout.readline()
            # It looks every second, and nothing tells that it did.
            guardian.join(3.0)
            watching.close()
            guardian.join(10.0)
            assert after.wait(10.0) == -signal.SIGKILL
        assert before.poll() is None
        before.kill()


@pytest.mark.parametrize("words", [("--workers", "2"), ("--shard", "1/2"), ("--ray", "local")])
@pytest.mark.parametrize("what", ["--plan", "--preview"])
def test_a_plan_and_a_preview_take_no_workers(tmp_path, what, words):
    done = run_opd("compute", small_study(tmp_path), what, *words)
    assert done.returncode == 2
    assert "--workers, --shard and --ray go with computing" in " ".join(done.stderr.split())
