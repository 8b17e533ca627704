"""The loop over frames: read, work, write. It ends at the last frame, on q, Ctrl-C or SIGTERM, and closes what it wrote."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from lmedge.apps.video.sinks import VideoSink
from lmedge.apps.video.sources import Frame, Image, VideoSource

# Frames done, frames in all (None for a camera), what is going on; called after every frame.
Progress = Callable[[int, int | None, str], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class VideoSummary:
    """What a run went through.

    Attributes:
        frames: read and worked on.
        broken: that could not be read, with readable ones after them.
        missing: that the file declares and does not hold.
        video_s: from the first frame to the end of the last, on the video's clock.
        read_s, work_s, write_s: seconds that decoding, the work and the sinks took.
        ended_early: by q, Ctrl-C or SIGTERM.
    """

    frames: int
    broken: int
    missing: int
    video_s: float
    read_s: float
    work_s: float
    write_s: float
    ended_early: bool

    @property
    def times_real_time(self) -> float:
        """How many seconds of video are read and worked on in one second, writing left out."""
        return self.video_s / max(self.read_s + self.work_s, 1e-9)

    def to_json(self) -> dict[str, Any]:
        numbers = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**numbers, "times_real_time": round(self.times_real_time, 2)}


def run_video(
    source: VideoSource,
    work: Callable[[Frame], Image],
    sinks: Sequence[VideoSink] = (),
    *,
    progress: Progress | None = None,
) -> VideoSummary:
    """Works on every frame and hands the results to the sinks, which are closed in any case, also when `work` raises.

    In the main thread, the first Ctrl-C or SIGTERM ends the run after the frame at hand; the second acts as without lmedge.

    Args:
        work: a frame → the picture to write, uint8 (H, W, 3) BGR.

    Raises:
        DataError: not one frame can be read, or an output cannot be written.
        LmedgeError: what `work` raises.
    """
    frames, first_s, last_s = 0, 0.0, 0.0
    read_s = work_s = write_s = 0.0
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        asked_to_end = stack.enter_context(_end_on_signals())
        before = time.perf_counter()
        for frame in source:
            got = time.perf_counter()
            picture = work(frame)
            worked = time.perf_counter()
            for sink in sinks:
                sink.write(picture, frame.time_s)
            written = time.perf_counter()
            first_s, last_s = frame.time_s if frames == 0 else first_s, frame.time_s
            frames += 1
            read_s, work_s, write_s = read_s + got - before, work_s + worked - got, write_s + written - worked
            if progress is not None:
                progress(frames, source.frame_count, source.name)
            if asked_to_end() or any(sink.wants_to_end for sink in sinks):
                ended_early = True
                break
            before = time.perf_counter()
        else:
            ended_early = False
    video_s = last_s - first_s + 1 / source.fps
    return VideoSummary(frames, source.broken, source.missing, video_s, read_s, work_s, write_s, ended_early)


@contextmanager
def _end_on_signals() -> Iterator[Callable[[], bool]]:
    """Whether a signal has asked to end. After the first, the handlers before are back: a second one is not swallowed."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in previous.items():
            if handler is not None:  # None: set by a library that is not Python, nothing that could be put back
                signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)
        restore()

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        restore()
