"""A device installs the wheel with one engine and nothing else: a bundle opens there and finds the right points."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from lmedge.bundle import Bundle
from lmedge.runtimes.golden import Golden
from tests.bundles import tiny_bundle
from tests.requirements import REPOSITORY, require

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
CONSTRAINTS = {"3.10": "constraints-py310.txt", "3.11": "constraints.txt", "3.12": "constraints.txt"}
# What engines may differ by from NumPy in float64 on the 32 px crops of the tiny network, in pixels of the image.
TOLERANCE_PX = 0.01

ON_THE_DEVICE = """
import importlib.util, json, sys
from pathlib import Path
there = [name for name in ("torch", "onnx", "openvino", "nncf", "matplotlib") if importlib.util.find_spec(name)]
assert not there, f"a device has no {there}"
import lmedge
assert "site-packages" in lmedge.__file__, lmedge.__file__
from lmedge.runtimes.golden import Golden
golden = Golden.from_file(Path(sys.argv[1]) / "golden.npz")
with lmedge.FaceLandmarker.open(sys.argv[1], backend="onnxruntime", threads=1) as landmarker:
    faces = [landmarker.predict(frame, box[None])[0] for frame, box in zip(golden.frames, golden.boxes_xyxy)]
print(json.dumps([face.points_px.tolist() for face in faces]))
"""


def find_python(version: str) -> str | None:
    """An interpreter of that version that can make environments: the running one, on the path, or installed by pyenv."""
    if version == RUNNING:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python{version}")))]
    check = f"import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0:
            return python
    return None


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that has to succeed, outside the repository and its settings."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, REPOSITORY, cwd=folder)
    (file,) = folder.glob("lmedge-*.whl")
    return file


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    require("onnx")
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("version", list(CONSTRAINTS))
def test_a_device_with_one_engine_finds_landmarks(version: str, wheel: Path, bundle: Bundle, tmp_path: Path) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    environment = tmp_path / "device"
    if python == sys.executable:
        venv.create(environment, with_pip=True)
    else:
        run(python, "-m", "venv", environment, cwd=tmp_path)
    constraints = REPOSITORY / CONSTRAINTS[version]
    device_python = environment / "bin" / "python"
    run(device_python, "-m", "pip", "install", "--quiet", "-c", constraints, f"{wheel}[onnxruntime]", cwd=tmp_path)

    found_px = np.array(json.loads(run(device_python, "-c", ON_THE_DEVICE, bundle.root, cwd=tmp_path)))
    golden = Golden.from_file(bundle.golden_file())
    assert np.linalg.norm(found_px - golden.points_px, axis=2).max() < TOLERANCE_PX
    assert "predict" in run(environment / "bin" / "lmedge", "--help", cwd=tmp_path)


def test_the_wheel_holds_the_package_and_no_tests(wheel: Path) -> None:
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"lmedge"}
    assert any(name.startswith("lmedge/py.typed") for name in names)
    assert not [name for name in names if "__pycache__" in name]
