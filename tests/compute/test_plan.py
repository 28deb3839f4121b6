"""The plan before a run: right where all questions were tried, honest where some were, and it writes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import store
from compute.batch import work_folder
from compute.pipeline import sample_rollouts
from compute.plan import Estimate, plan
from compute.progress import Reporter
from compute.runner import run
from compute.setup import Setup, prepare
from compute.spooled import Spool
from store.errors import StoreError
from tests.conftest import run_opd, small_study


class Counting:
    """An engine that counts the tokens it samples and the free responses it is asked for."""

    def __init__(self, engine) -> None:
        self.engine, self.tokens, self.free = engine, 0, 0
        self.batch_shape = engine.batch_shape

    def complete(self, prompt_ids, spine, launches, **more):
        found = self.engine.complete(prompt_ids, spine, launches, **more)
        self.tokens += sum(len(one.token_ids) for one in found)
        self.free += 0 if spine else len(launches)
        return found


def counted(setup: Setup) -> tuple[Setup, Counting]:
    """The setup with one counting engine for all that it samples."""
    engine = Counting(setup.bench.engine)
    teachers = tuple(
        replace(one, writer=replace(one.writer, engine=engine)) if one.writer is not None else one for one in setup.bench.teachers
    )
    return replace(setup, bench=replace(setup.bench, engine=engine, teachers=teachers)), engine


def everything_in(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A study of three questions: its plan, and then what the run came to."""
    folder = tmp_path_factory.mktemp("planned")
    setup = prepare(small_study(folder, limit=3, n_min=30), Reporter(0))
    before = everything_in(folder)
    found = plan(setup, folder / "s.zarr", Reporter(0))
    assert everything_in(folder) == before
    counting, engine = counted(setup)
    outcome = run(counting, folder / "s.zarr", Reporter(0))
    return setup, folder / "s.zarr", found, engine.tokens, outcome.seconds


def test_where_every_question_was_tried_the_plan_is_exact(planned):
    _, path, found, _, _ = planned
    n = store.open(path).counts().n_completions
    assert found.completions == Estimate(n, n, n)
    assert (found.n_questions, found.n_done, found.n_left, found.n_pilot) == (3, 0, 3, 3)
    assert found.n_rollouts == 3 * 24
    assert found.demonstrations.about % 20 == 0 and 3 * 20 <= found.demonstrations.about <= 3 * 60


def test_tokens_bytes_and_time_are_near_what_the_run_takes(planned):
    _, path, found, tokens, seconds = planned
    # Of every batch 8 completions stand for all, whose lengths differ widely. The demonstrations of other questions count once.
    assert found.tokens.about == pytest.approx(tokens, rel=0.2)
    size = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    assert found.bytes.about == pytest.approx(size, rel=0.35)
    assert seconds / 4 <= found.seconds.about <= 4 * seconds  # a busy machine may be busier later
    assert found.tokens_per_second > 100


def test_what_is_in_the_store_is_not_planned_again(planned):
    setup, path, *_ = planned
    before = everything_in(path.parent)
    found = plan(setup, path, Reporter(0))
    assert (found.n_done, found.n_left, found.n_rollouts, found.seconds.about) == (3, 0, 0, 0.0)
    assert everything_in(path.parent) == before


def test_a_part_of_the_questions_stands_for_all(tmp_path, monkeypatch):
    monkeypatch.setattr("compute.plan.PILOT_SECONDS", 0.0)  # two questions, however quick
    setup = prepare(small_study(tmp_path, limit=5, n_min=20), Reporter(0))
    run(setup, tmp_path / "s.zarr", Reporter(0), limit=1)
    found = plan(setup, tmp_path / "s.zarr", Reporter(0))
    assert (found.n_done, found.n_left, found.n_pilot) == (1, 4, 2)
    there = store.open(tmp_path / "s.zarr").counts().n_completions
    run(setup, tmp_path / "s.zarr", Reporter(0))
    left = store.open(tmp_path / "s.zarr").counts().n_completions - there
    assert found.completions.low < found.completions.about < found.completions.high
    assert found.completions.about == pytest.approx(left, rel=0.6)
    limited = plan(prepare(small_study(tmp_path, limit=5, n_min=20), Reporter(0)), None, Reporter(0), limit=1)
    assert (limited.n_left, limited.n_pilot, limited.n_rollouts) == (1, 1, 24)


def test_rollouts_that_lie_beside_the_store_are_used(tmp_path):
    setup, engine = counted(prepare(small_study(tmp_path, limit=1, n_min=20), Reporter(0)))
    out = tmp_path / "s.zarr"
    plan(setup, out, Reporter(0))
    without = engine.free
    (question,) = setup.questions
    spool = Spool(work_folder(out), setup.attributes.study_hash)
    spool.responses(question, "rollouts", partial(sample_rollouts, setup.bench, question))
    engine.free = 0
    plan(setup, out, Reporter(0))
    assert without - engine.free == setup.study.sampling.n_rollouts


def test_another_studys_store_is_refused(planned, tmp_path):
    _, path, *_ = planned
    other = prepare(small_study(tmp_path, limit=2), Reporter(0))
    with pytest.raises(StoreError, match="is the store of study"):
        plan(other, path, Reporter(0))


@pytest.mark.full
def test_the_command_prints_one_json_object_or_a_table(tmp_path):
    study = small_study(tmp_path, limit=2, n_min=10)
    done = run_opd("compute", study, "-o", tmp_path / "s.zarr", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "opd-tui/plan/1"
    assert found["n_questions_left"] == 2 and found["completions"]["about"] > 100
    assert set(found["tokens"]) == {"about", "low", "high"}
    done = run_opd("compute", study, "--plan")
    assert done.returncode == 0, done.stderr
    assert "about" in done.stdout and "tokens/s" in done.stdout and "Nothing was written" in done.stdout
    assert not (tmp_path / "s.zarr").exists() and not list(tmp_path.glob("*.work"))


@pytest.mark.parametrize("words", [("--json",), ("--plan", "--preview")])
def test_words_that_do_not_go_together(tmp_path, words):
    done = run_opd("compute", small_study(tmp_path), "-o", tmp_path / "s.zarr", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
