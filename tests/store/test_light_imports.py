"""Importing the store costs nothing heavy; reading brings TensorStore, writing brings zarr, neither brings both."""

from __future__ import annotations

from pathlib import Path

WATCH = """
import sys
def heavy():
    watched = {"zarr", "tensorstore", "numcodecs", "torch", "transformers"}
    return sorted({name.partition(".")[0] for name in sys.modules} & watched)
"""


def test_importing_brings_neither_zarr_nor_tensorstore(python) -> None:
    said = python(WATCH + "import store, store.reader, store.writer, store.spool, store.schema\nprint(heavy())")
    assert said.stdout == "[]\n", said.stderr


def test_looking_what_is_there_brings_neither(python, shared_store: Path) -> None:
    program = (
        WATCH
        + """
import store
from store.writer import committed_question_ids
reader = store.open(sys.argv[1])
print(reader.counts().n_questions_done, len(committed_question_ids(sys.argv[1])), reader.refresh(), heavy())
"""
    )
    assert python(program, shared_store).stdout == "6 6 False []\n"


def test_reading_brings_tensorstore_alone(python, shared_store: Path) -> None:
    program = (
        WATCH
        + """
import store
reader = store.open(sys.argv[1])
reader.questions(), reader.rollout("q000", 0), reader.study_nodes(), reader.vocab
print(heavy())
"""
    )
    assert python(program, shared_store).stdout == "['tensorstore']\n"


def test_writing_does_not_bring_tensorstore(python, tmp_path: Path) -> None:
    program = WATCH + "from tests.synthetic import write_store\nwrite_store(sys.argv[1], n_questions=1)\nprint(heavy())"
    assert python(program, tmp_path / "S.zarr").stdout == "['numcodecs', 'zarr']\n"
