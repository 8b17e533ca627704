"""The last latencies of a loop, in memory that is taken once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError


class LatencyRing:
    """Keeps the last so many numbers; the oldest makes room for the newest."""

    def __init__(self, room: int = 256) -> None:
        """
        Raises:
            InputError: room for less than one.
        """
        if room < 1:
            raise InputError(f"A ring of latencies needs room for at least 1; got {room}.")
        self._kept_ms = np.zeros(room, np.float64)
        self._seen = 0

    def __len__(self) -> int:
        return min(self._seen, len(self._kept_ms))

    def add(self, latency_ms: float) -> None:
        self._kept_ms[self._seen % len(self._kept_ms)] = latency_ms
        self._seen += 1

    def latencies_ms(self) -> npt.NDArray[np.float64]:
        """What is kept, oldest first, as a copy."""
        if self._seen <= len(self._kept_ms):
            return self._kept_ms[: self._seen].copy()
        return np.roll(self._kept_ms, -(self._seen % len(self._kept_ms)))
