"""The average head between its landmarks: a table of skin, skull and ears around the 98 points of `lmedge.pose.head_points`.

Millimetres, in the same axes: x to the viewer's right, y down, z away from the viewer, the origin between the outer eye
corners. Only the subject's right side (x < 0) and the midline are written down; the left side is its mirror image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

# From here every part of the head's surface is seen in one direction only.
HEAD_CENTER = np.array([0.0, 5.0, 70.0])

SKULL_CENTER = np.array([0.0, -35.0, 75.0])
SKULL_RADII = np.array([80.0, 84.0, 94.0])

_SKIN: tuple[tuple[float, float, float], ...] = (
    # glabella, forehead, brow ridge
    (0, -13.5, -24.5), (0, -28, -22), (0, -46, -20), (-29.5, -40.5, -14), (-52, -34, 2), (-69, -26, 24),
    # eye socket: above the lid, at the nose root, below the eye
    (-42, -10, -4), (-31, -11, -8.5), (-21, -8, -10.5), (-14, -0.5, -12), (-30, 10, -5), (-42, 9, -1.5), (-56, 1, 5.5),
    # nose: side walls, wings, the ball of the tip, the crease beside the wing
    (-8, 6, -18.5), (-10, 17, -20.5), (-14, 20.5, -14), (-9, 27, -27), (-13, 32.5, -24), (-16.5, 39, -19.5), (-15.5, 42.5, -21),
    (-6, 35.5, -38.5), (-5, 40.5, -35.5), (0, 42, -38), (-20.5, 39, -12), (-19, 45, -13),
    # cheeks
    (-26, 20.5, -8), (-40, 20, -3), (-56, 17, 5), (-68, 10, 22.5), (-29.5, 34, -9), (-45, 36, 1), (-60.5, 35.5, 13),
    (-29.5, 50, -9), (-44, 53, 4), (-58, 54, 20), (-37, 66, 3), (-49.5, 70, 14), (-36, 80, 5), (-46.5, 82.5, 16), (-30, 92, 2),
    # above and below the mouth, the ball of the chin
    (0, 53, -25.5), (-9, 54, -23.5), (-19.5, 55, -15), (0, 87.5, -13.5), (-14, 88, -9.5), (0, 98.5, -15.5), (-11, 99.5, -13),
    (-22, 99, -4.5),
    # under the jaw, behind it, neck
    (0, 115, 20), (0, 114, 45), (-22.5, 111, 25), (-39.5, 101.5, 42), (-54.5, 89.5, 52), (-63.5, 72.5, 62),
    (0, 118.5, 70), (-32, 111, 70), (-53.5, 92, 80), (-70, 49.5, 68), (-76, 22.5, 72),
)  # fmt: skip

# A flat ear, from its front edge round the helix to the lobe.
_EAR: tuple[tuple[float, float, float], ...] = (
    (-79.5, 0.5, 66), (-84.5, -10.5, 72), (-92.5, -16.5, 80), (-99.5, -11.5, 88), (-101, 3.5, 91), (-96.5, 19, 88),
    (-89, 34, 80), (-82, 42, 72), (-77.5, 34.5, 65), (-76, 17.5, 63), (-83.5, 10.5, 76),
)  # fmt: skip


def skin_points_mm() -> Floats:
    """Points of the face and neck between the landmarks, and of the skull, (P, 3)."""
    return np.concatenate([_both_sides(_SKIN), _skull_points()])


def ear_outline_mm() -> tuple[Floats, Floats]:
    """The right and the left ear; the last point of each lies in the middle, (11, 3)."""
    right = np.array(_EAR)
    return right, right * (-1, 1, 1)


def _both_sides(points: tuple[tuple[float, float, float], ...]) -> Floats:
    right = np.array(points)
    return np.concatenate([right, right[right[:, 0] < 0] * (-1, 1, 1)])


def _skull_points() -> Floats:
    """The ellipsoid above and behind the face."""
    elevation, azimuth = np.meshgrid(np.radians(np.arange(-20, 90, 16)), np.radians(np.arange(-180, 180, 20)))
    unit = np.stack(
        [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), -np.cos(azimuth) * np.cos(elevation)], axis=-1
    ).reshape(-1, 3)
    points = SKULL_CENTER + SKULL_RADII * unit
    above_forehead = (points[:, 1] < -62) | (points[:, 2] > 62)
    return np.asarray(points[above_forehead & (points[:, 2] < 140)])
