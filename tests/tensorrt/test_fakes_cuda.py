"""The fake CUDA: results come with waiting and not before, and whatever real hardware would take badly is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tensorrt.cuda_by_hand import DATA, SIZE, Cuda, free_all
from tests.tensorrt.fake_gpu import FakeGpu, NotPlayed
from tests.tensorrt.fixtures import check_clean

# ---- what calls return ----


def test_calls_return_the_tuples_of_the_bindings(two_gpus: FakeGpu, cuda: Cuda) -> None:
    bindings = cuda.bindings
    ok = bindings.cudaError_t.cudaSuccess
    assert bindings.cudaGetDeviceCount() == (ok, 2)
    assert bindings.cudaSetDevice(0) == (ok,)
    assert bindings.cudaRuntimeGetVersion() == (ok, 12060)
    assert bindings.cudaGetErrorName(bindings.cudaError_t(719)) == (ok, b"cudaErrorLaunchFailure")
    assert bindings.cudaGetErrorString(bindings.cudaError_t(2)) == (ok, b"out of memory")
    two_gpus.fail("cudaMalloc", code=2)
    assert bindings.cudaMalloc(8) == (bindings.cudaError_t.cudaErrorMemoryAllocation, None)
    assert bindings.cudaSetDevice(7) == (bindings.cudaError_t.cudaErrorInvalidDevice,)


def test_handles_are_numbers_in_a_wrapper(cuda: Cuda) -> None:
    stream = cuda.cudaStreamCreate()
    assert not isinstance(stream, int)
    assert cuda.bindings.cudaStream_t(int(stream)) == stream
    cuda.cudaStreamDestroy(int(stream))


def test_kinds_must_be_the_enumeration(cuda: Cuda) -> None:
    with pytest.raises(AttributeError, match="value"):
        cuda.bindings.cudaMemcpyAsync(0, 0, 4, 1, 0)
    with pytest.raises(TypeError, match="argument is of type"):
        cuda.bindings.cudaFree("address")


def test_a_function_that_is_not_played_is_loud(cuda: Cuda) -> None:
    with pytest.raises(NotPlayed, match="cudaMallocAsync"):
        hasattr(cuda.bindings, "cudaMallocAsync")


# ---- when work takes place ----


def test_a_result_is_there_only_after_waiting(cuda: Cuda, clean: None) -> None:
    device, stream = cuda.cudaMalloc(SIZE), cuda.cudaStreamCreate()
    (source, sent), (target, received) = cuda.pinned(), cuda.pinned()
    sent[:] = DATA
    cuda.cudaMemcpyAsync(device, source, SIZE, cuda.to_device, stream)
    cuda.cudaMemcpyAsync(target, device, SIZE, cuda.to_host, stream)
    assert np.isnan(received).all()
    cuda.cudaStreamSynchronize(stream)
    assert (received == DATA).all()
    free_all(cuda, device, source, target, stream)


def test_pinned_memory_that_changes_before_the_copy_took_place_is_copied_as_it_is_then(cuda: Cuda, clean: None) -> None:
    device, stream = cuda.cudaMalloc(SIZE), cuda.cudaStreamCreate()
    source, sent = cuda.pinned()
    received = np.zeros(4, np.float32)
    sent[:] = DATA
    cuda.cudaMemcpyAsync(device, source, SIZE, cuda.to_device, stream)
    sent[:] = -1
    cuda.cudaStreamSynchronize(stream)
    cuda.cudaMemcpy(received, device, SIZE, cuda.to_host)
    assert (received == -1).all()
    free_all(cuda, device, source, stream)


def test_other_memory_is_copied_before_the_call_returns(cuda: Cuda, clean: None) -> None:
    device, stream = cuda.cudaMalloc(SIZE), cuda.cudaStreamCreate()
    sent, received = DATA.copy(), np.zeros(4, np.float32)
    cuda.cudaMemcpyAsync(device, sent, SIZE, cuda.to_device, stream)
    sent[:] = -1
    cuda.cudaMemcpyAsync(received, device, SIZE, cuda.to_host, stream)
    assert (received == DATA).all()
    free_all(cuda, device, stream)


def test_waiting_for_another_stream_does_not_help(cuda: Cuda, clean: None) -> None:
    device, stream, other = cuda.cudaMalloc(SIZE), cuda.cudaStreamCreate(), cuda.cudaStreamCreate()
    (source, sent), (target, received) = cuda.pinned(), cuda.pinned()
    sent[:] = DATA
    cuda.cudaMemcpyAsync(device, source, SIZE, cuda.to_device, stream)
    cuda.cudaMemcpyAsync(target, device, SIZE, cuda.to_host, other)
    cuda.cudaStreamSynchronize(other)
    assert np.isnan(received).all()
    event = cuda.cudaEventCreate()
    cuda.cudaEventRecord(event, stream)
    cuda.cudaStreamWaitEvent(other, event, 0)
    cuda.cudaMemcpyAsync(target, device, SIZE, cuda.to_host, other)
    cuda.cudaStreamSynchronize(other)
    assert (received == DATA).all()
    cuda.cudaEventDestroy(event)
    free_all(cuda, device, source, target, stream, other)


def test_an_event_is_done_once_the_work_before_it_is(cuda: Cuda, clean: None) -> None:
    device, stream = cuda.cudaMalloc(SIZE), cuda.cudaStreamCreate()
    target, received = cuda.pinned()
    start, end = cuda.cudaEventCreate(), cuda.cudaEventCreate()
    cuda.cudaEventRecord(start, stream)
    cuda.cudaMemsetAsync(device, 0, SIZE, stream)
    cuda.cudaMemcpyAsync(target, device, SIZE, cuda.to_host, stream)
    cuda.cudaEventRecord(end, stream)
    assert cuda.code("cudaEventQuery", end) == 600
    assert np.isnan(received).all()
    assert cuda.code("cudaEventElapsedTime", start, end) == 600
    assert cuda.code("cudaEventQuery", end) == 0
    assert (received == 0).all()
    assert cuda.cudaEventElapsedTime(start, end) > 0
    for event in (start, end):
        cuda.cudaEventDestroy(event)
    free_all(cuda, device, target, stream)


# ---- memory ----


def test_what_is_left_allocated_is_noticed(two_gpus: FakeGpu, cuda: Cuda) -> None:
    cuda.cudaMalloc(SIZE), cuda.cudaMallocHost(SIZE), cuda.cudaStreamCreate(), cuda.cudaEventCreate()
    assert len(two_gpus.allocations) == 4
    with pytest.raises(pytest.fail.Exception, match=r"16 bytes of device memory.*16 bytes of pinned memory.*stream.*event"):
        check_clean(two_gpus)


def test_memory_that_was_freed_is_not_freed_or_read_again(two_gpus: FakeGpu, cuda: Cuda) -> None:
    device = cuda.cudaMalloc(SIZE)
    cuda.cudaFree(device)
    with two_gpus.expected_faults() as faults:
        assert cuda.code("cudaFree", device) == 1
        assert cuda.code("cudaMemcpy", DATA.copy(), device, SIZE, cuda.to_host) == 1
    assert ["freed" in fault for fault in faults] == [True, True]
    cuda.code("cudaFree", device)
    with pytest.raises(pytest.fail.Exception, match="was freed as device memory"):
        check_clean(two_gpus)


@pytest.mark.parametrize(("allocate", "free"), [("cudaMalloc", "cudaFreeHost"), ("cudaMallocHost", "cudaFree")])
def test_memory_is_freed_as_what_it_is(allocate: str, free: str, two_gpus: FakeGpu, cuda: Cuda) -> None:
    address = getattr(cuda, allocate)(SIZE)
    with two_gpus.expected_faults() as faults:
        assert cuda.code(free, address) == 1
    assert faults


def test_copies_that_leave_their_memory_or_go_the_wrong_way_are_refused(two_gpus: FakeGpu, cuda: Cuda) -> None:
    device, array = cuda.cudaMalloc(SIZE), DATA.repeat(2)
    with two_gpus.expected_faults() as faults:
        assert cuda.code("cudaMemcpy", device, array, 2 * SIZE, cuda.to_device) == 1
        assert cuda.code("cudaMemcpy", device + 4, array, SIZE, cuda.to_device) == 1
        assert cuda.code("cudaMemcpy", device, array, SIZE, cuda.to_host) == 1
        assert cuda.code("cudaMemcpy", array, device, SIZE, cuda.to_device) == 1
    assert ["wrong direction" in fault for fault in faults] == [False, False, True, True]


def test_device_memory_is_not_reachable_from_the_host(cuda: Cuda) -> None:
    address = cuda.cudaMalloc(SIZE)
    assert address > 1 << 47  # where a process has no memory
