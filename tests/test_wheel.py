"""The built wheel, without extras, in an environment of its own: it browses and explains, and needs no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT], check=True, capture_output=True, timeout=300
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The `bin` folder of an environment that holds the wheel alone."""
    home = tmp_path_factory.mktemp("env")
    venv.create(home, with_pip=True)
    pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel], check=True, capture_output=True, timeout=400)
    return home / "bin"


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return subprocess.run(
        [installed / "opd-tui", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def test_the_wheel_holds_what_it_must(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("opd_tui/py.typed", "compute/py.typed", "store/py.typed", "opd_tui/app.tcss"):
        assert name in names
    for name in (
        "web/page/index.html",
        "web/page/page.js",
        "html_page/rollout.js",
        "html_page/rollout.css",
        "html_page/report.css",
    ):
        assert f"opd_tui/{name}" in names
    for model in ("student", "teacher"):
        assert f"opd_tui/_examples/chain_sums/{model}/model.safetensors" in names
    assert any(name.startswith("opd_tui/_examples/chain_sums/chain_sums.zarr/student/p-") for name in names)
    assert not any(name.startswith("tests/") for name in names)


def test_without_extras_there_is_no_torch_and_compute_says_so(installed, tmp_path):
    there = json.loads(
        subprocess.run([installed / "python", "-m", "pip", "list", "--format", "json"], capture_output=True, check=True).stdout
    )
    assert not {"torch", "transformers"} & {one["name"] for one in there}
    assert run(installed, tmp_path, "init", "--from", "chain_sums").returncode == 0
    done = run(installed, tmp_path, "compute", "study.toml", "-o", "s.zarr")
    assert done.returncode == 1
    assert "pip install 'opd-tui[compute]'" in done.stderr


def test_demo_and_info_work_in_an_empty_folder(installed, tmp_path):
    done = run(installed, tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    assert "objective reverse_kl" in done.stdout
    program = "import opd_tui.examples as e; print(e.example_folder('chain_sums') / 'chain_sums.zarr')"
    path = subprocess.run(
        [installed / "python", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.strip()
    told = run(installed, tmp_path, "info", path, "--json")
    assert json.loads(told.stdout)["complete"] is True
