"""Writers that are killed, disks that are full, folders that are gone: the store stays whole, and one sentence says why."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import store
from store import spool
from store.doctor import examine
from store.errors import StoreError
from store.parts import PartArrays
from store.repair import repair
from store.writer import committed_question_ids, create, publish, remove_leftovers
from tests.conftest import FULL
from tests.everything import digest
from tests.synthetic import SPECIALS, question_record, root_attributes, vocabulary

ROUNDS, KILLS = (10, 20) if FULL else (1, 6)
N_QUESTIONS = 4
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
ROOT = Path(__file__).resolve().parents[2]

#: Publishes without end; says in a file what is in. With a moment, it kills itself at that rename of its first part.
WRITER = """
import os, signal, sys, zarr, zarr.codecs, zarr.storage
from store import spool
from store.writer import next_part_id, publish
path, run, log, moment, *records = sys.argv[1:]
parts = [spool.load(record)[0] for record in records]
seen = 0
def hook(name, arguments):
    global seen
    if name == "os.rename" and "/p-" in str(arguments[1]) and ".staging" not in str(arguments[1]):
        seen += 1
        if seen == int(moment):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
print("ready", flush=True)
n = hash(run)
while True:
    part = next_part_id(path, run)
    publish(path, part, parts[n % len(parts)])
    with open(log, "a") as file:
        file.write(f"{part}\\n")
    n += 1
"""

#: Reads whole questions until its input ends; says what it saw that was not written.
READER = """
import json, os, random, sys, threading
import store
from tests.everything import digest
path, expected = sys.argv[1], json.load(open(sys.argv[2]))
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
reader, n, torn, had = store.open(path), 0, [], 0
while not ended.is_set():
    try:
        reader.refresh()
        rows = reader.questions()
        if len(reader.part_ids) < had:
            torn.append("a part is gone")
        had = len(reader.part_ids)
        for row in rows:
            index = random.randrange(4)
            pages = {f"rollout {row.id} {index}": reader.rollout(row.id, index), f"nodes {row.id}": reader.nodes(row.id)}
            for name, value in pages.items():
                n += 1
                if digest(value) != expected[name]:
                    torn.append(name)
    except Exception as error:
        torn.append(f"{type(error).__name__}: {error}")
print(json.dumps({"reads": n, "torn": torn}))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=PLACE) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def records() -> list[PartArrays]:
    return [question_record(number, response_tokens=(8, 14)) for number in range(N_QUESTIONS)]


@pytest.fixture
def made(folder: Path, records: list[PartArrays]) -> Path:
    """A store with the first of its questions."""
    path = folder / "S.zarr"
    create(path, root_attributes(N_QUESTIONS), vocabulary(), range(len(SPECIALS)))
    publish(path, "p-first", records[0])
    return path


def _start(program: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _spooled(folder: Path, records: list[PartArrays]) -> list[Path]:
    for number, record in enumerate(records):
        spool.save(folder / f"{number}.npz", record, {})
    return [folder / f"{number}.npz" for number in range(len(records))]


def _expected(folder: Path, records: list[PartArrays]) -> Path:
    """What every read must give, from a store in which nobody is killed."""
    path = folder / "calm.zarr"
    create(path, root_attributes(N_QUESTIONS), vocabulary(), range(len(SPECIALS)))
    values = {}
    for number, record in enumerate(records):
        publish(path, f"p-{number}", record)
    reader = store.open(path)
    for row in reader.questions():
        values |= {f"rollout {row.id} {index}": digest(reader.rollout(row.id, index)) for index in range(4)}
        values[f"nodes {row.id}"] = digest(reader.nodes(row.id))
    (folder / "expected.json").write_text(json.dumps(values))
    return folder / "expected.json"


def test_writers_killed_at_any_moment_lose_and_tear_nothing(folder: Path, records: list[PartArrays]) -> None:
    spooled, expected = _spooled(folder, records), _expected(folder, records)
    draw = random.Random(0)
    total = {"kills": 0, "parts": 0, "reads": 0, "orphans": 0, "leftovers": 0}
    for round_ in range(ROUNDS):
        path = folder / f"S{round_}.zarr"
        create(path, root_attributes(N_QUESTIONS), vocabulary(), range(len(SPECIALS)))
        reader = _start(READER, path, expected)
        for kill in range(0, KILLS, 2):
            # Two at once, and of every third pair one dies between the renames of a part's groups.
            moments = [draw.randrange(1, 5) if kill % 3 == 0 else 0, 0]
            runs = [f"{draw.getrandbits(32):08x}" for _ in range(2)]
            pair = [_start(WRITER, path, run, f"{path}.log", moment, *spooled) for run, moment in zip(runs, moments, strict=True)]
            for writer in pair:
                assert writer.stdout is not None
                assert writer.stdout.readline() == "ready\n", writer.communicate()
            live = examine(path)  # while both are at work
            assert live.ok, live.findings
            for writer, moment in zip(pair, moments, strict=True):
                if not moment:
                    time.sleep(draw.uniform(0.0, 0.6))
                    assert writer.poll() is None, writer.communicate()[1]
                    writer.kill()
                _, said = writer.communicate(timeout=60)
                assert writer.returncode == -signal.SIGKILL, said
                total["kills"] += 1
        said, complained = reader.communicate("", timeout=60)
        seen = json.loads(said or f'"{complained[-500:]}"')
        assert seen["torn"] == []
        log = Path(f"{path}.log")
        acknowledged = set(log.read_text().split()) if log.exists() else set()
        assert acknowledged <= set(store.open(path).part_ids)
        report = examine(path)
        assert report.ok, report.findings
        kinds = [finding.kind for finding in report.findings]
        total["parts"] += report.n_parts
        total["reads"] += seen["reads"]
        total["orphans"] += kinds.count("orphan")
        total["leftovers"] += kinds.count("leftover")
        committed = committed_question_ids(path)
        repair(path, report, lambda _: None)
        left = [finding for finding in examine(path, deep=True).findings if finding.kind != "duplicate"]
        assert left == []
        assert committed_question_ids(path) == committed
        assert acknowledged <= set(store.open(path).part_ids)
        shutil.rmtree(path)
    print(total)
    assert total["kills"] == ROUNDS * KILLS
    assert total["orphans"] > 0


BUSY = """
import sys
from pathlib import Path
from store.staging import stage_beside
with stage_beside(Path(sys.argv[1]), "p"):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_work_in_hand_is_left_alone(made: Path, folder: Path, records: list[PartArrays]) -> None:
    orphan = made / "teacher" / "hot" / "p-in-hand"
    shutil.copytree(made / "teacher" / "hot" / "p-first", orphan)
    writer = _start(BUSY, made)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    said: list[str] = []
    repair(made, examine(made), said.append)
    assert orphan.is_dir()
    assert any("a writer is at work" in line for line in said)
    writer.communicate("", timeout=30)
    repair(made, examine(made), said.append)
    assert not orphan.exists()


WITHOUT_ROOM = """
import resource, sys
from store import spool
from store.errors import StoreError
from store.writer import publish
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    publish(sys.argv[1], "p-new", spool.load(sys.argv[2])[0])
except StoreError as error:
    print(error)
"""


def _one_sentence(said: str) -> str:
    assert said.strip()
    assert said.strip().count("\n") == 0, said
    return said


@pytest.mark.parametrize("limit", [100, 1500])
def test_a_full_disk(made: Path, folder: Path, records: list[PartArrays], limit: int) -> None:
    said, complained = _start(WITHOUT_ROOM, made, _spooled(folder, records)[1], limit).communicate(timeout=60)
    assert "no room" in _one_sentence(said), complained
    assert examine(made, deep=True).findings == ()


def test_a_folder_that_may_not_be_written_to(made: Path, records: list[PartArrays]) -> None:
    for folder in (made.parent, made, made / "student", *(made / "teacher").iterdir()):
        if folder.is_dir():
            folder.chmod(0o555)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        with pytest.raises(StoreError, match="cannot be written") as caught:
            publish(made, "p-new", records[1])
        _one_sentence(str(caught.value))
        assert examine(made, deep=True).findings == ()
    finally:
        if is_root:
            os.seteuid(0)
        for folder in (made.parent, made, made / "student", *(made / "teacher").iterdir()):
            folder.chmod(0o755)


def test_a_file_that_may_not_be_read(made: Path) -> None:
    shard = made / "student" / "p-first" / "logprob" / "c" / "0"
    made.parent.chmod(0o755)
    shard.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        for ask in (lambda: store.open(made).rollout("q000", 0), lambda: examine(made, deep=True)):
            with pytest.raises(StoreError, match=r"student/p-first/logprob/c/0") as caught:
                ask()
            _one_sentence(str(caught.value))
    finally:
        if is_root:
            os.seteuid(0)
    shard.chmod(0o644)
    assert examine(made, deep=True).findings == ()


def test_a_clock_that_is_set_back(made: Path, records: list[PartArrays], monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 30 * 86400
    for path in made.rglob("*"):
        os.utime(path, (later, later))
    reader = store.open(made)
    earlier = time.time() - 365 * 86400
    monkeypatch.setattr(time, "time", lambda: earlier)
    publish(made, "p-earlier", records[1])
    assert remove_leftovers(made) == 0
    assert reader.refresh()
    assert [row.id for row in reader.questions()] == ["q000", "q001"]
    assert examine(made, deep=True).findings == ()


def test_a_store_that_is_moved_away_from_under_a_reader_and_a_writer(made: Path, folder: Path, records: list[PartArrays]) -> None:
    reader = store.open(made)
    asks: tuple[Callable[[], object], ...] = (
        reader.refresh,
        lambda: reader.rollout("q000", 0),
        lambda: publish(made, "p-new", records[1]),
        lambda: examine(made),
        lambda: store.open(made),
    )
    moved = made.rename(folder / "moved.zarr")
    for ask in asks:
        with pytest.raises(StoreError, match=r"S\.zarr") as caught:
            ask()
        _one_sentence(str(caught.value))
    assert sorted(path.name for path in folder.iterdir()) == ["moved.zarr"]
    assert examine(moved, deep=True).findings == ()
    moved.rename(made)
    assert not reader.refresh()
    assert reader.rollout("q000", 0).question_id == "q000"


def test_a_store_that_is_moved_away_while_a_part_is_put_in(
    made: Path, folder: Path, records: list[PartArrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    from store import destination

    put = destination.LocalDestination.put

    def moved_first(self: destination.LocalDestination, moves: object) -> None:
        made.rename(folder / "moved.zarr")
        put(self, moves)

    monkeypatch.setattr(destination.LocalDestination, "put", moved_first)
    with pytest.raises(StoreError, match=r"S\.zarr is not there any more") as caught:
        publish(made, "p-new", records[1])
    _one_sentence(str(caught.value))
    assert examine(folder / "moved.zarr", deep=True).findings == ()
