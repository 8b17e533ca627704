"""Plays the driver library (libcuda.so.1) that `lmedge.runtimes.cuda_driver` calls through ctypes."""

# ruff: noqa: N802  (the names are CUDA's)
from __future__ import annotations

from typing import Any

from tests.tensorrt.fake_gpu import FakeGpu

_INVALID_VALUE, _NOT_INITIALIZED, _INVALID_DEVICE = 1, 3, 101
_MAJOR, _MINOR = 75, 76


class FakeDriver:
    """The functions of the driver library, which take pointers and return codes."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._started = False
        # Functions of a ctypes library carry argument types and a result type that a caller may set.
        for name in [name for name in dir(type(self)) if name.startswith("cu")]:
            method = getattr(self, name)
            setattr(self, name, _with_attributes(gpu, name, method))

    def cuInit(self, flags: Any) -> int:
        if self._gpu.driver_error:
            return self._gpu.driver_error
        self._started = bool(self._gpu.devices)
        return 0 if self._started else 100

    def cuDriverGetVersion(self, version: Any) -> int:
        _target(version).value = self._gpu.driver_version or 0
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        if not self._started:
            return _NOT_INITIALIZED
        _target(count).value = len(self._gpu.devices)
        return 0

    def cuDeviceGet(self, device: Any, ordinal: Any) -> int:
        if not self._started:
            return _NOT_INITIALIZED
        if not 0 <= _number(ordinal) < len(self._gpu.devices):
            return _INVALID_DEVICE
        _target(device).value = _number(ordinal)
        return 0

    def cuDeviceGetName(self, name: Any, size: Any, device: Any) -> int:
        if not self._started:
            return _NOT_INITIALIZED
        name.value = self._gpu.devices[_number(device)].name.encode()[: _number(size) - 1]
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: Any, device: Any) -> int:
        if not self._started:
            return _NOT_INITIALIZED
        major, _, minor = self._gpu.devices[_number(device)].compute_capability.partition(".")
        known = {_MAJOR: int(major), _MINOR: int(minor)}
        if _number(attribute) not in known:
            return _INVALID_VALUE
        _target(value).value = known[_number(attribute)]
        return 0


def load_driver(gpu: FakeGpu) -> FakeDriver:
    """The library as the loader gives it.

    Raises:
        OSError: the machine has no driver.
    """
    if gpu.driver_version is None:
        raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")
    return FakeDriver(gpu)


def _with_attributes(gpu: FakeGpu, name: str, method: Any) -> Any:
    def function(*arguments: Any) -> int:
        gpu.record(name)
        if failure := gpu.failure(name):
            return failure.code or 999
        return int(method(*arguments))

    return function


def _target(pointer: Any) -> Any:
    """What `byref` or `pointer` points to."""
    return pointer._obj if hasattr(pointer, "_obj") else pointer.contents


def _number(value: Any) -> int:
    return int(getattr(value, "value", value))
