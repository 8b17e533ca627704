"""OpenCV and its decoders write to stderr of themselves; lmedge says what went wrong in its own errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

# libav's own level "quiet"; a damaged frame otherwise writes hundreds of lines. Read once, when the first video is opened.
_DECODER_LOG, _SILENT = "OPENCV_FFMPEG_LOGLEVEL", "-8"


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """No messages of OpenCV inside the block; a level that the user gave to the decoders in the environment stays."""
    os.environ.setdefault(_DECODER_LOG, _SILENT)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
