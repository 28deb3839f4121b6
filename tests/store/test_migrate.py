"""A store of schema 1, written by the version that had it, becomes one of today's: nothing is lost, nothing is half-made."""

from __future__ import annotations

import json
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import store
from store import layout
from store.errors import StoreError
from store.migrate import TEACHER_1, migrate
from store.rounding import next_lower, rounded
from store.schema import ABSENT_TOKEN, DIVERGENCE_BITS, STUDENT, TEACHER, TOPK_BITS, VOCAB
from store.staging import staging_folder
from store.teacher_topk import coarse
from store.writer import publish
from tests.store.conftest import PLACE
from tests.synthetic import question_record

#: Two questions in two parts, three teachers, and one that was added to the first part later and knows five tokens at most.
SCHEMA_1 = Path(__file__).with_name("schema1.zarr.zip")
PARTS = ("p-00000000-0000", "p-00000000-0001")
TEACHERS = ("ext-7b", "self-1c", "hot", "late")

MIGRATE_AND_DIE = """
import os, signal, sys
from store.migrate import migrate
import zarr, zarr.codecs, zarr.storage
seen = 0
def hook(name, arguments):
    global seen
    if name == "open" and ".staging" in str(arguments[0]):
        seen += 1
        if seen == 500:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
migrate(*sys.argv[1:3])
"""

COMMAND = "import sys; from opd_tui.entry import main; sys.argv = ['opd-tui', *sys.argv[1:]]; main()"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with zipfile.ZipFile(SCHEMA_1) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "S.zarr"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The old store and what became of it. Not to be changed."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        with zipfile.ZipFile(SCHEMA_1) as archive:
            archive.extractall(folder)
        old, new = Path(folder) / "S.zarr", Path(folder) / "C.zarr"
        assert migrate(old, new) == 2
        yield old, new


def _arrays(path: Path, folder: str, names: dict[str, object]) -> dict[str, np.ndarray]:
    group = zarr.open_group(path / folder, mode="r")
    return {name: np.asarray(group[name][...]) for name in names}


def _same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype
    assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def test_an_old_store_is_refused_with_the_command_that_helps(old: Path) -> None:
    with pytest.raises(StoreError, match=r"old schema 1\.0.*opd-tui migrate .*S\.zarr -o NEW\.zarr"):
        store.open(old)


def test_what_the_study_is_stays(both: tuple[Path, Path]) -> None:
    new = both[1]
    before, after = (json.loads((path / "zarr.json").read_text())["attributes"] for path in both)
    assert (before.pop("schema_version"), after.pop("schema_version")) == ("1.0", layout.SCHEMA_VERSION)
    assert before == after
    reader = store.open(new)
    assert reader.part_ids == PARTS
    assert tuple(teacher.id for teacher in reader.teachers) == TEACHERS
    assert reader.teachers[-1].description == "added later, behind a server"
    assert reader.made_with == ("made up, in float64",)
    assert reader.counts().n_tokens == 37 + 43
    for part in PARTS:
        before, after = (json.loads((path / "student" / part / "zarr.json").read_text())["attributes"] for path in both)
        for key in ("study_hash", "part", "question_ids", "n_completions", "counts", "made_with"):
            assert before[key] == after[key]
    assert not (new / "teacher/late" / PARTS[1]).exists()


def test_all_arrays_but_the_top_are_the_same_bits(both: tuple[Path, Path]) -> None:
    changed = {"divergence", "logprob_at_student_topk"}
    _arrays_equal(both, "vocab", VOCAB, set())
    for part in PARTS:
        _arrays_equal(both, f"student/{part}", STUDENT, {"topk_logprob"})
        before, after = (_arrays(path, f"student/{part}", {"topk_logprob": None}) for path in both)
        _same(coarse(before["topk_logprob"]), after["topk_logprob"])
        for teacher in TEACHERS[: 4 if part == PARTS[0] else 3]:
            folder = f"teacher/{teacher}/{part}"
            _arrays_equal(both, folder, {name: spec for name, spec in TEACHER.items() if name in TEACHER_1}, changed)
            before, after = (_arrays(path, folder, dict.fromkeys(changed)) for path in both)
            _same(rounded(before["divergence"], DIVERGENCE_BITS), after["divergence"])
            at = coarse(before["logprob_at_student_topk"])
            moved = (after["logprob_at_student_topk"] != at) & ~np.isnan(at)
            assert (after["logprob_at_student_topk"][moved] == next_lower(at[moved], TOPK_BITS)).all()
            assert moved.mean() < 0.01


def _arrays_equal(both: tuple[Path, Path], folder: str, specs: dict, but: set[str]) -> None:
    before, after = (_arrays(path, folder, specs) for path in both)
    for name in specs.keys() - but:
        _same(before[name], after[name])


def test_every_teachers_most_likely_tokens_are_what_they_were(both: tuple[Path, Path]) -> None:
    old, new = both
    reader = store.open(new)
    for part, question in zip(PARTS, ("q000", "q001"), strict=True):
        bounds = zarr.open_array(old / "student" / part / "token_start")[...]
        for index, m in np.ndindex(4, 4 if part == PARTS[0] else 3):
            tokens = slice(int(bounds[index]), int(bounds[index + 1]))
            before = _arrays(old, f"teacher/{TEACHERS[m]}/{part}", TEACHER_1)
            ids, logprob, student = (
                before[name][tokens] for name in ("topk_token_id", "topk_logprob", "student_logprob_at_topk")
            )
            after = reader.rollout(question, index).teacher_topk(m)
            logprob, student = coarse(logprob), coarse(student)
            _same(after.logprob_TC, logprob)
            for t in range(len(ids)):
                there = dict(zip(ids[t].tolist(), zip(logprob[t].tolist(), student[t].tolist(), strict=True), strict=True))
                found = dict(
                    zip(
                        after.token_id_TC[t].tolist(),
                        zip(after.logprob_TC[t].tolist(), after.student_logprob_TC[t].tolist(), strict=True),
                        strict=True,
                    )
                )
                there.pop(ABSENT_TOKEN, None)
                found.pop(ABSENT_TOKEN, None)
                assert found == there


def test_a_few_numbers_are_those_that_the_old_version_wrote(both: tuple[Path, Path]) -> None:
    """Read off the arrays when the store was written: token 3 of the second question under self-1c."""
    rollout = store.open(both[1]).rollout("q001", 0)
    m = rollout.teachers.index("self-1c")
    assert rollout.teacher_logprob_TM[3, m] == np.float32(-0.16737887)
    written = np.float32([0.01597547, 0.01900592, 0.00429012, 0.06275816, 0.9986735])
    assert (rollout.divergence_TMD[3, m] == rounded(written, DIVERGENCE_BITS)).all()
    assert rollout.teacher_topk(m).token_id_TC[3].tolist() == [3, 15, 16, 13, 9, 29, 46, 20]
    late = store.open(both[1]).rollout("q000", 0, ["late"])
    assert (late.teacher_topk_n_TM == 5).all()
    assert (late.teacher_topk(0).token_id_TC[:, 5:] == ABSENT_TOKEN).all()


def test_more_can_be_computed_into_it(both: tuple[Path, Path], tmp_path: Path) -> None:
    new = Path(shutil.copytree(both[1], tmp_path / "C.zarr"))
    shutil.rmtree(new / "student" / PARTS[1])
    publish(new, "p-00000000-0002", question_record(1))
    assert store.open(new).counts().n_questions_done == 2


def test_what_cannot_be_migrated_is_left_alone(both: tuple[Path, Path], tmp_path: Path, old: Path) -> None:
    target = tmp_path / "C.zarr"
    with pytest.raises(StoreError, match=r"has schema 2\.0 already; there is nothing to do"):
        migrate(both[1], target)
    with pytest.raises(StoreError, match="no store at"):
        migrate(tmp_path / "nothing", target)
    with pytest.raises(StoreError, match="inside of the store"):
        migrate(old, old / "new.zarr")
    (tmp_path / "mine").mkdir()
    with pytest.raises(StoreError, match="mine is there already"):
        migrate(old, tmp_path / "mine")
    metadata = (old / "zarr.json").read_text()
    for version, reason in (("3.0", "pip install -U opd-tui"), ("0.9", "what can be migrated is schema 1")):
        (old / "zarr.json").write_text(metadata.replace('"1.0"', f'"{version}"'))
        with pytest.raises(StoreError, match=reason):
            migrate(old, target)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["S.zarr", "mine"]


@pytest.mark.parametrize(
    "file",
    [
        "vocab/token_bytes/c/0",
        "student/p-00000000-0001/logprob/c/0",
        "teacher/late/p-00000000-0000/topk_logprob/c/0/0",
    ],
)
def test_damage_is_named_and_nothing_is_written(old: Path, tmp_path: Path, file: str) -> None:
    content = (old / file).read_bytes()
    for harmed in (content[: len(content) // 2], None):
        (old / file).unlink()
        if harmed is not None:
            (old / file).write_bytes(harmed)
        with pytest.raises(StoreError, match=f"{file} is {'missing' if harmed is None else 'damaged'}"):
            migrate(old, tmp_path / "C.zarr")
        (old / file).write_bytes(content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["S.zarr"]


def test_an_array_that_came_later_is_named(old: Path, tmp_path: Path) -> None:
    folder = old / "teacher/hot/p-00000000-0001"
    shutil.rmtree(folder / "rest_moment")
    metadata = json.loads((folder / "zarr.json").read_text())
    attributes = metadata["attributes"]
    attributes["files"] = {name: entry for name, entry in attributes["files"].items() if not name.startswith("rest_moment/")}
    attributes["checksum"] = layout._checksum(attributes)
    (folder / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="before stores had the array 'rest_moment'; compute the study anew"):
        migrate(old, tmp_path / "C.zarr")


def test_a_teacher_that_contradicts_itself_is_refused(old: Path, tmp_path: Path) -> None:
    array = zarr.open_array(old / "teacher/hot/p-00000000-0001/student_logprob_at_topk")
    array[...] = np.full(array.shape, -1.0, array.dtype)
    with pytest.raises(StoreError, match=r"hot/p-00000000-0001 says two things"):
        migrate(old, tmp_path / "C.zarr")


def test_a_migration_that_was_killed_leaves_nothing_and_begins_anew(old: Path, tmp_path: Path, python) -> None:
    target = tmp_path / "C.zarr"
    died = python(MIGRATE_AND_DIE, old, target)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not target.exists()
    assert staging_folder(target).is_dir()
    assert migrate(old, target) == 2
    assert not staging_folder(target).exists()
    assert store.open(target).part_ids == PARTS


def test_the_command_says_what_it_did(old: Path, tmp_path: Path, python) -> None:
    done = python(COMMAND, "migrate", old, "-o", tmp_path / "C.zarr")
    assert done.returncode == 0, done.stderr
    assert "(2 parts)" in done.stdout
    again = python(COMMAND, "migrate", tmp_path / "C.zarr", "-o", tmp_path / "D.zarr")
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "nothing to do" in again.stderr
