"""A missing engine or data set skips, and fails the run where it is required: neither may pass unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import requirements

ONE_TEST = "def test_with_data(data_folder):\n    assert data_folder.is_dir()\n"


def run_suite(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A pytest run of one test that needs the data set, under the repository's own conftest."""
    (folder / "test_one.py").write_text(ONE_TEST)
    arguments = ["-p", "no:cacheprovider", "-c", str(requirements.REPOSITORY / "pyproject.toml"), "-p", "tests.conftest"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, str(folder / "test_one.py")],
        env={**os.environ, "PYTHONPATH": str(requirements.REPOSITORY), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_missing_data_skips(tmp_path: Path) -> None:
    result = run_suite(tmp_path, LMEDGE_DATA=str(tmp_path / "nowhere"), LMEDGE_REQUIRE="")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 skipped" in result.stdout
    assert "set LMEDGE_DATA" in result.stdout


def test_missing_data_fails_the_run_where_it_is_required(tmp_path: Path) -> None:
    result = run_suite(tmp_path, LMEDGE_DATA=str(tmp_path / "nowhere"), LMEDGE_REQUIRE="data")
    assert result.returncode == 1
    assert "nowhere" in result.stdout + result.stderr


def test_a_missing_package_fails_the_run_where_it_is_required(tmp_path: Path) -> None:
    result = run_suite(tmp_path, LMEDGE_DATA=str(tmp_path), LMEDGE_REQUIRE="data,an_engine_that_nobody_wrote")
    assert result.returncode == 1
    assert "an_engine_that_nobody_wrote" in result.stdout + result.stderr


def test_require_names_what_is_missing() -> None:
    with pytest.raises(pytest.skip.Exception, match="the package an_engine_that_nobody_wrote is not installed"):
        requirements.require("an_engine_that_nobody_wrote")
    requirements.require("numpy")
