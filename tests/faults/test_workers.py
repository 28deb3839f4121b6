"""However many processes compute a study, and whatever ends them: the store is the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from compute.crew import Died, Event, Ready, apart, oversee
from compute.errors import ComputeError
from compute.locks import WHOLE, Shard, lock, parse_shard
from compute.progress import Reporter
from compute.setup import prepare
from compute.tasks import Question
from tests.conftest import FULL, OPD_TUI, run_opd, small_study
from tests.stored import stored

N = 6 if FULL else 4


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return small_study(tmp_path_factory.mktemp("workers"), limit=N, n_min=10, per_part=2)


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> dict[str, str]:
    """What a run of one process stores."""
    done = run_opd("compute", study, "-o", study.with_name("one.zarr"))
    assert done.returncode == 0, done.stderr
    return stored(study.with_name("one.zarr"))


def gone(session: int) -> bool:
    """Whether every process of a session ends within ten seconds."""
    end = time.monotonic() + 10.0
    while session_of(session) and time.monotonic() < end:
        time.sleep(0.1)
    return session_of(session) == []


def start(study: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [OPD_TUI, "compute", study, "-o", out, *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read the log until it says `words`; the lines."""
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"the run ended without saying {words!r}: {lines}")


def workers_of(lines: list[str]) -> list[int]:
    return [int(found[1]) for line in lines if (found := re.search(r"is ready \(process (\d+) on", line))]


def session_of(leader: int) -> list[int]:
    """The processes of a session that are no zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def test_two_workers_store_what_one_does_and_say_what_they_took(study, undisturbed, tmp_path):
    out = tmp_path / "s.zarr"
    done = run_opd(
        "compute", study, "-o", out, "--workers", "2", "--log-file", tmp_path / "log", "--metrics", tmp_path / "metrics.jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert stored(out) == undisturbed
    assert not out.with_name("s.zarr.work").exists()
    log = (tmp_path / "log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in log)
    assert f"{N} of {N} questions" in log[-1]
    last = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()[-2:]]
    assert [row["worker"] for row in last] == [1, 2]
    assert sum(row["worker_questions"] for row in last) == last[0]["questions_done"] == N
    assert all(row["tokens"] > 1000 and row["tokens_per_second"] > 0 and row["memory_bytes"] > 50e6 for row in last)


def test_a_worker_that_is_killed_costs_only_what_it_had_in_hand(study, undisturbed, tmp_path):
    out = tmp_path / "s.zarr"
    process = start(study, out, "--workers", "2")
    lines = wait_for(process, f"1 of {N} questions")
    os.kill(workers_of(lines)[0], signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert re.search(r"Worker \d ended \(killed by SIGKILL\)", told)
    assert stored(out) == undisturbed


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGUSR1])
def test_a_signal_to_all_of_them_ends_the_run_with_130_and_it_goes_on_with_another_number_of_workers(
    study, undisturbed, tmp_path, number
):
    out = tmp_path / "s.zarr"
    process = start(study, out, "--workers", "2")
    wait_for(process, f"2 of {N} questions")
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines()[-1].startswith(f"Interrupted (stopped by {number.name}). What is finished is kept")
    assert gone(process.pid)
    info = json.loads(run_opd("info", out, "--json").stdout)
    assert 2 <= info["n_questions_done"] < N
    assert run_opd("compute", study, "-o", out).returncode == 0
    assert stored(out) == undisturbed


def test_nothing_of_ours_outlives_a_parent_that_is_killed(study, undisturbed, tmp_path):
    out = tmp_path / "s.zarr"
    process = start(study, out, "--workers", "2")
    wait_for(process, f"1 of {N} questions")
    assert len(session_of(process.pid)) >= 3
    process.kill()
    process.wait()
    assert gone(process.pid)
    assert run_opd("compute", study, "-o", out).returncode == 0
    assert stored(out) == undisturbed


@pytest.mark.full
def test_shards_at_the_same_time_and_in_any_order_make_one_store(study, undisturbed, tmp_path):
    out = tmp_path / "s.zarr"
    both = [start(study, out, "--shard", "3/3"), start(study, out, "--shard", "1/3")]
    for process in both:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    assert json.loads(run_opd("info", out, "--json").stdout)["n_questions_done"] == 4
    assert run_opd("compute", study, "-o", out, "--shard", "2/3").returncode == 0
    assert stored(out) == undisturbed
    assert not out.with_name("s.zarr.work").exists()


def test_who_may_compute_at_one_time(tmp_path):
    folder, out = tmp_path / "work", tmp_path / "s.zarr"
    with lock(folder, out, Shard(0, 2)), lock(folder, out, Shard(1, 2)):
        for other in (WHOLE, Shard(0, 2), Shard(2, 3)):
            with pytest.raises(ComputeError, match="Another run is computing"), lock(folder, out, other):
                pass
    assert not folder.exists()
    with lock(folder, out, WHOLE), pytest.raises(ComputeError, match="--shard"), lock(folder, out, Shard(0, 2)):
        pass
    with lock(folder, out, Shard(2, 3)):
        pass


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/-2", ""])
def test_what_is_no_shard(text):
    with pytest.raises(ValueError, match="from 1 to N"):
        parse_shard(text)


def test_shards_share_all_questions_out():
    shards = [parse_shard(f"{i}/3") for i in (1, 2, 3)]
    assert [[shard.has(n) for shard in shards].count(True) for n in range(10)] == [1] * 10
    assert [n for n in range(10) if parse_shard("2/3").has(n)] == [1, 4, 7]


def test_workers_keep_away_from_each_other():
    todo = [Question(f"q{n}", n, "", "", {}) for n in range(8)]
    assert [question.number for question in apart(todo, 3)] == [0, 3, 6, 1, 4, 7, 2, 5]
    assert apart([], 2) == []


class Mortal:
    """A crew whose workers die of every question."""

    def __init__(self, study_hash: str, healthy: bool) -> None:
        self.study_hash, self.healthy = study_hash, healthy
        self.next: list[tuple[int, Event]] = []

    def start(self, worker: int) -> None:
        self.next.append((worker, Ready(self.study_hash, "nowhere") if self.healthy else Died("killed by SIGKILL")))

    def give(self, worker: int, number: int) -> None:
        self.next.append((worker, Died("killed by SIGKILL")))

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        told, self.next = self.next, []
        return told

    def stop(self, seconds: float) -> None:
        pass


@pytest.mark.parametrize(
    ("healthy", "sentence"),
    [(True, "Question 1 .`q000`. ended 3 workers, the last one killed by SIGKILL"), (False, "Worker 1 ended 3 times")],
)
def test_three_deaths_are_enough(study, undisturbed, tmp_path, healthy, sentence):
    setup = prepare(study, Reporter(0))
    crew = Mortal(setup.attributes.study_hash, healthy)
    out = tmp_path / "s.zarr"
    from compute.runner import create

    create(setup, out)
    with pytest.raises(ComputeError, match=sentence):
        oversee(crew, 1, study, out, Reporter(0), limit=0, shard=WHOLE)


@pytest.mark.full
def test_an_error_of_a_worker_is_the_run_s(tmp_path):
    study = small_study(tmp_path, limit=4)
    study.write_text(study.read_text().replace('kind = "external"\nmodel = "', 'kind = "external"\nmodel = "/nowhere'))
    done = run_opd("compute", study, "-o", tmp_path / "s.zarr", "--workers", "2")
    assert done.returncode == 1
    assert "/nowhere" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
