"""Energy of one frame, where the machine has a meter: RAPL for processors, NVML for NVIDIA GPUs, INA3221 on Jetson boards.

Meters count for everything on the machine. So the idle power is measured first, and what a frame adds is what lies above it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from lmedge.reports import EnergyUse
from lmedge.runtimes.benchmarking.timing import WALL_CLOCK, Action, Clock, Pace

# Long enough for meters that are refreshed ten times a second.
WORK_S, IDLE_S = 3.0, 1.5
_IDLE_STEP_S = 0.05


class EnergyMeter(Protocol):
    """A meter.

    Attributes:
        source: what it is and what it covers.
    """

    source: str

    def start(self, now_ns: int) -> None:
        """Counts from now."""

    def tick(self, now_ns: int) -> None:
        """Called often while it counts, for meters that know only the power of this moment."""

    def joules(self, now_ns: int) -> float:
        """What was counted since the start."""


def measure_energy(
    action: Action, meters: Sequence[EnergyMeter], *, every_ms: float | None = None, clock: Clock = WALL_CLOCK
) -> tuple[EnergyUse, ...]:
    """Rests for `IDLE_S`, then works for `WORK_S`: without pauses, or at the pace of a camera. One result per meter."""
    began = _start(meters, clock)
    while clock.now_ns() - began < IDLE_S * 1e9:
        clock.sleep(_IDLE_STEP_S)
        _tick(meters, clock)
    idle_watts, _ = _watts(meters, began, clock)
    pace = Pace(every_ms, clock)
    frames, began = 0, _start(meters, clock)
    for frames in itertools.count(1):
        action.prepare(frames)
        pace.wait()
        action.check(frames, action.call())
        _tick(meters, clock)
        if clock.now_ns() - began >= WORK_S * 1e9:
            break
    watts, seconds = _watts(meters, began, clock)
    return tuple(
        EnergyUse(
            source=meter.source,
            joules_per_frame=busy * seconds / frames,
            added_joules_per_frame=(busy - idle) * seconds / frames,
            watts=busy,
            idle_watts=idle,
            frames=frames,
            seconds=seconds,
        )
        for meter, busy, idle in zip(meters, watts, idle_watts, strict=True)
    )


def _start(meters: Sequence[EnergyMeter], clock: Clock) -> int:
    for meter in meters:
        meter.start(clock.now_ns())
    return clock.now_ns()


def _tick(meters: Sequence[EnergyMeter], clock: Clock) -> None:
    now_ns = clock.now_ns()
    for meter in meters:
        meter.tick(now_ns)


def _watts(meters: Sequence[EnergyMeter], began_ns: int, clock: Clock) -> tuple[list[float], float]:
    now_ns = clock.now_ns()
    seconds = (now_ns - began_ns) / 1e9
    return [meter.joules(now_ns) / seconds for meter in meters], seconds
