"""The loop over frames: whatever ends it, what was written is complete."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmedge.apps.video import (
    Frame,
    Mp4Sink,
    PngFolderSink,
    VideoSink,
    VideoSource,
    VideoSummary,
    open_sink,
    open_source,
    run_video,
)
from lmedge.apps.video.sources import Image
from lmedge.errors import DataError, InputError
from tests.apps.video.clips import numbered_frame, read_clip, write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 20, fps=10)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """As at a terminal, also where the tests run in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def same(frame: Frame) -> Image:
    return frame.image_bgr


def test_every_frame_is_worked_on_and_written_to_every_sink(clip: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None, str]] = []
    with open_source(clip) as source:
        outputs = [open_sink(tmp_path / "copy.mp4", source), open_sink(tmp_path / "frames", source)]
        summary = run_video(source, same, outputs, progress=lambda *step: told.append(step))
    assert read_clip(tmp_path / "copy.mp4") == list(range(20))
    assert len(list((tmp_path / "frames").iterdir())) == 20
    assert (summary.frames, summary.broken, summary.missing, summary.ended_early) == (20, 0, 0, False)
    assert summary.video_s == pytest.approx(2.0)
    assert [done for done, _, _ in told] == list(range(1, 21))
    assert {total for _, total, _ in told} == {20}


def test_speed_leaves_writing_out() -> None:
    summary = VideoSummary(10, 0, 0, video_s=10.0, read_s=1.0, work_s=1.5, write_s=100.0, ended_early=False)
    assert summary.times_real_time == pytest.approx(4)
    assert summary.to_json()["times_real_time"] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_complete_video(clip: Path, tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)

    def interrupted(frame: Frame) -> Image:
        if frame.index == 6:
            os.kill(os.getpid(), number)
        return frame.image_bgr

    with open_source(clip) as source:
        summary = run_video(source, interrupted, [open_sink(tmp_path / "copy.mp4", source)])
    assert summary.ended_early
    assert summary.frames == 7
    assert read_clip(tmp_path / "copy.mp4") == list(range(7))
    assert signal.getsignal(number) is before


def test_a_second_interruption_is_not_swallowed(clip: Path, tmp_path: Path) -> None:
    """The first waits for the frame at hand; work that hangs there can still be ended."""

    def hanging(frame: Frame) -> Image:
        if frame.index == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return frame.image_bgr

    with open_source(clip) as source, pytest.raises(KeyboardInterrupt):
        run_video(source, hanging, [open_sink(tmp_path / "copy.mp4", source)])
    assert read_clip(tmp_path / "copy.mp4") == list(range(3))


def test_a_run_that_is_ended_before_its_first_frame_writes_nothing(clip: Path, tmp_path: Path) -> None:
    class Impatient(VideoSink):
        def _write(self, image_bgr: Image, time_s: float) -> None: ...

        @property
        def wants_to_end(self) -> bool:
            return True

    with open_source(clip) as source:
        summary = run_video(source, same, [Impatient(), open_sink(tmp_path / "copy.mp4", source)])
    assert (summary.frames, summary.video_s, summary.ended_early) == (0, 0.0, True)
    assert not (tmp_path / "copy.mp4").exists()


def test_a_run_that_was_started_to_ignore_ctrl_c_goes_on(clip: Path) -> None:
    def interrupted(frame: Frame) -> Image:
        os.kill(os.getpid(), signal.SIGINT)
        return frame.image_bgr

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open_source(clip) as source:
        assert run_video(source, interrupted).frames == 20
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_what_was_written_before_an_error_is_kept(clip: Path, tmp_path: Path) -> None:
    def failing(frame: Frame) -> Image:
        if frame.index == 5:
            raise InputError("no more")
        return frame.image_bgr

    with open_source(clip) as source, pytest.raises(InputError, match="no more"):
        run_video(source, failing, [open_sink(tmp_path / "copy.mp4", source), open_sink(tmp_path / "frames", source)])
    assert read_clip(tmp_path / "copy.mp4") == list(range(5))
    assert len(list((tmp_path / "frames").iterdir())) == 5


def test_a_sink_that_fails_to_finish_does_not_keep_another_from_it(clip: Path, tmp_path: Path) -> None:
    class Failing(PngFolderSink):
        def close(self) -> None:
            raise DataError("the disk is full")

    with open_source(clip) as source, pytest.raises(DataError, match="disk is full"):
        run_video(source, same, [Mp4Sink(tmp_path / "copy.mp4", 10), Failing(tmp_path / "frames")])
    assert len(read_clip(tmp_path / "copy.mp4")) == 20


def test_zero_frames_are_an_error_and_make_no_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no picture")
    with open_source(tmp_path / "in") as source, pytest.raises(DataError, match="not one frame"):
        run_video(source, same, [open_sink(tmp_path / "copy.mp4", source)])
    assert not (tmp_path / "copy.mp4").exists()


def test_a_sink_can_end_the_run(clip: Path) -> None:
    class Window(VideoSink):
        shown = 0

        def _write(self, image_bgr: Image, time_s: float) -> None:
            self.shown += 1

        @property
        def wants_to_end(self) -> bool:
            return self.shown == 4

    with open_source(clip) as source:
        assert run_video(source, same, [Window()]).frames == 4


def test_it_runs_outside_the_main_thread(clip: Path) -> None:
    """Where Python lets nobody handle signals."""
    done: list[int] = []

    def run() -> None:
        with open_source(clip) as source:
            done.append(run_video(source, same).frames)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [20]


# Drawing behind the work


def test_pictures_drawn_in_another_thread_come_in_order_with_what_the_work_found(clip: Path, tmp_path: Path) -> None:
    threads: set[int] = set()

    def draw(frame: Frame, found: int) -> Image:
        threads.add(threading.get_ident())
        assert found == frame.index, "what the work found belongs to this frame"
        return frame.image_bgr

    with open_source(clip) as source:
        summary = run_video(source, lambda frame: frame.index, [open_sink(tmp_path / "copy.mp4", source)], draw=draw)
    assert summary.frames == 20
    assert read_clip(tmp_path / "copy.mp4") == list(range(20))
    assert threading.get_ident() not in threads


def test_work_goes_on_while_a_picture_is_drawn(clip: Path) -> None:
    """Drawing of a frame waits for the work on the next one; one after the other, it would wait in vain."""
    begun = [threading.Event() for _ in range(21)]
    begun[20].set()

    def work(frame: Frame) -> int:
        begun[frame.index].set()
        return frame.index

    def draw(frame: Frame, found: int) -> Image:
        assert found == 19 or begun[found + 1].wait(10), "the work on the next frame did not begin"
        return frame.image_bgr

    with open_source(clip) as source:
        assert run_video(source, work, draw=draw).frames == 20


@pytest.mark.parametrize("where", ["work", "draw"])
def test_pictures_before_an_error_are_written_also_when_drawn_behind(clip: Path, tmp_path: Path, where: str) -> None:
    def fails_at_five(frame: Frame, here: str) -> Image:
        if frame.index == 5 and here == where:
            raise InputError("no more")
        return frame.image_bgr

    with open_source(clip) as source, pytest.raises(InputError, match="no more"):
        run_video(
            source,
            lambda frame: fails_at_five(frame, "work"),
            [open_sink(tmp_path / "frames", source)],
            draw=lambda frame, _: fails_at_five(frame, "draw"),
        )
    assert len(list((tmp_path / "frames").iterdir())) == 5


def test_an_interrupted_run_draws_the_last_frame_that_was_worked_on(clip: Path, tmp_path: Path) -> None:
    worked = []

    def interrupted(frame: Frame) -> int:
        worked.append(frame.index)
        if frame.index == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return frame.index

    with open_source(clip) as source:
        summary = run_video(
            source, interrupted, [open_sink(tmp_path / "copy.mp4", source)], draw=lambda frame, _: frame.image_bgr
        )
    assert summary.ended_early
    assert read_clip(tmp_path / "copy.mp4") == worked == list(range(7))


class Camera(VideoSource):
    """Counts how far it is read."""

    def __init__(self) -> None:
        super().__init__("camera", 10.0, live=True)
        self.read = 0

    def _frames(self) -> Iterator[Frame]:
        for index in range(5):
            self.read += 1
            yield Frame(numbered_frame(index), index / 10, index)


def test_a_cameras_frames_are_shown_at_once(tmp_path: Path) -> None:
    """Neither read ahead nor drawn behind: each picture is written before the next frame is asked for."""
    camera, told = Camera(), []
    run_video(
        camera,
        lambda frame: frame.index,
        draw=lambda frame, _: frame.image_bgr,
        progress=lambda done, total, _: told.append((done, camera.read, total)),
    )
    assert told == [(n, n, None) for n in range(1, 6)]


def test_the_next_frame_is_read_while_one_is_worked_on(tmp_path: Path) -> None:
    source, second_is_read = Camera(), threading.Event()
    source.live = False
    frames = source._frames

    def watched() -> Iterator[Frame]:
        for frame in frames():
            if frame.index == 1:
                second_is_read.set()
            yield frame

    def work(frame: Frame) -> Image:
        assert second_is_read.wait(10), "nobody reads ahead"
        return frame.image_bgr

    source._frames = watched
    assert run_video(source, work).frames == 5
