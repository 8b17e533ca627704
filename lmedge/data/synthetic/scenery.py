"""Behind and around the head: neck, clothes, long hair, loose hair at the outline."""

from __future__ import annotations

import cv2
import numpy as np

from lmedge.data.synthetic.camera import View
from lmedge.data.synthetic.drawing import Image, polygon, polyline, smooth_line
from lmedge.data.synthetic.head_mesh import average_head
from lmedge.data.synthetic.head_table import Floats
from lmedge.data.synthetic.light import Light
from lmedge.data.synthetic.look import Look, hair_level_mm

_NECK_STRIPS = 9
_BODY_TURN = 0.4


def draw_body(canvas: Image, view: View, look: Look, light: Light, rng: np.random.Generator) -> None:
    """Hair behind the neck, the neck, shoulders with clothes; behind the head, so drawn first. The body turns less far."""
    body = View(_part_of_turn(view.rotation), view.distance_mm, view.scale, view.offset_px)
    level, side = np.minimum(light.level, 1.2), float(light.direction[0])

    def project(*points: tuple[float, float, float]) -> Floats:
        return body.project(body.to_camera(np.array(points)))

    if look.hair_length_mm > 0:
        _draw_long_hair(canvas, view, look, level, rng)
    neck = rng.uniform(46, 60)
    edges = np.linspace(-neck, neck, _NECK_STRIPS + 1)
    high, low = (body.project(body.to_camera(np.stack([edges * wide, 0 * edges + y, 0 * edges + z], axis=1)))
                 for wide, y, z in ((1.0, 60.0, 72.0), (1.1, 200.0, 85.0)))  # fmt: skip
    for i in range(_NECK_STRIPS):
        around = (i - (_NECK_STRIPS - 1) / 2) / _NECK_STRIPS
        strip = np.stack([high[i], high[i + 1], low[i + 1], low[i]])
        polygon(canvas, strip, look.skin * level * (0.62 + 0.28 * np.cos(2.4 * around - 0.8 * side)), smooth=False)
    # The jaw throws a shadow on the neck.
    shadow = project((-56, 60, 70), (56, 60, 70), (46, 122, 70), (0, 134, 68), (-46, 122, 70))
    polygon(canvas, shadow, look.skin * level * rng.uniform(0.4, 0.6))
    cloth, dip = np.clip(rng.uniform(10, 235) + rng.normal(0, 24, 3), 5, 245) * level, rng.uniform(140, 205)
    shoulder = rng.uniform(165, 235)
    collar = 0.7 * dip + 46
    outline = project((-62, 146, 90), (-30, collar, 72), (0, dip, 62), (30, collar, 72), (62, 146, 90),
                      (shoulder, 195, 90), (shoulder + 30, 420, 90),
                      (-shoulder - 30, 420, 90), (-shoulder, 195, 90))  # fmt: skip
    polygon(canvas, outline, cloth)
    style = rng.random()
    if style < 0.25:
        tie = np.clip(rng.uniform(0, 255, 3), 0, 255) * level
        polygon(canvas, project((-30, 150, 70), (0, dip + 40, 60), (30, 150, 70), (0, dip - 10, 62)), 0.9 * level * 235)
        polygon(canvas, project((-6, dip, 62), (6, dip, 62), (14, 420, 62), (-14, 420, 62)), tie)
    elif style < 0.5:
        for x in np.arange(-220, 221, rng.uniform(14, 40)).tolist():
            polyline(canvas, project((x, 200, 80), (x * 1.1, 420, 80)), cloth * rng.uniform(0.6, 1.3), 4 * view.scale)
    for x in rng.uniform(-140, 140, 3).tolist():
        polyline(canvas, project((0.5 * x, 190, 75), (x, 420, 75)), cloth * 0.75, 2 * view.scale)


def _draw_long_hair(canvas: Image, view: View, look: Look, level: Floats, rng: np.random.Generator) -> None:
    wide, low = 76 + look.hair_volume_mm, 50 + look.hair_length_mm
    hem = rng.uniform(-10, 16, 4)
    drop = np.array([(-wide, -40, 90), (-wide - 6, 40, 95), (-wide - hem[0], low, 95), (-50, low + hem[1], 95),
                     (50, low + hem[2], 95), (wide + hem[3], low, 95), (wide + 6, 40, 95), (wide, -40, 90)])  # fmt: skip
    outline = view.project(view.to_camera(drop))
    polygon(canvas, smooth_line(np.concatenate([outline, outline[:1]])), look.hair * 0.6 * level)
    for shade in rng.uniform(0.45, 1.2, 5).tolist():
        part = rng.uniform(0.02, 0.98, (6, 1, 1))
        lines = outline[:3] + (outline[[7, 6, 5]] - outline[:3]) * part
        lines[:, 1:, 0] += rng.normal(0, 4 + 6 * look.curls, (6, 2)) * view.scale
        polyline(canvas, lines, look.hair * level * shade, rng.uniform(1, 5) * view.scale)


def draw_loose_hair(canvas: Image, vertices_mm: Floats, view: View, look: Look, light: Light, rng: np.random.Generator) -> None:
    """Short curved hairs that leave the outline of the hair, drawn behind the head."""
    if look.bald:
        return
    head = average_head()
    roots = _hairy_vertices()
    roots = roots[rng.integers(0, len(roots), 26)]
    positions, outward = head.vertices_mm[roots], head.vertices_mm[roots] - (0, -10, 75)
    kept = hair_level_mm(positions.T, look) > 8
    if not kept.any():
        return
    outward = outward[kept] / np.sqrt((outward[kept] ** 2).sum(axis=1, keepdims=True))
    start = vertices_mm[roots][kept] + outward * look.hair_volume_mm * 0.8
    length = (2 + 9 * rng.random((len(start), 1)) * (0.4 + look.curls)) * (1 + 0.03 * look.hair_volume_mm)
    bend = rng.normal(0, 4, start.shape)
    steps = [start, start + 0.6 * length * outward + 0.5 * bend, start + length * outward + bend + (0, 2, 0)]
    lines = np.stack([view.project(view.to_camera(step)) for step in steps], axis=1)
    polyline(canvas, lines, look.hair * np.minimum(light.level, 1.1) * 0.9, 1.2 * view.scale)


def _hairy_vertices() -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    vertices = average_head().vertices_mm
    return np.flatnonzero((vertices[:, 1] < -20) & (vertices[:, 2] > -10))


def _part_of_turn(rotation: Floats) -> Floats:
    vector, _ = cv2.Rodrigues(np.asarray(rotation, np.float64))
    return np.asarray(cv2.Rodrigues(vector * _BODY_TURN)[0])
