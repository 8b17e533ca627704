"""The CUDA runtime's functions on a fake machine, with their rules; `fake_cuda` dresses them up as the Python bindings."""

# ruff: noqa: N802  (the names are CUDA's)
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tests.tensorrt import fake_gpu as codes
from tests.tensorrt.fake_gpu import CudaError, FakeGpu
from tests.tensorrt.fake_memory import Kind, is_device_address
from tests.tensorrt.fake_streams import Event, Graph, GraphExec, Stream, Streams

NOTHING = object()
_TO_DEVICE, _TO_HOST, _ON_DEVICE, _ANY = 1, 2, 3, 4
_EVENT_WITHOUT_TIME, _NON_BLOCKING = 2, 1
_MEMORY_BYTES = 8 << 30
_CUDA_12 = 12000


class CudaCalls:
    """Each method is a function of the CUDA runtime: it returns its value, or raises the code that it ends with."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        gpu.streams = self._streams = Streams(gpu)

    # ---- devices ----

    def cudaGetDeviceCount(self) -> int:
        return len(self._gpu.devices)

    def cudaSetDevice(self, device: int) -> None:
        if not 0 <= device < len(self._gpu.devices):
            raise CudaError(codes.INVALID_DEVICE)
        self._gpu.select_device(device)

    def cudaGetDevice(self) -> int:
        return self._gpu.device_index()

    def cudaRuntimeGetVersion(self) -> int:
        return self._gpu.runtime_version

    def cudaDriverGetVersion(self) -> int:
        return self._gpu.driver_version or 0

    def cudaDeviceSynchronize(self) -> None:
        self._streams.forbid_while_capturing()
        self._streams.run_all(self._gpu.device_index())

    def cudaMemGetInfo(self) -> tuple[int, int]:
        used = sum(a.size for a in self._gpu.memory.live() if a.kind == "device")
        return _MEMORY_BYTES - used, _MEMORY_BYTES

    def cudaGetLastError(self) -> None:
        """Nothing is left over: every call here returned its own error."""

    # ---- memory ----

    def cudaMalloc(self, size: int) -> int:
        return self._allocate("device", size)

    def cudaMallocHost(self, size: int) -> int:
        return self._allocate("pinned", size)

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        return self._allocate("pinned", size)

    def cudaFree(self, pointer: Any) -> None:
        self._free("device", pointer)

    def cudaFreeHost(self, pointer: Any) -> None:
        self._free("pinned", pointer)

    def _allocate(self, kind: Kind, size: int) -> int:
        if size < 0:
            raise OverflowError("can't convert negative value to size_t")
        self._streams.forbid_while_capturing()
        if size > _MEMORY_BYTES:
            raise CudaError(codes.OUT_OF_MEMORY)
        return self._gpu.memory.allocate(kind, int(size), self._gpu.device_index())

    def _free(self, kind: Kind, pointer: Any) -> None:
        address = _address(pointer)
        if address == 0:
            return
        self._streams.forbid_while_capturing()
        # Freeing waits for the device, as it does there.
        self._streams.run_all()
        if not self._gpu.memory.free(kind, address):
            self._gpu.faults.append(f"{address:#x} was freed as {kind} memory, and is none (any more)")
            raise CudaError(codes.INVALID_VALUE)

    def cudaMemcpy(self, to: Any, source: Any, size: int, kind: Any) -> None:
        self._streams.forbid_while_capturing()
        work = self._copy(_address(to), _address(source), size, kind.value, staged=False)
        self._streams.run_all(self._gpu.device_index(), only_blocking=True)
        work()

    def cudaMemcpyAsync(self, to: Any, source: Any, size: int, kind: Any, stream: Any) -> None:
        queue = self._streams.stream(_address(stream))
        target, origin = _address(to), _address(source)
        self._streams.submit(queue, self._copy(target, origin, size, kind.value, staged=True))
        if not is_device_address(target) and not self._gpu.memory.holds(target, size, "pinned"):
            if queue.capture is not None:
                queue.capture.broken = True
                raise CudaError(codes.CAPTURE_UNSUPPORTED)
            # Into memory that is not pinned, the copy takes place before the call returns.
            self._streams.run(queue)

    def _copy(self, target: int, source: int, size: int, kind: int, *, staged: bool) -> Any:
        """The work of a copy, after its directions and bounds were checked."""
        memory, data = self._gpu.memory, b""
        to_device, from_device = is_device_address(target), is_device_address(source)
        if kind != _ANY and (to_device, from_device) != (kind in (_TO_DEVICE, _ON_DEVICE), kind in (_TO_HOST, _ON_DEVICE)):
            self._gpu.faults.append(f"a copy of kind {kind} goes from {source:#x} to {target:#x}: wrong direction")
            raise CudaError(codes.INVALID_VALUE)
        for address, on_device in ((target, to_device), (source, from_device)):
            inside_pinned = memory.find(address) is not None or memory.was_pinned(address)
            if (on_device or inside_pinned) and not memory.holds(address, size, "device" if on_device else "pinned"):
                self._gpu.faults.append(f"a copy of {size} bytes at {address:#x} leaves its memory, or that was freed")
                raise CudaError(codes.INVALID_VALUE)
        pageable = not from_device and not memory.holds(source, size, "pinned")
        if staged and pageable:
            data = ctypes.string_at(source, size)  # from memory that is not pinned, bytes are taken before the call returns

        def work() -> None:
            for address, on_device in ((target, to_device), (source, from_device)):
                if on_device and not memory.holds(address, size, "device"):
                    raise self._gpu.fault(f"a queued copy met {address:#x}, which was freed meanwhile")
                if not on_device and memory.was_pinned(address):
                    raise self._gpu.fault(f"a queued copy met the pinned memory at {address:#x}, which was freed meanwhile")
            if from_device or memory.holds(source, size, "pinned"):
                moved = memory.read(source, size)
            else:
                moved = data or ctypes.string_at(source, size)
            if to_device or memory.holds(target, size, "pinned"):
                memory.write(target, moved)
            else:
                ctypes.memmove(target, moved, size)

        return work

    def cudaMemsetAsync(self, pointer: Any, value: int, size: int, stream: Any) -> None:
        address = _address(pointer)
        if not self._gpu.memory.holds(address, size, "device"):
            self._gpu.faults.append(f"a fill of {size} bytes at {address:#x} leaves its memory, or that was freed")
            raise CudaError(codes.INVALID_VALUE)
        filled = bytes([value & 0xFF]) * size
        self._streams.submit(self._streams.stream(_address(stream)), lambda: self._gpu.memory.write(address, filled))

    # ---- streams ----

    def cudaStreamCreate(self) -> int:
        return self.cudaStreamCreateWithFlags(0)

    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        return self._streams.open(Stream(self._gpu.device_index(), non_blocking=bool(flags & _NON_BLOCKING)))

    def cudaStreamDestroy(self, stream: Any) -> None:
        # The work on it is still done, and only then is it gone.
        queue = self._streams.get(_address(stream), Stream)
        self._streams.run(queue)
        self._streams.close(_address(stream), Stream)

    def cudaStreamSynchronize(self, stream: Any) -> None:
        queue = self._streams.stream(_address(stream))
        self._streams.forbid_while_capturing(queue)
        self._streams.run(queue)

    def cudaStreamQuery(self, stream: Any) -> None:
        queue = self._streams.stream(_address(stream))
        self._streams.forbid_while_capturing(queue)
        self._poll(queue, queue, bool(queue.pending))

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        self._streams.wait_for(self._streams.stream(_address(stream)), self._streams.get(_address(event), Event))

    # ---- events ----

    def cudaEventCreate(self) -> int:
        return self.cudaEventCreateWithFlags(0)

    def cudaEventCreateWithFlags(self, flags: int) -> int:
        return self._streams.open(Event(timed=not flags & _EVENT_WITHOUT_TIME))

    def cudaEventDestroy(self, event: Any) -> None:
        self._streams.close(_address(event), Event)

    def cudaEventRecord(self, event: Any, stream: Any) -> None:
        self._streams.record(self._streams.get(_address(event), Event), self._streams.stream(_address(stream)))

    def cudaEventQuery(self, event: Any) -> None:
        mark = self._event(event)
        if not mark.done and mark.stream is not None:
            self._poll(mark, mark.stream, True, until=mark)

    def cudaEventSynchronize(self, event: Any) -> None:
        mark = self._event(event)
        if not mark.done and mark.stream is not None:
            self._streams.run(mark.stream, until=mark)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> float:
        first, last = self._event(start), self._event(end)
        if not (first.timed and last.timed and first.recorded and last.recorded):
            raise CudaError(codes.INVALID_HANDLE)
        if not (first.done and last.done):
            raise CudaError(codes.NOT_READY)
        return last.clock_ms - first.clock_ms

    def _event(self, event: Any) -> Event:
        mark: Event = self._streams.get(_address(event), Event)
        if mark.captured:
            raise CudaError(codes.CAPTURED_EVENT)
        return mark

    def _poll(self, asked: Stream | Event, queue: Stream, waiting: bool, until: Event | None = None) -> None:
        """The first question after work was queued is answered with "not ready"; the work takes place by the second."""
        asked.polls += waiting
        if waiting and asked.polls < 2:
            raise CudaError(codes.NOT_READY)
        asked.polls = 0
        self._streams.run(queue, until=until)

    # ---- graphs ----

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        if _address(stream) == 0:
            raise CudaError(codes.CAPTURE_UNSUPPORTED)
        self._streams.begin_capture(self._streams.stream(_address(stream)), mode.value)

    def cudaStreamEndCapture(self, stream: Any) -> int:
        return self._streams.end_capture(self._streams.stream(_address(stream)))

    def cudaStreamIsCapturing(self, stream: Any) -> Any:
        from tests.tensorrt.fake_cuda import cudaStreamCaptureStatus

        capture = self._streams.stream(_address(stream)).capture
        return cudaStreamCaptureStatus(0 if capture is None else 1 + capture.broken)

    def cudaGraphInstantiate(self, graph: Any, *rest: Any) -> int:
        """Takes (graph, flags); before CUDA 12 it took (graph, log buffer, size of it)."""
        wanted = 1 if self._gpu.runtime_version >= _CUDA_12 else 2
        if len(rest) != wanted:
            raise TypeError(f"cudaGraphInstantiate() takes exactly {1 + wanted} positional arguments ({1 + len(rest)} given)")
        recorded = self._streams.get(_address(graph), Graph)
        return self._streams.open(GraphExec(self._gpu.device_index(), recorded.work))

    def cudaGraphInstantiateWithFlags(self, graph: Any, flags: int) -> int:
        recorded = self._streams.get(_address(graph), Graph)
        return self._streams.open(GraphExec(self._gpu.device_index(), recorded.work))

    def cudaGraphUpload(self, executable: Any, stream: Any) -> None:
        self._streams.get(_address(executable), GraphExec)

    def cudaGraphLaunch(self, executable: Any, stream: Any) -> None:
        queue = self._streams.stream(_address(stream))
        for work in self._streams.get(_address(executable), GraphExec).work:
            self._streams.submit(queue, work)

    def cudaGraphExecDestroy(self, executable: Any) -> None:
        self._streams.run_all()
        self._streams.close(_address(executable), GraphExec)

    def cudaGraphDestroy(self, graph: Any) -> None:
        self._streams.close(_address(graph), Graph)


def _address(pointer: Any) -> int:
    """A pointer or handle as the bindings take it: a number, None, a handle, or an object with a buffer."""
    if pointer is None:
        return 0
    if type(pointer) is int or hasattr(pointer, "_value"):
        return int(pointer)
    if isinstance(pointer, np.ndarray):
        return int(pointer.ctypes.data)
    if isinstance(pointer, (bytes, bytearray, memoryview)):
        return int(np.frombuffer(pointer, np.uint8).ctypes.data)
    raise TypeError(f"Provided argument is of type {type(pointer)} but expected an address or an object with a buffer")
