"""Calls against the clock: several functions in turn, each call on another input, each answer looked at.

    measure(((predict, engine),), 1000)      # predict, engine, predict, engine, ...: a machine that slows down slows both

What happens before and after a call is outside the clock.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

WARM_UP = 30
# Calls of one subject before another has its turn. Two networks that take turns call by call drive each other out of the
# processor's caches, which no device does to its one network.
BURST = 25


@dataclass(frozen=True)
class Clock:
    """What tells the time, in ns from any start, and what waits, in seconds."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


WALL_CLOCK = Clock()


class Action(Protocol):
    """Something to time. `number` counts all calls, so successive ones never have the same."""

    def prepare(self, number: int) -> None:
        """Lays out the input of the next call."""

    def call(self) -> Any:
        """What is timed."""

    def check(self, number: int, answer: Any) -> None:
        """Raises where the answer is not that to the input."""


class Pace:
    """One frame every so often, as a camera gives them: the next is not due earlier because the last was late.

    Attributes:
        late: frames that could not begin when they were due.
    """

    def __init__(self, every_ms: float | None, clock: Clock = WALL_CLOCK) -> None:
        self._every_ns = None if every_ms is None else round(every_ms * 1e6)
        self._clock = clock
        self._due_ns: int | None = None
        self.late = 0

    def wait(self) -> None:
        """Returns when the next frame is due; at once without a pace, and for the first frame."""
        if self._every_ns is None:
            return
        now_ns = self._clock.now_ns()
        self._due_ns = now_ns if self._due_ns is None else self._due_ns + self._every_ns
        if now_ns < self._due_ns:
            self._clock.sleep((self._due_ns - now_ns) / 1e9)
        elif now_ns > self._due_ns:
            self.late += 1
            self._due_ns = now_ns


@dataclass(frozen=True, eq=False)
class Timings:
    """`times_ms`: for each subject and each of its actions, every call in order; `late` as of `Pace`."""

    times_ms: tuple[tuple[Times, ...], ...]
    late: int


def measure(
    subjects: Sequence[Sequence[Action]],
    iterations: int,
    *,
    warm_up: int = WARM_UP,
    every_ms: float | None = None,
    clock: Clock = WALL_CLOCK,
    burst: int = BURST,
) -> Timings:
    """Times the actions of each subject in turn, and subjects in turn after `burst` rounds, after a warm-up of all.

    Args:
        iterations: timed calls of each action; warm_up: calls before, which are checked too.
        every_ms: pause between the starts of two calls; None is none.
    """
    numbers = itertools.count()
    pace = Pace(every_ms, clock)
    times_ns = [[np.empty(iterations, np.int64) for _ in actions] for actions in subjects]
    for actions in subjects:
        for _ in range(warm_up):
            for action in actions:
                number = next(numbers)
                action.prepare(number)
                action.check(number, action.call())
    for start in range(0, iterations, burst):
        for actions, rows in zip(subjects, times_ns, strict=True):
            for index in range(start, min(start + burst, iterations)):
                for action, row in zip(actions, rows, strict=True):
                    number = next(numbers)
                    action.prepare(number)
                    pace.wait()
                    began = clock.now_ns()
                    answer = action.call()
                    row[index] = clock.now_ns() - began
                    action.check(number, answer)
    return Timings(tuple(tuple(row / 1e6 for row in rows) for rows in times_ns), pace.late)


def alternate(
    first: Callable[[], Any],
    second: Callable[[], Any],
    iterations: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    burst: int = 1,
) -> tuple[Times, Times]:
    """Milliseconds of each call of two functions, in turn, after a warm-up; `burst` calls of one before the other's turn."""
    for _ in range(WARM_UP):
        first()
        second()
    times_ns = np.empty((2, iterations), np.int64)
    for start in range(0, iterations, burst):
        for call, row in ((first, times_ns[0]), (second, times_ns[1])):
            for index in range(start, min(start + burst, iterations)):
                began = clock_ns()
                call()
                row[index] = clock_ns() - began
    return times_ns[0] / 1e6, times_ns[1] / 1e6
