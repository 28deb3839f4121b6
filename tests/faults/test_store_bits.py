"""One bit that flips, one file that is cut or lost: the doctor finds it, and no reader shows what was not written."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import store
from store.doctor import Finding, examine
from store.errors import StoreError
from store.tables import TeacherInfo
from store.writer import add_teacher, concatenate, create, publish, publish_teacher
from tests.conftest import FULL
from tests.everything import everything
from tests.synthetic import SPECIALS, question_record, root_attributes, vocabulary

N_FLIPS = 1000 if FULL else 15
N_CUT = 300 if FULL else 5
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """A store with two parts, a teacher that was added later, and everything else that there can be in one."""
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        path = Path(folder) / "S.zarr"
        create(path, root_attributes(2), vocabulary(), range(len(SPECIALS)))
        add_teacher(path, TeacherInfo("late", "external", "", "late-1b", False, "added later"), {"batch": 16})
        for number in range(2):
            record = question_record(number, response_tokens=(8, 14))
            publish(path, f"p-{number}", concatenate([record]))
            publish_teacher(path, f"p-{number}", "late", record.teachers["hot"])
        yield path


@pytest.fixture(scope="module")
def written(whole: Path) -> dict[str, str | StoreError]:
    values = everything(store.open(whole))
    assert not [value for value in values.values() if isinstance(value, StoreError)]
    assert examine(whole, deep=True).findings == ()
    return values


def _draw(whole: Path, seed: int) -> str:
    """A file: of three draws one anywhere, one small and important, one of the vocabulary or an index."""
    draw = random.Random(seed)
    files = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
    kinds = (
        files,
        [
            name
            for name in files
            if (name.count("/") < 3 and name.endswith("json")) or name.endswith(("p-0/zarr.json", "p-1/zarr.json"))
        ],
        [name for name in files if name.startswith(("vocab/", "index/"))],
    )
    return draw.choice(kinds[seed % 3])


def _wrong(path: Path, written: dict[str, str | StoreError]) -> tuple[list[str], list[StoreError]]:
    """Calls that return what was not written, and the errors of those that return nothing."""
    try:
        found = everything(store.open(path))
    except StoreError as error:
        return [], [error]
    return (
        [name for name, value in found.items() if isinstance(value, str) and value != written.get(name)],
        [value for value in found.values() if isinstance(value, StoreError)],
    )


def _names(error: StoreError, file: str) -> bool:
    """Whether a sentence says which file it is about: by its path, or that of its array or group."""
    folder = file.split("/c/", maxsplit=1)[0].removesuffix("/zarr.json")
    return file in str(error) or f"{folder} " in str(error) or f"{folder}/" in str(error) or folder in str(error)


def _found(path: Path, file: str) -> list[Finding]:
    folder = file.split("/c/", maxsplit=1)[0].removesuffix("/zarr.json")
    return [finding for finding in examine(path, deep=True).findings if folder in finding.place]


def test_no_flipped_bit_goes_unnoticed_or_becomes_a_number(whole: Path, written, tmp_path: Path, record_property) -> None:
    harmless = []
    for seed in range(N_FLIPS):
        file = _draw(whole, seed)
        content = bytearray((whole / file).read_bytes())
        draw = random.Random(-seed - 1)
        at = draw.randrange(len(content))
        content[at] ^= 1 << draw.randrange(8)
        with _changed(whole, file, bytes(content)):
            shown, errors = _wrong(whole, written)
            found = _found(whole, file)
        assert not shown, (file, at, shown)
        assert all(_names(error, file) for error in errors), (file, at, errors)
        if not any(finding.severity == "damage" for finding in found):
            assert not errors, (file, at, errors)
            harmless.append((file, at))
    # What is left are names that nobody reads: of an attribute in a cache or a group, or of an axis in an index.
    assert all(file.endswith("json") and not _in_record(file) for file, _ in harmless), harmless
    record_property("flips", f"{N_FLIPS} flips, {len(harmless)} of them change nothing: {harmless}")
    print(f"{N_FLIPS} flips, {len(harmless)} of them in nothing that is read: {harmless}")


def _in_record(file: str) -> bool:
    """Whether a record of files holds this one."""
    return file.startswith("vocab/") or "/p-" in f"/{file}"


def test_what_is_cut_or_lost_is_found_and_never_read_as_something_else(whole: Path, written) -> None:
    for seed in range(N_CUT):
        file = _draw(whole, seed + 10_000)
        content = (whole / file).read_bytes()
        length = random.Random(seed).randrange(len(content))
        for harm in (content[:length], None):
            with _changed(whole, file, harm):
                shown, errors = _wrong(whole, written)
                assert _found(whole, file), (file, harm is None)
                if harm is None and file.endswith("/zarr.json") and b'"node_type": "group"' in content:
                    continue  # a group without metadata is not there: what it holds reads as absent
                assert not shown, (file, harm is None, shown)
                assert all(_names(error, file) for error in errors), (file, errors)
    assert everything(store.open(whole)) == written


class _changed:  # noqa: N801  # reads as a word where it is used
    """A file with other content, or none, for a while."""

    def __init__(self, path: Path, file: str, content: bytes | None) -> None:
        self.file, self.content = path / file, content

    def __enter__(self) -> None:
        self.before = self.file.read_bytes()
        if self.content is None:
            self.file.unlink()
        else:
            self.file.write_bytes(self.content)

    def __exit__(self, *_: object) -> None:
        self.file.write_bytes(self.before)


def test_a_lost_commit_record_is_damage_and_its_part_is_kept_aside(whole: Path, tmp_path: Path) -> None:
    from store.repair import repair

    path = Path(shutil.copytree(whole, tmp_path / "S.zarr"))
    (path / "student" / "p-0" / "zarr.json").unlink()
    report = examine(path)
    assert not report.ok
    said: list[str] = []
    repair(path, report, said.append)
    assert examine(path, deep=True).findings == ()
    assert store.open(path).part_ids == ("p-1",)
    assert (tmp_path / "S.zarr.damaged" / "student" / "p-0" / "logprob").is_dir()
    publish(path, "p-2", question_record(0, response_tokens=(8, 14)))
    assert {row.id for row in store.open(path).questions()} == {"q000", "q001"}
