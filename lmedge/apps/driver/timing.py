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
        # Of the last frame, and of the last one in which it was known whether the condition holds.
        self._last_s, self._known_s = -math.inf, -math.inf
        self._held = False
        # Since when it holds, until when that is known, for how long it was seen, and how far up the ladder that has led.
        self._start_s, self._until_s, self._seen_s, self._reached = 0.0, 0.0, 0.0, 0

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
        passed_s = time_s - self._last_s
        half_s = passed_s / 2 if passed_s <= self._longest_gap_s else 0.0
        events: list[DriverEvent] = []
        if self._held and self._known_s == self._last_s:
            self._see(half_s, self._known_s + half_s)
        if self._held and time_s - self._known_s > self._longest_gap_s:
            events += self._climb(time_s, reason) + self._end(time_s, LOST)
        if holds:
            if not self._held:
                self._held, self._start_s, self._seen_s, self._reached = True, time_s - half_s, 0.0, 0
            self._see(half_s, time_s)
        if self._held:
            events += self._climb(time_s, reason)
        if self._held and holds is False:
            events += self._end(time_s, OVER)
        self._last_s = time_s
        self._known_s = self._known_s if holds is None else time_s
        return events

    def stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        """Ends what is raised, at the last time it was known, and forgets all."""
        events = self._end(time_s, reason) if self._held else []
        self._last_s = self._known_s = -math.inf
        return events

    def _see(self, seconds: float, until_s: float) -> None:
        self._seen_s, self._until_s = self._seen_s + seconds, until_s

    def _climb(self, time_s: float, reason: str | None) -> list[DriverEvent]:
        events = []
        while self._reached < len(self._ladder) and self._seen_s >= self._ladder[self._reached][0] - ROUNDING_S:
            kind = self._ladder[self._reached][1]
            events.append(DriverEvent(kind, RAISED, time_s, self._start_s, self._seen_s, reason=reason))
            self._reached += 1
        return events

    def _end(self, time_s: float, reason: str) -> list[DriverEvent]:
        kind, self._held = self.kind, False
        return [] if kind is None else [DriverEvent(kind, ENDED, time_s, self._start_s, self._seen_s, self._until_s, reason)]


class StandingAlarm:
    """An event that is up for as long as somebody says so."""

    def __init__(self, kind: str, longest_gap_s: float) -> None:
        self._kind, self._longest_gap_s = kind, longest_gap_s
        self._start_s: float | None = None
        self._last_s, self._seen_s = -math.inf, 0.0

    @property
    def kind(self) -> str | None:
        """The kind, while it is raised."""
        return None if self._start_s is None else self._kind

    def update(self, time_s: float, up: bool | None, value: float | None) -> list[DriverEvent]:
        """Raises or ends it; times rise.

        Args:
            time_s: of the frame.
            up: None where it cannot be known any more.
            value: for the event.
        """
        passed_s = time_s - self._last_s
        follows = passed_s <= self._longest_gap_s
        if self._start_s is not None and follows:
            self._seen_s += passed_s
        before_s, self._last_s = self._last_s, time_s
        if up and self._start_s is None:
            self._start_s, self._seen_s = time_s, 0.0
            return [DriverEvent(self._kind, RAISED, time_s, time_s, 0.0, value=value)]
        if up:
            return []
        return self._end(time_s, time_s if follows else before_s, OVER if up is False and follows else LOST, value)

    def stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        """Ends it, where it is up, at the last time it was, and forgets all."""
        before_s, self._last_s = self._last_s, -math.inf
        return self._end(time_s, before_s, reason, None)

    def _end(self, time_s: float, end_s: float, reason: str, value: float | None) -> list[DriverEvent]:
        if self._start_s is None:
            return []
        start_s, self._start_s = self._start_s, None
        return [DriverEvent(self._kind, ENDED, time_s, start_s, self._seen_s, end_s, reason, value)]


class TimeShare:
    """For how long a condition was known, and for how long it held, within a sliding window."""

    def __init__(self, window_s: float, longest_gap_s: float) -> None:
        self._window_s, self._longest_gap_s = window_s, longest_gap_s
        # When a piece of known time ended, how long it was and how much of it held.
        self._pieces: deque[tuple[float, float, float]] = deque()
        self._known_s, self._held_s = 0.0, 0.0
        self._last_s = -math.inf
        self._last: bool | None = None

    @property
    def known_s(self) -> float:
        return self._known_s if self._pieces else 0.0

    @property
    def held_s(self) -> float:
        return self._held_s if self._pieces else 0.0

    def update(self, time_s: float, holds: bool | None) -> None:
        """Takes a frame in; times rise, None is a frame in which it cannot be known."""
        passed_s = time_s - self._last_s
        known = [answer for answer in (self._last, holds) if answer is not None]
        if known and passed_s <= self._longest_gap_s:
            self._append(time_s, passed_s / 2 * len(known), passed_s / 2 * sum(known))
        self._last_s, self._last = time_s, holds
        while self._pieces and self._pieces[0][0] <= time_s - self._window_s + ROUNDING_S:
            _, known_s, held_s = self._pieces.popleft()
            self._known_s -= known_s
            self._held_s -= held_s

    def clear(self) -> None:
        """Forgets all of the past."""
        self._pieces.clear()
        self._known_s, self._held_s = 0.0, 0.0
        self._last_s, self._last = -math.inf, None

    def _append(self, end_s: float, known_s: float, held_s: float) -> None:
        if not self._pieces:
            # Rounding errors of hours of additions end here.
            self._known_s, self._held_s = 0.0, 0.0
        self._pieces.append((end_s, known_s, held_s))
        self._known_s += known_s
        self._held_s += held_s
