"""Glasses and sunglasses."""

from __future__ import annotations

import cv2
import numpy as np

from lmedge.data.synthetic.drawing import Image, blend, polygon, polyline, window
from lmedge.data.synthetic.features import EYES
from lmedge.data.synthetic.head_table import Floats
from lmedge.data.synthetic.surface import DrawnHead

_CLEARANCE_MM = 5.0
_CORNERS = 24


def draw_eyewear(canvas: Image, cover: Image, head: DrawnHead, rng: np.random.Generator, *, dark: bool) -> None:
    """A frame before the eyes with the temples to the ears; clear or lightly tinted lenses, or dark ones.

    Args:
        canvas: changed in place.
        cover: (H, W), 255 is written where dark lenses hide the face.
        head: who wears them.
        rng: the style.
        dark: sunglasses.
    """
    vertices, view = head.vertices_mm, head.view
    level = np.minimum(head.level_at(head.labels_px[60:76]), 1.1)
    frame = (rng.choice([12.0, 30.0, 90.0, 150.0]) + rng.normal(0, 8, 3)) * level
    size_x, size_y = (rng.uniform(25, 32), rng.uniform(19, 27)) if dark else (rng.uniform(21, 28), rng.uniform(14, 24))
    thickness = rng.uniform(0.8, 3.2) * view.scale
    tint = float(rng.uniform(0.86, 1.0) if dark else rng.choice([0.0, rng.uniform(0.05, 0.25)], p=[0.6, 0.4]))
    tint_color, glare = rng.uniform(5, 60, 3) * level, rng.uniform(0, 0.35) * (rng.random() < 0.5)
    shape = _lens_shape(size_x, size_y, rng.uniform(2.0, 4.5))
    front = float(vertices[51, 2]) - 3
    for ring, side in ((EYES[0][0], -1), (EYES[1][0], 1)):
        center = (vertices[ring[0]] + vertices[ring[4]]) / 2
        x = center[0] + side * 1.5 + shape[:, 0]
        lens = np.stack([x, center[1] + 4 + shape[:, 1], front + 0.006 * x**2], axis=1)
        camera_mm = view.to_camera(lens)
        lens_px = view.project(camera_mm)
        area, corner = window(canvas, lens_px, thickness + 1)
        patch, covered = canvas[area], cover[area]
        before, covered_before = patch.copy(), covered.copy()
        _draw_lens(patch, lens_px - corner, tint, tint_color, float(glare))
        if dark:
            polygon(covered, lens_px - corner, 255.0)
        polyline(patch, np.concatenate([lens_px, lens_px[:1]]) - corner, frame, thickness)
        # The nose of a turned head lies before the far lens.
        hidden = head.in_front_of(area, float(camera_mm[:, 2].min()) - _CLEARANCE_MM)
        patch[hidden], covered[hidden] = before[hidden], covered_before[hidden]
        hinge = np.array([[center[0] + side * (1.5 + size_x), center[1], front + 8], [side * 74, center[1] + 2, 68]])
        hinge_px = head.project(hinge)
        # The temple on the far side lies behind the head.
        if side * (hinge_px[1, 0] - hinge_px[0, 0]) > -2 and side * view.rotation[2, 0] < 0.15:
            polyline(canvas, hinge_px, frame * 0.8, thickness)
    inner = (vertices[64, 0] + vertices[68, 0]) / 2
    gap = min(12.0, abs(float(vertices[68, 0] - vertices[60, 0])) * 0.5 - 13.0)
    bridge = np.array([[inner - 0.5 * gap, 2, front], [inner, 0, front - 2], [inner + 0.5 * gap, 2, front]])
    polyline(canvas, head.project(bridge), frame, thickness)


def _lens_shape(size_x: float, size_y: float, square: float) -> Floats:
    """A superellipse, (corners, 2) mm around its middle; wider above than below."""
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / square) * size_x
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / square) * size_y
    return np.stack([x * (1 - 0.08 * y / size_y), y], axis=1)


def _draw_lens(patch: Image, outline: Floats, tint: float, color: Floats, glare: float) -> None:
    alpha = np.zeros(patch.shape[:2], np.uint8)
    if tint > 0:
        polygon(alpha, outline, 255 * tint)
        blend(patch, color, alpha)
    if glare > 0:
        low, high = outline.min(axis=0), outline.max(axis=0)
        band = np.array([[0.15, 0.0], [0.55, 0.0], [0.3, 1.0], [-0.1, 1.0]]) * (high - low) + low
        inside, stripe = np.zeros((2, *patch.shape[:2]), np.uint8)
        polygon(inside, outline, 255 * glare)
        polygon(stripe, band, 255.0)
        soft = np.asarray(cv2.bitwise_and(inside, stripe), np.uint8)
        blend(patch, np.full(3, 235.0), soft)
