"""Made-up stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.synthetic import root_attributes, vocabulary, write_store


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing here reads or writes the folders of whoever runs the tests."""
    home = tmp_path / "home"
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(home / variable.lower()))
    return home


@pytest.fixture(scope="session")
def calm_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions, the last one without success."""
    return write_store(tmp_path_factory.mktemp("calm") / "calm.zarr", n_questions=6, response_tokens=(30, 60))


@pytest.fixture(scope="session")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Markup, escape sequences and broken UTF-8 in everything."""
    path = tmp_path_factory.mktemp("hostile") / "hostile.zarr"
    return write_store(path, n_questions=3, hostile=True, response_tokens=(40, 60))


@pytest.fixture
def empty_store(tmp_path: Path) -> Path:
    """A store whose study has not finished a question yet."""
    from store.writer import create

    path = tmp_path / "empty.zarr"
    create(path, root_attributes(4), vocabulary(), range(3))
    return path
