"""The fake CUDA: graphs that are captured and repeated, devices that are lost, and the driver."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge.runtimes import cuda_driver
from tests.tensorrt.cuda_by_hand import SIZE, Cuda, free_all, in_a_thread
from tests.tensorrt.fake_gpu import FakeGpu
from tests.tensorrt.fixtures import check_clean

# ---- graphs ----


def test_a_capture_records_and_a_launch_repeats(cuda: Cuda, clean: None) -> None:
    device, stream = cuda.cudaMalloc(SIZE), cuda.cudaStreamCreate()
    (source, sent), (target, received) = cuda.pinned(), cuda.pinned()
    cuda.cudaStreamBeginCapture(stream, cuda.in_thread)
    cuda.cudaMemcpyAsync(device, source, SIZE, cuda.to_device, stream)
    cuda.cudaMemcpyAsync(target, device, SIZE, cuda.to_host, stream)
    graph = cuda.cudaStreamEndCapture(stream)
    executable = cuda.cudaGraphInstantiate(graph, 0)
    cuda.cudaGraphDestroy(graph)
    cuda.cudaStreamSynchronize(stream)
    assert np.isnan(received).all()
    for value in (3, 5):
        sent[:] = value
        cuda.cudaGraphLaunch(executable, stream)
        cuda.cudaStreamSynchronize(stream)
        assert (received == value).all()
    cuda.cudaGraphExecDestroy(executable)
    free_all(cuda, device, source, target, stream)


@pytest.mark.parametrize("call", ["cudaStreamSynchronize", "cudaMalloc", "cudaDeviceSynchronize", "cudaMallocHost"])
def test_waiting_or_allocating_breaks_a_capture(call: str, cuda: Cuda, clean: None) -> None:
    stream = cuda.cudaStreamCreate()
    cuda.cudaStreamBeginCapture(stream, cuda.everywhere)
    arguments = {"cudaStreamSynchronize": (stream,), "cudaDeviceSynchronize": ()}.get(call, (SIZE,))
    assert cuda.code(call, *arguments) == 900
    assert cuda.bindings.cudaStreamEndCapture(stream) == (cuda.bindings.cudaError_t(901), None)
    cuda.cudaStreamDestroy(stream)


@pytest.mark.parametrize(("mode", "code"), [("everywhere", 900), ("in_thread", 0), ("relaxed", 0)])
def test_other_threads_disturb_a_capture_by_its_mode(mode: str, code: int, cuda: Cuda) -> None:
    stream = cuda.cudaStreamCreate()
    cuda.cudaStreamBeginCapture(stream, getattr(cuda, mode))
    codes: list[int] = []
    in_a_thread(lambda: codes.append(cuda.code("cudaMalloc", SIZE)))
    assert codes == [code]


def test_a_capture_ends_in_its_thread_and_not_on_the_default_stream(cuda: Cuda) -> None:
    assert cuda.code("cudaStreamBeginCapture", 0, cuda.relaxed) == 900
    stream = cuda.cudaStreamCreate()
    cuda.cudaStreamBeginCapture(stream, cuda.in_thread)
    codes: list[int] = []
    in_a_thread(lambda: codes.append(cuda.code("cudaStreamEndCapture", stream)))
    assert codes == [908]


def test_a_graph_that_outlives_its_memory_loses_the_device(two_gpus: FakeGpu, cuda: Cuda) -> None:
    device, stream = cuda.cudaMalloc(SIZE), cuda.cudaStreamCreate()
    target, _ = cuda.pinned()
    cuda.cudaStreamBeginCapture(stream, cuda.relaxed)
    cuda.cudaMemcpyAsync(target, device, SIZE, cuda.to_host, stream)
    executable = cuda.cudaGraphInstantiate(cuda.cudaStreamEndCapture(stream), 0)
    cuda.cudaFree(device)
    with two_gpus.expected_faults() as faults:
        cuda.cudaGraphLaunch(executable, stream)
        assert cuda.code("cudaStreamSynchronize", stream) == 700
    assert "freed meanwhile" in faults[0]


# ---- devices and drivers ----


def test_a_lost_device_answers_with_the_same_code_for_good(two_gpus: FakeGpu, cuda: Cuda) -> None:
    stream, device = cuda.cudaStreamCreate(), cuda.cudaMalloc(SIZE)
    two_gpus.fail("device", code=719)
    cuda.cudaMemsetAsync(device, 0, SIZE, stream)
    assert cuda.code("cudaStreamSynchronize", stream) == 719
    assert [cuda.code("cudaMalloc", SIZE), cuda.code("cudaFree", device)] == [719, 719]
    check_clean(two_gpus)


def test_failures_come_when_they_are_due(two_gpus: FakeGpu, cuda: Cuda) -> None:
    two_gpus.fail("cudaMalloc", code=2, skip=1, times=2)
    assert [cuda.code("cudaMalloc", SIZE) for _ in range(4)] == [0, 2, 2, 0]


def test_each_thread_has_its_own_current_device(cuda: Cuda) -> None:
    cuda.cudaSetDevice(1)
    found: list[int] = []
    in_a_thread(lambda: found.append(cuda.cudaGetDevice()))
    assert [cuda.cudaGetDevice(), *found] == [1, 0]


@pytest.mark.parametrize("code", [34, 100, 803, 999])
def test_a_driver_that_does_not_start_says_why(code: int, two_gpus: FakeGpu, cuda: Cuda) -> None:
    two_gpus.driver_error = code
    assert str(code) in cuda_driver.probe_driver().reason
    assert cuda.code("cudaGetDeviceCount") in (code, 100)


def test_the_driver_tells_version_and_devices(two_gpus: FakeGpu) -> None:
    driver = cuda_driver.probe_driver()
    assert driver.version == "12.6"
    assert [(d.name, d.compute_capability) for d in driver.devices] == [("Orin", "8.7"), ("Second", "8.9")]
    assert not hasattr(cuda_driver._load_library(), "cuCtxCreate")


@pytest.mark.parametrize("version", [None, 11080])
def test_without_a_driver_or_with_an_older_one_there_is_no_device(version: int | None, two_gpus: FakeGpu, cuda: Cuda) -> None:
    two_gpus.driver_version = version
    assert cuda.bindings.cudaGetDeviceCount() == (cuda.bindings.cudaError_t(35), None)
    if version is None:
        assert "cannot open shared object file" in cuda_driver.probe_driver().reason
