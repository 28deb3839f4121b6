"""The commands that write stores anew: merge, compact, export --format zarr."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import store
from opd_tui import entry
from store import copying
from store.writer import add_teacher
from tests.conftest import run_opd
from tests.store.conftest import PLACE
from tests.store.test_copying import same_content
from tests.synthetic import TeacherInfo, question_record, root_attributes, vocabulary, write_store
from tests.terminal.driving import browsing, picture
from tests.test_hostile_output import on_terminal


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        yield write_store(Path(folder) / "S.zarr", n_questions=4)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def another(made: Path) -> Path:
    """A store of another study."""
    return write_store(made.parent / "other.zarr", n_questions=1, seed=7)


@pytest.fixture
def opd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command in this process: exit code, standard output, last line of stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["opd-tui", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            entry.main()
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        return int(end.value.code or 0), out, (error.strip().splitlines() or [""])[-1]

    return run


def shards(folder: Path) -> tuple[Path, Path]:
    from store.writer import concatenate, create, publish

    found = []
    for name, numbers in (("even.zarr", [0, 2]), ("odd.zarr", [1])):
        path = folder / name
        create(path, root_attributes(6), vocabulary(), [0, 1])
        publish(path, "p-0", concatenate([question_record(number) for number in numbers]))
        found.append(path)
    return found[0], found[1]


def test_shards_are_merged_with_plain_lines_and_one_sentence(tmp_path: Path) -> None:
    one, other = shards(tmp_path)
    done = run_opd("merge", one, other, "-o", tmp_path / "C.zarr")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'C.zarr'} holds 3 of 6 questions in 1 part.\n"
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"\S+ Writing C.zarr: 0 of 3 questions", lines[0])
    assert re.fullmatch(r"\S+ Writing C.zarr: 3 of 3 questions, [\d.,]+ questions/s, 0 s left", lines[-1])
    assert [row.id for row in store.open(tmp_path / "C.zarr").questions()] == [f"q{number:03d}" for number in range(3)]


def test_on_a_terminal_a_bar_shows_rate_and_time_left(tmp_path: Path, made: Path) -> None:
    shown = on_terminal("compact", made, "-o", tmp_path / "odd \x1b[31m name.zarr")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "4/4" in plain
    assert "questions/s" in plain
    assert "left" in plain
    assert "holds 4 questions in 1 part" in " ".join(plain.split())
    assert "\x1b[31m name" not in shown
    same_content(store.open(made), store.open(tmp_path / "odd \x1b[31m name.zarr"))


def test_a_slice_opens_as_it_is(tmp_path: Path, made: Path, opd) -> None:
    for name in ("slice.zip", "slice.zarr"):
        words = ("export", made, "--question", "q001", "--question", "q003", "--format", "zarr", "-o", tmp_path / name)
        assert opd(*words)[:2] == (0, f"{tmp_path / name} holds 2 of 4 questions in 1 part.\n")
        same_content(store.open(made), store.open(tmp_path / name), ["q001", "q003"])
    assert zip_file(tmp_path / "slice.zip")
    told = opd("info", tmp_path / "slice.zip")
    assert "2, a slice of 4" in told[1]
    assert "go on" not in told[1]
    assert re.search(r"nodes +\d+ measured; where kept children differ", told[1])
    said = json.loads(opd("info", tmp_path / "slice.zip", "--json")[1])
    assert (said["complete"], said["n_questions_done"], said["n_questions_chosen"], said["n_questions_planned"]) == (
        True,
        2,
        2,
        4,
    )


async def test_a_slice_is_browsed_as_it_is(tmp_path: Path, made: Path) -> None:
    copying.copy([made], tmp_path / "slice.zip", questions=["q001"])
    async with browsing(tmp_path / "slice.zip") as (pilot, _):
        assert "q001" in picture(pilot)
        assert "1 question  a slice of 4" in picture(pilot)
        assert "live" not in picture(pilot)


def zip_file(path: Path) -> bool:
    return path.read_bytes()[:2] == b"PK"


def test_a_slice_leaves_out_added_teachers_that_were_not_asked_for(tmp_path: Path, made: Path, opd) -> None:
    from store.writer import concatenate, publish_teacher

    path = write_store(tmp_path / "S.zarr", n_questions=1)
    part = store.open(path).part_ids[0]
    for name in ("late", "later"):
        add_teacher(path, TeacherInfo(name, "external", "", f"{name}-1b", False, "added later"), {})
        publish_teacher(path, part, name, concatenate([store.open(path).part(part)]).teachers["ext-7b"])
    opd("export", path, "--teacher", "late", "--format", "zarr", "-o", tmp_path / "one.zip")
    assert [one.id for one in store.open(tmp_path / "one.zip").teachers] == ["ext-7b", "self-1c", "hot", "late"]
    code, _, said = opd("export", path, "--teacher", "lat", "--format", "zarr", "-o", tmp_path / "none.zip")
    assert code == 1
    assert "has no teacher 'lat'" in said


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["merge", "S", "-o", "C.zarr"], 2, "two stores or more"),
        (["merge", "-o", "C.zarr"], 2, "Missing argument"),
        (["compact", "S"], 2, "Missing option"),
        (["merge", "S", "other.zarr", "-o", "C.zarr"], 1, "only stores of one study can be put together"),
        (["compact", "S", "-o", "other.zarr"], 1, "is there already"),
        (["compact", "S", "-o", "S/inside.zarr"], 1, "lies inside of"),
        (["compact", "nothing.zarr", "-o", "C.zarr"], 1, "There is no store at nothing.zarr"),
        (["compact", "S", "-o", "gs://bucket/C.zarr"], 1, "can only be read"),
        (["compact", "S", "-o", "file.txt/C.zarr"], 1, "file.txt"),
        (["export", "S", "--format", "zarr", "-o", "-"], 2, "does not go to standard output"),
        (["export", "S", "--format", "zarr", "-o", "x.zip", "--rollout", "1"], 2, "whole questions"),
        (["export", "S", "--format", "zarr", "-o", "x.zip", "--tokens", "0:3"], 2, "whole questions"),
        (["export", "S", "--format", "zarr", "-o", "x.zip", "--objective", "chi2"], 2, "whole questions"),
        (["export", "S", "--format", "zarr", "-o", "x.zip", "--question", "q9"], 1, "has no question 'q9'"),
        (["export", "S", "--format", "zarr", "-o", "x.zip", "--teacher", "me"], 1, "has no teacher 'me'; it has 'ext-7b'"),
        (["export", "S", "--format", "parquet", "-o", "-"], 2, "no text"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    words: list[str], code: int, says: str, tmp_path: Path, made: Path, another: Path, opd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "S").symlink_to(made)
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "other.zarr").symlink_to(another)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = opd(*words)
    assert done[0] == code, done
    assert says in done[2]
    assert done[1] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not (made / "inside.zarr").exists()


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, made: Path, opd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, said = opd("export", made, "--format", "parquet", "-o", tmp_path / "x.parquet")
    assert code == 1
    assert said == "opd-tui: Parquet needs the extra [parquet]; install it: pip install 'opd-tui[parquet]'."
    assert not list(tmp_path.iterdir())
