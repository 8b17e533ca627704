"""What is special to ONNX Runtime."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmedge.bundle import TensorSpec
from lmedge.errors import BackendUnavailableError, BundleFormatError, DeviceUnavailableError
from lmedge.runtimes.onnxruntime import OnnxRuntime
from tests.bundles import artifact_of, random_crops, tiny_answer, tiny_onnx
from tests.requirements import require

require("onnxruntime")


def test_it_agrees_with_numpy(tmp_path: Path) -> None:
    crops = random_crops(3)
    with OnnxRuntime.open(artifact_of(tiny_onnx(tmp_path)), batch=3, threads=1) as runtime:
        np.testing.assert_allclose(runtime.infer({"image": crops})["landmarks"], tiny_answer(crops), atol=1e-5)
        assert runtime.precision_used == ""


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"not a protobuf")
    with pytest.raises(BundleFormatError, match=r"cannot load model\.onnx"):
        OnnxRuntime.open(artifact_of(file))


def test_a_file_with_other_tensors_than_declared_is_refused(tmp_path: Path) -> None:
    file = tiny_onnx(tmp_path, input_name="picture")
    with pytest.raises(BundleFormatError, match=r"the manifest declares"):
        OnnxRuntime.open(artifact_of(file))
    declared = artifact_of(tiny_onnx(tmp_path), outputs=(TensorSpec("landmarks", "float32", ("batch", 68, 2)),))
    with pytest.raises(BundleFormatError, match="'landmarks'"):
        OnnxRuntime.open(declared)


def test_an_engine_that_does_not_import_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not OnnxRuntime.status().installed
    file = tmp_path / "model.onnx"
    file.write_bytes(b"")
    with pytest.raises(BackendUnavailableError, match=r"pip install 'lmedge\[onnxruntime\]'"):
        OnnxRuntime.open(artifact_of(file))


def test_a_provider_that_is_listed_but_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The GPU package on a machine without a driver: the engine would go on with the CPU."""
    import onnxruntime

    class OnTheCpu(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
            assert [name for name, _ in providers] == ["CUDAExecutionProvider"]
            super().__init__(path, onnxruntime.SessionOptions(), providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnTheCpu)
    with pytest.raises(DeviceUnavailableError, match="took"):
        OnnxRuntime.open(artifact_of(tiny_onnx(tmp_path)), device="cuda")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_engine_itself_refuses_to_go_on_with_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match="on cuda alone"):
        OnnxRuntime.open(artifact_of(tiny_onnx(tmp_path)), device="cuda")


@pytest.mark.parametrize(("precision", "used"), [("fp16", "f32"), ("fp16-int8", "f32, rounded to int8 steps"), ("int8", "")])
def test_it_tells_that_x86_computes_float16_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, used: str
) -> None:
    artifact = dataclasses.replace(artifact_of(tiny_onnx(tmp_path)), precision=precision)
    monkeypatch.setattr("lmedge.runtimes.onnxruntime.machine_arch", lambda: "x86_64")
    with OnnxRuntime.open(artifact) as runtime:
        assert runtime.precision_used == used
    monkeypatch.setattr("lmedge.runtimes.onnxruntime.machine_arch", lambda: "aarch64")
    with OnnxRuntime.open(artifact) as runtime:
        assert runtime.precision_used == ""
