"""The doctor says what is wrong, where, and what to do; a repair loses no number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import store
from store import layout
from store.doctor import Finding, examine
from store.errors import StoreError
from store.parts import PartArrays
from store.repair import repair
from store.staging import staging_folder, sync_files, write_group
from store.tables import TeacherInfo
from store.writer import add_teacher, committed_question_ids, publish
from tests.synthetic import root_attributes

PART = "p-00000000-0000"


def _kinds(path: Path, *, deep: bool = False) -> list[str]:
    return sorted({finding.kind for finding in examine(path, deep=deep).findings})


def _damage(path: Path, *, deep: bool = True) -> list[Finding]:
    return [finding for finding in examine(path, deep=deep).findings if finding.severity == "damage"]


def _lie(path: Path, key: str, change: Callable[[Any], Any]) -> None:
    """Change an array as a liar would: with all its checksums."""
    import zarr

    array = zarr.open_array(path / key, mode="r+")
    array[...] = change(np.asarray(array[...]))
    folder = (path / key).parent
    record = layout.read_commit(folder, root_attributes(6).study_hash)
    files = {name: entry for name, entry in sync_files(folder).items() if name != "zarr.json"}
    write_group(folder, layout.encode_commit(replace(record, files=files)))


def _set(place: Any, value: Any) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        values[place] = value
        return values

    return change


LIES: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    ("student/{}/logprob", _set(0, 0.5), "log-probability 0.5, which is above 0"),
    ("student/{}/child_logprob", _set((0, slice(0, 2)), -0.1), "probabilities that sum to"),
    ("student/{}/token_id", _set(3, 1 << 20), "holds token 1048576"),
    ("student/{}/group_n_success", _set(0, 10_000), "is above group_n in row 0"),
    ("student/{}/group_n_truncated", _set(0, 10_000), "is above group_n in row 0"),
    ("student/{}/finish_reason", _set(0, 9), "holds 9, which is no FinishReason"),
    ("student/{}/child_next", _set((0, 0), 1 << 20), "names a node row outside"),
    ("student/{}/completion_token_start", _set(1, 1 << 40), "does not rise from 0"),
    ("student/{}/prompt", _set(0, 255), "is not UTF-8"),
    ("student/{}/question_id", _set(0, 65), "names other questions"),
    ("student/{}/group_n", lambda values: values + 1, "completions, the commit record"),
    ("teacher/hot/{}/logprob_at_student_topk", _set((0, 0), 0.5), "log-probability 0.5, which is above 0"),
)


@pytest.mark.parametrize(("key", "change", "words"), LIES, ids=[key.rsplit("/", 1)[-1] for key, _, _ in LIES])
def test_a_number_that_cannot_be_is_found(own_store: Path, key: str, change: Callable[[Any], Any], words: str) -> None:
    _lie(own_store, key.format(PART), change)
    found = _damage(own_store)
    assert any(words in finding.what and key.format(PART) in finding.place for finding in found), found


def test_two_parts_with_one_question_are_a_note_that_says_which_counts(own_store: Path, records: list[PartArrays]) -> None:
    publish(own_store, "p-again", records[0], generation=1)
    report = examine(own_store, deep=True)
    assert report.ok
    (finding,) = report.findings
    assert (finding.kind, finding.severity) == ("duplicate", "note")
    assert "'q000', which p-again has too; that one counts (generation 1)" in finding.what


def test_what_is_nobodys_is_taken_away_and_what_may_be_work_is_left(own_store: Path) -> None:
    shutil.copytree(own_store / "teacher" / "hot" / PART, own_store / "teacher" / "hot" / "p-orphan")
    (own_store / "student" / PART / "logprob" / "notes").write_text("whose?")
    elsewhere = staging_folder(own_store) / "p-1.another-machine.1.0123abcd"
    elsewhere.mkdir(parents=True)
    assert _kinds(own_store) == ["leftover", "orphan", "stray"]
    said: list[str] = []
    repair(own_store, examine(own_store), said.append)
    assert _kinds(own_store) == ["leftover", "orphan"]
    assert any("another machine may be at work" in line for line in said)
    elsewhere.rmdir()
    repair(own_store, examine(own_store), said.append)
    assert examine(own_store, deep=True).findings == ()
    assert (own_store.with_name("S.zarr.damaged") / "student" / PART / "logprob" / "notes").read_text() == "whose?"


def test_what_its_writer_has_committed_since_it_was_looked_at_stays(own_store: Path) -> None:
    metadata = own_store / "student" / PART / "zarr.json"
    content = metadata.read_bytes()
    shutil.rmtree(own_store / "index")
    (own_store / "manifest.json").unlink()
    metadata.unlink()
    report = examine(own_store)
    assert {"begun", "orphan"} <= {finding.kind for finding in report.findings}
    metadata.write_bytes(content)
    repair(own_store, report, lambda _: None)
    assert len(committed_question_ids(own_store)) == 6
    assert examine(own_store, deep=True).findings == ()


def test_a_damaged_part_is_moved_aside_and_its_questions_are_free_again(own_store: Path, records: list[PartArrays]) -> None:
    shard = own_store / "teacher" / "ext-7b" / PART / "logprob" / "c" / "0"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    assert examine(own_store).ok, "sizes alone do not tell"
    (finding, *_) = _damage(own_store)
    assert finding.place == str(shard)
    assert "q000, q001, q002 again" in finding.remedy
    repair(own_store, examine(own_store, deep=True), lambda _: None)
    assert examine(own_store, deep=True).findings == ()
    assert committed_question_ids(own_store) == {"q003", "q004", "q005"}
    aside = own_store.with_name("S.zarr.damaged")
    assert (aside / "teacher" / "ext-7b" / PART / "logprob" / "c" / "0").read_bytes() == content
    assert (aside / "student" / PART / "zarr.json").exists()
    publish(own_store, "p-anew", records[0])
    assert {row.id for row in store.open(own_store).questions()} == {"q000", "q003", "q004", "q005"}


def test_a_damaged_part_of_a_later_teacher_goes_alone(own_store: Path, records: list[PartArrays]) -> None:
    from store.writer import concatenate, publish_teacher

    add_teacher(own_store, TeacherInfo("late", "external", "", "late-1b", False, "added later"))
    publish_teacher(own_store, PART, "late", concatenate(records[:3]).teachers["hot"])
    (own_store / "teacher" / "late" / PART / "logprob" / "c" / "0").unlink()
    repair(own_store, examine(own_store), lambda _: None)
    assert examine(own_store, deep=True).findings == ()
    assert len(committed_question_ids(own_store)) == 6


def test_a_store_of_before_is_looked_at_as_far_as_it_goes(own_store: Path) -> None:
    for file in (own_store / "zarr.json", own_store / "vocab" / "zarr.json"):
        metadata = json.loads(file.read_text())
        metadata["attributes"].pop("checksum")
        if file.parent.name == "vocab":
            metadata["attributes"] = {}
        file.write_text(json.dumps(metadata))
    report = examine(own_store, deep=True)
    assert report.ok
    assert {finding.kind for finding in report.findings} == {"limit"}
    assert len(store.open(own_store).vocab) > 0
    (own_store / "vocab" / "token_bytes" / "c" / "0").unlink()
    assert any("vocab/token_bytes" in finding.place for finding in _damage(own_store))


def test_the_command_says_it_in_lines_in_json_and_with_its_exit_code(own_store: Path, python) -> None:
    run = partial(python, "from opd_tui.entry import main; main()")
    done = run("doctor", own_store, "--deep")
    assert done.returncode == 0
    assert "is whole: 2 parts" in done.stdout
    (own_store / "student" / PART / "logprob" / "c" / "0").write_bytes(b"x")
    done = run("doctor", own_store, "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["ok"]) == ("opd-tui/doctor/1", False)
    assert [finding["severity"] for finding in answer["findings"]] == ["damage"]
    done = run("doctor", own_store, "--repair")
    assert done.returncode == 0
    assert f"Moved {own_store}/student/{PART} to {own_store}.damaged/student/{PART}." in done.stdout
    done = run("doctor", own_store / "nothing")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_folder_that_is_no_store_is_called_one_as_everywhere(tmp_path: Path) -> None:
    for look in (examine, store.open):
        with pytest.raises(StoreError, match=r"is a folder, but no store \(it has no zarr.json\)"):
            look(tmp_path)
