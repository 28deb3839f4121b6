"""Models that take turns in memory: never two at once, few loads, the same store."""

from __future__ import annotations

import pytest

from compute.progress import Reporter
from compute.runner import run
from compute.setup import prepare
from tests.conftest import small_study
from tests.stored import stored


def computed(folder, resident, per_part=32):
    folder.mkdir()
    path = small_study(folder, limit=3, n_min=12, per_part=per_part)
    path.write_text(path.read_text().replace("[engine]\n", f'[engine]\nresident = "{resident}"\n'))
    setup = prepare(path, Reporter(0))
    run(setup, folder / "s.zarr", Reporter(0))
    return setup, stored(folder / "s.zarr")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return computed(tmp_path_factory.mktemp("together") / "s", "all")[1]


def weights(model):
    return sum(one.numel() for one in model.network.parameters())


def test_one_at_a_time_stores_the_same_and_loads_each_once_a_phase(tmp_path, together):
    setup, found = computed(tmp_path / "one", "one")
    assert found == together
    student, teacher = setup.bench.student, setup.bench.teachers[0].model
    assert teacher is not student
    # At the end the student has just run completions, and of the teacher its head is left.
    assert weights(teacher) == sum(one.numel() for one in teacher.head.parameters()) < weights(student)


@pytest.mark.full
def test_parts_of_one_question_are_the_same_too(tmp_path, together):
    assert computed(tmp_path / "one", "one", per_part=1)[1] == together


def test_loads_are_counted_by_phase_not_by_question(tmp_path, monkeypatch):
    from compute import models

    loads = []
    load_network = models.load_network
    monkeypatch.setattr(models, "load_network", lambda location, **more: loads.append(location) or load_network(location, **more))
    computed(tmp_path / "one", "one")
    # Student, teacher; the student for rollouts, the teacher for its passes, the student for completions.
    assert len(loads) == 5
