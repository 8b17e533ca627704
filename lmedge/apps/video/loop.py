"""The loop over frames: read, work, draw, write. It ends at the last frame, on q, Ctrl-C or SIGTERM, and closes what it wrote.

    reading thread   frame 3 ▶ frame 4 ▶
    main thread                 work on 2 ▶ write 1 ▶ work on 3 ▶ write 2 ▶
    drawing thread              draw 1    ▶           draw 2    ▶

A camera's frames are not read ahead and not drawn behind: there the newest frame counts, not the number of them.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, TypeVar, overload

from lmedge.apps.video.sinks import VideoSink
from lmedge.apps.video.sources import Frame, Image, VideoSource
from lmedge.progress import Progress

Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class VideoSummary:
    """What a run went through.

    Attributes:
        frames: read and worked on.
        broken: that could not be read, with readable ones after them.
        missing: that the file declares, or pictures of the folder, after the last readable one.
        video_s: from the first frame to the end of the last, on the video's clock.
        read_s: seconds in which the work waited for a frame.
        work_s: seconds that the work took, with drawing as far as it was waited for.
        write_s: seconds that the sinks took.
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
        """How many seconds of video are read, worked on and drawn in one second, writing left out."""
        return self.video_s / max(self.read_s + self.work_s, 1e-9)

    def to_json(self) -> dict[str, Any]:
        numbers = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**numbers, "times_real_time": round(self.times_real_time, 2)}


@overload
def run_video(
    source: VideoSource,
    work: Callable[[Frame], Image],
    sinks: Sequence[VideoSink] = (),
    *,
    progress: Progress | None = None,
) -> VideoSummary: ...
@overload
def run_video(
    source: VideoSource,
    work: Callable[[Frame], Result],
    sinks: Sequence[VideoSink] = (),
    *,
    draw: Callable[[Frame, Result], Image],
    progress: Progress | None = None,
) -> VideoSummary: ...
def run_video(
    source: VideoSource,
    work: Callable[[Frame], Any],
    sinks: Sequence[VideoSink] = (),
    *,
    draw: Callable[[Frame, Any], Image] | None = None,
    progress: Progress | None = None,
) -> VideoSummary:
    """Works on every frame and hands the pictures to the sinks, which are closed in any case, also when `work` raises.

    In the main thread, the first Ctrl-C or SIGTERM ends the run after the frame at hand; the second acts as without lmedge.

    Args:
        work: a frame → the picture to write, uint8 (H, W, 3) BGR, or what `draw` makes it from.
        draw: a frame and what `work` made of it → the picture. It runs in a thread of its own while `work` is on the next
            frame, so what the two share must not change.
        progress: called after every picture; a camera has no total.

    Raises:
        DataError: not one frame can be read, a camera stops giving frames, or an output cannot be written.
        LmedgeError: what `work` and `draw` raise.
    """
    frames, first_s, last_s, write_s = 0, 0.0, 0.0, 0.0
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        asked_to_end = stack.enter_context(_end_on_signals())
        threads = [None, None] if source.live else [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2)]
        supply = _Supply(
            iter(source) if threads[0] is None else _read_ahead(iter(source), threads[0]),
            lambda: asked_to_end() or any(sink.wants_to_end for sink in sinks),
        )
        start = time.perf_counter()
        for frame, picture in _pictures(supply, work, draw, threads[1]):
            drawn = time.perf_counter()
            for sink in sinks:
                sink.write(picture, frame.time_s)
            write_s += time.perf_counter() - drawn
            first_s, last_s = frame.time_s if frames == 0 else first_s, frame.time_s
            frames += 1
            if progress is not None:
                progress(frames, source.frame_count, source.name)
        work_s = time.perf_counter() - start - supply.waited_s - write_s
    video_s = last_s - first_s + 1 / source.fps if frames else 0.0
    return VideoSummary(
        frames, source.broken, source.missing, video_s, supply.waited_s, work_s, write_s, ended_early=supply.ended_early
    )


class _Supply:
    """The frames, until somebody wants the run to end, and how long they were waited for."""

    def __init__(self, frames: Iterator[Frame], wants_to_end: Callable[[], bool]) -> None:
        self._frames, self._wants_to_end = frames, wants_to_end
        self.waited_s = 0.0
        self.ended_early = False

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._wants_to_end():
            self.ended_early = True
            raise StopIteration
        before = time.perf_counter()
        try:
            return next(self._frames)
        finally:
            self.waited_s += time.perf_counter() - before


def _read_ahead(frames: Iterator[Frame], reader: Executor) -> Iterator[Frame]:
    """The same frames, the next one being read while one is worked on."""
    coming: Future[Frame | None] = reader.submit(next, frames, None)
    while (frame := coming.result()) is not None:
        coming = reader.submit(next, frames, None)
        yield frame


def _pictures(
    frames: Iterator[Frame],
    work: Callable[[Frame], Any],
    draw: Callable[[Frame, Any], Image] | None,
    painter: Executor | None,
) -> Iterator[tuple[Frame, Image]]:
    """Frames with their pictures; with a painter, drawn while the next frame is worked on."""
    if draw is None or painter is None:
        for frame in frames:
            result = work(frame)
            yield frame, result if draw is None else draw(frame, result)
        return
    drawing: tuple[Frame, Future[Image]] | None = None
    for frame in frames:
        try:
            result = work(frame)
        except BaseException:
            if drawing is not None:
                yield drawing[0], drawing[1].result()
            raise
        before, drawing = drawing, (frame, painter.submit(draw, frame, result))
        if before is not None:
            yield before[0], before[1].result()
    if drawing is not None:
        yield drawing[0], drawing[1].result()


@contextmanager
def _end_on_signals() -> Iterator[Callable[[], bool]]:
    """Whether a signal has asked to end. After the first, the handlers before are back: a second one is not swallowed."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    # A program in the background of a script was started to ignore Ctrl-C.
    previous = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in previous.items():
            if handler is not None:  # None: set by a library that is not Python, nothing that could be put back
                signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)
        restore()

    for number in previous:
        signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        restore()
