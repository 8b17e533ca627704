"""Faces drawn as five spots: a small network learns where they are within seconds."""

from __future__ import annotations

import cv2
import numpy as np

from lmedge.data.samples import FaceSample, is_validation
from lmedge.schemas import MMLAB_5

SIDE_PX = 64
_MEAN_PX = np.array([[22.0, 24.0], [42.0, 24.0], [32.0, 36.0], [24.0, 46.0], [40.0, 46.0]])
COLORS = [(200, 60, 60), (200, 60, 60), (60, 200, 60), (60, 60, 200), (60, 60, 200)]


def drawn_face(number: int) -> FaceSample:
    """Face `number`: the mean face turned by up to 40°, each spot moved by a pixel, on a noisy skin."""
    rng = np.random.default_rng(number)
    angle = np.radians(rng.uniform(-40, 40))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = (_MEAN_PX - 32) @ turn + 32 + rng.normal(0, 1, (5, 2))
    image = (120 + rng.normal(0, 4, (SIDE_PX, SIDE_PX, 3))).clip(0, 255).astype(np.uint8)
    for point, color in zip(points, COLORS, strict=True):
        center = np.rint(point * 16).astype(int).tolist()
        cv2.circle(image, center, 5 * 16, color, -1, cv2.LINE_AA, shift=4)
    return FaceSample(image, points.astype(np.float32), MMLAB_5, f"drawn{number}")


def drawn_faces(training: int, validation: int) -> tuple[list[FaceSample], list[FaceSample]]:
    """So many faces for each side of the split."""
    sides: dict[bool, list[FaceSample]] = {False: [], True: []}
    number = 0
    while len(sides[False]) < training or len(sides[True]) < validation:
        face = drawn_face(number)
        sides[is_validation(face.photo_key)].append(face)
        number += 1
    return sides[False][:training], sides[True][:validation]
