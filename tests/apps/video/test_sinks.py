"""Where frames go: times are kept, sizes are fitted, and nothing half-written appears under its name."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge.apps.video import Mp4Sink, PictureSink, PngFolderSink, WindowSink, display_available, open_sink, open_source, sinks
from lmedge.errors import DataError, InputError
from tests.apps.video.clips import HEIGHT, WIDTH, numbered_frame, read_clip, write_clip


def write_at(sink: Mp4Sink, times_s: list[float]) -> list[int]:
    for number, time_s in enumerate(times_s):
        sink.write(numbered_frame(number), time_s)
    sink.close()
    return read_clip(sink.path)


def test_an_mp4_of_even_times_holds_every_frame_once(tmp_path: Path) -> None:
    assert write_at(Mp4Sink(tmp_path / "clip.mp4", 10), [n / 10 for n in range(8)]) == list(range(8))


def test_where_frames_are_missing_the_one_before_is_repeated(tmp_path: Path) -> None:
    assert write_at(Mp4Sink(tmp_path / "clip.mp4", 10), [5.0, 5.1, 5.4, 5.5]) == [0, 1, 1, 1, 2, 3]


def test_frames_that_come_too_fast_for_the_rate_are_left_out(tmp_path: Path) -> None:
    assert write_at(Mp4Sink(tmp_path / "clip.mp4", 10), [0, 0.03, 0.1, 0.13, 0.2]) == [0, 2, 4]


def test_a_long_gap_is_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_MAX_GAP_S", 0.3)
    assert write_at(Mp4Sink(tmp_path / "clip.mp4", 10), [0, 3600, 3600.1]) == [0, 0, 0, 0, 1, 2]


def test_a_clock_that_is_set_back_costs_no_frames(tmp_path: Path) -> None:
    assert write_at(Mp4Sink(tmp_path / "clip.mp4", 10), [100, 100.1, 3, 3.1]) == [0, 1, 2, 3]


def test_an_mp4_appears_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "made" / "clip.mp4", 10)
    sink.write(numbered_frame(0), 0)
    assert not sink.path.exists()
    sink.close()
    sink.close()
    assert [file.name for file in sink.path.parent.iterdir()] == ["clip.mp4"]


def test_no_frames_make_no_file_and_leave_the_old_one(tmp_path: Path) -> None:
    old = write_clip(tmp_path / "clip.mp4", 2).read_bytes()
    Mp4Sink(tmp_path / "clip.mp4", 10).close()
    assert (tmp_path / "clip.mp4").read_bytes() == old


def test_frames_of_another_size_are_fitted_into_the_first(tmp_path: Path) -> None:
    """Half a picture's height leaves bars above and below, and nothing is stretched."""
    sink = Mp4Sink(tmp_path / "clip.mp4", 10)
    sink.write(np.zeros((60, 80, 3), np.uint8), 0)
    sink.write(np.full((60, 160, 3), 255, np.uint8), 0.1)
    sink.close()
    capture = cv2.VideoCapture(str(sink.path))
    capture.read()
    frame = np.asarray(capture.read()[1])
    assert frame.shape == (60, 80, 3)
    assert frame[17:43].mean() > 240
    assert frame[:12].mean() < 15
    assert frame[-12:].mean() < 15


@pytest.mark.parametrize("size_hw", [(49, 65), (48, 65), (49, 64)])
def test_odd_sizes_can_be_written(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    sink = Mp4Sink(tmp_path / "clip.mp4", 10)
    sink.write(np.zeros((*size_hw, 3), np.uint8), 0)
    sink.close()
    assert len(read_clip(sink.path)) == 1


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Cannot make the folder"):
        Mp4Sink(tmp_path / "file" / "clip.mp4", 10).write(numbered_frame(0), 0)


def test_a_video_that_cannot_be_read_back_is_an_error(tmp_path: Path) -> None:
    """A full disk: the encoder goes on without a word."""
    sink = Mp4Sink(tmp_path / "clip.mp4", 10)
    sink.write(numbered_frame(0), 0)

    class Lost:
        def release(self) -> None:
            (tmp_path / ".clip.part.mp4").write_bytes(b"")

    sink._writer.release()
    sink._writer = Lost()
    with pytest.raises(DataError, match="is the disk full"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_png_files_are_exact_and_numbered(tmp_path: Path) -> None:
    sink = PngFolderSink(tmp_path / "frames")
    for number in range(3):
        sink.write(numbered_frame(number), number / 10)
    names = sorted(file.name for file in (tmp_path / "frames").iterdir())
    assert names == ["frame_000000.png", "frame_000001.png", "frame_000002.png"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "frames" / names[2])), numbered_frame(2))


def test_frames_are_not_mixed_with_those_of_an_earlier_run(tmp_path: Path) -> None:
    PngFolderSink(tmp_path).write(numbered_frame(0), 0)
    with pytest.raises(InputError, match="holds frames already"):
        PngFolderSink(tmp_path)


def test_the_name_of_the_output_says_what_is_written(tmp_path: Path) -> None:
    video = open_source(write_clip(tmp_path / "clip.mp4", 3))
    cv2.imwrite(str(tmp_path / "face.png"), numbered_frame(0))
    picture = open_source(tmp_path / "face.png")
    assert isinstance(open_sink(tmp_path / "out.mp4", video), Mp4Sink)
    assert isinstance(open_sink(tmp_path / "out", video), PngFolderSink)
    assert isinstance(open_sink(tmp_path / "out.jpg", picture), PictureSink)
    with pytest.raises(InputError, match="is one picture"):
        open_sink(tmp_path / "out.png", video)
    with pytest.raises(InputError, match=r"written as NAME\.mp4 or as a folder"):
        open_sink(tmp_path / "out.mov", video)
    with pytest.raises(InputError, match="both the source and the output"):
        open_sink(tmp_path / "clip.mp4", video)


def test_what_is_not_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be uint8"):
        PictureSink(tmp_path / "face.png").write(np.zeros((HEIGHT, WIDTH, 3)), 0)


def test_without_a_display_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not display_available()
    with pytest.raises(InputError, match="no display"):
        WindowSink()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays have names on Linux only")
def test_a_display_that_does_not_answer_is_refused_and_does_not_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert display_available()
    with pytest.raises(InputError, match="does not answer"):
        WindowSink()


class FakeWindow:
    """OpenCV's window functions; the person presses a key after some frames, or closes the window."""

    WINDOW_AUTOSIZE, WND_PROP_VISIBLE, error = 1, 4, cv2.error

    def __init__(self, keys: list[int], visible: list[float]) -> None:
        self.keys, self.visible, self.shown = keys, visible, 0

    def namedWindow(self, *_: object) -> None:  # noqa: N802 as OpenCV calls it
        pass

    destroyWindow = namedWindow  # noqa: N815

    def imshow(self, *_: object) -> None:
        self.shown += 1

    def waitKey(self, _: int) -> int:  # noqa: N802
        return self.keys[self.shown - 1]

    def getWindowProperty(self, *_: object) -> float:  # noqa: N802
        return self.visible[self.shown - 1]


@pytest.mark.parametrize(("keys", "visible"), [([-1, ord("x"), ord("q")], [1.0] * 3), ([-1] * 3, [1.0, 1.0, 0.0])])
def test_q_or_closing_the_window_ends_the_run(monkeypatch: pytest.MonkeyPatch, keys: list[int], visible: list[float]) -> None:
    monkeypatch.setattr(sinks, "cv2", FakeWindow(keys, visible))
    monkeypatch.setattr(sinks, "display_available", lambda: True)
    monkeypatch.setattr(sinks, "_window_opens", lambda: True)
    window = WindowSink()
    wants = []
    for _ in range(3):
        window.write(numbered_frame(0), 0)
        wants.append(window.wants_to_end)
    window.close()
    assert wants == [False, False, True]
