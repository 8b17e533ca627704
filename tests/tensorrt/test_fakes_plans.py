"""The fake TensorRT's plans: which machine takes them, and what their inspector tells."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import bundles, requirements
from tests.tensorrt.api_names import ONLY_11
from tests.tensorrt.by_hand import Build, build_plan, the_logger
from tests.tensorrt.fake_gpu import Device, FakeGpu
from tests.tensorrt.fake_plan import rewritten

requirements.require("onnx", "onnxruntime")
import onnx  # noqa: E402

from tests.export.qdq_texts import SOUND, parse  # noqa: E402


@pytest.fixture
def trt(fake_gpu: FakeGpu) -> Any:
    return sys.modules["tensorrt"]


@pytest.fixture
def plan(trt: Any, tmp_path: Path) -> bytes:
    return build_plan(trt, bundles.tiny_onnx(tmp_path))


# ---- which plans are taken ----

OTHER_PLANS = {
    "truncated": (lambda plan: plan[:-1], "plan.header.size == blobSize failed"),
    "changed": (lambda plan: plan[:-9] + b"?" + plan[-8:], "corrupted"),
    "nonsense": (lambda plan: b"no plan" * 20, "incompatible serialization version"),
    "empty": (lambda plan: b"", "empty memory buffer"),
    "a few bytes": (lambda plan: plan[:9], "bufferSize >= minBufferSize"),
    "other version": (lambda plan: rewritten(plan, version="10.9.0"), "Version tag does not match"),
    "other gpu": (lambda plan: rewritten(plan, compute_capability="9.0"), "got compute 9.0, please rebuild"),
}


@pytest.mark.parametrize("name", OTHER_PLANS)
def test_a_plan_that_is_not_for_this_machine_gives_none_and_the_reason(name: str, trt: Any, plan: bytes) -> None:
    change, said = OTHER_PLANS[name]
    logger = the_logger(trt)
    assert trt.Runtime(logger).deserialize_cuda_engine(change(plan)) is None
    assert said in logger.text
    assert "Engine deserialization failed" in logger.text


def test_a_plan_of_another_model_of_gpu_is_taken_with_a_warning(trt: Any, plan: bytes) -> None:
    logger = the_logger(trt)
    assert trt.Runtime(logger).deserialize_cuda_engine(rewritten(plan, gpu_name="Xavier")) is not None
    assert "different models of devices" in logger.text


def test_compatible_plans_are_taken_more_widely(trt: Any, tmp_path: Path, fake_gpu: FakeGpu, tensorrt_version: str) -> None:
    build = Build(trt, bundles.tiny_onnx(tmp_path))
    build.add_profile()
    build.config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    build.config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    plan = build.plan()
    assert plan is not None
    fake_gpu.devices = (Device("Other", "9.0"),)
    runtime = trt.Runtime(build.logger)
    assert runtime.deserialize_cuda_engine(plan) is None
    assert "engine_host_code_allowed" in build.logger.text
    runtime.engine_host_code_allowed = True
    assert runtime.deserialize_cuda_engine(plan) is not None
    before = {"8.6.0": "8.6.1", "10.3.0": "8.6.1", "10.13.3.9": "10.3.0", "11.4.0": "10.3.0"}[tensorrt_version]
    assert runtime.deserialize_cuda_engine(rewritten(plan, version=before)) is not None
    later = {"8.6.0": "10.3.0", "11.4.0": "8.6.0"}.get(tensorrt_version, "11.4.0")
    assert runtime.deserialize_cuda_engine(rewritten(plan, version=later)) is None
    fake_gpu.devices = (Device("Old", "7.5"),)
    assert runtime.deserialize_cuda_engine(plan) is None


# ---- the inspector ----


def test_the_inspector_tells_layers_in_the_words_of_its_version(trt: Any, tmp_path: Path, tensorrt_version: str) -> None:
    file = tmp_path / "quantised.onnx"
    onnx.save(parse(SOUND), file)
    build = Build(trt, file, precision=("INT8",))
    build.add_profile()
    told = {}
    for verbosity in (trt.ProfilingVerbosity.LAYER_NAMES_ONLY, trt.ProfilingVerbosity.DETAILED):
        build.config.profiling_verbosity = verbosity
        plan = build.plan()
        assert plan is not None
        inspector = trt.Runtime(build.logger).deserialize_cuda_engine(plan).create_engine_inspector()
        told[verbosity.name] = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    assert told["LAYER_NAMES_ONLY"]["Layers"] == ["conv"]
    (layer,) = told["DETAILED"]["Layers"]
    assert layer["Weights"] == {"Type": "Int8", "Count": 64}
    (given,) = layer["Inputs"]
    words = {
        "8.6.0": {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"},
        "10.3.0": {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"},
        "10.13.3.9": {"Format/Datatype": "Int8"},
        "11.4.0": {"Format": "Row major linear (kLINEAR)", "DataType": "Int8"},
    }
    assert {name: text for name, text in given.items() if name.startswith(("Format", "DataType"))} == words[tensorrt_version]
    assert ("I/O Tensors" in told["DETAILED"]) == (tensorrt_version in ONLY_11)
    assert ("Bindings" in told["DETAILED"]) == (tensorrt_version not in ONLY_11)
