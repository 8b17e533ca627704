"""From how far the eyes are closed, frame by frame, to blinks: from half-shut to half-shut, the ends between frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

# A blink passes half-way even where no frame meets it shut. Own choice; lids that look down lower by a third.
HALF_SHUT = 0.5
# Half-closures shorter than this are noise of one frame, longer ones drooping lids. Own choice, around the 0.1 to 0.4 s of
# blinks in Soukupová and Čech, CVWW 2016.
SHORTEST_S, LONGEST_S = 0.03, 0.5
# Over more time without a frame that shows eyes, nothing is concluded. Own choice: 4 frames may be lost at 10 per second.
LONGEST_GAP_S = 0.5


@dataclass(frozen=True)
class Blink:
    """From half-shut to half-shut, seconds on the clock of the frames."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


class BlinkFinder:
    """Finds blinks at any rate from 15 frames per second, where one of 100 ms has a single frame or two."""

    def __init__(
        self,
        *,
        half_shut: float = HALF_SHUT,
        shortest_s: float = SHORTEST_S,
        longest_s: float = LONGEST_S,
        longest_gap_s: float = LONGEST_GAP_S,
    ) -> None:
        self._half_shut, self._longest_gap_s = half_shut, longest_gap_s
        self._shortest_s, self._longest_s = shortest_s, longest_s
        # Of the last frame in which eyes were seen; interrupted where there was one without since.
        self._seen_s, self._closure, self._interrupted = -math.inf, 0.0, False
        # When the eyes became half-shut; None while they are open.
        self._start_s: float | None = None

    def update(self, time_s: float, closure: float | None) -> Blink | None:
        """Takes a frame in; a blink when it is over.

        Args:
            time_s: of the frame; times rise.
            closure: 0 open as at rest, 1 shut; None where the eyes are not seen.
        """
        if time_s - self._seen_s > self._longest_gap_s:
            self.forget()
        if closure is None:
            self._interrupted = True
            return None
        blink = self._follow(time_s, closure)
        self._seen_s, self._closure, self._interrupted = time_s, closure, False
        return blink

    def forget(self) -> None:
        """Begins anew: what was seen before has nothing to do with what comes."""
        self._seen_s, self._start_s = -math.inf, None

    def _follow(self, time_s: float, closure: float) -> Blink | None:
        if closure >= self._half_shut:
            if self._start_s is None:
                follows = math.isfinite(self._seen_s) and not self._interrupted
                self._start_s = self._crossing_s(time_s, closure) if follows else time_s
            return None
        if self._start_s is None:
            return None
        blink = Blink(self._start_s, self._seen_s if self._interrupted else self._crossing_s(time_s, closure))
        self._start_s = None
        return blink if self._shortest_s <= blink.length_s <= self._longest_s else None

    def _crossing_s(self, time_s: float, closure: float) -> float:
        """When the line between the last frame and this one passes half-shut."""
        part = (self._half_shut - self._closure) / (closure - self._closure)
        return self._seen_s + part * (time_s - self._seen_s)
