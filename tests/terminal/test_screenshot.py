"""Pictures for documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd_tui.screenshot import screenshot
from store.errors import StoreError


def test_a_picture_shows_the_place_and_asks_no_server_for_anything(calm_store: Path) -> None:
    svg = screenshot(str(calm_store), at="q001/1/5", metric_key="js", keys=["n"], size=(100, 30))
    assert "q001/1" in svg
    assert "JS" in svg
    assert "@font-face" not in svg
    assert "cdnjs" not in svg
    assert svg.count("http") == svg.count("http://www.w3.org/2000/svg") + svg.count("https://www.textualize.io")


def test_a_light_picture_has_a_light_ground(calm_store: Path) -> None:
    assert "#fbfbfc" in screenshot(str(calm_store), light=True, size=(80, 24))


def test_no_store_no_picture(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        screenshot(str(tmp_path / "none.zarr"))
