"""A rotation as three angles, and back: the one place that fixes signs and order.

Head axes and camera axes agree on a face that looks straight into the camera: x to the viewer's right, y down, z away.
rotation = roll · pitch · yaw: the head first turns (yaw), then nods (pitch), then tilts in the picture (roll).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def rotation_matrix(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Floats:
    """Head axes to camera axes, (3, 3).

    yaw > 0 turns the face toward the viewer's right, pitch > 0 up, roll > 0 tilts the head clockwise in the picture.
    """
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.asarray(tilt @ nod @ turn)


def head_angles(rotation: Floats) -> Floats:
    """Yaw, pitch and roll in degrees, (..., 3), of rotations (..., 3, 3); yaw and roll within ±180, pitch within ±90."""
    yaw = np.arctan2(rotation[..., 2, 0], rotation[..., 2, 2])
    pitch = np.arcsin(np.clip(-rotation[..., 2, 1], -1, 1))
    roll = np.arctan2(-rotation[..., 0, 1], rotation[..., 1, 1])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=-1)))
