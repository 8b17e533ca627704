"""What lies before a face: mask, hand, steering wheel, brim of a cap, strands of hair.

Each function changes the picture in place and writes 255 into `cover` (H, W) where it hides the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from lmedge.data.synthetic.drawing import Image, blend, darken, ellipse, polygon, polyline, smooth_line, window
from lmedge.data.synthetic.head_table import Floats
from lmedge.data.synthetic.surface import DrawnHead

_MASK_COLORS = np.array([[226, 206, 170], [228, 228, 228], [30, 28, 28], [190, 175, 225], [150, 160, 130]])
_WHEEL_COLORS = np.array([[30, 30, 32], [52, 52, 55], [60, 84, 112], [92, 92, 92]])
_FINGER_MM, _FINGER_LENGTHS_MM = 17.0, (64.0, 74.0, 70.0, 56.0)
_RIM_RADIUS_MM = 185.0
_STRANDS_PER_LOCK = 11


def draw_mask(canvas: Image, cover: Image, head: DrawnHead, rng: np.random.Generator) -> None:
    """A surgical mask from the nose (sometimes worn below it) to under the chin."""
    labels, v, view = head.labels_px, head.vertices_mm, head.view
    top = 0.5 * v[52] + 0.5 * v[53] if rng.random() < 0.85 else v[57] * (1, 1, 1.1)
    cheeks = [0.55 * v[60] + 0.45 * v[76] + (-9, 0, 6), 0.55 * v[72] + 0.45 * v[82] + (9, 0, 6)]
    ridge = head.project(
        np.array([cheeks[0], 0.45 * cheeks[0] + 0.55 * top, top + (0, 0, -4), 0.45 * cheeks[1] + 0.55 * top, cheeks[1]])
    )
    middle = labels[57]
    jaw = middle + (labels[5:28] - middle) * 1.03
    edge = smooth_line(np.concatenate([jaw[:1], ridge, jaw[-1:]]))
    outline = np.concatenate([edge, jaw[::-1]])
    base = np.clip(_MASK_COLORS[rng.integers(len(_MASK_COLORS))] + rng.normal(0, 10, 3), 10, 245)

    loops = head.project(np.array([[-80, 2, 68], [-78, 26, 68], [80, 2, 68], [78, 26, 68]]))
    for side, corners, ends in ((-1, (jaw[0], jaw[3]), loops[:2]), (1, (jaw[-1], jaw[-4]), loops[2:])):
        if side * view.rotation[2, 0] < 0.15:
            for start, end in zip(corners, ends, strict=True):
                polyline(canvas, np.stack([start, end]), base * head.light.level, 1.6 * view.scale)
    area, corner = window(canvas, outline, 2)
    lit = np.asarray(cv2.GaussianBlur(head.lit_map[area], (0, 0), max(0.6, 5 * view.scale)))
    tint = head.light.level / head.light.level.mean()
    layer = np.clip(lit[..., None] * (base * tint).astype(np.float32), 0, 255).astype(np.uint8)
    low, high = edge[len(edge) // 2] - corner, jaw[11] - corner
    for part in rng.uniform(0.25, 0.85, 3):
        curve = smooth_line(np.stack([jaw[1] - corner, low + part * (high - low), jaw[-2] - corner]))
        polyline(layer, curve, base * 0.78 * head.level_at(labels[76:88]), view.scale)
    alpha = np.zeros(layer.shape[:2], np.uint8)
    polygon(alpha, outline - corner, 255.0)
    blend(canvas[area], layer, alpha)
    polyline(canvas, edge, base * 0.7 * head.light.level, view.scale)
    polygon(cover, outline, 255.0)


def draw_hand(canvas: Image, cover: Image, head: DrawnHead, rng: np.random.Generator) -> None:
    """A hand before the mouth, the chin or a cheek: forearm, palm, thumb and four fingers."""
    labels, scale, skin = head.labels_px, head.view.scale, head.look.skin
    goal = int(rng.integers(4))
    target = (labels[85], labels[94], 0.5 * (labels[76] + labels[8]), 0.5 * (labels[82] + labels[24]))[goal]
    lean = rng.uniform(-0.5, 0.5) if goal < 2 else (0.35 if goal == 2 else -0.35) + rng.normal(0, 0.2)
    lean += rng.choice([0.0, rng.uniform(0.7, 1.3), -rng.uniform(0.7, 1.3)], p=[0.6, 0.2, 0.2]) if goal < 2 else 0
    mirror = 1 if rng.random() < 0.5 else -1
    up, across = np.array([np.sin(lean), -np.cos(lean)]), mirror * np.array([np.cos(lean), np.sin(lean)])
    level = np.minimum(head.level_at(labels[76:88]) * rng.uniform(0.9, 1.15), 1.25)
    base = target - up * 48 * scale
    spread, curl = rng.uniform(0.0, 0.16), rng.uniform(0.45, 1.0)

    def stroke(points: list[Floats], width_mm: float, shade: float = 1.0) -> None:
        line = smooth_line(np.array(points)) if len(points) > 2 else np.array(points)
        polyline(canvas, line, skin * level * 0.55 * shade, width_mm * scale + 1.5)
        polyline(cover, line, 255.0, width_mm * scale + 1.5)
        polyline(canvas, line, skin * level * 0.86 * shade, width_mm * scale)
        polyline(canvas, line - 0.14 * width_mm * scale * across, skin * level * shade, 0.5 * width_mm * scale)

    darken(canvas, base + np.array([[-50, -50], [50, -50], [50, 60], [-50, 60]]) * scale, 0.3, 10 * scale)
    wrist = base - up * 52 * scale
    stroke([wrist - up * 260 * scale, wrist + up * 20 * scale], 54, 0.9)
    palm = [base + (a * across + b * up) * scale for a, b in ((-38, 34), (38, 34), (40, 0), (30, -52), (-28, -52), (-42, -10))]
    polygon(canvas, smooth_line(np.array([*palm, palm[0]])), skin * level * 0.82)
    polygon(cover, smooth_line(np.array([*palm, palm[0]])), 255.0)
    for i, length in enumerate(_FINGER_LENGTHS_MM):
        offset = (i - 1.5) * 18.5
        direction = up + (i - 1.5) * spread * across
        knuckle = base + (offset * across + (34 - 2 * abs(i - 1.2)) * up) * scale
        joint, tip = knuckle + 0.5 * length * curl * direction * scale, knuckle + length * curl * direction * scale
        stroke([knuckle - 20 * up * scale, knuckle, joint, tip + rng.normal(0, 2, 2) * scale], _FINGER_MM - 1.2 * abs(i - 1.3))
        nail = tip + 3 * up * scale
        tilt = float(np.degrees(lean))
        ellipse(canvas, nail, (4.6 * scale, 5.8 * scale), tilt, np.minimum(skin * level * 1.12 + 8, 255))
    thumb = base - 36 * across * scale
    stroke([thumb - 30 * up * scale, thumb - 12 * across * scale, thumb + (-20 * across + 26 * up) * scale,
            thumb + (-17 * across + 48 * up) * scale], 20)  # fmt: skip


def draw_steering_wheel(canvas: Image, cover: Image, head: DrawnHead, rng: np.random.Generator) -> None:
    """The rim of a wheel between the camera and the lower face, as a camera behind it sees the driver."""
    labels, scale = head.labels_px, head.view.scale
    top = labels[57] + rng.uniform(0.0, 0.9) * (labels[16] - labels[57]) + rng.normal(0, 12, 2) * (scale, 0)
    radius = _RIM_RADIUS_MM * scale * rng.uniform(0.8, 1.4)
    axes = np.array([radius, radius * rng.uniform(0.45, 0.95)])
    angle = np.linspace(0, 2 * np.pi, 49)
    tilt = rng.normal(0, 0.12)
    ring = np.stack([axes[0] * np.sin(angle), axes[1] * (1 - np.cos(angle))], axis=1)
    ring = top + np.stack([ring[:, 0] * np.cos(tilt) - ring[:, 1] * np.sin(tilt),
                           ring[:, 0] * np.sin(tilt) + ring[:, 1] * np.cos(tilt)], axis=1)  # fmt: skip
    width = rng.uniform(24, 34) * scale
    color = (_WHEEL_COLORS[rng.integers(len(_WHEEL_COLORS))] + rng.normal(0, 6, 3)) * head.light.level
    polyline(canvas, ring, color * 0.55, width + 1.5)
    polyline(cover, ring, 255.0, width + 1.5)
    polyline(canvas, ring, color, 0.8 * width)
    polyline(canvas, ring - (0, 0.2 * width), np.minimum(color * 1.5 + 14, 255), 0.22 * width)
    if rng.random() < 0.5:
        hub = ring.mean(axis=0)
        for side in (-1, 1):
            spoke = np.stack([hub, hub + (side * axes[0], 0.12 * axes[1])])
            polyline(canvas, spoke, color * 0.8, 1.2 * width)
            polyline(cover, spoke, 255.0, 1.2 * width)


def draw_brim(canvas: Image, cover: Image, head: DrawnHead, rng: np.random.Generator) -> None:
    """The brim of the cap that the head wears, and its shadow on the forehead."""
    if head.cap is None:
        return
    color = head.cap
    angle = np.radians(np.linspace(-90, 90, 13))
    wide, reach, drop = rng.uniform(64, 74), rng.uniform(48, 78), rng.uniform(0, 26)
    lift = float(head.vertices_mm[35, 1] - head.vertices_mm[64, 1]) + 30
    x = wide * np.sin(angle)
    attached = np.stack([x, np.full(13, -50.0 + lift) + 0.0016 * x**2, -24 + 0.011 * x**2], axis=1)
    outer = attached + np.stack([0.1 * x, drop * np.cos(angle), -reach * np.cos(angle)], axis=1)
    shadow = head.project(attached + (0, 9, 0))
    darken(canvas, np.concatenate([head.project(attached), shadow[::-1]]), 0.55, 5 * head.view.scale)
    inner_px, outer_px = head.project(attached), head.project(outer)
    outline = np.concatenate([inner_px, outer_px[::-1]])
    from_below = outer_px[6, 1] < inner_px[6, 1]
    shade = color * head.light.level * (0.45 if from_below else 0.9)
    polygon(canvas, outline, shade)
    polyline(canvas, outer_px, shade * 0.6, 2 * head.view.scale)
    polygon(cover, outline, 255.0)


def draw_strands(canvas: Image, cover: Image, head: DrawnHead, rng: np.random.Generator) -> None:
    """Locks that hang before the temple and the cheek, and single strands over the forehead."""
    v, scale, look = head.vertices_mm, head.view.scale, head.look
    level = np.minimum(head.light.level, 1.1)
    down = head.view.rotation[:2, 1] * scale
    sides = rng.permutation([-1, 1])[: 1 + int(rng.random() < 0.5)]
    for side in sides.tolist():
        temple = v[0] if side < 0 else v[32]
        root = np.array([side * rng.uniform(30, 62), -62.0, 2.0])
        length, width, inward = rng.uniform(50, 150), rng.uniform(8, 22), rng.uniform(-6, 18)
        path = head.project(np.array([root, [0.93 * temple[0], -22, 20], temple * (0.95, 1, 0.55)]))
        tail = path[-1] + np.stack([down * length * part - (side * inward * scale * part, 0) for part in (0.4, 1.0)])
        line = smooth_line(np.concatenate([path, tail]))
        along = np.linspace(0, 1, len(line))
        for strand in range(_STRANDS_PER_LOCK):
            aside = (strand / (_STRANDS_PER_LOCK - 1) - 0.5) * width * (0.5 + np.sin(2.6 * along + 0.4))
            wave = rng.normal(0, 1.5) * np.sin(rng.uniform(2, 7) * along + rng.uniform(0, 6))
            hair_px = line + np.stack([(aside + wave) * scale, 0 * along], axis=1)
            hair_px = hair_px[: len(hair_px) - int(rng.integers(0, 5))]
            thickness = 1.35 * width / _STRANDS_PER_LOCK * scale
            polyline(canvas, hair_px, look.hair * level * rng.uniform(0.55, 1.3), thickness)
            polyline(cover, hair_px, 255.0, thickness)
    for x in rng.uniform(-55, 55, int(rng.integers(2, 9))):
        start = head.project(np.array([[x, -68.0, -14 + 0.008 * x * x]]))[0]
        bend, reach = rng.normal(0, 9), rng.uniform(20, 85)
        steps = [(0.0, 0.0), (0.5 * bend, 0.5), (bend, 1.0)]
        line = smooth_line(np.array([start + down * reach * along + (aside * scale, 0) for aside, along in steps]))
        polyline(canvas, line, look.hair * level * rng.uniform(0.7, 1.2), rng.uniform(0.6, 1.8) * scale)
        polyline(cover, line, 255.0, 1.2 * scale)
