"""Energy counters of NVIDIA GPUs from Volta on, through the C library that comes with the driver (NVML).

https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import ctypes
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"
_NAME_BYTES = 96


class NvmlMeter:
    """One GPU; an `EnergyMeter`."""

    def __init__(self, library: Any, handle: Any, name: str) -> None:
        self._library, self._handle = library, handle
        self._begin_mj = 0
        self.source = f"NVML ({name})"

    def start(self, now_ns: int) -> None:
        self._begin_mj = self.read_mj()

    def tick(self, now_ns: int) -> None:
        """Nothing: the driver counts."""

    def joules(self, now_ns: int) -> float:
        return (self.read_mj() - self._begin_mj) / 1e3

    def read_mj(self) -> int:
        """Since the driver was loaded."""
        count = ctypes.c_ulonglong()
        _call(self._library, "nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.byref(count))
        return count.value


class _CallError(Exception):
    """A call that the library refused."""


def find_nvml() -> tuple[list[NvmlMeter], str]:
    """A meter for each GPU, in the library's order, or none and why."""
    try:
        library = _load_library()
        _call(library, "nvmlInit_v2")
        count = ctypes.c_uint()
        _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        meters = [_meter(library, index) for index in range(count.value)]
    except OSError as error:
        return [], f"NVML: {_LIBRARY} cannot be loaded ({error})"
    except (_CallError, AttributeError) as error:  # AttributeError: a library without such a function
        return [], f"NVML: {error}"
    return meters, "" if meters else "NVML: it has no device"


def _meter(library: Any, index: int) -> NvmlMeter:
    handle = ctypes.c_void_p()
    _call(library, "nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(library, "nvmlDeviceGetName", handle, name, _NAME_BYTES)
    meter = NvmlMeter(library, handle, name.value.decode(errors="replace"))
    meter.read_mj()
    return meter


def _load_library() -> Any:
    return ctypes.CDLL(_LIBRARY)


def _call(library: Any, function: str, *arguments: Any) -> None:
    code = getattr(library, function)(*arguments)
    if code:
        raise _CallError(f"{function} answers {code} (see nvmlReturn_t in the NVML API)")
