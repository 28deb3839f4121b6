"""An export that cannot be: one sentence, and nothing unfinished beside the target."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from opd_tui.export.rows import Selection, write
from store.copying import copy
from store.errors import StoreError
from tests.conftest import OPD_TUI, ROOT
from tests.synthetic import write_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("faults") / "S.zarr", n_questions=1, n_rollouts=2, response_tokens=(10, 12))


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "npz"])
def test_no_folder_and_a_folder_are_said_as_they_are(made: Path, tmp_path: Path, format: str) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere\.$"):
        write(str(made), Selection(), format, str(tmp_path / "nowhere" / "x"))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"it is a folder\.$"):
        write(str(made), Selection(), format, str(tmp_path))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_store_is_never_written_over(made: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "S.zip"
    copy([made], zipped)
    before = zipped.read_bytes()
    for store, out in ((zipped, zipped), (made, made / "x.jsonl")):
        with pytest.raises(StoreError, match="only read"):
            write(str(store), Selection(), "jsonl", str(out))
    assert zipped.read_bytes() == before and not (made / "x.jsonl").exists()


@pytest.mark.parametrize("format", ["jsonl", "parquet", "npz"])
def test_stopped_in_the_middle_it_leaves_what_was_there(made: Path, tmp_path: Path, format: str) -> None:
    class Stopped(BaseException):
        pass

    def told(done: int, n: int) -> None:
        if done:
            raise Stopped

    (tmp_path / "x").write_text("before")
    with pytest.raises(Stopped):
        write(str(made), Selection(), format, str(tmp_path / "x"), told=told)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "before"


#: Exports in all formats, each of which gets a SIGTERM when it is at its third token, or at its first part.
STOPPED = """
import os, signal, sys
import opd_tui.export.rows, store.copying
from opd_tui.entry import main

def at(number, plain):
    n = 0
    def called(*arguments):
        nonlocal n
        n += 1
        if n == number:
            n = 0
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments)
    return called

opd_tui.export.rows._text = at(3, opd_tui.export.rows._text)
store.copying.concatenate = at(1, store.copying.concatenate)
_, path, *outs = sys.argv
for out in outs:
    format = out.rpartition(".")[2].replace("zip", "zarr")
    sys.argv = ["opd-tui", "export", path, "--format", format, "-o", out]
    try:
        main()
    except SystemExit as ended:
        print(format, ended.code)
"""


def test_sigterm_leaves_nothing(made: Path, tmp_path: Path) -> None:
    formats = ("jsonl", "csv", "parquet", "npz", "zip", "zarr")
    outs = [str(tmp_path / f"x.{kind}") for kind in formats]
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(made), *outs], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines() == [f"{kind} 130" for kind in ("jsonl", "csv", "parquet", "npz", "zarr", "zarr")]
    assert done.stderr.splitlines().count("Interrupted.") == len(formats) and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["jsonl", "csv", "html"])
def test_who_reads_no_more_hears_no_more(made: Path, format: str) -> None:
    """As in a pipe to `head`: no traceback, and no sentence either."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [OPD_TUI, "export", made, "--format", format, "-o", "-"],
            stdout=theirs,
            stderr=subprocess.PIPE,
            timeout=300,
            check=False,
        )
    finally:
        os.close(theirs)
    assert done.stderr == b"" and done.returncode in (1, -signal.SIGPIPE)


def test_a_store_in_a_zip_gives_what_the_folder_gives(made: Path, tmp_path: Path) -> None:
    copy([made], tmp_path / "S.zip")
    for kind in ("jsonl", "csv", "parquet", "npz"):
        for store, out in ((made, "folder"), (tmp_path / "S.zip", "zip")):
            write(str(store), Selection(), kind, str(tmp_path / f"{out}.{kind}"))  # type: ignore[arg-type]
        if kind != "npz":  # which holds times
            assert (tmp_path / f"folder.{kind}").read_bytes() == (tmp_path / f"zip.{kind}").read_bytes()
            continue
        with np.load(tmp_path / "folder.npz") as one, np.load(tmp_path / "zip.npz") as other:
            assert list(one) == list(other)
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
