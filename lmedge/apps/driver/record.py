"""A drive in numbers: what happened, how often, for how long, and how much of it could be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from lmedge.apps.driver.attention import ROAD
from lmedge.apps.driver.events import BLINK, CLOSURE, ENDED, MICROSLEEP, SLEEP, DriverEvent
from lmedge.apps.driver.monitor import UNSEEN, FrameState
from lmedge.apps.driver.thresholds import NOT_CERTIFIED, DriverThresholds

# One row of the record; hours of drive stay small, and a row keeps the most closed moment, so that no blink is lost.
ROW_S = 0.25


@dataclass(frozen=True)
class DriveRow:
    """A quarter of a second; None where nothing was known.

    Attributes:
        time_s: of its first frame.
        closure: the most closed.
        perclos, mouth_opening: the highest.
        yaw_deg, pitch_deg: farthest from rest.
    """

    time_s: float
    closure: float | None
    perclos: float | None
    mouth_opening: float | None
    yaw_deg: float | None
    pitch_deg: float | None

    def joined(self, state: FrameState) -> DriveRow:
        return DriveRow(
            self.time_s,
            _most(self.closure, state.closure),
            _most(self.perclos, state.perclos),
            _most(self.mouth_opening, state.mouth_opening),
            _farthest(self.yaw_deg, state.yaw_deg),
            _farthest(self.pitch_deg, state.pitch_deg),
        )


@dataclass(frozen=True)
class DriveSummary:
    """A drive in numbers.

    Attributes:
        frames: taken in.
        seconds: watched, without gaps and jumps of the clock.
        face_s, eyes_s, road_s: of these, with a face, with eyes that were seen, with the head toward the road.
        counts: how often each kind of event ended; a closure that grew into a sleep is a sleep.
        blink_mean_s: mean length of blinks, None without any.
        longest_shut_s: longest time with shut eyes that was told as an event.
        highest_perclos: None where it was never known.
    """

    frames: int
    seconds: float
    face_s: float
    eyes_s: float
    road_s: float
    counts: dict[str, int]
    blink_mean_s: float | None
    longest_shut_s: float
    highest_perclos: float | None

    def to_json(self) -> dict[str, Any]:
        numbers = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**numbers, "statement": NOT_CERTIFIED}


class DriveRecord:
    """Collects a drive, frame by frame.

    Attributes:
        rows: the course of it.
        events: all, in order.
    """

    def __init__(self, thresholds: DriverThresholds) -> None:
        self.rows: list[DriveRow] = []
        self.events: list[DriverEvent] = []
        self._longest_gap_s = thresholds.longest_gap_s
        self._frames, self._seconds = 0, Counter[str]()
        self._last_s: float | None = None

    def add(self, state: FrameState) -> None:
        """Takes the state of a frame in."""
        passed_s = 0.0 if self._last_s is None else state.time_s - self._last_s
        if 0 < passed_s <= self._longest_gap_s:
            known = {"all": True, "face": state.face, "eyes": state.eyes != UNSEEN, ROAD: state.zone == ROAD}
            self._seconds.update({name: passed_s for name, holds in known.items() if holds})
        self._frames, self._last_s = self._frames + 1, state.time_s
        if not self.rows or not 0 <= state.time_s - self.rows[-1].time_s < ROW_S:
            self.rows.append(DriveRow(state.time_s, None, None, None, None, None))
        self.rows[-1] = self.rows[-1].joined(state)
        self.add_events(state.events)

    def add_events(self, events: Iterable[DriverEvent]) -> None:
        """Events that no frame brought: those of `DriverMonitor.finish`."""
        self.events += events

    def summary(self) -> DriveSummary:
        ended = [event for event in self.events if event.phase == ENDED]
        blinks = [event.seen_s for event in ended if event.kind == BLINK]
        shut = [event.seen_s for event in self.events if event.kind in (CLOSURE, MICROSLEEP, SLEEP)]
        perclos = [row.perclos for row in self.rows if row.perclos is not None]
        return DriveSummary(
            frames=self._frames,
            seconds=float(self._seconds["all"]),
            face_s=float(self._seconds["face"]),
            eyes_s=float(self._seconds["eyes"]),
            road_s=float(self._seconds[ROAD]),
            counts=dict(sorted(Counter(event.kind for event in ended).items())),
            blink_mean_s=sum(blinks) / len(blinks) if blinks else None,
            longest_shut_s=max(shut, default=0.0),
            highest_perclos=max(perclos, default=None),
        )


def _most(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _farthest(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), key=abs, default=None)
