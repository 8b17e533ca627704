"""Cheap pictures that pass for faces with the checks: soft patches, redder than blue, five labelled points."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample
from lmedge.schemas import MMLAB_5

SIDE_PX = 64
_MEAN_PX = np.array([[22, 25], [42, 25], [32, 36], [24, 46], [40, 46]], np.float64)
_EYE_DISTANCE_PX = 20.0


def picture(seed: int, level: float = 120.0, side_px: int = SIDE_PX) -> npt.NDArray[np.uint8]:
    """uint8 (side, side, 3) BGR of about a mean level."""
    random = np.random.default_rng(seed)
    patches = level + random.normal(0, 25, (6, 6, 1)) + random.normal(0, 8, (6, 6, 3)) + np.array([-25, 0, 25])
    soft = cv2.resize(patches, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return np.clip(soft, 0, 255).astype(np.uint8)


def points_px(seed: int, nose_beside: float = 0.0, roll_deg: float = 0.0) -> npt.NDArray[np.float32]:
    """Five points of a face, turned clockwise; the nose lies that part of the eyes' distance to the right of their middle."""
    points = _MEAN_PX + np.random.default_rng(seed).normal(0, 0.3, (5, 2))
    points[2] = points[:2].mean(axis=0) + (nose_beside * _EYE_DISTANCE_PX, 11)
    angle = np.radians(roll_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return ((points - 32) @ turn + 32).astype(np.float32)


def pictured_face(
    seed: int,
    *,
    key: str = "",
    nose_beside: float = 0.0,
    roll_deg: float = 0.0,
    level: float = 120.0,
    tags: tuple[str, ...] = (),
) -> FaceSample:
    """A labelled face on a picture of its own."""
    points = points_px(seed, nose_beside, roll_deg)
    return FaceSample(picture(seed, level), points, MMLAB_5, photo_key=key or f"photo_{seed}", subset=tags)
