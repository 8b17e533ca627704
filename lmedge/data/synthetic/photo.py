"""What lens, sensor and file do to a picture."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.drawing import Image
from lmedge.data.synthetic.light import LOW_LIGHT, NEAR_INFRARED, Light

_EDGE_BLUR_PX = 0.5
_GRAIN_PX = 1536
# The grain is kept as whole numbers; this many are one standard deviation.
_GRAIN_STEP = 24
# What the exposure aims at, and the margin that it leaves out.
_MIDDLE, _UNMETERED = 116.0, 0.22
_GRAY, _SMALL, _MOVED, _NOISY, _JPEG = 0.09, 0.3, 0.06, 0.25, 0.4


def soften(picture: Image) -> Image:
    """A clean picture: only the edges of the drawing are smoothed."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), _EDGE_BLUR_PX), np.uint8)


def photograph(picture: Image, light: Light, rng: np.random.Generator) -> Image:
    """Lens blur, lost resolution, exposure, colours, vignette, sensor noise, and often JPEG; uint8 → uint8."""
    size_px = len(picture)
    blur = float(np.hypot(_EDGE_BLUR_PX, abs(rng.normal(0, 0.0035)) * size_px))
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.uint8)
    if rng.random() < _SMALL:
        picture = _lose_resolution(picture, rng)
    if rng.random() < _MOVED:
        picture = _move(picture, rng)
    if light.falloff > 0:
        picture = _vignette(picture, light.falloff, rng)
    infrared = light.lighting == NEAR_INFRARED
    gray = infrared or rng.random() < _GRAY
    picture = _develop(picture, light, gray, rng)
    strength = _draw_noise(light, rng) / _GRAIN_STEP
    picture = np.asarray(
        cv2.addWeighted(picture, 1.0, _grain_piece(size_px, gray, rng), strength, 0.0, dtype=cv2.CV_8U), np.uint8
    )
    if rng.random() < _JPEG:
        packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))])[1]
        picture = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8) if gray else picture


def _draw_noise(light: Light, rng: np.random.Generator) -> float:
    """Standard deviation in gray levels; most pictures have little of it."""
    if light.lighting == LOW_LIGHT:
        return float(rng.uniform(7, 20))
    return float(rng.uniform(2, 11) if rng.random() < _NOISY else abs(rng.normal(0, 2.0)))


def _lose_resolution(picture: Image, rng: np.random.Generator) -> Image:
    size_px = len(picture)
    small = max(24, round(size_px * rng.uniform(0.3, 0.85)))
    shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    how = cv2.INTER_LINEAR if rng.random() < 0.6 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(shrunk, (size_px, size_px), interpolation=how), np.uint8)


def _move(picture: Image, rng: np.random.Generator) -> Image:
    """Blur along a line."""
    length = max(3, round(rng.uniform(0.015, 0.05) * len(picture)) | 1)
    kernel = np.zeros((length, length), np.float32)
    angle, middle = rng.uniform(0, np.pi), length // 2
    along = np.array([np.cos(angle), np.sin(angle)]) * middle
    start, end = (tuple(np.round(middle + sign * along).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), np.uint8)


def _vignette(picture: Image, falloff: float, rng: np.random.Generator) -> Image:
    """Darker toward the corners, around a middle near the face."""
    size_px = len(picture)
    middle = size_px * (0.5 + rng.normal(0, 0.08, 2))
    axis = np.arange(size_px, dtype=np.float32)
    across, down = ((axis - np.float32(place)) ** 2 for place in middle)
    gain = np.float32(1) / (1 + np.float32(falloff * 4 / size_px**2) * (across[None] + down[:, None]))
    return np.asarray(cv2.multiply(picture, cv2.merge([gain] * 3), dtype=cv2.CV_8U), np.uint8)


def _develop(picture: Image, light: Light, gray: bool, rng: np.random.Generator) -> Image:
    """Saturation or gray, then exposure, white balance and contrast as one curve per channel."""
    goal = rng.uniform(28, 60) if light.lighting == LOW_LIGHT else _MIDDLE * np.exp(rng.normal(0, 0.22))
    edge = round(_UNMETERED * len(picture))
    metered = max(4.0, float(np.mean(cv2.mean(picture[edge:-edge, edge:-edge])[:3])))
    # The camera corrects most of what it meters, not all.
    gain = (goal / metered) ** rng.uniform(0.45, 1.0) * np.exp(rng.normal(0, 0.06, 3))
    gamma, contrast = np.exp(rng.normal(0, 0.16)), rng.uniform(0.75, 1.4)
    black, saturation = rng.uniform(-6, 14), rng.uniform(0.65, 1.25)
    level = np.clip(np.arange(256)[:, None] / 255 * gain, 0, None) ** gamma
    # An S curve around middle gray.
    level = np.clip(level, 0, 1)
    level = level + (contrast - 1) * (level - 0.5) * 4 * level * (1 - level)
    curve = np.clip(black + level * (255 - black), 0, 255).astype(np.uint8)
    if gray:
        return np.asarray(cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), curve[:, 1]), np.uint8)
    mix = np.full((3, 3), (1 - saturation) / 3) + np.eye(3) * saturation
    return np.asarray(cv2.LUT(cv2.transform(picture, mix), curve[None]), np.uint8)


def _grain_piece(size_px: int, gray: bool, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    top, left = rng.integers(0, _GRAIN_PX - size_px, 2)
    piece = _grain()[top : top + size_px, left : left + size_px]
    return piece[..., 0] if gray else piece


@lru_cache(maxsize=1)
def _grain() -> npt.NDArray[np.int8]:
    """Sensor noise, a mixture of white and slightly correlated, (_GRAIN_PX, _GRAIN_PX, 3)."""
    white = np.random.default_rng(512).standard_normal((_GRAIN_PX, _GRAIN_PX, 3), np.float32)
    mixed = white + 1.5 * cv2.GaussianBlur(white, (0, 0), 0.9)
    return np.asarray(np.clip(np.round(mixed / mixed.std() * _GRAIN_STEP), -127, 127), np.int8)
