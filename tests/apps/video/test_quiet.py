"""OpenCV is silent inside the blocks of all threads, and as talkative as before after them."""

from __future__ import annotations

import threading

import cv2

from lmedge.apps.video.quiet import quiet_opencv


def level() -> int:
    return cv2.utils.logging.getLogLevel()


def test_the_level_comes_back_after_the_last_of_blocks_that_overlap() -> None:
    """The block that began first ends first, as of two threads."""
    before = level()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet_opencv():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quiet_opencv():
        thread.start()
        assert inside.wait(10)
        assert level() == cv2.utils.logging.LOG_LEVEL_SILENT
    assert level() == cv2.utils.logging.LOG_LEVEL_SILENT, "the other thread is not through"
    leave.set()
    thread.join()
    assert level() == before
