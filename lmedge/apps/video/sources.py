"""Where frames come from: a camera, a video file, a folder of pictures, one picture. Broken frames are skipped and counted."""

from __future__ import annotations

import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.apps.video.quiet import quiet_opencv
from lmedge.errors import DataError, InputError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# Of a folder of pictures, and of a file or camera that does not know its own.
ASSUMED_FPS = 25.0
_SANE_FPS = (0.1, 1000.0)
# A file that declares more frames is read on after a failure; so many failures in a row end it all the same.
_MAX_BROKEN_RUN = 300
# A camera that gives nothing for so long has been unplugged; between two reads that fail at once there is a pause.
_CAMERA_SILENT_S, _CAMERA_PAUSE_S = 5.0, 0.02

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        image_bgr: uint8 (H, W, 3).
        time_s: seconds on the video's own clock; a camera's begins when it is opened. It never runs backwards.
        index: number of the frame in its source, from 0; broken ones have theirs.
    """

    image_bgr: Image
    time_s: float
    index: int


class VideoSource(ABC):
    """Frames, once, in order. Close it, or use it in a ``with`` block.

    Attributes:
        name: for messages.
        fps: frames per second, of files as they declare it.
        fps_assumed: nobody knows the rate; `ASSUMED_FPS` was taken.
        frame_count: as declared, None where it is not known beforehand.
        live: a camera.
        broken: frames so far that could not be read, with readable ones after them.
        missing: frames that a file declares, or pictures of a folder, after the last one that could be read.
        file: the file or folder that is read, None for a camera.
    """

    def __init__(
        self, name: str, fps: float | None, frame_count: int | None = None, *, live: bool = False, file: Path | None = None
    ) -> None:
        self.name, self.frame_count, self.live, self.file = name, frame_count, live, file
        self.fps = ASSUMED_FPS if fps is None else fps
        self.fps_assumed = fps is None
        self.broken = 0
        self.missing = 0
        self._started = False

    def __iter__(self) -> Iterator[Frame]:
        """The frames that can be read.

        Raises:
            InputError: they have been asked for before.
            DataError: there is not one, or a camera stops giving them.
        """
        if self._started:
            raise InputError(f"{self.name}: the frames of a source come once; open it again.")
        self._started = True
        index = -1
        for frame in self._frames():
            yield frame
            index = frame.index
        if index < 0:
            raise DataError(
                f"{self.name}: not one frame could be read ({self.broken + self.missing} are broken or missing). "
                "Check that it plays in another program."
            )

    @abstractmethod
    def _frames(self) -> Iterator[Frame]: ...

    def close(self) -> None:  # noqa: B027 - pictures hold nothing open
        """Frees the device or file; closing twice is fine."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(source: str | Path | int, *, fps: float | None = None) -> VideoSource:
    """Opens a camera (0, "1"), a video file, a folder of pictures (in the order of their names, numbers by value) or a picture.

    Args:
        fps: the rate of a folder's pictures, or another one than a file declares; a camera is asked for it.

    Raises:
        InputError: no such file, folder or camera, or a rate that makes no sense.
        DataError: the file is no video, the folder holds no pictures.
    """
    if fps is not None and not _SANE_FPS[0] <= fps <= _SANE_FPS[1]:
        raise InputError(f"fps must be {_SANE_FPS[0]:g} to {_SANE_FPS[1]:g} frames per second; got {fps:g}.")
    if str(source).isdecimal():
        return _Camera(int(str(source)), fps)
    path = Path(str(source)).expanduser()
    if path.is_dir():
        return _Pictures(path, _pictures_in(path), fps)
    if not path.is_file():
        raise InputError(f"No video at {path}. Give a video file, a folder of pictures, a picture, or a camera's number as 0.")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _Pictures(path, [path], fps)
    return _VideoFile(path, fps)


class _VideoFile(VideoSource):
    def __init__(self, path: Path, fps: float | None) -> None:
        with quiet_opencv():
            self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            self._capture.release()
            raise DataError(
                f"{path} is not a video that OpenCV can read ({path.stat().st_size} bytes): empty, cut off, or of a format "
                "that it was built without. Check that it plays elsewhere, or convert it: ffmpeg -i INPUT output.mp4"
            )
        declared = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        count = int(declared) if math.isfinite(declared) and declared > 0 else None
        self._times_are_given = fps is not None
        super().__init__(str(path), fps or _sane_fps(self._capture.get(cv2.CAP_PROP_FPS)), count, file=path)

    def _frames(self) -> Iterator[Frame]:
        index, failed, time_s = 0, 0, -1 / self.fps
        while failed <= _MAX_BROKEN_RUN:
            with quiet_opencv():
                done, image = self._capture.read()
            if done:
                time_s = self._time_s(index, time_s)
                self.broken, failed = self.broken + failed, 0
                yield Frame(np.asarray(image, np.uint8), time_s, index)
            elif index + 1 >= (self.frame_count or 0):
                break
            else:
                failed += 1
            index += 1
        self.missing = max(0, (self.frame_count or 0) - (index - failed))

    def _time_s(self, index: int, before_s: float) -> float:
        """What the file says; a file without times, or with times that run backwards, is counted by its rate."""
        if self._times_are_given:
            return index / self.fps
        stamp_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return stamp_s if math.isfinite(stamp_s) and stamp_s > before_s else before_s + 1 / self.fps

    def close(self) -> None:
        self._capture.release()


class _Camera(VideoSource):
    def __init__(self, number: int, fps: float | None) -> None:
        with quiet_opencv():
            self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"Camera {number} cannot be opened: it is not there, in use by another program, or not yours to read "
                "(on Linux: ls -l /dev/video*). Or give a video file."
            )
        if fps is not None:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        # A queue of old frames would only make the picture late.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        super().__init__(f"camera {number}", _sane_fps(self._capture.get(cv2.CAP_PROP_FPS)) or fps, live=True)

    def _frames(self) -> Iterator[Frame]:
        start_s = last_s = time.monotonic()
        index, failed = 0, 0
        while True:
            done, image = self._capture.read()
            now_s = time.monotonic()
            if done:
                self.broken, failed, last_s = self.broken + failed, 0, now_s
                yield Frame(np.asarray(image, np.uint8), now_s - start_s, index)
            elif now_s - last_s > _CAMERA_SILENT_S:
                break
            else:
                failed += 1
                time.sleep(_CAMERA_PAUSE_S)
            index += 1
        if index > failed:
            raise DataError(
                f"{self.name} gives no frames any more; the last one came {last_s - start_s:.1f} s after the start. Is it "
                "still plugged in, and does another program use it?"
            )

    def close(self) -> None:
        self._capture.release()


class _Pictures(VideoSource):
    def __init__(self, place: Path, files: Sequence[Path], fps: float | None) -> None:
        super().__init__(str(place), fps, len(files), file=place)
        self._files = files

    def _frames(self) -> Iterator[Frame]:
        failed = 0
        for index, file in enumerate(self._files):
            image = _read_picture(file)
            if image is None:
                failed += 1
                continue
            self.broken, failed = self.broken + failed, 0
            yield Frame(image, index / self.fps, index)
        self.missing = failed


def _read_picture(file: Path) -> Image | None:
    """uint8 (H, W, 3), None for what is not a picture or one of a size that cannot be."""
    try:
        with quiet_opencv():
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _pictures_in(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise DataError(
            f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)}). Give a folder of frames, or a video file."
        )
    return sorted(files, key=_natural_order)


def _natural_order(file: Path) -> list[tuple[int, int, str]]:
    """frame2 comes before frame10."""
    parts = re.split(r"(\d+)", file.name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts] + [(0, 0, file.name)]


def _sane_fps(fps: float) -> float | None:
    return fps if math.isfinite(fps) and _SANE_FPS[0] <= fps <= _SANE_FPS[1] else None
