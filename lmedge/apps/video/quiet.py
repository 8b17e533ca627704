"""OpenCV and its decoders write to stderr of themselves; lmedge says what went wrong in its own errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

# libav's own level "quiet"; a damaged frame otherwise writes hundreds of lines. Read once, when the first video is opened.
_DECODER_LOG, _SILENT = "OPENCV_FFMPEG_LOGLEVEL", "-8"


class _Silence:
    """How many blocks want silence, in all threads, and the level that comes back after the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._level = 0

    def begin(self) -> None:
        with self._lock:
            if self._blocks == 0:
                os.environ.setdefault(_DECODER_LOG, _SILENT)
                self._level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._blocks += 1

    def end(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                cv2.utils.logging.setLogLevel(self._level)


_SILENCE = _Silence()


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """No messages of OpenCV inside the block; a level that the user gave to the decoders in the environment stays."""
    _SILENCE.begin()
    try:
        yield
    finally:
        _SILENCE.end()
