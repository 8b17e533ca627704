"""Where frames go: an mp4, a folder of PNG files, a picture, a window. What was written when a run is cut short is complete."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np

from lmedge.apps.video.quiet import quiet_opencv
from lmedge.apps.video.sources import Image, VideoSource
from lmedge.data.pictures import save_picture
from lmedge.errors import DataError, InputError
from lmedge.preprocess import check_image

# The one encoder for mp4 that every build of OpenCV has; players know it, some browsers do not.
_CODEC = "mp4v"
# A longer gap between two frames (a camera that slept, a clock that was set) is shortened to this.
_MAX_GAP_S = 10.0
_FRAME_NAME = "frame_{:06d}.png"
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_END_KEYS = (ord("q"), ord("Q"))
# On Linux, OpenCV's window system ends the whole program where it cannot reach the display; another process tries first.
_WINDOW_TRIAL, _TRIAL_S = "import cv2; cv2.namedWindow('lmedge')", 20.0


class VideoSink(ABC):
    """Takes frames in the order of their times. `close` makes the output whole, however the run ended."""

    def write(self, image_bgr: Image, time_s: float) -> None:
        """One frame: uint8 (H, W, 3) BGR, and its time in seconds.

        Raises:
            InputError: not an image.
            DataError: it cannot be written.
        """
        self._write(check_image(image_bgr), time_s)

    @abstractmethod
    def _write(self, image_bgr: Image, time_s: float) -> None: ...

    @property
    def wants_to_end(self) -> bool:
        """The person before the window has had enough."""
        return False

    def close(self) -> None:  # noqa: B027 - a picture is whole as soon as it is written
        """Finishes the output; closing twice is fine."""


def open_sink(output: str | Path, source: VideoSource) -> VideoSink:
    """A sink for what is made of a source: NAME.mp4, NAME.png or .jpg for a single picture, any other name is a folder.

    Raises:
        InputError: the output is the source itself, a picture for many frames, a folder that holds frames already, or a kind
            of file that is not written.
    """
    path = Path(output).expanduser()
    if source.file is not None and path.resolve() == source.file.resolve():
        raise InputError(f"{path} is both the source and the output. Give the output another name.")
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        return Mp4Sink(path, source.fps)
    if suffix in _PICTURE_SUFFIXES:
        if source.frame_count != 1:
            raise InputError(f"{path} is one picture, {source.name} has many frames. Give NAME.mp4, or a folder for PNG files.")
        return PictureSink(path)
    if suffix and not path.is_dir():
        raise InputError(
            f"Videos are written as NAME.mp4 or as a folder of PNG files; got {path}. A folder with a dot in its "
            "name has to be there already."
        )
    return PngFolderSink(path)


class Mp4Sink(VideoSink):
    """An mp4 of a fixed rate, in which every frame stands at its time.

    Where a frame is missing the one before is repeated, frames that come faster than the rate are left out. The first frame
    fixes the size (an odd row or column is cut off, as the encoder wants it); others are fitted into it. The file appears
    under its name when it is closed, whole; until then it is `.NAME.part.mp4`.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = Path(path).expanduser()
        self._part = self.path.with_name(f".{self.path.stem}.part.mp4")
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._start_s = self._last_s = 0.0
        self._written = 0
        self._last: Image | None = None

    def _write(self, image_bgr: Image, time_s: float) -> None:
        if self._writer is None:
            self._writer = self._open(image_bgr)
            self._start_s = time_s
        elif time_s < self._last_s:
            self._start_s += time_s - self._last_s - 1 / self._fps
        self._last_s = time_s
        slot = round((time_s - self._start_s) * self._fps)
        if slot < self._written:
            return
        too_many = slot - self._written - round(_MAX_GAP_S * self._fps)
        if too_many > 0:
            self._start_s += too_many / self._fps
            slot -= too_many
        while self._last is not None and self._written < slot:
            self._put(self._writer, self._last)
        self._last = _fitted(image_bgr, self._size)
        self._put(self._writer, self._last)

    def _put(self, writer: cv2.VideoWriter, image_bgr: Image) -> None:
        writer.write(image_bgr)
        self._written += 1

    def _open(self, image_bgr: Image) -> cv2.VideoWriter:
        height, width = image_bgr.shape[:2]
        self._size = (max(2, width - width % 2), max(2, height - height % 2))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"Cannot make the folder of {self.path}: {error.strerror or error}.") from error
        with quiet_opencv():
            writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*_CODEC), self._fps, self._size)
        if not writer.isOpened():
            raise DataError(
                f"Cannot write {self.path}: the folder is not yours to write, or this OpenCV has no mp4 encoder. "
                "Write PNG files instead: give a folder as the output."
            )
        return writer

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with quiet_opencv():
            writer.release()
            # The encoder does not say when the disk is full.
            check = cv2.VideoCapture(str(self._part))
            readable = check.read()[0]
            check.release()
        if not readable:
            with contextlib.suppress(OSError):
                self._part.unlink()
            raise DataError(f"{self.path} could not be finished; is the disk full? ({self._written} frames were given.)")
        try:
            os.replace(self._part, self.path)
        except OSError as error:
            raise DataError(f"Cannot write {self.path}: {error.strerror or error}; the video is {self._part}.") from error


class PngFolderSink(VideoSink):
    """A folder of frame_000000.png and so on, one for each frame; each file appears whole or not at all."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if self.folder.is_file():
            raise InputError(f"{self.folder} is a file; give a folder for PNG files, or NAME.mp4.")
        if next(self.folder.glob("frame_*.png"), None) is not None:
            raise InputError(f"{self.folder} holds frames already. Give another folder, or empty this one.")
        self._written = 0

    def _write(self, image_bgr: Image, time_s: float) -> None:
        save_picture(self.folder / _FRAME_NAME.format(self._written), image_bgr)
        self._written += 1


class PictureSink(VideoSink):
    """One picture, .png or .jpg."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def _write(self, image_bgr: Image, time_s: float) -> None:
        save_picture(self.path, image_bgr)


class WindowSink(VideoSink):
    """A window that shows the frames; the key q, or closing it, ends the run.

    Raises:
        InputError: there is no display, or this OpenCV was built without windows.
    """

    def __init__(self, title: str = "lmedge") -> None:
        if not display_available():
            raise InputError("There is no display here for a window. Leave the window out, and write a file instead.")
        if not _window_opens():
            raise InputError(
                "OpenCV cannot open a window: the display that DISPLAY or WAYLAND_DISPLAY names does not answer, or this is "
                "opencv-python-headless (install opencv-python instead). Or write a file instead."
            )
        self._title = title
        self._ended = False
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE)

    def _write(self, image_bgr: Image, time_s: float) -> None:
        cv2.imshow(self._title, image_bgr)
        self._ended |= cv2.waitKey(1) & 0xFF in _END_KEYS or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1

    @property
    def wants_to_end(self) -> bool:
        return self._ended

    def close(self) -> None:
        with contextlib.suppress(cv2.error):
            cv2.destroyWindow(self._title)


def display_available() -> bool:
    """Whether a display is named where a window could be seen; whether it answers is seen when a window is opened."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _window_opens() -> bool:
    try:
        trial = subprocess.run([sys.executable, "-c", _WINDOW_TRIAL], capture_output=True, timeout=_TRIAL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0


def _fitted(image_bgr: Image, size_wh: tuple[int, int]) -> Image:
    """The image at another size: cut by a pixel where that does it, else scaled with black bars."""
    width, height = size_wh
    if 0 <= image_bgr.shape[1] - width <= 1 and 0 <= image_bgr.shape[0] - height <= 1:
        return np.ascontiguousarray(image_bgr[:height, :width])
    zoom = min(width / image_bgr.shape[1], height / image_bgr.shape[0])
    inner_w, inner_h = (max(1, round(zoom * image_bgr.shape[axis])) for axis in (1, 0))
    small = cv2.resize(image_bgr, (inner_w, inner_h), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas[top : top + inner_h, left : left + inner_w] = small
    return canvas
