"""docs/reading_stores.md: every block runs, and what it reads is what the reader says; its table is the schema's."""

from __future__ import annotations

import re
import shlex
import warnings
from enum import IntEnum
from typing import Any

import numpy as np
import pytest

import store
from store.schema import STUDENT, TEACHER, VOCAB, ChildKind, FinishReason, ForcedKind, PathKind, QuestionStatus, TokenSource
from tests.conftest import CHAIN_SUMS, ROOT, run_opd

STORE = CHAIN_SUMS / "chain_sums.zarr"
PAGE = (ROOT / "docs" / "reading_stores.md").read_text()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the blocks leave, run in their order beside a store called S.zarr."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "S.zarr").symlink_to(STORE)
    names: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        warnings.simplefilter("error")
        warnings.simplefilter("default", ResourceWarning)  # of no block here: Python collects garbage when it likes
        for language, block in re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
            if language == "python":
                exec(compile(block, "docs/reading_stores.md", "exec"), names)
                continue
            for line in block.splitlines():
                words = shlex.split(line)
                done = run_opd(*words[1:], cwd=folder)
                assert (words[0], done.returncode) == ("opd-tui", 0), done.stderr
    return names


def test_with_zarr_alone_one_reads_what_the_reader_reads(ran: dict[str, Any]) -> None:
    opened = store.open(STORE)
    rollout = opened.rollout("q000", 1, ["teacher"])
    np.testing.assert_array_equal(ran["token_id"], rollout.token_id_T)
    np.testing.assert_array_equal(ran["student_logprob"], rollout.logprob_T)
    np.testing.assert_array_equal(ran["teacher_logprob"], rollout.teacher_logprob_TM[:, 0])
    np.testing.assert_array_equal(ran["kl_student_teacher"], rollout.divergence_TMD[:, 0, 0])
    assert ran["correct"] == rollout.correct
    assert ran["prompt"] == opened.question("q000").prompt
    assert ran["response"].encode() == b"".join(opened.vocab.bytes_of(int(token)) for token in rollout.token_id_T)
    with pytest.raises(KeyError):
        ran["find"]("q99")


def test_the_teachers_topk_put_together_by_hand_is_the_readers(ran: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran["folder"])
    rollout = store.open(STORE).rollout("q000", 1, ["teacher"])
    top = rollout.teacher_topk(0)
    for position in range(len(rollout)):
        ids, logprobs = ran["teacher_topk"](ran["tokens"].start + position)
        n = int(rollout.teacher_topk_n_TM[position, 0])
        np.testing.assert_array_equal(ids, top.token_id_TC[position, :n])
        np.testing.assert_array_equal(logprobs, top.logprob_TC[position, :n])


def test_counts_by_hand_are_those_of_xarray(ran: dict[str, Any]) -> None:
    found = ran["nodes_found"]
    width = found.sizes["child"]
    np.testing.assert_array_equal(ran["n"][:, :width], found["n_completions"].values)
    np.testing.assert_array_equal(ran["n_success"][:, :width], found["n_success"].values)
    assert ran["n"].sum() > 1000
    assert float(ran["candidates"].max()) <= 1.0
    assert ran["js"].dims == ("rollout", "token")
    assert ran["of_part"].logprob.dims == ("token",)


def test_duckdb_and_polars_come_to_the_same_means(ran: dict[str, Any]) -> None:
    mine = [(teacher, correct, points, pytest.approx(gain)) for teacher, correct, points, _, gain in ran["gains"]]
    assert ran["same"].rows() == mine
    assert len(mine) == 12
    assert {"p_succ", "student_logprob", "kind"} <= set(ran["children"].columns)
    assert ran["children"].height > 100
    assert ran["sliced_ids"] == ["q000", "q003"]


def test_the_table_of_arrays_is_the_schema() -> None:
    _, *sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)
    assert len(sections) == 3
    for section, specs in zip(sections, (VOCAB, STUDENT, TEACHER), strict=True):
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert rows == [f"| `{name}` | {spec.dtype} | {', '.join(spec.dims)} | {spec.doc} |" for name, spec in specs.items()]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("`child_kind`", ChildKind),
        ("`*_forced_kind`", ForcedKind),
        ("`path_kind`", PathKind),
        ("`*finish_reason`", FinishReason),
        ("`token_source`", TokenSource),
        ("`question_status`", QuestionStatus),
    ],
)
def test_the_codes_are_those_of_the_schema(name: str, kind: type[IntEnum]) -> None:
    codes = " ".join(PAGE[PAGE.index("Codes: ") :].split())
    said = ", ".join(f"{int(one)} {one.name.lower().replace('_', ' ')}" for one in kind).replace("on path", "on-path")
    assert f"{name} {said}" in codes


def test_the_page_in_javascript_shows_the_script() -> None:
    page = (ROOT / "docs" / "reading_stores_javascript.md").read_text()
    script = (ROOT / "examples" / "javascript" / "read_rollout.mjs").read_text()
    blocks = re.findall(r"^```js\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert block in script
