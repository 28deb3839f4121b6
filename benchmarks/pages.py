"""Reading one rollout's page through our reader against zarr-python, array by array: `python -m benchmarks.pages [--json]`."""

from __future__ import annotations

import tempfile
from itertools import cycle
from pathlib import Path

import zarr

import store
from benchmarks.measure import medians, report
from store.schema import STUDENT, TEACHER
from tests.synthetic import write_store


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_store(
            Path(folder) / "s.zarr", n_questions=12, n_rollouts=4, questions_per_part=12, response_tokens=(200, 400)
        )
        opened = store.open(path)
        places = cycle([(row.question_id, row.index) for question in opened.questions() for row in question.rollouts])
        teachers = [teacher.id for teacher in opened.teachers]
        (part,) = opened.part_ids
        root = zarr.open_group(path, mode="r")
        keys = [f"student/{part}/{name}" for name, spec in STUDENT.items() if spec.dims[0] == "token"]
        keys += [f"teacher/{one}/{part}/{name}" for one in teachers for name, spec in TEACHER.items() if spec.dims[0] == "token"]
        arrays = [array for key in keys if isinstance(array := root[key], zarr.Array)]

        def ours() -> None:
            opened.rollout(*next(places))

        def theirs() -> None:
            for array in arrays:
                array[:300]

        seconds = medians({"page through TensorStore": ours, "page through zarr-python": theirs}, 20)
        report(
            "pages",
            seconds,
            {"zarr-python / TensorStore": seconds["page through zarr-python"] / seconds["page through TensorStore"]},
        )


if __name__ == "__main__":
    main()
