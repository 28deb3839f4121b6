"""How sure an exported score is, and whether the study can say so."""

from __future__ import annotations

from pathlib import Path

import pytest

import store
from opd_tui.export import Row, Selection, rows
from tests.synthetic import write_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("export") / "S.zarr", n_questions=6, response_tokens=(30, 60))


def points(path: Path, *objectives: str) -> list[Row]:
    return [row for row in rows(store.open(path), Selection(objectives=objectives)) if "alignment" in row]


def test_the_interval_of_the_cosine_and_its_sign_agree(made: Path) -> None:
    found = points(made, "reverse_kl")
    sure = 0
    for row in found:
        assert row["p_positive_calibrated"] == {"reverse_kl": True}
        low, high, p = (row[name]["reverse_kl"] for name in ("alignment_low", "alignment_high", "p_positive"))
        if row["alignment"]["reverse_kl"] is None:
            assert low is high is p is None
            continue
        assert -1.0 <= low <= high <= 1.0
        assert p < 0.99 or low > 0.0
        assert p > 0.01 or high < 0.0
        sure += not 0.01 <= p <= 0.99
    assert sure > 10


def test_what_cannot_be_calibrated_says_so_and_is_not_undefined(made: Path, tmp_path: Path) -> None:
    """An update that follows the completions that judge it; and a study with too few scores."""
    few = write_store(tmp_path / "few.zarr", n_questions=1, n_rollouts=2, response_tokens=(10, 12))
    for found, objective in ((points(made, "dr_grpo"), "dr_grpo"), (points(few, "reverse_kl"), "reverse_kl")):
        assert any(row["alignment"][objective] is not None for row in found)
        for row in found:
            assert row["p_positive_calibrated"] == {objective: False}
            assert [row[name][objective] for name in ("alignment_low", "alignment_high", "p_positive")] == [None] * 3
