"""An export that cannot be: one sentence, and nothing unfinished beside the target."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd_tui.export.rows import Selection, write
from store.copying import copy
from store.errors import StoreError
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
