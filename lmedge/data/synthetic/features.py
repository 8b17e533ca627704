"""Parts drawn straight into the picture, over the shaded head: eyes, the inside of the mouth, glasses."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.appearance import Look
from lmedge.data.synthetic.camera import View
from lmedge.data.synthetic.head_table import Floats

Canvas = npt.NDArray[np.float32]

_BITS = 4
_IRIS_MM, _EYEBALL_MM = 6.2, 12.5
_EYES = ((tuple(range(60, 68)), 96), (tuple(range(68, 76)), 97))
_INNER_LIP = tuple(range(88, 96))


@dataclass(frozen=True)
class Gaze:
    """Where both eyes look, relative to the head: degrees to the viewer's right and up."""

    right_deg: float = 0.0
    up_deg: float = 0.0


def pupils_mm(vertices: Floats, gaze: Gaze) -> Floats:
    """The middles of both pupils in head axes, (2, 3); lids that close carry the label along, as annotators do."""
    right, up = np.radians([gaze.right_deg, gaze.up_deg])
    result = np.empty((2, 3))
    for i, (ring, _) in enumerate(_EYES):
        lids = vertices[list(ring)]
        middle = (lids[0] + lids[4]) / 2
        middle[2] = lids[:, 2].min() + 0.6
        upper, lower = lids[2, 1], lids[6, 1]
        middle[1] = 0.45 * upper + 0.55 * lower - 0.4
        shift = _EYEBALL_MM * np.array([np.sin(right), -np.sin(up), 1 - np.cos(right) * np.cos(up)])
        shift[1] = np.clip(shift[1], 0.6 * (upper - middle[1]), 0.6 * (lower - middle[1]))
        result[i] = middle + shift
    return result


def draw_eyes(canvas: Canvas, points_px: Floats, view: View, look: Look, light: float) -> None:
    """Sclera, iris, pupil, catch light, lids and lashes of the eyes that face the camera.

    Args:
        canvas: float32 (H, W, 3) BGR, changed in place.
        points_px: the 98 points.
        view: gives the scale and the turn of the head.
        look: colours.
        light: brightness of white.
    """
    along = view.rotation[:2, 0]
    for ring, pupil in _EYES:
        lids = points_px[list(ring)]
        if (lids[4] - lids[0]) @ along > 0:
            patch, corner = _window(canvas, lids, 9 * view.scale)
            _draw_eye(patch, lids - corner, points_px[pupil] - corner, view, look, light)


def _draw_eye(patch: Canvas, lids: Floats, center: Floats, view: View, look: Look, light: float) -> None:
    px_per_mm = view.scale
    iris_px, narrow = _IRIS_MM * px_per_mm, max(0.35, abs(float(view.rotation[2, 2])))
    tilt = float(np.degrees(np.arctan2(view.rotation[1, 0], view.rotation[0, 0])))
    layer = np.empty_like(patch)
    layer[:] = np.array([206, 212, 218], np.float32) * (light * look.eye_white)
    _ellipse(layer, center, (iris_px * narrow, iris_px), tilt, look.iris * light * 0.45)
    _ellipse(layer, center, (iris_px * narrow * 0.84, iris_px * 0.84), tilt, look.iris * light)
    _ellipse(layer, center, (iris_px * narrow * 0.42, iris_px * 0.42), tilt, np.array([10.0, 8, 8]))
    catch = center + np.array([-0.3, -0.35]) * iris_px
    _ellipse(layer, catch, (iris_px * 0.2, iris_px * 0.2), 0, np.array([245.0, 245, 245]) * min(1, light + 0.2))
    upper, lower = lids[:5], lids[[4, 5, 6, 7, 0]]
    upper_line = _smooth_line(upper)
    # The lid throws a shadow on the eyeball.
    _polyline(layer, upper_line, look.skin * 0.25 * light, max(1, round(2.2 * px_per_mm)))
    _blend_inside(patch, layer, _smooth_ring(lids))
    _polyline(patch, upper_line, look.skin * 0.22 * light, max(1, round(1.1 * px_per_mm)))
    _polyline(patch, _smooth_line(lower), look.skin * 0.62 * light, 1)
    gap = float(np.linalg.norm(lids[2] - lids[6]))
    if gap > 3 * px_per_mm:
        crease = upper[1:4] + (lids[2] - lids[6]) / gap * 3.4 * px_per_mm
        _polyline(patch, _smooth_line(crease), look.skin * 0.6 * light, 1)


def draw_mouth(canvas: Canvas, points_px: Floats, view: View, look: Look, light: float, teeth_mm: float) -> None:
    """What shows between the lips: dark, upper teeth of that height, tongue; a line where they are shut.

    The other arguments are those of `draw_eyes`.
    """
    patch, corner = _window(canvas, points_px[76:96], 3 * view.scale)
    ring = points_px[list(_INNER_LIP)] - corner
    gap_px = float(np.linalg.norm(ring[2] - ring[6]))
    if gap_px <= max(1.2, 1.2 * view.scale):
        seam = points_px[[76, 88, 89, 90, 91, 92, 82]] - corner
        _polyline(patch, _smooth_line(seam), look.lips * 0.45 * light, 1)
        return
    layer = np.empty_like(patch)
    layer[:] = np.array([28, 22, 52], np.float32) * light
    down = (ring[6] - ring[2]) / gap_px
    if teeth_mm > 0 and gap_px > 3 * view.scale:
        upper = _smooth_line(ring[:5])
        height = min(teeth_mm * view.scale, 0.8 * gap_px)
        _polygon(layer, np.concatenate([upper, (upper + down * height)[::-1]]), np.array([190, 208, 216]) * light)
    if gap_px > 9 * view.scale:
        across = ring[4] - ring[0]
        tilt = float(np.degrees(np.arctan2(across[1], across[0])))
        axes = (0.3 * float(np.linalg.norm(across)), 0.28 * gap_px)
        _ellipse(layer, ring[6] - down * 0.1 * gap_px, axes, tilt, np.array([78, 70, 150]) * light)
    _blend_inside(patch, layer, _smooth_ring(ring))


def draw_glasses(canvas: Canvas, vertices_mm: Floats, view: View, rng: np.random.Generator) -> None:
    """A frame before the eyes, with clear, tinted or reflecting lenses and the temples to the ears."""
    frame = rng.choice([12.0, 40.0, 90.0, 150.0]) + rng.normal(0, 8, 3)
    size_x, size_y = rng.uniform(21, 28), rng.uniform(14, 24)
    square = rng.uniform(2.0, 4.5)
    tint = float(rng.choice([0.0, rng.uniform(0.05, 0.25), rng.uniform(0.6, 0.95)], p=[0.6, 0.28, 0.12]))
    thickness = max(1, round(rng.uniform(0.8, 3.2) * view.scale))
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    shape = np.stack([np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / square) * size_x,
                      np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / square) * size_y], axis=1)  # fmt: skip
    front = float(vertices_mm[51, 2]) - 3
    tint_color = rng.uniform(5, 90, 3)
    for ring, side in ((_EYES[0][0], -1), (_EYES[1][0], 1)):
        center = (vertices_mm[ring[0]] + vertices_mm[ring[4]]) / 2
        x = center[0] + side * 1.5 + shape[:, 0]
        lens = np.stack([x, center[1] + 5 + shape[:, 1], front + 0.006 * x**2], axis=1)
        lens_px = view.project(view.to_camera(lens))
        if tint > 0:
            alpha = np.zeros(canvas.shape[:2], np.float32)
            _polygon(alpha, lens_px, tint)
            canvas += (tint_color.astype(np.float32) - canvas) * alpha[..., None]
        _polyline(canvas, np.concatenate([lens_px, lens_px[:1]]), frame, thickness)
        hinge = np.array([[center[0] + side * (1.5 + size_x), center[1], front + 8], [side * 74, center[1] + 2, 68]])
        hinge_px = view.project(view.to_camera(hinge))
        # The temple on the far side lies behind the head.
        if side * (hinge_px[1, 0] - hinge_px[0, 0]) > -2 and side * view.rotation[2, 0] < 0.15:
            _polyline(canvas, hinge_px, frame * 0.8, thickness)
    inner = (vertices_mm[64, 0] + vertices_mm[68, 0]) / 2
    gap = abs(vertices_mm[68, 0] - vertices_mm[60, 0]) * 0.5 - 13.0
    bridge = np.array([[inner - 0.5 * min(gap, 12), 2, front], [inner, 0, front - 2], [inner + 0.5 * min(gap, 12), 2, front]])
    _polyline(canvas, view.project(view.to_camera(bridge)), frame, thickness)


def _window(canvas: Canvas, points_px: Floats, margin_px: float) -> tuple[Canvas, Floats]:
    """The part of the canvas around the points, as a view, and the position of its first pixel."""
    low = np.clip(np.floor(points_px.min(axis=0) - margin_px - 2).astype(int), 0, canvas.shape[0] - 1)
    high = np.maximum(np.ceil(points_px.max(axis=0) + margin_px + 3).astype(int), low + 1)
    return canvas[low[1] : high[1], low[0] : high[0]], low.astype(np.float64)


def _blend_inside(patch: Canvas, layer: Canvas, outline_px: Floats) -> None:
    """Lay `layer` over `patch` inside the outline, with a soft edge."""
    alpha = np.zeros(patch.shape[:2], np.float32)
    _polygon(alpha, outline_px, 1.0)
    patch += (layer - patch) * cv2.GaussianBlur(alpha, (0, 0), 0.5)[..., None]


def _polygon(canvas: npt.NDArray[np.float32], outline_px: Floats, color: Floats | float) -> None:
    value = color if isinstance(color, float) else tuple(np.asarray(color, float).tolist())
    cv2.fillPoly(canvas, [_fixed(outline_px)], value, cv2.LINE_8, _BITS)


def _polyline(canvas: Canvas, line_px: Floats, color: Floats, thickness: int) -> None:
    cv2.polylines(canvas, [_fixed(line_px)], False, tuple(np.asarray(color, float).tolist()), thickness, cv2.LINE_8, _BITS)


def _ellipse(canvas: Canvas, center: Floats, axes: tuple[float, float], tilt_deg: float, color: Floats) -> None:
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    tilt = np.radians(tilt_deg)
    x, y = axes[0] * np.cos(angle), axes[1] * np.sin(angle)
    outline = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], axis=1)
    cv2.fillConvexPoly(canvas, _fixed(center + outline), tuple(np.asarray(color, float).tolist()), cv2.LINE_8, _BITS)


def _fixed(points_px: Floats) -> npt.NDArray[np.int32]:
    return np.round(points_px * (1 << _BITS)).astype(np.int32)


def _smooth_line(points: Floats) -> Floats:
    """A Catmull-Rom spline through the points, three pieces per gap."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for t in (0, 1 / 3, 2 / 3)
    ]
    return np.concatenate([np.stack(pieces, axis=1).reshape(-1, 2), points[-1:]])


def _smooth_ring(ring: Floats) -> Floats:
    """Two splines that meet in the corners (first and middle point) of an eye or a mouth."""
    half = len(ring) // 2
    return np.concatenate([_smooth_line(ring[: half + 1]), _smooth_line(np.concatenate([ring[half:], ring[:1]]))[1:-1]])
