"""From how far the eyes are closed, frame by frame, to blinks and to eyes that stay shut."""

from __future__ import annotations

import math

from lmedge.apps.blinks import BlinkFinder
from lmedge.apps.driver.events import BLINK, CLOSURE, ENDED, MICROSLEEP, OVER, SLEEP, DriverEvent
from lmedge.apps.driver.thresholds import DriverThresholds
from lmedge.apps.driver.timing import LastingCondition


class EyelidWatch:
    """Blinks, closures, microsleep and sleep, from the closure of the eyes over time.

    Eyes are shut from `shut` on until they are less closed than `half_shut`; so noise around one level does not cut a
    closure in two.
    """

    def __init__(self, thresholds: DriverThresholds) -> None:
        self._thresholds = thresholds
        ladder = (
            (thresholds.closure_s, CLOSURE), (thresholds.microsleep_s, MICROSLEEP), (thresholds.sleep_s, SLEEP),
        )  # fmt: skip
        self._closure = LastingCondition(ladder, thresholds.longest_gap_s)
        self._blinks = BlinkFinder(
            half_shut=thresholds.half_shut,
            shortest_s=thresholds.blink_shortest_s,
            longest_s=thresholds.blink_longest_s,
            longest_gap_s=thresholds.longest_gap_s,
        )
        self._shut, self._seen_s = False, -math.inf

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
            self._shut = False
        if closure is not None:
            self._seen_s = time_s
            if closure >= self._thresholds.shut:
                self._shut = True
            elif closure < self._thresholds.half_shut:
                self._shut = False
        events = self._closure.update(time_s, None if closure is None else self._shut)
        blink = self._blinks.update(time_s, closure)
        # Eyes that open after a closure have not blinked: its end is among the events of the same frame.
        if blink is not None and not events:
            events.append(DriverEvent(BLINK, ENDED, time_s, blink.start_s, blink.length_s, blink.end_s, OVER))
        return events

    def stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        """Ends what is raised, and forgets all."""
        self._blinks.forget()
        self._shut, self._seen_s = False, -math.inf
        return self._closure.stop(time_s, reason)
