"""A spool file is whole or refused."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from store import spool
from store.errors import StoreError
from store.parts import PartArrays, validate

SAVE_AND_DIE = """
import os, signal, sys
from store import spool
record, meta = spool.load(sys.argv[1])
sys.addaudithook(lambda name, _: os.kill(os.getpid(), signal.SIGKILL) if name == "os.rename" else None)
spool.save(sys.argv[2], record, meta)
"""
SAVE_WITHOUT_ROOM = """
import resource, sys
from store import spool
record, meta = spool.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
try:
    spool.save(sys.argv[2], record, meta)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_record_comes_back_as_it_was(tmp_path: Path, records: list[PartArrays]) -> None:
    meta = {"question": "q000 \x1b", "n": 3, "seconds": 1.5}
    spool.save(tmp_path / "deep" / "q.npz", records[0], meta)
    part, read_meta = spool.load(tmp_path / "deep" / "q.npz")
    validate(part)
    assert read_meta == meta
    assert list(part.teachers) == list(records[0].teachers)
    for name, array in records[0].student.items():
        assert part.student[name].dtype == array.dtype
        assert np.array_equal(part.student[name], array, equal_nan=array.dtype.kind == "f")
    for name, array in records[0].teachers["hot"].items():
        assert np.array_equal(part.teachers["hot"][name], array, equal_nan=array.dtype.kind == "f")
    with np.load(tmp_path / "deep" / "q.npz", allow_pickle=False) as npz:
        assert "student/token_id" in npz, "numpy alone can look into it"


def test_saving_again_replaces(tmp_path: Path, records: list[PartArrays]) -> None:
    spool.save(tmp_path / "q.npz", records[0], {"n": 1})
    spool.save(tmp_path / "q.npz", records[1], {"n": 2})
    part, meta = spool.load(tmp_path / "q.npz")
    assert (part.question_ids, meta) == (("q001",), {"n": 2})
    assert [entry.name for entry in tmp_path.iterdir()] == ["q.npz"]


def test_a_damaged_file_is_refused_wherever_the_damage_is(tmp_path: Path, records: list[PartArrays]) -> None:
    student, hot = records[0].student, records[0].teachers["hot"]
    small = PartArrays({"token_id": student["token_id"][:9]}, {"hot": {"fbar": hot["fbar"][:3]}})
    file = tmp_path / "q.npz"
    spool.save(file, small, {"n": 1})
    whole = file.read_bytes()
    for length in range(0, len(whole), 53):
        file.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"q\.npz is damaged"):
            spool.load(file)
    noticed = 0
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            part, meta = spool.load(file)
        except StoreError:
            noticed += 1
        else:  # a time stamp or another field of the archive that carries nothing of ours
            assert meta == {"n": 1}
            assert np.array_equal(part.student["token_id"], small.student["token_id"])
            assert np.array_equal(part.teachers["hot"]["fbar"], small.teachers["hot"]["fbar"])
    assert noticed > 0.6 * len(whole)
    with pytest.raises(StoreError, match="no spool file"):
        spool.load(tmp_path / "missing.npz")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", **{"student/x": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(StoreError, match="damaged"):
        spool.load(tmp_path / "evil.npz")


def test_a_process_killed_while_saving_leaves_the_old_file(tmp_path: Path, records: list[PartArrays], python) -> None:
    spool.save(tmp_path / "a.npz", records[0], {"n": 1})
    spool.save(tmp_path / "b.npz", records[1], {"n": 2})
    assert python(SAVE_AND_DIE, tmp_path / "a.npz", tmp_path / "b.npz").returncode == -signal.SIGKILL
    assert spool.load(tmp_path / "b.npz")[1] == {"n": 2}


def test_a_full_disk_is_a_sentence(tmp_path: Path, records: list[PartArrays], python) -> None:
    spool.save(tmp_path / "a.npz", records[0], {})
    said = python(SAVE_WITHOUT_ROOM, tmp_path / "a.npz", tmp_path / "b.npz")
    assert said.stdout.startswith("StoreError there is no room"), said.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]
