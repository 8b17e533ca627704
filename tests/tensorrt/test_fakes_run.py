"""The fake TensorRT's run half: it answers as ONNX Runtime does, in the right order of calls, and notices every other order."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import bundles, requirements
from tests.tensorrt.api_names import ONLY_8
from tests.tensorrt.by_hand import Build, Run, build_plan
from tests.tensorrt.fake_gpu import Crash, FakeGpu
from tests.tensorrt.fake_graph import session_options

requirements.require("onnx", "onnxruntime")
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from lmedge.export.graph.to_fp16 import to_fp16  # noqa: E402
from tests.export.qdq_texts import SOUND, parse  # noqa: E402

CROPS = {"image": bundles.random_crops(2)}


@pytest.fixture
def trt(fake_gpu: FakeGpu) -> Any:
    return sys.modules["tensorrt"]


@pytest.fixture
def cuda(fake_gpu: FakeGpu) -> Any:
    return sys.modules["cuda.bindings.runtime"]


@pytest.fixture
def plan(trt: Any, tmp_path: Path) -> bytes:
    return build_plan(trt, bundles.tiny_onnx(tmp_path))


@pytest.fixture
def run(trt: Any, cuda: Any, plan: bytes) -> Any:
    run = Run(trt, cuda, plan, CROPS)
    yield run
    run.close()


# ---- the whole path ----


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp16-int8"])
def test_an_engine_answers_bit_by_bit_what_onnx_runtime_answers(
    precision: str, trt: Any, cuda: Any, tmp_path: Path, tensorrt_version: str
) -> None:
    quantised = "int8" in precision
    model = parse(SOUND) if quantised else onnx.load(bundles.tiny_onnx(tmp_path / "tiny"))
    model = to_fp16(model) if "fp16" in precision else model
    file = tmp_path / "network.onnx"
    onnx.save(model, file)
    if quantised and "fp16" in precision and tensorrt_version in ONLY_8:
        assert not Build(trt, file).parsed
        return
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 8, 1, 1)).astype(np.float32)} if quantised else CROPS
    flags = tuple(precision.upper().split("-")) if precision != "fp32" else ()
    run = Run(trt, cuda, build_plan(trt, file, precision=flags), feeds)
    results = run.whole()
    run.close()
    session = onnxruntime.InferenceSession(file.read_bytes(), session_options(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, feeds)
    (answer,) = results.values()
    if tensorrt_version in ONLY_8 and "FP16" in flags:
        expected = expected.astype(np.float16).astype(np.float32)
    assert answer.tobytes() == expected.tobytes()


def test_an_engine_tells_its_tensors_by_name(trt: Any, run: Run) -> None:
    engine = run.engine
    assert [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)] == ["image", "landmarks"]
    assert engine.get_tensor_mode("image") == trt.TensorIOMode.INPUT
    assert engine.get_tensor_mode("landmarks") == trt.TensorIOMode.OUTPUT
    assert engine.get_tensor_mode("picture") == trt.TensorIOMode.NONE
    assert "Given invalid tensor name: picture" in run.logger.text
    assert engine.get_tensor_shape("image") == (-1, 32, 32, 3)
    assert engine.get_tensor_dtype("image") == trt.DataType.UINT8
    assert [shape[0] for shape in engine.get_tensor_profile_shape("image", 0)] == [1, 2, 8]
    assert run.context.infer_shapes() == ["image"]
    assert run.context.get_tensor_shape("landmarks") == (-1, 5, 2)
    run.set_shapes()
    assert run.context.infer_shapes() == []
    assert run.context.get_tensor_shape("landmarks") == (2, 5, 2)


# ---- the order of calls ----


def test_nothing_runs_without_shapes_and_addresses(run: Run) -> None:
    run.set_shapes()
    run.allocate()
    assert not run.execute()
    assert "Neither address or allocator is set for tensor image" in run.logger.text
    run.context.set_tensor_address("image", run.device["image"])
    assert not run.execute()
    assert "is set for tensor landmarks" in run.logger.text
    run.set_addresses()
    assert run.execute()


def test_shapes_come_before_the_execution_and_stay_within_the_profile(run: Run) -> None:
    run.prepare()
    fresh = run.engine.create_execution_context()
    if run.trt.__version__ in ONLY_8:
        # TensorRT 8 lends its profile to the first context alone.
        assert "Profile 0 has been chosen by another" in run.logger.text
        assert not fresh.set_input_shape("image", (1, 32, 32, 3))
        assert not fresh.set_optimization_profile_async(0, int(run.stream))
        del run.context
        gc.collect()
        assert fresh.set_optimization_profile_async(0, int(run.stream))
    run.context = fresh
    run.set_addresses()
    assert not run.execute()
    assert "input shapes are not set: image" in run.logger.text
    for shape in ((0, 32, 32, 3), (9, 32, 32, 3), (1, 31, 32, 3), (1, 32, 32)):
        assert not run.context.set_input_shape("image", shape)
    assert "not within the range of optimization profile 0" in run.logger.text
    assert not run.context.set_input_shape("landmarks", (1, 5, 2))
    assert not run.context.set_tensor_address("picture", 1)
    run.set_shapes()
    assert run.execute()


def test_a_result_that_is_not_waited_for_is_not_there(run: Run) -> None:
    run.prepare()
    run.upload()
    assert run.execute()
    address = run.do("cudaMallocHost", run.results["landmarks"].nbytes)
    kind = run.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
    size = run.results["landmarks"].nbytes
    run.do("cudaMemcpyAsync", address, run.device["landmarks"], size, kind, run.stream)
    gpu = run.trt.Runtime._gpu
    assert np.isnan(np.frombuffer(gpu.memory.read(address, size), np.float32)).all()
    run.do("cudaStreamSynchronize", run.stream)
    assert np.isfinite(np.frombuffer(gpu.memory.read(address, size), np.float32)).all()
    run.do("cudaFreeHost", address)


def test_work_on_another_stream_does_not_see_the_upload(run: Run) -> None:
    run.prepare()
    run.upload()
    other = run.do("cudaStreamCreate")
    assert run.context.execute_async_v3(int(other))
    run.do("cudaStreamSynchronize", other)
    before = run.download()["landmarks"].copy()
    assert not np.allclose(before, bundles.tiny_answer(CROPS["image"]), atol=1e-4)
    run.do("cudaStreamDestroy", other)


@pytest.mark.parametrize("misuse", ["freed", "too small", "in host memory"])
def test_memory_that_an_engine_may_not_touch_loses_the_device(misuse: str, fake_gpu: FakeGpu, run: Run) -> None:
    run.prepare()
    if misuse == "freed":
        run.do("cudaFree", run.device.pop("image"))
    elif misuse == "too small":
        run.do("cudaFree", run.device.pop("landmarks"))
        run.device["landmarks"] = run.do("cudaMalloc", 8)
        run.set_addresses()
    else:
        run.context.set_tensor_address("landmarks", run.results["landmarks"].ctypes.data)
    assert run.execute()
    with fake_gpu.expected_faults() as faults:
        assert int(run.cuda.cudaStreamSynchronize(run.stream)[0]) == 700
    assert "not in device memory" in faults[0]
    assert not run.execute()


def test_what_is_not_a_stream_is_no_stream(fake_gpu: FakeGpu, run: Run) -> None:
    run.prepare()
    with fake_gpu.expected_faults() as faults:
        assert not run.context.execute_async_v3(12345)
    assert "no stream" in faults[0]


def test_an_engine_runs_on_the_device_that_it_was_opened_on(fake_gpu: FakeGpu, run: Run) -> None:
    fake_gpu.devices *= 2
    run.prepare()
    answers: list[bool] = []

    def elsewhere() -> None:
        run.do("cudaSetDevice", 1)
        answers.append(run.execute())

    thread = threading.Thread(target=elsewhere)
    with fake_gpu.expected_faults():
        thread.start()
        thread.join()
    assert answers == [False]
    assert run.execute()


def test_engine_and_context_must_outlive_their_work(run: Run) -> None:
    run.prepare()
    assert run.execute()
    engine, run.engine = run.engine, None
    del engine
    gc.collect()
    with pytest.raises(Crash, match="engine was freed"):
        run.execute()
    del run.context
    gc.collect()
    with pytest.raises(Crash, match="context was freed"):
        run.cuda.cudaStreamSynchronize(run.stream)


# ---- captured graphs ----


def capture(run: Run) -> Any:
    """The code that the capture of an execution ended with, and the graph."""
    run.do("cudaStreamBeginCapture", run.stream, run.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
    run.execute()
    return run.cuda.cudaStreamEndCapture(run.stream)


def test_an_execution_can_be_captured_once_it_ran_with_its_shapes(run: Run) -> None:
    run.prepare()
    assert [int(capture(run)[0]), capture(run)[1]] == [901, None]
    assert run.execute()
    error, graph = capture(run)
    assert int(error) == 0
    executable = run.do("cudaGraphInstantiate", graph, 0)
    run.do("cudaGraphDestroy", graph)
    for seed in range(2):
        run.feeds = {"image": bundles.random_crops(2, seed)}
        run.upload()
        run.do("cudaGraphLaunch", executable, run.stream)
        assert np.allclose(run.download()["landmarks"], bundles.tiny_answer(run.feeds["image"]), atol=1e-6)
    run.do("cudaGraphExecDestroy", executable)
    assert run.context.set_input_shape("image", (1, 32, 32, 3))
    assert int(capture(run)[0]) == 901


# ---- failures that are asked for ----

FALSY = {
    "Runtime.deserialize_cuda_engine": lambda run, plan: run.runtime.deserialize_cuda_engine(plan),
    "ICudaEngine.create_execution_context": lambda run, plan: run.engine.create_execution_context(),
    "IExecutionContext.execute_async_v3": lambda run, plan: run.execute(),
    "IExecutionContext.set_input_shape": lambda run, plan: run.context.set_input_shape("image", (1, 32, 32, 3)),
    "IExecutionContext.set_tensor_address": lambda run, plan: run.context.set_tensor_address("image", 256),
}


@pytest.mark.parametrize("name", FALSY)
def test_failures_come_once_and_are_logged(name: str, fake_gpu: FakeGpu, run: Run, plan: bytes) -> None:
    run.prepare()
    run.logger.lines.clear()
    fake_gpu.fail(name)
    assert not FALSY[name](run, plan)
    assert run.logger.lines
    assert FALSY[name](run, plan)


def test_a_device_that_is_lost_in_mid_stream_is_lost_for_good(fake_gpu: FakeGpu, run: Run) -> None:
    run.whole()
    fake_gpu.fail("device", code=46)
    assert run.execute()
    assert int(run.cuda.cudaStreamSynchronize(run.stream)[0]) == 46
    assert int(run.cuda.cudaMalloc(8)[0]) == 46
    assert not run.execute()
