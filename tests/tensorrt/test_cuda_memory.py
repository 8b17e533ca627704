"""Memory, the stream and graphs: every return code is looked at, and everything is freed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from lmedge.errors import DeviceUnavailableError, LmedgeError
from lmedge.runtimes.cuda_memory import CudaCallError, CudaSession, DeviceLostError, PairedBuffer
from tests.tensorrt.fake_gpu import Device, FakeGpu

SIZE = 24
LOST = (3, 46, 100, 201, 700, 719, 999)


def fill(buffer: PairedBuffer, value: int) -> None:
    buffer.host[:] = value


def there_and_back(session: CudaSession, buffer: PairedBuffer) -> None:
    session.upload(buffer, buffer.host.size)
    session.download(buffer, buffer.host.size)


def test_a_buffer_is_there_twice_and_zero(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    assert buffer.host.tolist() == [0] * SIZE
    assert fake_gpu.memory.holds(buffer.device_address, SIZE, "device")
    assert fake_gpu.memory.holds(buffer.host_address, SIZE, "pinned")
    assert buffer.host.ctypes.data == buffer.host_address
    session.close()


def test_an_array_is_a_view_of_the_first_bytes(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    array = buffer.host_array((2, 2), np.float32)
    array[:] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(buffer.host[:16].view(np.float32), [1, 2, 3, 4])
    assert not buffer.host[16:].any()
    session.close()


def test_bytes_go_to_the_device_and_come_back(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    fill(buffer, 7)
    session.upload(buffer, SIZE)
    session.synchronize()
    assert fake_gpu.memory.read(buffer.device_address, SIZE) == bytes([7] * SIZE)
    fill(buffer, 0)
    session.download(buffer, SIZE - 4)
    session.synchronize()
    assert buffer.host.tolist() == [7] * (SIZE - 4) + [0] * 4
    session.close()


def test_nothing_is_there_before_it_was_waited_for(fake_gpu: FakeGpu) -> None:
    """The reason for `synchronize`, and proof that the fake would notice its absence."""
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    fill(buffer, 7)
    session.upload(buffer, SIZE)
    assert fake_gpu.memory.read(buffer.device_address, SIZE) != bytes([7] * SIZE)
    session.close()


def test_closing_frees_everything_and_twice_is_fine(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffers = [session.buffer(SIZE) for _ in range(3)]
    session.capture(lambda: there_and_back(session, buffers[0]))
    assert len(fake_gpu.allocations) == 3 * 2 + 2
    session.close()
    session.close()
    assert fake_gpu.allocations == []


def test_a_session_that_is_forgotten_frees_everything(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    session.buffer(SIZE)
    del session
    gc.collect()
    assert fake_gpu.allocations == []


def test_its_stream_does_not_wait_for_others(fake_gpu: FakeGpu) -> None:
    with_session = CudaSession(0)
    assert fake_gpu.arguments("cudaStreamCreateWithFlags") == [(1,)]
    assert with_session.stream in fake_gpu.resources
    with_session.close()


def test_each_session_works_on_its_own_device(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("Thor", "11.0"))
    first, second = CudaSession(0), CudaSession(1)
    first.select()
    a = first.buffer(SIZE)
    second.select()
    b = second.buffer(SIZE)
    homes = [fake_gpu.memory.find(buffer.device_address) for buffer in (a, b)]
    assert [home.device for home in homes if home] == [0, 1]
    second.close()
    first.close()


def test_it_frees_on_its_own_device(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("Thor", "11.0"))
    first, second = CudaSession(0), CudaSession(1)
    first.close()
    assert fake_gpu.arguments("cudaSetDevice")[-1] == (0,)
    second.close()


def test_a_graph_replays_the_work_on_what_lies_there_then(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    graph = session.capture(lambda: session.upload(buffer, SIZE))
    for value in (3, 9):
        fill(buffer, value)
        session.launch(graph)
        session.synchronize()
        assert fake_gpu.memory.read(buffer.device_address, SIZE) == bytes([value] * SIZE)
    session.close()


def test_capturing_runs_nothing(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    fill(buffer, 7)
    session.capture(lambda: session.upload(buffer, SIZE))
    session.synchronize()
    assert fake_gpu.memory.read(buffer.device_address, SIZE) != bytes([7] * SIZE)
    session.close()


def test_only_the_executable_graph_is_kept_and_it_can_be_released(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    before = fake_gpu.allocations
    graph = session.capture(lambda: None)
    assert len(fake_gpu.allocations) == len(before) + 1
    session.release(graph)
    assert fake_gpu.allocations == before
    session.close()


def test_work_that_cannot_be_captured_leaves_the_stream_as_it_was(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    before = fake_gpu.allocations
    with pytest.raises(CudaCallError, match=r"cudaStreamSynchronize.*900"):
        session.capture(session.synchronize)
    with pytest.raises(ZeroDivisionError):
        session.capture(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert fake_gpu.allocations == before
    there_and_back(session, buffer)
    session.synchronize()
    session.close()


@pytest.mark.parametrize("function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_capture_that_fails_leaves_no_graph(fake_gpu: FakeGpu, function: str) -> None:
    session = CudaSession(0)
    before = fake_gpu.allocations
    fake_gpu.fail(function, code=901)
    with pytest.raises(CudaCallError, match=f"{function}.*901"):
        session.capture(lambda: None)
    assert fake_gpu.allocations == before
    session.close()


def test_other_threads_allocate_while_one_captures(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    failures: list[Exception] = []

    def allocate() -> None:
        try:
            other = CudaSession(0)
            other.buffer(SIZE)
            other.close()
        except LmedgeError as error:
            failures.append(error)

    def work() -> None:
        thread = threading.Thread(target=allocate)
        thread.start()
        thread.join()

    session.capture(work)
    assert failures == []
    session.close()


def calls(session: CudaSession, buffer: PairedBuffer) -> dict[str, Callable[[], object]]:
    """Each function of CUDA that is called between opening and closing, and how."""
    graph = session.capture(lambda: None)
    return {
        "cudaSetDevice": session.select,
        "cudaMalloc": lambda: session.buffer(3 << 20),
        "cudaHostAlloc": lambda: session.buffer(3 << 20),
        "cudaMemcpyAsync": lambda: session.upload(buffer, SIZE),
        "cudaStreamSynchronize": session.synchronize,
        "cudaStreamBeginCapture": lambda: session.capture(lambda: None),
        "cudaGraphInstantiate": lambda: session.capture(lambda: None),
        "cudaGraphLaunch": lambda: session.launch(graph),
    }


NAMES = [
    "cudaSetDevice", "cudaMalloc", "cudaHostAlloc", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaStreamBeginCapture",
    "cudaGraphInstantiate", "cudaGraphLaunch",
]  # fmt: skip


@pytest.mark.parametrize("function", NAMES)
def test_every_return_code_is_looked_at(fake_gpu: FakeGpu, function: str) -> None:
    session = CudaSession(0)
    call = calls(session, session.buffer(SIZE))[function]
    fake_gpu.fail(function, code=400)
    with pytest.raises(CudaCallError, match=f"{function}: cudaErrorInvalidResourceHandle 400, invalid resource handle"):
        call()
    call()
    session.close()


def test_no_error_is_left_for_tensorrt_to_find(fake_gpu: FakeGpu) -> None:
    """CUDA keeps the last one until it is asked for."""
    session = CudaSession(0)
    fake_gpu.fail("cudaStreamSynchronize", code=400)
    with pytest.raises(CudaCallError):
        session.synchronize()
    assert fake_gpu.names()[-2:] == ["cudaStreamSynchronize", "cudaGetLastError"]
    with pytest.raises(CudaCallError):
        session.capture(session.synchronize)
    assert fake_gpu.names()[-2:] == ["cudaStreamEndCapture", "cudaGetLastError"]
    session.close()


@pytest.mark.parametrize("function", NAMES)
@pytest.mark.parametrize("code", LOST)
def test_a_lost_device_says_to_open_again(fake_gpu: FakeGpu, function: str, code: int) -> None:
    session = CudaSession(0)
    call = calls(session, session.buffer(SIZE))[function]
    fake_gpu.fail(function, code=code)
    with pytest.raises(DeviceLostError, match=f"cuda was lost.*{code}.*Open the bundle again"):
        call()
    session.close()


def test_a_download_is_checked_too(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    fake_gpu.fail("cudaMemcpyAsync", code=700)
    with pytest.raises(DeviceLostError):
        session.download(buffer, SIZE)
    session.close()


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
def test_too_little_memory_says_how_much_was_asked_for(fake_gpu: FakeGpu, function: str) -> None:
    session = CudaSession(0)
    fake_gpu.fail(function, code=2)
    with pytest.raises(DeviceUnavailableError, match=r"no memory left for 3\.0 MiB") as caught:
        session.buffer(3 << 20)
    assert not isinstance(caught.value, DeviceLostError)
    session.close()
    assert fake_gpu.allocations == []


def test_memory_that_runs_out_elsewhere_is_told_too(fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("cudaStreamCreateWithFlags", code=2)
    with pytest.raises(DeviceUnavailableError, match=r"no memory left \(cudaStreamCreateWithFlags"):
        CudaSession(0)


def test_a_device_that_does_not_answer_is_named(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("Thor", "11.0"))
    with pytest.raises(DeviceUnavailableError, match=r"no device cuda:7: CUDA counts 2 here.*101") as caught:
        CudaSession(7)
    assert not isinstance(caught.value, DeviceLostError)


def test_a_session_on_a_lost_device_closes(fake_gpu: FakeGpu) -> None:
    session = CudaSession(0)
    buffer = session.buffer(SIZE)
    fake_gpu.fail("device", code=719)
    there_and_back(session, buffer)
    with pytest.raises(DeviceLostError, match="719"):
        session.synchronize()
    session.close()
    session.close()
    freed = {"cudaFree", "cudaFreeHost", "cudaStreamDestroy"}
    assert freed <= set(fake_gpu.names()), "each was tried, whatever came back"
