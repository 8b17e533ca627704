"""What `import lmedge` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lmedge


def test_every_public_name_is_there() -> None:
    assert set(dir(lmedge)) == set(lmedge.__all__)
    for name in lmedge.__all__:
        assert getattr(lmedge, name) is not None
    assert lmedge.errors.InputError is not None


def test_the_names_that_an_application_starts_from_are_public() -> None:
    """Points, a video's faces, and where they look."""
    wanted = {"FaceLandmarker", "FaceTracker", "TrackedFace", "yunet_detector", "Camera", "HeadPose", "head_pose"}
    assert wanted <= set(lmedge.__all__)
    assert lmedge.FaceTracker.__module__ == "lmedge.runtimes.tracker"


def test_the_names_that_a_loop_for_hours_starts_from_are_public() -> None:
    wanted = {
        "RealTimeLandmarker",
        "TimedFaces",
        "LandmarkerPool",
        "LatestFrame",
        "HealthMonitor",
        "HealthLimits",
        "HealthState",
    }
    assert wanted <= set(lmedge.__all__)
    assert lmedge.RealTimeLandmarker.__module__ == "lmedge.runtimes.real_time"


@pytest.mark.parametrize("module", ["lmedge", "lmedge.cli"])
def test_python_can_be_told_to_run_the_command_line(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: lmedge " in done.stdout


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'lmedge' has no attribute 'FaceLandmark'"):
        _ = lmedge.FaceLandmark  # type: ignore[attr-defined]


def in_a_fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'cv2', 'torch', 'onnx', 'onnxruntime', 'openvino', 'rich', 'typer', 'pydantic'}"
    assert in_a_fresh_python(f"import sys, lmedge; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_public_names_load_no_engine_and_no_trainer() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'openvino', 'rich', 'typer', 'pydantic'}"
    code = f"import sys, lmedge; [getattr(lmedge, n) for n in lmedge.__all__]; print(sorted({heavy} & set(sys.modules)))"
    assert in_a_fresh_python(code) == "[]"
