"""NVIDIA's driver and the GPUs it has, asked through the C library that comes with it (CUDA driver API).

Nothing needs to be installed for this, no context is made, and a machine without a driver is an answer, not an error.
https://docs.nvidia.com/cuda/cuda-driver-api/
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

# What devices are called: "cuda" is the first one, "cuda:1" the next.
DEVICE = "cuda"

_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute: COMPUTE_CAPABILITY_MAJOR and _MINOR.
_MAJOR, _MINOR = 75, 76
# CUresult, where the cause can be told; the others are given by number.
_CAUSES = {
    3: "the driver is not initialised",
    34: "the library is a stub for building, not a driver",
    100: "no CUDA device",
    101: "no such device",
    802: "the system is not ready",
    803: "the driver and its library are of different versions",
    804: "this device does not take forward compatibility",
    999: "unknown; often a driver that was updated without a restart",
}


@dataclass(frozen=True)
class CudaDevice:
    """One GPU.

    Attributes:
        index: as "cuda:1" counts; `CUDA_VISIBLE_DEVICES` has been applied.
        name: as the driver gives it, "Orin".
        compute_capability: "8.7".
    """

    index: int
    name: str
    compute_capability: str


@dataclass(frozen=True)
class CudaDriver:
    """What the driver says.

    Attributes:
        version: the newest CUDA it runs, "12.6"; None without a driver.
        devices: its GPUs; none where it has none or does not start.
        reason: why there are no devices; "" when there are.
    """

    version: str | None
    devices: tuple[CudaDevice, ...]
    reason: str


def device_name(index: int) -> str:
    """0 → "cuda", 1 → "cuda:1"."""
    return DEVICE if index == 0 else f"{DEVICE}:{index}"


def device_number(name: str) -> int:
    """The inverse; -1, which no device has, for what is none of its names."""
    kind, _, number = name.partition(":")
    return int(number or 0) if kind == DEVICE and (number or "0").isdecimal() else -1


class _CallError(Exception):
    """A call that the driver refused."""


def probe_driver() -> CudaDriver:
    """Asks the driver for its version and its GPUs; never raises, and leaves no CUDA context behind."""
    version: str | None = None
    try:
        library = _load_library()
        _call(library, "cuInit", 0)
        version = version_text(_number(library, "cuDriverGetVersion"))
        devices = tuple(_device(library, index) for index in range(_number(library, "cuDeviceGetCount")))
    except OSError as error:
        return CudaDriver(None, (), f"no NVIDIA driver: {_LIBRARY} cannot be loaded ({error})")
    except (_CallError, AttributeError) as error:  # AttributeError: a library without such a function
        return CudaDriver(version, (), f"the driver's {error}")
    return CudaDriver(version, devices, "" if devices else "the driver has no device")


def version_text(number: int) -> str:
    """CUDA's way to write versions: 12060 → "12.6"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _load_library() -> Any:
    return ctypes.CDLL(_LIBRARY)


def _call(library: Any, function: str, *arguments: Any) -> None:
    code = getattr(library, function)(*arguments)
    if code:
        raise _CallError(f"{function} answers {code} ({_CAUSES.get(code, 'see CUresult in the CUDA driver API')})")


def _number(library: Any, function: str, *arguments: Any) -> int:
    number = ctypes.c_int()
    _call(library, function, ctypes.byref(number), *arguments)
    return number.value


def _device(library: Any, index: int) -> CudaDevice:
    handle = _number(library, "cuDeviceGet", index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(library, "cuDeviceGetName", name, _NAME_BYTES, handle)
    major, minor = (_number(library, "cuDeviceGetAttribute", attribute, handle) for attribute in (_MAJOR, _MINOR))
    return CudaDevice(index, name.value.decode(errors="replace"), f"{major}.{minor}")
