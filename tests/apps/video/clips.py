"""Small videos that tests make: frames that can be told apart after an encoder has been over them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from lmedge.apps.video.sources import Image

HEIGHT, WIDTH = 48, 64
# Bits of a frame's number, as black and white fields that survive compression.
_BITS = 6


def numbered_frame(number: int, size_hw: tuple[int, int] = (HEIGHT, WIDTH)) -> Image:
    """A gray picture whose left half shows `number` in binary."""
    image = np.full((*size_hw, 3), 128, np.uint8)
    field = size_hw[0] // _BITS
    for bit in range(_BITS):
        image[bit * field : (bit + 1) * field, : size_hw[1] // 2] = 255 * (number >> bit & 1)
    return image


def number_of(image: Image) -> int:
    field = image.shape[0] // _BITS
    rows = [image[bit * field + 1 : (bit + 1) * field - 1, 2 : image.shape[1] // 2 - 2] for bit in range(_BITS)]
    return sum(int(row.mean() > 128) << bit for bit, row in enumerate(rows))


def write_clip(path: Path, count: int, *, fps: float = 20.0, codec: str = "mp4v", noise: bool = False) -> Path:
    """A video of numbered frames, by OpenCV alone; noise makes each frame large enough to damage."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (WIDTH, HEIGHT))
    rng = np.random.default_rng(0)
    for number in range(count):
        frame = numbered_frame(number)
        if noise:
            frame[:, WIDTH // 2 :] = rng.integers(0, 256, (HEIGHT, WIDTH // 2, 3), np.uint8)
        writer.write(frame)
    writer.release()
    return path


def read_clip(path: Path) -> list[int]:
    """The numbers of the frames of a video, read by OpenCV alone."""
    capture = cv2.VideoCapture(str(path))
    numbers = []
    while True:
        done, image = capture.read()
        if not done:
            capture.release()
            return numbers
        numbers.append(number_of(np.asarray(image, np.uint8)))
