"""What a worker asks a Ray cluster for, and how many have room there."""

from __future__ import annotations

import pytest

from compute.errors import StudyError
from compute.ray_workers import Resources, needs, places, unanswered
from compute.study import load
from tests.conftest import CHAIN_SUMS

STUDY = """
[study]
name = "places"

[task]
questions = "{questions}"

[student]
model = "{student}"
device = "{device}"

{teachers}
"""


def study(tmp_path, device, *teachers, threads=0):
    path = tmp_path / "study.toml"
    sections = "\n".join(f'[[teacher]]\nid = "t{n}"\n{one}\n' for n, one in enumerate(teachers))
    text = STUDY.format(
        questions=CHAIN_SUMS / "questions.jsonl", student=CHAIN_SUMS / "student", device=device, teachers=sections
    )
    path.write_text(text + (f"[engine]\nthreads = {threads}\n" if threads else ""))
    return load(path)


def external(device):
    return f'kind = "external"\nmodel = "m"\ndevice = "{device}"'


SERVED = 'kind = "served"\nurl = "http://localhost:1/v1"\nserved_model = "m"\ndevice = "cuda"'
OWN = 'kind = "self"\ncontext = "answer"\ndevice = "cuda:7"'
WRITER = 'kind = "self"\ncontext = "1c"\ncontext_model = "m"\ndevice = "cuda"'
SUMMARISER = 'kind = "self"\ncontext = "sum-1c"\nsummary_model = "m"\ndevice = "cuda:1"'


@pytest.mark.parametrize(
    ("device", "teachers", "gpus"),
    [
        ("cpu", [external("cpu")], 0),
        ("cuda", [external("cpu")], 1),
        ("cpu", [external("cuda")], 1),
        ("cuda", [external("cuda:0")], 1),
        ("cuda:0", [external("cuda:1")], 2),
        ("cuda:2", [external("cuda"), external("cuda:1")], 3),
        ("cpu", [SERVED, OWN], 0),  # a server and the student itself: no model there
        ("cpu", [WRITER], 1),
        ("cuda", [SUMMARISER], 2),
    ],
)
def test_gpus_are_as_many_as_devices_have_a_model(tmp_path, device, teachers, gpus):
    assert needs(study(tmp_path, device, *teachers), "") == Resources(1, gpus)


def test_the_command_s_device_takes_the_place_of_all_and_threads_are_cpus(tmp_path):
    two = study(tmp_path, "cuda:0", external("cuda:1"), threads=3)
    assert needs(two, "cpu") == Resources(3, 0)
    assert needs(two, "cuda") == Resources(3, 1)
    assert needs(two, "") == Resources(3, 2)


def test_devices_that_ray_would_number_otherwise_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"The models are on cuda:1, and .* name cuda:0 in their place"):
        needs(study(tmp_path, "cpu", external("cuda:1")), "")
    with pytest.raises(StudyError, match="name cuda:0, cuda:1 in their place"):
        needs(study(tmp_path, "cuda:0", external("cuda:3")), "")


def test_an_actor_has_all_its_gpus_on_one_machine():
    machines = [Resources(16, 3), Resources(16, 1), Resources(2, 8)]
    assert places(machines, Resources(1, 1)) == 6
    assert places(machines, Resources(1, 2)) == 3
    assert places(machines, Resources(4, 2)) == 1
    assert places(machines, Resources(4, 9)) == 0
    assert places(machines, Resources(4, 0)) == 3


def test_who_finds_no_place_is_told_what_was_asked_for_and_what_is_there():
    machines = [Resources(8, 1), Resources(8, 1)]
    assert unanswered(3, 4, Resources(1, 2), machines, Resources(15, 0)) == (
        "no answer from Ray for 60 s (3 of 4 workers); each asks for 1 CPU and 2 GPUs on one machine, and the cluster has "
        "16 CPUs and 2 GPUs on 2 machines, free 15 CPUs and 0 GPUs."
    )
