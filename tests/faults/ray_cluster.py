"""A real Ray cluster on this machine, two actors, one of them killed in the middle. Needs the extra [ray]: `make test-ray`."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from compute.batch import work_folder
from compute.locks import WHOLE, lock
from tests.conftest import small_study
from tests.faults.test_workers import gone, start, wait_for, workers_of
from tests.stored import stored


def run(study: Path, out: Path, *words: str) -> str:
    process = start(study, out, *words)
    _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    return told


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return small_study(tmp_path_factory.mktemp("ray"), limit=6, n_min=20, per_part=2)


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> dict[str, str]:
    run(study, study.with_name("one.zarr"))
    return stored(study.with_name("one.zarr"))


def test_an_actor_that_is_killed_costs_only_the_question_in_its_hands(study, undisturbed, tmp_path):
    out = tmp_path / "s.zarr"
    process = start(study, out, "--ray", "local", "--workers", "2", "--metrics", str(tmp_path / "metrics.jsonl"))
    lines = wait_for(process, "1 of 6 questions")
    assert len(workers_of(lines)) == 2
    os.kill(workers_of(lines)[0], signal.SIGKILL)
    _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert re.search(r"Worker \d ended \(.*\); question \d is done again", told)
    assert stored(out) == undisturbed
    assert not out.with_name("s.zarr.work").exists()
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["questions_done"] == 6
    assert row["tokens"] > 1000


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_cluster(study, undisturbed, tmp_path):
    out = tmp_path / "s.zarr"
    process = start(study, out, "--ray", "local", "--workers", "2")
    wait_for(process, "1 of 6 questions")
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert told.splitlines()[-1].startswith("Interrupted (stopped by SIGINT). What is finished is kept")
    assert gone(process.pid)
    run(study, out)
    assert stored(out) == undisturbed


def marked(mark: str) -> list[int]:
    """The processes that inherited a mark, in whatever session, that are no zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def running_ray(mark: str) -> bool:
    """Whether a process of Ray's own has begun among the marked ones."""
    for process in marked(mark):
        with suppress(OSError):
            if b"gcs_server" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]:
                return True
    return False


def all_gone(mark: str) -> bool:
    end = time.monotonic() + 20.0
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.1)
    return marked(mark) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_starts_leaves_nothing_of_it(study, tmp_path, monkeypatch, number):
    mark = f"OPD_TUI_TEST_{tmp_path.name}_{os.getpid()}"
    monkeypatch.setenv("OPD_TUI_TEST_MARK", mark)
    process = start(study, tmp_path / "s.zarr", "--ray", "local", "--workers", "1")
    while not running_ray(mark):
        assert process.poll() is None
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines()[-1].startswith(f"Interrupted (stopped by {number.name}). What is finished is kept")
    assert all_gone(mark)


def test_a_run_that_is_refused_before_it_begins_leaves_nothing_of_ray(study, tmp_path, monkeypatch):
    mark = f"OPD_TUI_TEST_{tmp_path.name}_{os.getpid()}"
    out = tmp_path / "s.zarr"
    with lock(work_folder(out), out, WHOLE):
        monkeypatch.setenv("OPD_TUI_TEST_MARK", mark)
        process = start(study, out, "--ray", "local", "--workers", "1")
        _, told = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Another run is computing" in told.splitlines()[-1]
    assert all_gone(mark)


def test_workers_that_find_no_place_are_told_of_once(study, tmp_path):
    process = start(study, tmp_path / "s.zarr", "--ray", "local", "--workers", "2", "--device", "cuda")
    lines = wait_for(process, "no answer from Ray")
    assert re.search(
        r"Worker 1: no answer from Ray for 60 s \(2 of 2 workers\); each asks for 1 CPU and 1 GPU on one machine, and the "
        r"cluster has 2 CPUs and 0 GPUs on 1 machine, free 2 CPUs and 0 GPUs\.",
        lines[-1],
    )
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "no answer" not in told


def test_without_a_number_of_workers_a_cluster_without_gpus_is_refused(study, tmp_path):
    process = start(study, tmp_path / "s.zarr", "--ray", "local", "--device", "cuda")
    _, told = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "A worker of this study takes 1 CPU and 1 GPU, and no machine of the Ray cluster has them" in told.splitlines()[-1]


def test_nothing_of_ours_outlives_a_parent_that_is_killed(study, undisturbed, tmp_path, monkeypatch):
    mark = f"OPD_TUI_TEST_{tmp_path.name}_{os.getpid()}"
    monkeypatch.setenv("OPD_TUI_TEST_MARK", mark)
    out = tmp_path / "s.zarr"
    process = start(study, out, "--ray", "local", "--workers", "2")
    wait_for(process, "1 of 6 questions")
    assert len(marked(mark)) > 3
    process.kill()
    process.wait()
    assert all_gone(mark)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "opd-tui: There is no Ray cluster at '127.0.0.1:1' ("),
        ("ray://somewhere", "opd-tui: --ray takes local, auto, or host:port, not 'ray://somewhere'."),
        ("auto", "opd-tui: There is no Ray cluster at 'auto' ("),
    ],
)
def test_a_cluster_that_is_not_there(study, tmp_path, address, sentence):
    process = start(study, tmp_path / "s.zarr", "--ray", address)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 1
    assert told.splitlines()[-1].startswith(sentence), told
