"""Opening that fails half-way leaves nothing behind; engines that are special say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmedge.bundle import Artifact
from lmedge.errors import BundleFormatError, DeviceUnavailableError, InputError, LmedgeError
from lmedge.export.race_tensorrt import compile_bundle
from lmedge.runtimes.cuda_memory import CudaSession, DeviceLostError
from lmedge.runtimes.engine_record import record_path
from lmedge.runtimes.tensorrt import TensorRtRuntime
from lmedge.runtimes.tensorrt_machine import import_tensorrt
from lmedge.runtimes.tensorrt_plan import TRUST_VARIABLE, trusting_engine_code
from tests.bundles import random_crops, tiny_answer
from tests.tensorrt.engines import engine_bundle, resealed, tiny_engine, with_plan, with_record
from tests.tensorrt.fake_gpu import ILLEGAL_ADDRESS, Device, FakeGpu
from tests.tensorrt.fake_plan import rewritten

REBUILD = r"lmedge compile .* --target tensorrt"


@pytest.fixture
def engine(fake_gpu: FakeGpu, tmp_path: Path) -> Artifact:
    return tiny_engine(tmp_path)


# ---- failures half-way ----

OPENING = [
    ("cudaSetDevice", 0), ("cudaStreamCreateWithFlags", 0), ("cudaMalloc", 0), ("cudaMalloc", 1), ("cudaHostAlloc", 0),
    ("cudaHostAlloc", 1), ("Runtime", 0), ("Runtime.deserialize_cuda_engine", 0), ("ICudaEngine.create_execution_context", 0),
    ("IExecutionContext.set_input_shape", 0), ("IExecutionContext.set_tensor_address", 0),
    ("IExecutionContext.set_tensor_address", 1), ("IExecutionContext.execute_async_v3", 0), ("cudaMemcpyAsync", 0),
    ("cudaMemcpyAsync", 1), ("cudaStreamSynchronize", 0), ("cudaGraphLaunch", 0), ("cudaStreamSynchronize", 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "skip"), OPENING)
@pytest.mark.parametrize("code", [2, 400, 719])
def test_whatever_fails_half_way_everything_is_freed(
    engine: Artifact, fake_gpu: FakeGpu, name: str, skip: int, code: int
) -> None:
    fake_gpu.fail(name, code=code, message="it went wrong", skip=skip)
    with pytest.raises(LmedgeError):
        TensorRtRuntime.open(engine)
    assert fake_gpu.allocations == []
    with TensorRtRuntime.open(engine) as runtime:
        assert runtime.infer({"image": random_crops(1)})["landmarks"].shape == (1, 5, 2)


@pytest.mark.parametrize("name", ["cudaMalloc", "cudaHostAlloc"])
def test_too_little_memory_names_the_device_and_the_cure(engine: Artifact, fake_gpu: FakeGpu, name: str) -> None:
    fake_gpu.fail(name, code=2)
    with pytest.raises(DeviceUnavailableError, match=r"no memory left .* End other programs"):
        TensorRtRuntime.open(engine)


@pytest.mark.parametrize("name", ["Runtime.deserialize_cuda_engine", "ICudaEngine.create_execution_context"])
def test_too_little_memory_inside_tensorrt_is_told_apart_from_a_bad_plan(
    engine: Artifact, fake_gpu: FakeGpu, name: str
) -> None:
    fake_gpu.fail(name)  # its own words then are "OutOfMemory"
    with pytest.raises(DeviceUnavailableError, match=r"no memory left to .*OutOfMemory"):
        TensorRtRuntime.open(engine)
    fake_gpu.fail(name, message="Error Code 4: layout of memory outputs")
    with pytest.raises(BundleFormatError, match="layout of memory outputs"):
        TensorRtRuntime.open(engine)


@pytest.mark.parametrize(
    ("name", "skip"),
    [
        ("Runtime", 0),
        ("Runtime.deserialize_cuda_engine", 0),
        ("ICudaEngine.create_execution_context", 0),
        ("IExecutionContext.set_input_shape", 0),
        ("IExecutionContext.set_tensor_address", 0),
        ("IExecutionContext.execute_async_v3", 0),
        ("IExecutionContext.execute_async_v3", 1),  # while it is captured
    ],
)
def test_a_device_that_is_lost_inside_tensorrt_is_told_as_lost(
    engine: Artifact, fake_gpu: FakeGpu, name: str, skip: int
) -> None:
    """TensorRT only says that it failed; CUDA knows why."""
    fake_gpu.fail(name, lost=ILLEGAL_ADDRESS, message="an illegal memory access was encountered", skip=skip)
    with pytest.raises(DeviceLostError, match=r"cuda was lost.*700") as caught:
        TensorRtRuntime.open(engine)
    assert REBUILD[:14] not in str(caught.value)


def test_a_device_is_asked_whether_it_still_answers(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    session.check_alive()
    fake_gpu.fail("cudaStreamSynchronize", code=400)
    session.check_alive()
    fake_gpu.fail("cudaStreamSynchronize", code=700)
    with pytest.raises(DeviceLostError, match="700"):
        session.check_alive()
    session.close()


@pytest.mark.parametrize("name", ["Runtime.deserialize_cuda_engine", "ICudaEngine.create_execution_context"])
def test_advice_names_the_bundle_and_not_where_its_engines_are_built(
    engine: Artifact, fake_gpu: FakeGpu, tmp_path: Path, name: str
) -> None:
    bundle = tmp_path / "the bundle"
    fake_gpu.fail(name, message="no such plan")
    with trusting_engine_code(bundle), pytest.raises(BundleFormatError, match="no such plan") as caught:
        TensorRtRuntime.open(engine)
    assert f"lmedge compile '{bundle}' --target tensorrt" in str(caught.value)


def test_a_race_names_the_bundle_and_not_its_temporary_folder(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    bundle = engine_bundle(tmp_path)
    fake_gpu.fail("ICudaEngine.create_execution_context", message="no such plan")
    with pytest.raises(LmedgeError, match=f"no such plan.* lmedge compile {bundle.root} --target tensorrt"):
        compile_bundle(bundle, ["fp32"])


def test_a_runtime_that_does_not_start_says_what_tensorrt_said(engine: Artifact, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("Runtime")
    with pytest.raises(DeviceUnavailableError, match=r"tensorrt\.Runtime does not start.*nullptr"):
        TensorRtRuntime.open(engine)


def test_a_shape_that_tensorrt_does_not_take_is_named(engine: Artifact, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("IExecutionContext.set_input_shape")
    with pytest.raises(InputError, match=r"does not take 'image' as \(2, 32, 32, 3\)"):
        TensorRtRuntime.open(engine, batch=2)


def test_an_answer_of_another_shape_than_the_manifest_says_is_refused(
    engine: Artifact, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that is free in the plan shows only when the inputs have theirs."""
    monkeypatch.setattr(import_tensorrt().IExecutionContext, "get_tensor_shape", lambda self, name: (1, 7, 2))
    with pytest.raises(BundleFormatError, match=r"gives 'landmarks' as \(1, 7, 2\); the manifest says \(1, 5, 2\)"):
        TensorRtRuntime.open(engine)
    assert fake_gpu.allocations == []


# ---- engines that run elsewhere too ----


def test_code_from_a_bundle_runs_only_if_its_source_is_trusted(
    fake_gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny_engine(tmp_path, version_compatible=True)
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    with pytest.raises(BundleFormatError, match=rf"program code.*{TRUST_VARIABLE}=1.*{REBUILD}"):
        TensorRtRuntime.open(engine)
    assert fake_gpu.allocations == []
    with trusting_engine_code(tmp_path), TensorRtRuntime.open(engine):
        pass
    with pytest.raises(BundleFormatError, match="program code"):
        TensorRtRuntime.open(engine)
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    TensorRtRuntime.open(engine).close()


def test_code_of_other_engines_is_never_allowed(engine: Artifact, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that brings code although its record says that it has none is TensorRT's to refuse."""
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    changed = with_plan(engine, lambda plan: rewritten(plan, flags=("VERSION_COMPATIBLE",)))
    with pytest.raises(BundleFormatError, match="engine_host_code_allowed"):
        TensorRtRuntime.open(changed)


def test_a_hardware_compatible_engine_opens_on_another_gpu(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    engine = tiny_engine(tmp_path, hardware_compatible=True)
    fake_gpu.devices = (Device("H100", "9.0"),)
    with TensorRtRuntime.open(engine) as runtime:
        crops = random_crops(1)
        np.testing.assert_allclose(runtime.infer({"image": crops})["landmarks"], tiny_answer(crops), atol=1e-5)


# ---- what it computes in ----


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, ""),
        ({"options": {"tf32": True}}, "tf32"),
        ({"layers": {}}, ""),
        ({"layers": {"fp16": 3, "bf16": 1}}, "bf16, fp16"),
    ],
)
def test_it_says_where_layers_compute_in_something_else(
    engine: Artifact, fake_gpu: FakeGpu, changes: dict[str, Any], used: str
) -> None:
    changed = with_record(engine, lambda record: record.update(changes))
    with TensorRtRuntime.open(changed) as runtime:
        assert runtime.precision_used == used


def test_resealing_changes_nothing_by_itself(engine: Artifact) -> None:
    """What the changes above are made with."""
    assert resealed(engine) == engine
    assert record_path(engine.path) in dict(engine.companions)
