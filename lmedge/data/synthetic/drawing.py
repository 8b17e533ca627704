"""Smooth shapes on 8-bit pictures: polygons, lines, ellipses and soft blends, all with sub-pixel outlines."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.head_table import Floats

Image = npt.NDArray[np.uint8]

_BITS = 4
_ONE = 1 << _BITS
_PIECES = 3


def polygon(canvas: Image, outline_px: Floats, color: Floats | float, *, smooth: bool = True) -> None:
    """Fill an outline (P, 2); `smooth=False` leaves the edge hard, so that neighbours join without a seam."""
    cv2.fillPoly(canvas, [_fixed(outline_px)], _color(color), cv2.LINE_AA if smooth else cv2.LINE_8, _BITS)


def polyline(canvas: Image, line_px: Floats, color: Floats | float, thickness_px: float = 1) -> None:
    """A line through (P, 2), or several of them, (L, P, 2)."""
    lines = line_px[None] if line_px.ndim == 2 else line_px
    cv2.polylines(canvas, list(_fixed(lines)), False, _color(color), max(1, round(thickness_px)), cv2.LINE_AA, _BITS)


def ellipse(canvas: Image, center: Floats, axes: tuple[float, float], tilt_deg: float, color: Floats | float) -> None:
    middle = (round(float(center[0]) * _ONE), round(float(center[1]) * _ONE))
    half = (max(0, round(float(axes[0]) * _ONE)), max(0, round(float(axes[1]) * _ONE)))
    cv2.ellipse(canvas, middle, half, tilt_deg, 0, 360, _color(color), -1, cv2.LINE_AA, _BITS)


def window(canvas: Image, points_px: Floats, margin_px: float) -> tuple[tuple[slice, slice], Floats]:
    """Rows and columns of the part of the canvas around the points, and the position of its first pixel."""
    height, width = canvas.shape[:2]
    low = np.clip(np.floor(points_px.min(axis=0) - margin_px - 2).astype(int), 0, (width - 1, height - 1))
    high = np.minimum(np.maximum(np.ceil(points_px.max(axis=0) + margin_px + 3).astype(int), low + 1), (width, height))
    return (slice(low[1], high[1]), slice(low[0], high[0])), low.astype(np.float64)


def blend(patch: Image, layer: Image | Floats, alpha: Image) -> None:
    """Lay `layer` (an image or one colour) over `patch` in place; alpha (H, W), 255 is opaque."""
    part = alpha.astype(np.float32)[..., None] * np.float32(1 / 255)
    base = patch.astype(np.float32)
    over = np.asarray(layer, np.float32)
    patch[:] = (base + (over - base) * part + np.float32(0.5)).astype(np.uint8)


def blend_inside(patch: Image, layer: Image | Floats, outline_px: Floats, softness_px: float = 0.5) -> None:
    """Lay `layer` over `patch` inside the outline, with a soft edge."""
    alpha = np.zeros(patch.shape[:2], np.uint8)
    polygon(alpha, outline_px, 255.0)
    blend(patch, layer, np.asarray(cv2.GaussianBlur(alpha, (0, 0), softness_px), np.uint8))


def darken(canvas: Image, outline_px: Floats, part: float, softness_px: float) -> None:
    """A soft shadow: colours inside the outline lose that part of their brightness."""
    area, corner = window(canvas, outline_px, 3 * softness_px)
    blend_alpha = np.zeros(canvas[area].shape[:2], np.uint8)
    polygon(blend_alpha, outline_px - corner, float(255 * part))
    blend(canvas[area], np.zeros(3), np.asarray(cv2.GaussianBlur(blend_alpha, (0, 0), max(softness_px, 0.3)), np.uint8))


def smooth_line(points: Floats) -> Floats:
    """A Catmull-Rom spline through (P, D) points, three pieces per gap."""
    return np.asarray(_spline(len(points)) @ points)


def smooth_ring(ring: Floats) -> Floats:
    """Two splines that meet in the corners (first and middle point) of an eye or a mouth."""
    half = len(ring) // 2
    return np.concatenate([smooth_line(ring[: half + 1]), smooth_line(np.concatenate([ring[half:], ring[:1]]))[1:-1]])


@lru_cache(maxsize=64)
def _spline(count: int) -> Floats:
    """The spline's weights, (pieces, count): it is linear in its points."""
    points = np.eye(count)
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for t in np.arange(_PIECES) / _PIECES
    ]
    return np.concatenate([np.stack(pieces, axis=1).reshape(-1, count), points[-1:]])


def _fixed(points_px: Floats) -> npt.NDArray[np.int32]:
    return np.rint(points_px * _ONE).astype(np.int32)


def _color(color: Floats | float) -> tuple[float, ...]:
    return (float(color),) if isinstance(color, float | int) else tuple(float(value) for value in color)
