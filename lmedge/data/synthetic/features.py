"""Eyes and the inside of the mouth, drawn into the picture over the lit head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmedge.data.synthetic.drawing import Image, blend_inside, ellipse, polygon, polyline, smooth_line, smooth_ring, window
from lmedge.data.synthetic.head_table import Floats
from lmedge.data.synthetic.surface import DrawnHead

EYES = ((tuple(range(60, 68)), 96), (tuple(range(68, 76)), 97))
_INNER_LIP = tuple(range(88, 96))
_IRIS_MM, _EYEBALL_MM = 5.9, 12.5
# The head covers an eye or the mouth where it is this much nearer to the camera than their nearest point.
_EYE_CLEARANCE_MM, _MOUTH_CLEARANCE_MM = 2.5, 6.0


@dataclass(frozen=True)
class Gaze:
    """Where both eyes look, relative to the head: degrees to the viewer's right and up."""

    right_deg: float = 0.0
    up_deg: float = 0.0


@dataclass(frozen=True)
class Teeth:
    """What shows in an open mouth: millimetres of the upper and of the lower row."""

    upper_mm: float = 0.0
    lower_mm: float = 0.0


def draw_teeth(smile: float, rng: np.random.Generator) -> Teeth:
    """Who smiles shows the upper row; otherwise it may be any."""
    if smile > 3 and rng.random() < 0.85:
        return Teeth(float(rng.uniform(6, 12)), float(rng.choice([0.0, rng.uniform(0, 3)])))
    upper = rng.choice([0.0, rng.uniform(2, 9)], p=[0.3, 0.7])
    return Teeth(float(upper), float(rng.choice([0.0, rng.uniform(1, 5)], p=[0.75, 0.25])))


def pupils_mm(vertices: Floats, gaze: Gaze) -> Floats:
    """The middles of both pupils in head axes, (2, 3); lids that close carry the label along, as annotators do."""
    right, up = np.radians([gaze.right_deg, gaze.up_deg])
    result = np.empty((2, 3))
    for i, (ring, _) in enumerate(EYES):
        lids = vertices[list(ring)]
        middle = (lids[0] + lids[4]) / 2
        middle[2] = lids[:, 2].min() + 0.6
        upper, lower = lids[2, 1], lids[6, 1]
        middle[1] = 0.45 * upper + 0.55 * lower - 0.4
        shift = _EYEBALL_MM * np.array([np.sin(right), -np.sin(up), 1 - np.cos(right) * np.cos(up)])
        shift[1] = np.clip(shift[1], 0.6 * (upper - middle[1]), 0.6 * (lower - middle[1]))
        result[i] = middle + shift
    return result


def draw_eyes(canvas: Image, head: DrawnHead, labels_depth_mm: Floats) -> None:
    """Sclera, iris, pupil, catch light, lids and lashes of the eyes that face the camera."""
    along, points = head.view.rotation[:2, 0], head.labels_px
    for ring, pupil in EYES:
        lids = points[list(ring)]
        if float(((lids[4] - lids[0]) * along).sum()) <= 0:
            continue
        area, corner = window(canvas, lids, 9 * head.view.scale)
        patch = canvas[area]
        before = patch.copy()
        _draw_eye(patch, lids - corner, points[pupil] - corner, head, head.level_at(lids))
        hidden = head.in_front_of(area, float(labels_depth_mm[list(ring)].min()) - _EYE_CLEARANCE_MM)
        patch[hidden] = before[hidden]


def _draw_eye(patch: Image, lids: Floats, center: Floats, head: DrawnHead, level: Floats) -> None:
    look, px_per_mm, rotation = head.look, head.view.scale, head.view.rotation
    iris_px, narrow = _IRIS_MM * px_per_mm, max(0.35, abs(float(rotation[2, 2])))
    tilt = float(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])))
    level = np.minimum(level, 1.1)
    layer = np.empty_like(patch)
    white = np.array([204, 212, 220]) * (0.35 + 0.6 * look.eye_white)
    layer[:] = np.clip(white * level * 0.9, 0, 255).astype(np.uint8)
    middle = lids.mean(axis=0)
    # The eyeball is round: darker and redder toward the corners.
    for corner in (0, 4):
        at = middle + 0.86 * (lids[corner] - middle)
        ellipse(layer, at, (2.0 * px_per_mm, 3.0 * px_per_mm), tilt, white * level * np.array([0.72, 0.74, 0.86]))
    ellipse(layer, center, (iris_px * narrow, iris_px), tilt, look.iris * level * 0.4)
    ellipse(layer, center, (iris_px * narrow * 0.86, iris_px * 0.86), tilt, look.iris * level)
    ellipse(layer, center + (0, 0.35 * iris_px), (iris_px * narrow * 0.55, iris_px * 0.4), tilt, look.iris * level * 1.25)
    ellipse(layer, center, (iris_px * narrow * 0.48, iris_px * 0.48), tilt, np.full(3, look.pupil))
    upper, lower = lids[:5], lids[[4, 5, 6, 7, 0]]
    upper_line = smooth_line(upper)
    # The lid throws a shadow on the eyeball.
    polyline(layer, upper_line, look.skin * 0.4 * level, 1.6 * px_per_mm)
    glint = center + 0.4 * iris_px * head.light.direction[:2] + np.array([-0.3, -0.34]) * iris_px
    ellipse(layer, glint, (iris_px * 0.16, iris_px * 0.16), 0, np.minimum(255, 130 + 150 * level))
    blend_inside(patch, layer, smooth_ring(lids))
    lash = look.skin * (0.3 - 0.15 * look.eyeliner) * level
    polyline(patch, upper_line, lash, (0.7 + 1.2 * look.eyeliner) * px_per_mm)
    polyline(patch, smooth_line(lower), look.skin * (0.68 - 0.3 * look.eyeliner) * level)
    gap = float(np.hypot(*(lids[2] - lids[6])))
    if gap > 3 * px_per_mm:
        crease = upper[1:4] + (lids[2] - lids[6]) / gap * 3.4 * px_per_mm
        polyline(patch, smooth_line(crease), look.skin * 0.66 * level)


def draw_mouth(canvas: Image, head: DrawnHead, labels_depth_mm: Floats, teeth: Teeth) -> None:
    """What shows between the lips: dark, teeth, tongue; a line where they are shut."""
    points, look, px_per_mm = head.labels_px, head.look, head.view.scale
    level = np.minimum(head.level_at(points[76:88]), 1.1)
    area, corner = window(canvas, points[76:96], 3 * px_per_mm)
    patch = canvas[area]
    before = patch.copy()
    ring = points[list(_INNER_LIP)] - corner
    gap_px = float(np.hypot(*(ring[2] - ring[6])))
    seam = points[[76, 88, 89, 90, 91, 92, 82]] - corner
    if gap_px <= max(1.2, 1.2 * px_per_mm):
        polyline(patch, smooth_line(seam), look.lips * 0.45 * level, 0.8 * px_per_mm)
    else:
        layer = np.empty_like(patch)
        layer[:] = np.clip(np.array([28, 24, 48]) * level, 0, 255).astype(np.uint8)
        _draw_inside(layer, ring, teeth, px_per_mm, look.lips, level)
        blend_inside(patch, layer, smooth_ring(ring))
        for line in (seam[:2], seam[-2:]):
            polyline(patch, line, look.lips * 0.45 * level, 0.8 * px_per_mm)
    hidden = head.in_front_of(area, float(labels_depth_mm[76:96].min()) - _MOUTH_CLEARANCE_MM)
    patch[hidden] = before[hidden]


def _draw_inside(layer: Image, ring: Floats, teeth: Teeth, px_per_mm: float, lips: Floats, level: Floats) -> None:
    gap_px = float(np.hypot(*(ring[2] - ring[6])))
    down = (ring[6] - ring[2]) / gap_px
    across = ring[4] - ring[0]
    tilt = float(np.degrees(np.arctan2(across[1], across[0])))
    width = float(np.hypot(*across))
    if gap_px > 9 * px_per_mm:
        tongue = (lips + np.array([78, 70, 150])) / 2
        ellipse(layer, ring[6] - down * 0.1 * gap_px, (0.3 * width, 0.28 * gap_px), tilt, tongue * level * 0.8)
    white = np.array([178, 200, 208]) * level
    if teeth.upper_mm > 0:
        edge = smooth_line(ring[:5])
        height = min(teeth.upper_mm * px_per_mm, 0.92 * gap_px)
        polygon(layer, np.concatenate([edge, (edge + down * height)[::-1]]), white)
        # Toward the corners the row curves back into the dark.
        for start, end in ((0, 1), (4, 3)):
            at = ring[start] + 0.45 * (ring[end] - ring[start])
            ellipse(layer, at, (0.09 * width, max(height, 1.0)), tilt, white * 0.5)
    if teeth.lower_mm > 0:
        edge = smooth_line(ring[[0, 7, 6, 5, 4]])
        height = min(teeth.lower_mm * px_per_mm, 0.3 * gap_px)
        polygon(layer, np.concatenate([edge, (edge - down * height)[::-1]]), white * 0.8)
