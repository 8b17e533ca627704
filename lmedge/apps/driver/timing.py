"""Conditions over time, at any frame rate: how long one lasts, and its share of a sliding window.

A frame stands for the half of the time to each of its neighbours, so that a duration is right on average whatever the phase
of the camera. Three answers: it holds, it does not, nobody knows. Unknown time is never counted, in no sum and no share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from lmedge.apps.driver.events import ENDED, LOST, OVER, RAISED, DriverEvent

# Sums of frame times may fall short of a threshold by a rounding.
ROUNDING_S = 1e-6


class LastingCondition:
    """A condition whose events are raised as it lasts: a ladder of seconds and kinds, rising."""

    def __init__(self, ladder: Sequence[tuple[float, str]], longest_gap_s: float) -> None:
        self._ladder = tuple(ladder)
        self._longest_gap_s = longest_gap_s
        self._known_s, self._held, self._interrupted = -math.inf, False, False
        self._start_s, self._seen_s, self._reached = 0.0, 0.0, 0

    @property
    def kind(self) -> str | None:
        """The highest kind that is raised at present."""
        return self._ladder[self._reached - 1][1] if self._held and self._reached else None

    @property
    def lasted_s(self) -> float:
        """For how long it has been seen to hold until now; 0 where it does not."""
        return self._seen_s if self._held else 0.0

    def update(self, time_s: float, holds: bool | None, reason: str | None = None) -> list[DriverEvent]:
        """Takes a frame in; times rise.

        Args:
            time_s: of the frame.
            holds: None where it cannot be known.
            reason: for an event that is raised now.
        """
        passed_s = time_s - self._known_s
        events = self.stop(time_s, LOST) if passed_s > self._longest_gap_s else []
        if holds is None:
            self._interrupted = True
            return events
        follows = passed_s <= self._longest_gap_s and not self._interrupted
        if holds and not self._held:
            self._start_s = time_s - (passed_s / 2 if follows else 0.0)
            self._seen_s, self._reached, self._held = time_s - self._start_s, 0, True
            events += self._climb(time_s, reason)
        elif holds:
            self._seen_s += passed_s if follows else 0.0
            events += self._climb(time_s, reason)
        elif self._held:
            end_s = self._known_s + (passed_s / 2 if follows else 0.0)
            self._seen_s += end_s - self._known_s
            events += self._climb(time_s, reason)
            events += self._end(time_s, end_s, OVER)
        self._known_s, self._interrupted = time_s, False
        return events

    def stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        """Ends what is raised, at the last time it was known, and forgets all."""
        events = self._end(time_s, self._known_s, reason) if self._held else []
        self._known_s = -math.inf
        return events

    def _climb(self, time_s: float, reason: str | None) -> list[DriverEvent]:
        events = []
        while self._reached < len(self._ladder) and self._seen_s >= self._ladder[self._reached][0] - ROUNDING_S:
            kind = self._ladder[self._reached][1]
            events.append(DriverEvent(kind, RAISED, time_s, self._start_s, self._seen_s, reason=reason))
            self._reached += 1
        return events

    def _end(self, time_s: float, end_s: float, reason: str) -> list[DriverEvent]:
        kind, self._held = self.kind, False
        return [] if kind is None else [DriverEvent(kind, ENDED, time_s, self._start_s, self._seen_s, end_s, reason)]


class StandingAlarm:
    """An event that is up for as long as somebody says so."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._start_s: float | None = None

    @property
    def kind(self) -> str | None:
        """The kind, while it is raised."""
        return None if self._start_s is None else self._kind

    def update(self, time_s: float, up: bool, value: float) -> list[DriverEvent]:
        """Raises or ends it; the value goes into the event."""
        if up and self._start_s is None:
            self._start_s = time_s
            return [DriverEvent(self._kind, RAISED, time_s, time_s, 0.0, value=value)]
        return [] if up else self._end(time_s, OVER, value)

    def stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        """Ends it, where it is up."""
        return self._end(time_s, reason, None)

    def _end(self, time_s: float, reason: str, value: float | None) -> list[DriverEvent]:
        if self._start_s is None:
            return []
        start_s, self._start_s = self._start_s, None
        return [DriverEvent(self._kind, ENDED, time_s, start_s, time_s - start_s, time_s, reason, value)]


class TimeShare:
    """For how long a condition was known, and for how long it held, within a sliding window."""

    def __init__(self, window_s: float, longest_gap_s: float) -> None:
        self._window_s, self._longest_gap_s = window_s, longest_gap_s
        # When a piece of known time ended, how long it was and how much of it held.
        self._pieces: deque[tuple[float, float, float]] = deque()
        self._known_s, self._held_s = 0.0, 0.0
        self._last_s, self._last = -math.inf, False

    @property
    def known_s(self) -> float:
        return self._known_s if self._pieces else 0.0

    @property
    def held_s(self) -> float:
        return self._held_s if self._pieces else 0.0

    def update(self, time_s: float, holds: bool | None) -> None:
        """Takes a frame in; times rise, None is a frame in which it cannot be known."""
        passed_s = time_s - self._last_s
        if holds is None:
            self._last_s = -math.inf
        else:
            if passed_s <= self._longest_gap_s:
                self._append(time_s, passed_s, passed_s * (self._last + holds) / 2)
            self._last_s, self._last = time_s, holds
        while self._pieces and self._pieces[0][0] <= time_s - self._window_s + ROUNDING_S:
            _, known_s, held_s = self._pieces.popleft()
            self._known_s -= known_s
            self._held_s -= held_s

    def clear(self) -> None:
        """Forgets all of the past."""
        self._pieces.clear()
        self._known_s, self._held_s = 0.0, 0.0
        self._last_s = -math.inf

    def _append(self, end_s: float, known_s: float, held_s: float) -> None:
        if not self._pieces:
            # Rounding errors of hours of additions end here.
            self._known_s, self._held_s = 0.0, 0.0
        self._pieces.append((end_s, known_s, held_s))
        self._known_s += known_s
        self._held_s += held_s
