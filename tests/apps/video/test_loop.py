"""The loop over frames: whatever ends it, what was written is complete."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from lmedge.apps.video import Frame, Mp4Sink, PngFolderSink, VideoSink, VideoSummary, open_sink, open_source, run_video
from lmedge.apps.video.sources import Image
from lmedge.errors import DataError, InputError
from tests.apps.video.clips import read_clip, write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 20, fps=10)


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
