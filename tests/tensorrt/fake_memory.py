"""Device memory and pinned memory that are host memory in disguise, with every access checked."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal

Kind = Literal["device", "pinned"]

# Where no process has memory: touching such an address from the host ends the process, as it does with a GPU's.
_FIRST_ADDRESS = 0xDE00_0000_0000_0000
_ALIGNMENT = 256
# Bytes that nobody wrote: NaN in float16 and float32, 255 in uint8.
UNWRITTEN = 0xFF


@dataclass
class Allocation:
    """A piece of memory; `buffer` holds its bytes."""

    kind: Kind
    address: int
    size: int
    device: int
    buffer: ctypes.Array[ctypes.c_char]

    def __str__(self) -> str:
        return f"{self.size} bytes of {self.kind} memory at {self.address:#x}"


class Memory:
    """All allocations of a machine, by address."""

    def __init__(self) -> None:
        self._live: dict[int, Allocation] = {}
        self._next = _FIRST_ADDRESS
        # Freed pinned memory is kept, so that a pointer into it reads garbage and does not end the test run.
        self._freed: list[Allocation] = []

    def allocate(self, kind: Kind, size: int, device: int) -> int:
        """The address of new memory, filled with `UNWRITTEN`."""
        buffer = ctypes.create_string_buffer(bytes([UNWRITTEN]) * size, max(size, 1))
        if kind == "pinned":
            address = ctypes.addressof(buffer)
        else:
            address = self._next
            # A gap of two pages behind each, so that an overrun meets nothing.
            self._next += -(-size // _ALIGNMENT) * _ALIGNMENT + 8192
        self._live[address] = Allocation(kind, address, size, device, buffer)
        return address

    def free(self, kind: Kind, address: int) -> bool:
        """Whether there was such memory to free."""
        allocation = self._live.get(address)
        if allocation is None or allocation.kind != kind:
            return False
        ctypes.memset(allocation.buffer, UNWRITTEN, max(allocation.size, 1))
        self._freed.append(self._live.pop(address))
        return True

    def live(self) -> list[Allocation]:
        return list(self._live.values())

    def find(self, address: int) -> Allocation | None:
        """The allocation that an address lies in."""
        return next((a for a in self._live.values() if a.address <= address < a.address + max(a.size, 1)), None)

    def was_pinned(self, address: int) -> bool:
        """Whether an address lies in pinned memory that was freed."""
        return any(a.kind == "pinned" and a.address <= address < a.address + max(a.size, 1) for a in self._freed)

    def holds(self, address: int, size: int, kind: Kind) -> bool:
        """Whether so many bytes from an address on lie in one allocation of this kind."""
        allocation = self.find(address)
        return allocation is not None and allocation.kind == kind and address + size <= allocation.address + allocation.size

    def read(self, address: int, size: int) -> bytes:
        """Bytes of an allocation; the caller asked `holds` first."""
        allocation = self.find(address)
        assert allocation is not None
        return ctypes.string_at(ctypes.addressof(allocation.buffer) + address - allocation.address, size)

    def write(self, address: int, data: bytes) -> None:
        """Changes bytes of an allocation; the caller asked `holds` first."""
        allocation = self.find(address)
        assert allocation is not None
        ctypes.memmove(ctypes.addressof(allocation.buffer) + address - allocation.address, data, len(data))


def is_device_address(address: int) -> bool:
    """Whether an address is one that device memory has or had."""
    return address >= _FIRST_ADDRESS
