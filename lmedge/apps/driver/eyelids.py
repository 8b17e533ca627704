"""From how far the eyes are closed, frame by frame, to blinks and to eyes that stay shut."""

from __future__ import annotations

import math

from lmedge.apps.driver.events import BLINK, CLOSURE, ENDED, MICROSLEEP, OVER, SLEEP, DriverEvent
from lmedge.apps.driver.thresholds import DriverThresholds
from lmedge.apps.driver.timing import LastingCondition


class EyelidWatch:
    """Blinks, closures, microsleep and sleep, from the closure of the eyes over time.

    Eyes are shut from `shut` on until they are less closed than `half_shut`; so noise around one level does not cut a
    closure in two. A blink runs from half-shut to half-shut, its ends interpolated between frames: at 15 frames per second
    one of 100 ms has a single frame or two.
    """

    def __init__(self, thresholds: DriverThresholds) -> None:
        self._thresholds = thresholds
        ladder = (
            (thresholds.closure_s, CLOSURE), (thresholds.microsleep_s, MICROSLEEP), (thresholds.sleep_s, SLEEP),
        )  # fmt: skip
        self._closure = LastingCondition(ladder, thresholds.longest_gap_s)
        self._shut = False
        # Of the last frame with eyes; interrupted where there was one without since.
        self._seen_s, self._seen_closure, self._interrupted = -math.inf, 0.0, False
        # When the eyes became half-shut, and whether that has grown into a closure; None while they are open.
        self._half_shut_s: float | None = None
        self._is_closure = False

    @property
    def shut(self) -> bool:
        """Whether the eyes were shut when last seen."""
        return self._shut

    @property
    def kind(self) -> str | None:
        """The highest of closure, microsleep and sleep that is raised at present."""
        return self._closure.kind

    def update(self, time_s: float, closure: float | None) -> list[DriverEvent]:
        """Takes a frame in; times rise.

        Args:
            time_s: of the frame.
            closure: 0 open as at rest, 1 shut; None where the eyes are not seen.
        """
        if time_s - self._seen_s > self._thresholds.longest_gap_s:
            self._forget()
        if closure is None:
            self._interrupted = True
            return self._closure.update(time_s, None)
        if closure >= self._thresholds.shut:
            self._shut = True
        elif closure < self._thresholds.half_shut:
            self._shut = False
        events = self._closure.update(time_s, self._shut)
        self._is_closure |= bool(events)
        events += self._follow_blink(time_s, closure)
        self._seen_s, self._seen_closure, self._interrupted = time_s, closure, False
        return events

    def stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        """Ends what is raised, and forgets all."""
        self._forget()
        return self._closure.stop(time_s, reason)

    def _forget(self) -> None:
        self._shut, self._half_shut_s, self._is_closure, self._seen_s = False, None, False, -math.inf

    def _follow_blink(self, time_s: float, closure: float) -> list[DriverEvent]:
        half_shut = closure >= self._thresholds.half_shut
        if half_shut and self._half_shut_s is None:
            follows = math.isfinite(self._seen_s) and not self._interrupted
            self._half_shut_s = self._crossing_s(time_s, closure) if follows else time_s
        elif not half_shut and self._half_shut_s is not None:
            start_s, end_s = self._half_shut_s, self._seen_s if self._interrupted else self._crossing_s(time_s, closure)
            is_closure, self._half_shut_s, self._is_closure = self._is_closure, None, False
            shortest_s, longest_s = self._thresholds.blink_shortest_s, self._thresholds.blink_longest_s
            if not is_closure and shortest_s <= end_s - start_s <= longest_s:
                return [DriverEvent(BLINK, ENDED, time_s, start_s, end_s - start_s, end_s, OVER)]
        return []

    def _crossing_s(self, time_s: float, closure: float) -> float:
        """When the line between the last frame and this one passes `half_shut`."""
        part = (self._thresholds.half_shut - self._seen_closure) / (closure - self._seen_closure)
        return self._seen_s + part * (time_s - self._seen_s)
