"""What happens to a picture between a face and a network: something before the face, blur, sensor noise, compression, an
infrared camera. Each leaves the geometry alone, so labels stay where they are.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

# Parts of the crop's side that a covering patch takes, and the standard deviation of the strongest blur.
_PATCH_PARTS = (0.12, 0.45)
_BLUR_PART = 0.014
# The smallest reduction before a picture is enlarged again.
_LEAST_REDUCTION = 0.4
_NOISE_LEVELS = (2.0, 14.0)
_JPEG_QUALITY = (15, 70)
_NOISE_PX = 512


def cover(crop_bgr: Image, rng: np.random.Generator) -> Image:
    """A rectangle or ellipse of one colour, of noise, or of another part of the picture (DeVries and Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout", 2017)."""
    side = crop_bgr.shape[0]
    height, width = (max(2, round(float(part) * side)) for part in rng.uniform(*_PATCH_PARTS, 2))
    top, left = int(rng.integers(1 - height // 2, side - height // 2)), int(rng.integers(1 - width // 2, side - width // 2))
    patch = _patch(crop_bgr, height, width, rng)
    covered = crop_bgr.copy()
    rows, columns = slice(max(top, 0), min(top + height, side)), slice(max(left, 0), min(left + width, side))
    part = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    if rng.random() < 0.5:
        mask = _ellipse(height, width)[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        np.copyto(covered[rows, columns], part, where=mask)
    else:
        covered[rows, columns] = part
    return covered


def blur(crop_bgr: Image, rng: np.random.Generator) -> Image:
    """Out of focus, moved, or taken with too few pixels."""
    side, kind = crop_bgr.shape[0], rng.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(crop_bgr, (0, 0), float(rng.uniform(0.4, 1) * _BLUR_PART * side)), np.uint8)
    if kind == 1:
        length = max(3, round(float(rng.uniform(0.5, 1)) * 5 * _BLUR_PART * side))
        return np.asarray(cv2.filter2D(crop_bgr, -1, _streak(length, float(rng.uniform(0, np.pi)))), np.uint8)
    small = max(8, round(float(rng.uniform(_LEAST_REDUCTION, 0.8)) * side))
    reduced = cv2.resize(crop_bgr, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(reduced, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def add_noise(crop_bgr: Image, rng: np.random.Generator) -> Image:
    """Sensor noise, of each channel by itself or the same in all."""
    side = crop_bgr.shape[0]
    top, left = rng.integers(0, _NOISE_PX - side, 2) if side < _NOISE_PX else (0, 0)
    grain = _grain(max(_NOISE_PX, side + 1))[top : top + side, left : left + side]
    if rng.random() < 0.5:
        grain = np.asarray(cv2.merge([grain[:, :, 0]] * 3), np.int16)
    level = int(rng.uniform(*_NOISE_LEVELS) * 16)
    # Grain has 16 steps per standard deviation; the sum saturates as a sensor does.
    moved = crop_bgr.astype(np.int16) + ((grain * level) >> 8)
    return np.asarray(np.clip(moved, 0, 255), np.uint8)


def compress(crop_bgr: Image, rng: np.random.Generator) -> Image:
    """JPEG and back."""
    packed = cv2.imencode(".jpg", crop_bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*_JPEG_QUALITY))])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def near_infrared(crop_bgr: Image, rng: np.random.Generator) -> Image:
    """The look of a camera with its own infrared lamp: gray, mostly of the red channel, brightest where the lamp points."""
    blue, green = rng.uniform(0, 0.25, 2)
    gray = cv2.transform(crop_bgr, np.array([[blue, green, 1 - blue - green]]))
    side = gray.shape[0]
    x, y = rng.uniform(0.2, 0.8, 2) * side
    reach = float(rng.uniform(0.5, 1.2)) * side
    across = np.exp(-(((np.arange(side, dtype=np.float32) - np.float32(x)) / reach) ** 2))
    down = np.exp(-(((np.arange(side, dtype=np.float32) - np.float32(y)) / reach) ** 2))
    lit = gray * (down[:, None] * across[None, :] * np.float32(rng.uniform(0.9, 1.3)))
    lit = np.asarray(np.clip(lit, 0, 255), np.uint8)
    return np.asarray(cv2.merge([lit, lit, lit]), np.uint8)


def _patch(crop_bgr: Image, height: int, width: int, rng: np.random.Generator) -> Image:
    kind, side = rng.integers(3), crop_bgr.shape[0]
    if kind == 0:
        return np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (height, width, 3))
    if kind == 1:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
    return crop_bgr[top : top + height, left : left + width]


def _ellipse(height: int, width: int) -> npt.NDArray[np.bool_]:
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    return np.broadcast_to((x[None, :] ** 2 + y[:, None] ** 2 <= 1)[:, :, None], (height, width, 3))


def _streak(length: int, angle: float) -> npt.NDArray[np.float32]:
    """A line through the middle of a square kernel, sum 1."""
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    middle, reach = side // 2, (length - 1) / 2
    end = np.array([np.cos(angle), np.sin(angle)]) * reach
    start, stop = np.rint((middle - end) * 16).astype(int), np.rint((middle + end) * 16).astype(int)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(stop[0]), int(stop[1])), 1.0, 1, cv2.LINE_8, 4)
    # As drawn, a short line may lie half a pixel aside, and so would everything in the picture.
    kernel = kernel + kernel[::-1, ::-1]
    return np.asarray(kernel / kernel.sum(), np.float32)


@lru_cache(maxsize=4)
def _grain(side_px: int) -> npt.NDArray[np.int16]:
    """Gaussian noise (side, side, 3) in sixteenths of its standard deviation, drawn once: drawing costs more than a warp."""
    noise = np.random.default_rng(0).standard_normal((side_px, side_px, 3))
    return np.rint(noise * 16).astype(np.int16)
