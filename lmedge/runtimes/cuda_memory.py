"""Memory, one stream and graphs on one CUDA device, through cuda-bindings (https://nvidia.github.io/cuda-python).

Every call's return code is checked. Whatever a `CudaSession` made it frees: at `close`, or when it is forgotten.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from lmedge.errors import DeviceUnavailableError, LmedgeError
from lmedge.runtimes.cuda_driver import device_name
from lmedge.runtimes.tensorrt_machine import import_cuda

# cudaStreamNonBlocking: other streams of this thread do not wait for ours, nor ours for them.
_NON_BLOCKING = 1
_HOST_ALLOC_DEFAULT = 0
# cudaError_t, https://docs.nvidia.com/cuda/cuda-runtime-api.
_OUT_OF_MEMORY = 2
_NO_SUCH_DEVICE = 101
# After these the device answers nothing more in this process: it is gone, or a fault has ended its context.
_LOST = frozenset((3, 4, 46, 100, 201, 214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 802, 805, 806, 807, 810, 999))

_MIB = 1 << 20

# Something to be freed, and the function that frees it.
_Owned = tuple[Any, Callable[[Any], Any]]


class DeviceLostError(DeviceUnavailableError):
    """A device that answers nothing more to this process."""


class CudaCallError(LmedgeError):
    """A CUDA call that failed and left the device usable."""


@dataclass(frozen=True, eq=False)
class PairedBuffer:
    """The same bytes twice: on the device and in host memory that the device can reach by itself (pinned).

    Attributes:
        device_address: for the engine.
        host_address: of the pinned memory.
        host: uint8 (size,), a view of the pinned memory, valid until the session is closed.
    """

    device_address: int
    host_address: int
    host: npt.NDArray[np.uint8]

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The first bytes of `host` as an array."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.host[:size].view(dtype).reshape(shape)


class CudaSession:
    """One device and one stream of work on it, for one thread.

    Raises:
        BackendUnavailableError: cuda-bindings is not installed.
        DeviceUnavailableError: the device does not answer.
    """

    def __init__(self, index: int) -> None:
        self._cuda = import_cuda()
        self._index = index
        self._owned: list[_Owned] = []
        # Not a method of self, or the session would never be forgotten.
        self._finalizer = weakref.finalize(self, _free_all, self._cuda, index, self._owned)
        self.select()
        self._stream = self._own(self._do("cudaStreamCreateWithFlags", _NON_BLOCKING), self._cuda.cudaStreamDestroy)

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream)

    def select(self) -> None:
        """Makes this the current device of the calling thread; other code in it may have chosen another."""
        self._do("cudaSetDevice", self._index)

    def buffer(self, size: int) -> PairedBuffer:
        """Allocates `size` bytes on the device and as many in pinned host memory, all zero.

        Raises:
            DeviceUnavailableError: not enough memory.
        """
        device = self._own(self._do("cudaMalloc", size), self._cuda.cudaFree)
        pinned = self._own(self._do("cudaHostAlloc", size, _HOST_ALLOC_DEFAULT), self._cuda.cudaFreeHost)
        host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(pinned)))
        host[:] = 0
        return PairedBuffer(int(device), int(pinned), host)

    def upload(self, buffer: PairedBuffer, size: int) -> None:
        """Puts a copy of the first `size` bytes from host to device on the stream."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._do("cudaMemcpyAsync", buffer.device_address, buffer.host_address, size, kind, self._stream)

    def download(self, buffer: PairedBuffer, size: int) -> None:
        """Puts a copy of the first `size` bytes from device to host on the stream."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._do("cudaMemcpyAsync", buffer.host_address, buffer.device_address, size, kind, self._stream)

    def synchronize(self) -> None:
        """Waits until the stream has done all its work; errors of that work come out here.

        Raises:
            DeviceLostError: the device is gone, or a fault ended all work on it.
        """
        self._do("cudaStreamSynchronize", self._stream)

    def check_alive(self) -> None:
        """Asks whether the device still answers, for whoever failed without a word of CUDA. Not while capturing.

        Raises:
            DeviceLostError: it does not.
        """
        with suppress(CudaCallError):
            self.synchronize()

    def capture(self, work: Callable[[], None]) -> Any:
        """Records what `work` puts on the stream, without running it, as a graph for `launch`.

        Raises:
            LmedgeError: something in it cannot be captured; the stream is as before.
        """
        # Other threads go on allocating meanwhile; in the global mode that would spoil the capture.
        self._do("cudaStreamBeginCapture", self._stream, self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except BaseException:
            self._end_failed_capture()
            raise
        recorded = self._do("cudaStreamEndCapture", self._stream)
        try:
            return self._own(self._do("cudaGraphInstantiate", recorded, 0), self._cuda.cudaGraphExecDestroy)
        finally:
            self._cuda.cudaGraphDestroy(recorded)

    def launch(self, graph: Any) -> None:
        """Puts a captured graph on the stream."""
        self._do("cudaGraphLaunch", graph, self._stream)

    def release(self, graph: Any) -> None:
        """Frees a graph before the session ends."""
        self._cuda.cudaGraphExecDestroy(graph)
        self._owned[:] = [owned for owned in self._owned if owned[0] is not graph]

    def close(self) -> None:
        """Frees everything, newest first, also on a device that was lost; closing twice is fine."""
        self._finalizer()

    def _end_failed_capture(self) -> None:
        """Brings the stream back to running what it is given; the first error says more than those that follow from it."""
        error, recorded = self._cuda.cudaStreamEndCapture(self._stream)
        if not int(error):
            self._cuda.cudaGraphDestroy(recorded)
        self._forget_error()

    def _forget_error(self) -> None:
        """CUDA keeps the last error of a thread until it is asked for, and TensorRT would take it for its own."""
        self._cuda.cudaGetLastError()

    def _own(self, made: Any, free: Callable[[Any], Any]) -> Any:
        self._owned.append((made, free))
        return made

    def _do(self, function: str, *arguments: Any) -> Any:
        """Calls a function of the CUDA runtime; its result, or None where it has none."""
        error, *results = getattr(self._cuda, function)(*arguments)
        if int(error):
            self._forget_error()
            self._fail(function, error, arguments)
        return results[0] if results else None

    def _fail(self, function: str, error: Any, arguments: tuple[Any, ...]) -> NoReturn:
        text = self._cuda.cudaGetErrorString(error)[1]
        said = f"{function}: {error.name} {int(error)}, {text.decode() if isinstance(text, bytes) else text}"
        where = device_name(self._index)
        if int(error) == _OUT_OF_MEMORY:
            asked = f" for {arguments[0] / _MIB:.1f} MiB" if function in ("cudaMalloc", "cudaHostAlloc") else ""
            raise DeviceUnavailableError(
                f"{where} has no memory left{asked} ({said}). End other programs that use the GPU. An engine that was "
                "compiled for a large batch takes less when it is compiled for a smaller one: --batch LEAST:USUAL:MOST"
            )
        if int(error) == _NO_SUCH_DEVICE:
            count = self._cuda.cudaGetDeviceCount()[1]
            raise DeviceUnavailableError(f"There is no device {where}: CUDA counts {count or 'none'} here, from 0 on ({said}).")
        if int(error) in _LOST:
            raise DeviceLostError(
                f"{where} was lost ({said}). Open the bundle again; if that fails too, start the program again, since CUDA "
                "keeps a fault for the life of a process."
            )
        raise CudaCallError(f"A CUDA call failed on {where} ({said}).")


def _free_all(cuda: Any, index: int, owned: list[_Owned]) -> None:
    """Frees in reverse order. Return codes say nothing new here: a lost device has freed all by itself."""
    cuda.cudaSetDevice(index)
    while owned:
        made, free = owned.pop()
        free(made)
