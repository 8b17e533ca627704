"""Between a camera and a loop that is slower: the newest frame waits, and older ones make room for it.

    frames = LatestFrame()
    # in the camera's thread:                    # in the loop:
    frames.put((image_bgr, time_s))              while (frame := frames.take()) is not None: ...
    frames.close()

A queue would grow, and every answer would be about a moment further in the past.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from lmedge.errors import InputError

Frame = TypeVar("Frame")


class LatestFrame(Generic[Frame]):
    """Room for one frame. Any number of threads may put and take; each frame is taken once at most.

    It holds the frame itself, not a copy: a camera that writes into the same memory again has to put copies.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Frame] = []
        self._put = 0
        self._dropped = 0
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many frames made room for a newer one before they were taken."""
        with self._changed:
            return self._dropped

    @property
    def count(self) -> int:
        """How many frames were put."""
        with self._changed:
            return self._put

    def put(self, frame: Frame) -> bool:
        """Leaves a frame for the loop; whether it took the place of one that nobody had taken. It never waits.

        Raises:
            InputError: the stream is closed.
        """
        with self._changed:
            if self._closed:
                raise InputError("This stream of frames is closed; no more can be put into it.")
            replaced = bool(self._waiting)
            self._waiting = [frame]
            self._put += 1
            self._dropped += replaced
            self._changed.notify()
            return replaced

    def take(self, timeout_s: float | None = None) -> Frame | None:
        """The newest frame, as soon as there is one; None when the stream is closed and empty.

        Args:
            timeout_s: how long to wait; None waits for ever.

        Raises:
            TimeoutError: no frame came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s):
                raise TimeoutError(f"No frame came within {timeout_s} s.")
            return self._waiting.pop() if self._waiting else None

    def close(self) -> None:
        """No more frames: whoever waits gets the last one, then None. Closing twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
