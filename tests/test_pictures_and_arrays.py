"""`export --format svg`, `png` and `npz`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import store
from opd_tui.export.npz import CHILD, ROW
from opd_tui.export.rows import PER_OBJECTIVE, Selection, rows
from tests.conftest import ROOT, run_opd
from tests.synthetic import write_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("pictures") / "S.zarr", n_questions=3, hostile=True, response_tokens=(12, 25))


def test_a_picture_shows_the_place_that_was_named(made: Path, tmp_path: Path) -> None:
    words = ("--question", "q002", "--rollout", "1", "--teacher", "self-1c", "--tokens", "3:4")
    done = run_opd("export", made, "--format", "svg", "-o", tmp_path / "x.svg", *words)
    assert (done.returncode, done.stdout) == (0, f"The picture is in {tmp_path / 'x.svg'}.\n")
    svg = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert "q002 rollout 1" in svg and "token 3 of" in svg and "self-1c" in svg
    assert "@font-face" not in svg and "\x1b" not in svg


def test_a_png_is_one(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    done = run_opd("export", made, "--format", "png", "-o", tmp_path / "x.png")
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "x.png").read_bytes()
    assert found.startswith(b"\x89PNG\r\n\x1a\n") and found.rstrip().endswith(b"IEND\xaeB`\x82")
    width = int.from_bytes(found[16:20], "big")
    assert width > 2000


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (("--question", "q000", "--question", "q002"), "A picture shows one question", 2),
        (("--rollout", "1"), "takes the question as well", 2),
        (("--question", "nowhere"), "nowhere", 1),
        (("--teacher", "x"), "no teacher 'x'; there is ext-7b", 1),
        (("--question", "q000", "--rollout", "1", "--tokens", "999:"), "none at 999", 1),
        (("--question", "q000", "--tokens", "3:4"), "takes the rollout as well", 2),
        (("--objective", "jsd(0.3)"), "leave --objective out", 2),
    ],
)
def test_what_no_picture_shows_is_one_sentence(
    made: Path, tmp_path: Path, words: tuple[str, ...], sentence: str, code: int
) -> None:
    done = run_opd("export", made, "--format", "svg", "-o", tmp_path / "x", *words)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1) and sentence in done.stderr
    assert not list(tmp_path.iterdir())


def test_png_without_its_extra_is_one_sentence(made: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['resvg_py'] = None")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_opd("export", made, "--format", "png", "-o", tmp_path / "x.png", env=environment)
    assert done.stderr == "opd-tui: PNG needs the extra [png]; install it: pip install 'opd-tui[png]'.\n"


def test_arrays_hold_what_rows_hold_and_no_objects(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    done = run_opd("export", made, "--format", "npz", "-o", out, "--objective", "jsd(0.3)", "--objective", "reverse_kl")
    assert done.returncode == 0, done.stderr
    expected = list(rows(store.open(made), Selection(objectives=("jsd(0.3)", "reverse_kl"))))
    assert done.stdout.startswith(f"{len(expected):,} rows are in")
    with np.load(out, allow_pickle=False) as found:
        arrays = dict(found)
    objectives = ["jsd(0.3)", "reverse_kl"]
    assert arrays["objectives"].tolist() == objectives
    for name, kind in ROW.items():
        _same(arrays[name], [row.get(name) for row in expected], kind)
    for name in PER_OBJECTIVE:
        for o, objective in enumerate(objectives):
            _same(arrays[name][:, o], [row.get(name, {}).get(objective) for row in expected], arrays[name].dtype)
    children = [row.get("children", []) for row in expected]
    raw, start = arrays["text_utf8"].tobytes(), arrays["text_start"].tolist()
    pieces = [raw[a:b].decode() for a, b in zip(start, start[1:], strict=False)]
    texts = dict(zip(arrays["text_token_id"].tolist(), pieces, strict=True))
    rows_and_children = [*expected, *(child for of in children for child in of)]
    assert texts == {one["token_id"]: one["token"] for one in rows_and_children if one["token"] is not None}
    assert max(map(len, pieces)) > 100_000 and sum(array.nbytes for array in arrays.values()) < 3e6, "one long token costs once"
    assert np.diff(arrays["child_start"]).tolist() == list(map(len, children))
    for name, kind in CHILD.items():
        _same(arrays[f"child_{name}"], [child[name] for of in children for child in of], kind)


def _same(found: np.ndarray, expected: list[object], kind: object) -> None:
    kind = np.dtype(kind)  # type: ignore[call-overload]
    nothing = {"f": np.nan, "i": -1, "b": False, "U": ""}[kind.kind]
    values = [nothing if one is None else one for one in expected]
    assert found.dtype.kind == kind.kind and (kind.kind == "U" or found.dtype == kind)
    if kind.kind == "f":
        np.testing.assert_array_equal(found, np.array(values, kind))
    else:  # numpy drops NULs at the end of a text, and only those
        assert found.tolist() == [one.rstrip("\0") if isinstance(one, str) else one for one in values]
