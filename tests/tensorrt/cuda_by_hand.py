"""CUDA called through the fake bindings, with fixtures for a machine of two GPUs."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.tensorrt.fake_gpu import Device, FakeGpu
from tests.tensorrt.fixtures import check_clean, install

SIZE = 16
DATA = np.arange(4, dtype=np.float32)


class Cuda:
    """The fake bindings with their return codes looked at."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.bindings: Any = sys.modules["cuda.bindings.runtime"]
        self.to_device = self.bindings.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.to_host = self.bindings.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.relaxed = self.bindings.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        self.everywhere = self.bindings.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal
        self.in_thread = self.bindings.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A call that must work, and its first value."""

        def call(*arguments: Any) -> Any:
            error, *values = getattr(self.bindings, name)(*arguments)
            assert error == 0, (name, error)
            return values[0] if values else None

        return call

    def code(self, name: str, *arguments: Any) -> int:
        """The code that a call ends with."""
        return int(getattr(self.bindings, name)(*arguments)[0])

    def pinned(self) -> tuple[int, np.ndarray[Any, Any]]:
        address = self.cudaMallocHost(SIZE)
        return address, np.ctypeslib.as_array((ctypes.c_float * 4).from_address(address))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu(devices=(Device(), Device("Second", "8.9")))
    install(gpu, "10.3.0", monkeypatch)
    return gpu


@pytest.fixture
def cuda(two_gpus: FakeGpu) -> Cuda:
    return Cuda(two_gpus)


@pytest.fixture
def clean(two_gpus: FakeGpu) -> Iterator[None]:
    """After the test, nothing is left and nothing was misused."""
    yield
    check_clean(two_gpus)


def free_all(cuda: Cuda, device: int, *others: Any) -> None:
    cuda.cudaFree(device)
    for other in others:
        cuda.cudaFreeHost(other) if isinstance(other, int) else cuda.cudaStreamDestroy(other)


def in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
