"""Where frames come from: files, folders, pictures, cameras; what is broken is skipped, counted and told."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge.apps.video import Frame, open_source, sources
from lmedge.errors import DataError, InputError
from tests.apps.video.clips import number_of, numbered_frame, write_clip
from tests.requirements import REPOSITORY


def write_frames(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), numbered_frame(number))
    return folder


def test_a_file_gives_every_frame_once_with_the_times_it_declares(tmp_path: Path) -> None:
    with open_source(write_clip(tmp_path / "clip.mp4", 12, fps=20)) as source:
        assert (source.fps, source.frame_count, source.live, source.fps_assumed) == (20, 12, False, False)
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / 20, atol=1e-6)
    assert (source.broken, source.missing) == (0, 0)


def test_another_rate_than_the_files_own_can_be_given(tmp_path: Path) -> None:
    with open_source(write_clip(tmp_path / "clip.mp4", 4, fps=20), fps=10) as source:
        assert [frame.time_s for frame in source] == pytest.approx([0, 0.1, 0.2, 0.3])


def damaged_clip(path: Path) -> Path:
    """A video of 40 frames with zeros in the place of some in the middle."""
    content = bytearray(write_clip(path, 40, noise=True).read_bytes())
    third, half = len(content) // 3, len(content) // 2
    content[third:half] = bytes(half - third)
    path.write_bytes(content)
    return path


def test_damaged_frames_inside_a_file_are_skipped_and_counted(tmp_path: Path) -> None:
    """Frames after the damage keep their numbers and their times."""
    with open_source(damaged_clip(tmp_path / "clip.mp4")) as source:
        frames = list(source)
    assert source.broken > 0
    assert len(frames) + source.broken == 40
    assert frames[-1].index == 39
    assert frames[-1].time_s == pytest.approx(39 / source.fps)


def test_opencv_and_its_decoders_write_nothing_of_their_own(tmp_path: Path) -> None:
    """In a fresh Python: the decoder's level is read once, when the first video is opened."""
    (tmp_path / "text.mp4").write_text("hello world")
    script = """
import contextlib, sys
from lmedge.apps.video import open_source
from lmedge.errors import LmedgeError
for place in sys.argv[1:]:
    with contextlib.suppress(LmedgeError):
        print(len(list(open_source(place))))
"""
    places = [str(damaged_clip(tmp_path / "clip.mp4")), str(tmp_path / "text.mp4"), "87"]
    result = subprocess.run([sys.executable, "-c", script, *places], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert 0 < int(result.stdout) < 40
    assert result.stderr == ""


def test_frames_that_a_file_declares_and_does_not_hold_are_counted(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 40, codec="MJPG", noise=True)
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    with open_source(clip) as source:
        count = len(list(source))
    assert 0 < count < 40
    assert source.missing == 40 - count


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", ["frame1.png", "frame2.png", "frame10.png"])
    (folder / "notes.txt").write_text("no picture")
    with open_source(folder, fps=10) as source:
        frames = list(source)
    assert [number_of(frame.image_bgr) for frame in frames] == [0, 1, 2]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2])


def test_a_folder_without_a_rate_says_that_one_was_assumed(tmp_path: Path) -> None:
    source = open_source(write_frames(tmp_path / "frames", ["a.png"]))
    assert source.fps_assumed
    assert source.fps == sources.ASSUMED_FPS


def test_a_broken_picture_in_a_folder_is_skipped_and_time_goes_on(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", ["0.png", "1.png", "2.png", "3.png"])
    (folder / "1.png").write_bytes(b"no picture")
    (folder / "3.png").write_bytes(b"")
    with open_source(folder, fps=10) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 2]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.2])
    assert (source.broken, source.missing) == (1, 1)


def test_a_picture_that_claims_an_impossible_size_is_a_broken_one(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", ["0.png", "1.png"])
    content = bytearray((folder / "0.png").read_bytes())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (folder / "0.png").write_bytes(content)
    with open_source(folder) as source:
        assert [frame.index for frame in source] == [1]
    assert source.broken == 1


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", ["face_%03d.png"])
    with open_source(folder / "face_%03d.png") as source:
        assert source.frame_count == 1
        assert [frame.index for frame in source] == [0]


@pytest.mark.parametrize("content", [b"", b"hello world" * 100])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip01.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"clip01\.mp4 is not a video that OpenCV can read"):
        open_source(tmp_path / "clip01.mp4")


def test_a_video_that_was_cut_off_before_its_index_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 30, noise=True)
    clip.write_bytes(clip.read_bytes()[:2000])
    with pytest.raises(DataError, match="cut off"):
        open_source(clip)


def test_a_picture_that_cannot_be_read_gives_zero_frames_and_that_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(b"no picture")
    with open_source(tmp_path / "face.png") as source, pytest.raises(DataError, match=r"not one frame could be read \(1 "):
        list(source)


def test_a_place_with_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No video at"):
        open_source(tmp_path / "nothing.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        open_source(tmp_path / "empty")


def test_a_camera_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="Camera 87 cannot be opened"):
        open_source("87")


@pytest.mark.parametrize("fps", [0, -5, float("nan"), float("inf"), 1e6])
def test_a_rate_that_makes_no_sense_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(InputError, match="fps must be"):
        open_source(tmp_path, fps=fps)


def test_frames_come_once(tmp_path: Path) -> None:
    with open_source(write_frames(tmp_path / "frames", ["a.png"])) as source:
        assert len(list(source)) == 1
        with pytest.raises(InputError, match="come once"):
            list(source)


class FakeCapture:
    """A camera that fails now and then, in the place of `cv2.VideoCapture`."""

    answers = (True, False, True, True)

    def __init__(self, _: int) -> None:
        self._left = list(self.answers)

    def isOpened(self) -> bool:  # noqa: N802 as OpenCV calls it
        return True

    def read(self) -> tuple[bool, object]:
        good = self._left.pop(0) if self._left else False
        return good, numbered_frame(0) if good else None

    def get(self, _: int) -> float:
        return 0.0

    def set(self, *_: object) -> bool:
        return True

    def release(self) -> None:
        pass


def test_a_camera_survives_a_broken_frame_and_says_when_it_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(sources, "_CAMERA_SILENT_S", 0.1)
    frames: list[Frame] = []
    with open_source(0) as source, pytest.raises(DataError, match="camera 0 gives no frames any more"):
        frames.extend(source)
    assert source.live
    assert source.fps_assumed, "a camera that says 0 frames per second does not know its rate"
    assert [frame.index for frame in frames] == [0, 2, 3]
    assert source.broken == 1
    times = [frame.time_s for frame in frames]
    assert times == sorted(set(times))


def test_a_camera_that_never_gives_a_frame_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    class Covered(FakeCapture):
        def read(self) -> tuple[bool, object]:
            reads.append(0)
            return False, None

    monkeypatch.setattr(sources.cv2, "VideoCapture", Covered)
    monkeypatch.setattr(sources, "_CAMERA_SILENT_S", 0.1)
    with open_source(0) as source, pytest.raises(DataError, match="camera 0: not one frame could be read"):
        list(source)
    assert 2 <= len(reads) <= 8, "it is asked again, and not without a pause"


class BackwardClock(FakeCapture):
    """A file whose times run backwards once and are not numbers once."""

    stamps_ms = (0.0, 100.0, 50.0, float("nan"), 500.0)
    answers = (True,) * 5

    def __init__(self, _: str) -> None:
        super().__init__(0)
        self._read = -1

    def read(self) -> tuple[bool, object]:
        self._read += 1
        return super().read()

    def get(self, prop: int) -> float:
        return {
            sources.cv2.CAP_PROP_FPS: 10.0,
            sources.cv2.CAP_PROP_FRAME_COUNT: 5.0,
            sources.cv2.CAP_PROP_POS_MSEC: self.stamps_ms[min(self._read, 4)],
        }[prop]


def test_time_never_runs_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.cv2, "VideoCapture", BackwardClock)
    (tmp_path / "clip.mp4").write_bytes(b"played by the fake")
    with open_source(tmp_path / "clip.mp4") as source:
        assert [frame.time_s for frame in source] == pytest.approx([0, 0.1, 0.2, 0.3, 0.5])
