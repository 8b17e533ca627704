"""The import contracts of pyproject.toml hold for lmedge, and each catches what it is there for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import REPOSITORY, require

require("importlinter")

MUTANTS = {
    "an engine adapter that imports the exporter": (
        "runtimes/onnxruntime.py",
        "import lmedge.export.pack",
        "Imports point down",
    ),
    "a schema that reads landmarks": ("schemas/schema.py", "import lmedge.landmarks", "Imports point down"),
    "a bundle that reads data sets": ("bundle/manifest.py", "import lmedge.data.samples", "Imports point down"),
    "torch two modules below the device": ("metrics.py", "import torch", "The device reaches no torch"),
    "torch inside a function": ("runtimes/parity.py", "def hidden() -> None:\n    import torch", "The device reaches no torch"),
    "torch in the command line": ("cli/__init__.py", "import torch", "torch is imported by training"),
    "torch in the stages": ("pipeline/runs/stages.py", "import torch", "torch is imported by training"),
    "onnx in the bundle": ("bundle/manifest.py", "import onnx", "onnx is imported by export"),
    "onnx in training": ("pipeline/training/train.py", "import onnx", "onnx is imported by export"),
    "a run folder that reads the report": (
        "pipeline/runs/lock.py",
        "import lmedge.pipeline.reporting.charts",
        "Inside the pipeline, imports point down",
    ),
    "a new module without a layer": ("helpers.py", "", "Imports point down"),
}


def lint_imports(package: Path) -> subprocess.CompletedProcess[str]:
    """The linter's run over a copy of lmedge, with the repository's contracts."""
    command = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    return subprocess.run(
        [sys.executable, "-c", command, "--config", str(REPOSITORY / "pyproject.toml"), "--no-cache"],
        cwd=package.parent,
        env={"PYTHONPATH": str(package.parent), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(REPOSITORY / "lmedge", tmp_path / "lmedge", ignore=shutil.ignore_patterns("zoo", "__pycache__"))
    )


def test_lmedge_keeps_its_contracts(package: Path) -> None:
    result = lint_imports(package)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(("file", "line", "contract"), MUTANTS.values(), ids=list(MUTANTS))
def test_a_broken_contract_is_named(package: Path, file: str, line: str, contract: str) -> None:
    with (package / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    result = lint_imports(package)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract}" in "".join(text for text in result.stdout.splitlines(keepends=True) if "BROKEN" in text)
