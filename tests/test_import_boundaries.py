"""What runs on a device imports without torch, without onnx and without any engine. Each module is tried by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from lmedge.runtimes import runtime_names
from tests.requirements import REPOSITORY

# Modules of the computer that builds; everything else under lmedge must import on a device.
BUILD_SIDE = ("lmedge.calibration", "lmedge.export.graph", "lmedge.export.torch_to_onnx", "lmedge.pipeline")
ENGINES = ("onnxruntime", "openvino", "tensorrt", "cuda", "torch")
BUILD_TOOLS = (
    "accelerate",
    "h5py",
    "jinja2",
    "matplotlib",
    "nncf",
    "onnx",
    "onnxscript",
    "onnxslim",
    "tensorboard",
    "torchvision",
)

# Makes packages impossible to import, as if they were not installed, and keeps a list of who was asked for: an import that
# hides behind `try` counts too.
BLOCK = """
import sys
asked = []
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            asked.append(name)
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Blocked())
"""
# Each module in a process of its own, forked from one in which NumPy and OpenCV are loaded already.
TRY_EACH = """
import importlib, json, os, traceback, warnings
import cv2, numpy
warnings.simplefilter("error")
for module in {modules!r}:
    if os.fork() == 0:
        try:
            importlib.import_module(module)
            failure = ""
        except BaseException:
            failure = traceback.format_exc()
        print(json.dumps([module, failure, asked]), flush=True)
        os._exit(0)
    os.wait()
"""


def all_modules() -> list[str]:
    files = [file.relative_to(REPOSITORY) for file in (REPOSITORY / "lmedge").rglob("*.py")]
    return sorted(".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files if file.stem != "__main__")


DEVICE_MODULES = [name for name in all_modules() if not f"{name}.".startswith(tuple(f"{module}." for module in BUILD_SIDE))]


def run_blocked(code: str, blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """A fresh Python in which `blocked` packages cannot be imported."""
    script = BLOCK.format(blocked=blocked) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


def try_each(modules: list[str]) -> dict[str, tuple[str, list[str]]]:
    """Module → (traceback, or "" where it imports; blocked packages it asked for)."""
    result = run_blocked(TRY_EACH.format(modules=modules), ENGINES + BUILD_TOOLS)
    assert result.returncode == 0, result.stderr
    rows: list[Any] = [json.loads(line) for line in result.stdout.splitlines()]
    return {module: (failure, asked) for module, failure, asked in rows}


@pytest.fixture(scope="module")
def attempts() -> dict[str, tuple[str, list[str]]]:
    return try_each(DEVICE_MODULES)


def test_all_of_the_device_is_looked_at() -> None:
    assert {"lmedge", "lmedge.cli", "lmedge.preprocess", "lmedge.runtimes.parity", "lmedge.data.csv"} <= set(DEVICE_MODULES)


@pytest.mark.parametrize("module", DEVICE_MODULES)
def test_a_device_module_imports_without_engines_and_build_tools(
    module: str, attempts: dict[str, tuple[str, list[str]]]
) -> None:
    failure, asked = attempts[module]
    assert failure == ""
    assert asked == [], "engines are imported when they are opened, not before"


def test_a_module_that_needs_torch_is_caught() -> None:
    """The check above can fail."""
    failure, asked = try_each(["lmedge.pipeline.training.losses"])["lmedge.pipeline.training.losses"]
    assert "ModuleNotFoundError: blocked: torch" in failure
    assert asked == ["torch"]


@pytest.mark.parametrize("name", [name for name in runtime_names() if name != "fake"])
def test_a_runtime_without_its_engine_says_what_to_install(name: str) -> None:
    code = f"""
from lmedge.runtimes import find_runtime
status = find_runtime({name!r}).status()
assert not status.installed and status.version is None and not status.devices, status
print(status.reason + "|" + status.extra)
"""
    result = run_blocked(code, ENGINES)
    assert result.returncode == 0, result.stderr
    reason, _, extra = result.stdout.strip().rpartition("|")
    assert reason
    assert "pip install" in extra


def test_stages_are_planned_without_torch() -> None:
    """`lmedge build --plan` and a rebuild with nothing to do are quick because no stage's tools are loaded."""
    failure, asked = try_each(["lmedge.pipeline.runs.stages"])["lmedge.pipeline.runs.stages"]
    assert failure == ""
    assert asked == []
