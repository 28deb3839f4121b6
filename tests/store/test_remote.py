"""A store that lies elsewhere: on S3, behind a web server, in a zip file. It reads as one in a folder does."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

import store
from store import spool
from store.doctor import examine
from store.errors import IsThere, StoreError
from store.parts import PartArrays
from store.place import parse
from store.repair import repair
from store.tables import RootAttributes, TeacherInfo
from store.writer import add_teacher, committed_question_ids, create, next_part_id, publish, publish_teacher
from tests.conftest import FULL
from tests.everything import digest, everything
from tests.store.conftest import ROOT
from tests.store.object_store import BUCKET, Proxy, environment, object_store, range_handler, serve
from tests.synthetic import SPECIALS, TEACHERS, question_record, root_attributes, vocabulary

LATE = TeacherInfo("late", "external", "", "late-1b", False, "added later")
N_QUESTIONS = 2
RTT = 0.03
#: A server in Python answers some hundred requests a second, so the long looks are taken in full runs alone.

PUBLISH = """
import sys
from store import spool
from store.errors import IsThere
from store.writer import publish
path, record, *parts = sys.argv[1:]
for part in parts:
    try:
        publish(path, part, spool.load(record)[0])
        print("in", flush=True)
    except IsThere:
        print("there", flush=True)
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[Proxy]:
    with object_store() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def pieces():
    """Two questions of a study with one teacher: a server in Python takes its time over every file."""
    whole = [question_record(number, response_tokens=(8, 14)) for number in range(N_QUESTIONS)]
    return [PartArrays(one.student, {TEACHERS[0].id: one.teachers[TEACHERS[0].id]}) for one in whole]


def _study() -> RootAttributes:
    return replace(root_attributes(N_QUESTIONS), teachers=TEACHERS[:1])


def _fill(path: str | Path, pieces) -> None:
    create(path, _study(), vocabulary(), range(len(SPECIALS)))
    add_teacher(path, LATE)
    for number, piece in enumerate(pieces):
        publish(path, f"p-{number}", piece)
    publish_teacher(path, "p-0", "late", pieces[0].teachers[TEACHERS[0].id])


@pytest.fixture(scope="module")
def local(pieces, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("local") / "S.zarr"
    _fill(path, pieces)
    return path


@pytest.fixture(scope="module")
def expected(local: Path):
    return everything(store.open(local))


@pytest.fixture(scope="module")
def filled(s3: Proxy, pieces) -> str:
    """The same store on S3, written while requests are refused now and then."""
    path = f"s3://{BUCKET}/filled/S.zarr"
    s3.refuse_every = 11 if FULL else 50
    _fill(path, pieces)
    s3.refuse_every = 0
    return path


def test_a_store_on_s3_reads_as_the_one_in_a_folder(s3: Proxy, filled: str, expected) -> None:
    s3.refuse_every = 13 if FULL else 50
    found = everything(store.open(filled))
    s3.refuse_every = 0
    assert found == expected
    assert committed_question_ids(filled) == {"q000", "q001"}
    assert {one.status for one in s3.seen} >= {200, 500, 503}
    assert examine(filled, deep=FULL).findings == ()


def test_every_commit_is_a_write_on_a_condition(s3: Proxy, filled: str) -> None:
    commits = [one for one in s3.seen if one.method == "PUT" and one.path.endswith("student/p-0/zarr.json")]
    assert commits
    for one in commits:
        assert one.headers.get("If-None-Match", one.headers.get("if-none-match")) == "*", one.headers


def test_a_first_page_takes_at_most_four_round_trips(s3: Proxy, filled: str, expected) -> None:
    reader = store.open(filled)
    reader.questions()
    s3.seen.clear()
    s3.delay = RTT
    began = time.monotonic()
    page = reader.rollout("q000", 0)
    took, s3.delay = time.monotonic() - began, 0.0
    assert page.teachers == (TEACHERS[0].id, LATE.id)
    print(f"a first page: {s3.waves()} waves of {len(s3.seen)} requests, {took / RTT:.1f} round trips of {RTT * 1e3:.0f} ms")
    assert s3.waves() <= 4


def _start(path: str, record: Path, *parts: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUBLISH, path, str(record), *parts]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def spooled(pieces, tmp_path_factory) -> Path:
    """A record that processes of their own publish."""
    file = tmp_path_factory.mktemp("spool") / "record.npz"
    spool.save(file, pieces[0], {})
    return file


@pytest.fixture(scope="module")
def busy(s3: Proxy) -> str:
    """A store on S3 for several writers."""
    path = f"s3://{BUCKET}/busy/S.zarr"
    create(path, _study(), vocabulary(), range(len(SPECIALS)))
    return path


def test_two_writers_at_once_lose_nothing_and_one_part_has_one_winner(s3: Proxy, busy: str, spooled: Path) -> None:
    both = [_start(busy, spooled, "p-same", f"p-{run}") for run in "ab"]
    said = [process.communicate(timeout=120) for process in both]
    assert [complained for _, complained in said] == ["", ""]
    assert sorted(out.split() for out, _ in said) == [["in", "in"], ["there", "in"]]
    assert store.open(busy).part_ids == ("p-a", "p-b", "p-same")
    report = examine(busy, deep=FULL)
    assert {finding.kind for finding in report.findings} == {"duplicate"}


def test_of_many_who_write_where_nothing_is_one_does(s3: Proxy, filled: str) -> None:
    for n in range(100 if FULL else 4):
        key = parse(f"s3://{BUCKET}/contended") / f"{n}"
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i, key=key: key.write(b"%d" % i, if_absent=True), range(8)))
        assert won.count(True) == 1
        assert key.read(8) == b"%d" % won.index(True)


@pytest.mark.full
def test_a_killed_upload_is_never_seen_and_the_next_run_goes_on(s3: Proxy, busy: str, spooled: Path, pieces, local: Path) -> None:
    before, s3.delay = len(s3.seen), 0.002
    had = store.open(busy).part_ids
    process = _start(busy, spooled, "p-x-0000")
    wanted = random.Random(1).randrange(60, 120)
    while len(s3.seen) - before < wanted:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    s3.delay = 0.0
    assert store.open(busy).part_ids == had
    report = examine(busy)
    assert report.ok
    assert "leftover" in {finding.kind for finding in report.findings}
    said: list[str] = []
    repair(busy, report, said.append)
    assert any("less than a day ago" in line for line in said), said
    part = next_part_id(busy, "x")
    publish(busy, part, pieces[1])
    assert part == "p-x-0001"
    asked = [TEACHERS[0].id]
    assert digest(store.open(busy).rollout("q001", 0, asked)) == digest(store.open(local).rollout("q001", 0, asked))
    _a_day_later(busy)
    repair(busy, examine(busy), said.append)
    assert {finding.kind for finding in examine(busy, deep=FULL).findings} <= {"duplicate"}


def _a_day_later(path: str) -> None:
    folder = parse(path) / "uploads"
    for name in folder.every_key():
        mark = folder / name
        mark.write(mark.read(1 << 20).replace(b'"begun": ', b'"begun": -'))


@pytest.mark.full
def test_a_damaged_part_on_s3_is_moved_aside(s3: Proxy, pieces) -> None:
    path = f"s3://{BUCKET}/damaged/S.zarr"
    _fill(path, pieces)
    place = parse(path) / "student" / "p-1" / "logprob" / "c" / "0"
    content = place.read(1 << 20)
    place.write(content[:-1] + bytes([content[-1] ^ 1]))
    report = examine(path, deep=True)
    assert next(finding.place for finding in report.findings if finding.severity == "damage").endswith("p-1/logprob/c/0")
    repair(path, report, lambda _: None)
    assert examine(path, deep=True).findings == ()
    assert committed_question_ids(path) == {"q000"}
    assert (parse(f"{path}.damaged") / "student" / "p-1" / "zarr.json").exists()
    with pytest.raises(IsThere):
        publish(path, "p-0", pieces[0])


FAILURES = {
    "bucket": (f"s3://{BUCKET}-that-is-not/S.zarr", {}, "the bucket"),
    "credentials": ("s3://study/S.zarr", {"AWS_ENDPOINT_URL": "", "OPD_TUI_AWS_CREDENTIALS": "environment"}, "credentials"),
    "server": ("s3://study/S.zarr", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer"),
    "path": (f"s3://{BUCKET}/nothing/S.zarr", {}, "no store at"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_cannot_be_reached_is_one_sentence(
    s3: Proxy, python: Callable[..., subprocess.CompletedProcess[str]], case: str
) -> None:
    path, values, words = FAILURES[case]
    program = (
        "import os, sys\n"
        "if 'credentials' in sys.argv[2]:\n"
        "    [os.environ.pop(n, None) for n in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')]\n"
        "import store\nfrom store.errors import StoreError\n"
        "try:\n    store.open(sys.argv[1])\nexcept StoreError as error:\n    print(error)\n"
    )
    if case == "credentials":
        values = {**values, "AWS_ENDPOINT_URL": s3.address}
    with environment(values):
        began = time.monotonic()
        done = python(program, path, case)
    print(case, f"{time.monotonic() - began:.1f} s", done.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert words in done.stdout, done.stdout


def test_a_web_server_reads_through_the_manifest(local: Path, expected, tmp_path: Path) -> None:
    with serve(range_handler(local.parent)) as address:
        path = f"{address}/{local.name}"
        assert everything(store.open(path)) == expected
        report = examine(path, deep=FULL)
        assert report.findings == ()
        with pytest.raises(StoreError, match="can only be read"):
            repair(path, report, lambda _: None)
    copy = Path(shutil.copytree(local, tmp_path / "bare.zarr"))
    (copy / "manifest.json").unlink()
    with serve(range_handler(tmp_path)) as address, pytest.raises(StoreError, match=r"no manifest\.json.*--repair"):
        store.open(f"{address}/bare.zarr")


def test_a_zip_reads_as_the_folder(local: Path, expected, tmp_path: Path) -> None:
    target = tmp_path / "S.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(local.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(local).as_posix())
    assert everything(store.open(target)) == expected
    report = examine(target, deep=True)
    assert report.findings == ()
    with pytest.raises(StoreError, match="can only be read"):
        repair(target, report, lambda _: None)
