"""The machine that the fakes of CUDA and TensorRT share: its GPUs, what is allocated, what was called, what shall fail.

A fake for tests of code that must run where no GPU is. It is stricter than the real thing wherever the real thing would go on
with wrong memory or end the process: such misuse is a `Crash`, or a fault in `FakeGpu.faults`, and the fixture fails the test.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.tensorrt.fake_memory import Memory

# cudaError_t that the fake machine raises by itself.
INVALID_VALUE, OUT_OF_MEMORY, NO_DRIVER, NO_DEVICE, INVALID_DEVICE = 1, 2, 35, 100, 101
INVALID_HANDLE, NOT_READY, ILLEGAL_ADDRESS, LAUNCH_FAILURE = 400, 600, 700, 719
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURED_EVENT, CAPTURE_WRONG_THREAD = 900, 901, 907, 908


class Crash(BaseException):
    """Here the real library ends the process (SIGSEGV). No `except Exception` catches it, as none would there."""


class NotPlayed(BaseException):
    """The real library has this name and the fake does not play it. Extend the fake."""


class CudaError(Exception):
    """A CUDA call ends with this code; the fake bindings turn it into their return value."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Device:
    """A GPU: what its driver says of it."""

    name: str = "Orin"
    compute_capability: str = "8.7"


@dataclass(frozen=True)
class Call:
    """A call into one of the fakes, such as `Call("cudaMalloc", (64,))` or `Call("IExecutionContext.set_input_shape", …)`."""

    name: str
    arguments: tuple[Any, ...]


@dataclass
class Failure:
    """An injected failure of calls by a name: `skip` of them work, then `times` fail (None: all) and may lose the device."""

    code: int | None
    message: str
    skip: int
    times: int | None
    lost: int


@dataclass
class FakeGpu:
    """The machine, with knobs.

    Attributes:
        devices: its GPUs; empty for none.
        driver_version: as CUDA counts, 12060 for 12.6. None: no driver library on this machine.
        driver_error: what `cuInit` answers, 0 when all is well (34 stub library, 100 no device, 803 mismatch, 999 unknown).
        runtime_version: of the CUDA runtime that the bindings were made for.
        calls: everything that was called, in order.
        faults: misuse that real hardware notices late, or never. A test that provokes one takes it out.
        terminal: what TensorRT wrote to the terminal because it was given its own logger.
        memory, streams, resources: what is allocated, queued and open; for the fakes themselves.
        lost: the code that every call answers since the device was lost, 0 when it was not.
        reporters: Builder or Runtime that lives → how it speaks to its logger.
        first_logger: weak reference to the logger that TensorRT as a whole speaks to.
    """

    devices: tuple[Device, ...] = (Device(),)
    driver_version: int | None = 12060
    driver_error: int = 0
    runtime_version: int = 12060
    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    terminal: list[str] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    lock: threading.RLock = field(default_factory=threading.RLock)
    lost: int = 0
    resources: dict[int, Any] = field(default_factory=dict)
    streams: Any = None
    reporters: weakref.WeakKeyDictionary[Any, Any] = field(default_factory=weakref.WeakKeyDictionary)
    first_logger: Any = None
    _failures: dict[str, Failure] = field(default_factory=dict)
    _builds: int = 0
    _local: threading.local = field(default_factory=threading.local)

    def fail(
        self, name: str, *, code: int | None = None, message: str = "", skip: int = 0, times: int | None = 1, lost: int = 0
    ) -> None:
        """Makes calls fail: `fail("cudaMalloc", code=2)`, `fail("Builder.build_serialized_network", message="no kernel")`.

        A function of CUDA returns the code; one of TensorRT returns None or False and logs the message as an error.
        `fail("device", code=719)` loses the device in the middle of the work that is queued next: whoever waits for it gets
        the code, and so does every call after it, because CUDA's context is gone for good.

        Args:
            skip: so many calls work before.
            times: so many fail; None for all from then on.
            lost: the call fails because the device was lost in it, and every call of CUDA answers this code from then on.
        """
        self._failures[name] = Failure(code, message, skip, times, lost)

    def failure(self, name: str) -> Failure | None:
        """The failure that was injected for this call, used up by it."""
        planned = self._failures.get(name)
        if planned is None:
            return None
        if planned.skip:
            planned.skip -= 1
            return None
        self.lost = self.lost or planned.lost
        if planned.times is not None:
            planned.times -= 1
            if planned.times < 1:
                del self._failures[name]
        return planned

    def record(self, name: str, *arguments: Any) -> None:
        self.calls.append(Call(name, arguments))

    def names(self) -> list[str]:
        """The names of all calls, in order."""
        return [call.name for call in self.calls]

    def count(self, *names: str) -> int:
        """How often any of these was called."""
        return sum(call.name in names for call in self.calls)

    def arguments(self, name: str) -> list[tuple[Any, ...]]:
        """What every call by this name got."""
        return [call.arguments for call in self.calls if call.name == name]

    @property
    def allocations(self) -> list[str]:
        """What is allocated or open at this moment: memory, streams, events and graphs."""
        return [*map(str, self.memory.live()), *(f"{kind} {handle:#x}" for handle, kind in self._open_handles())]

    def device_index(self) -> int:
        """The GPU that this thread works on (cudaSetDevice)."""
        return int(getattr(self._local, "device", 0))

    def select_device(self, index: int) -> None:
        self._local.device = index

    def problem(self) -> int:
        """The code that every CUDA call answers now, 0 when all is well."""
        if self.driver_version is None or self.driver_version // 1000 < self.runtime_version // 1000:
            return NO_DRIVER
        return self.driver_error or (0 if self.devices else NO_DEVICE) or self.lost

    def fault(self, what: str, code: int = ILLEGAL_ADDRESS) -> CudaError:
        """Notes misuse of memory by work on the device, which loses the device."""
        self.faults.append(what)
        self.lost = self.lost or code
        return CudaError(code)

    def noise(self) -> int:
        """What differs between two builds of the same network: which kernel was fastest in a measurement."""
        self._builds += 1
        return self._builds

    @contextmanager
    def expected_faults(self) -> Iterator[list[str]]:
        """Faults within are wanted: they are given to the test and do not fail it."""
        before = self.faults
        wanted: list[str] = []
        self.faults = wanted
        try:
            yield wanted
        finally:
            self.faults = before

    def _open_handles(self) -> list[tuple[int, str]]:
        return [(handle, resource.kind) for handle, resource in sorted(self.resources.items())]
