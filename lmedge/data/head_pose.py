"""Where heads look, estimated from labelled points alone: for histograms of a data set, not for a driver monitor.

Weak perspective: the points of an average head under a 2 × 3 matrix and a shift, by least squares; the matrix made orthogonal
is two rows of a rotation. On rendered faces up to 60° the mean error is 3° in yaw, 4° in pitch and 1° in roll, with 5 points as
with 98. Real people differ from the average head, so pitch in particular may be off by a constant of several degrees.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.head_table import mean_landmarks_mm
from lmedge.errors import InputError, SchemaError
from lmedge.schemas import IBUG_68, WFLW_98, LandmarkSchema, mapping_matrix

# Fewer points than this say nothing of a head; five that include the nose do.
MIN_POINTS = 5

Floats = npt.NDArray[np.float64]


def head_poses(points_px: npt.NDArray[np.floating], schema: LandmarkSchema) -> Floats:
    """Yaw, pitch and roll in degrees, (N, 3), of faces (N, K, 2); NaN where fewer than 5 points are known.

    Signs as in `HeadPose`: yaw > 0 looks to the viewer's right, pitch > 0 up, roll > 0 is clockwise in the picture.

    Raises:
        InputError: an array of another shape.
        SchemaError: nothing is known about where these points are on a head.
    """
    points = np.asarray(points_px, np.float64)
    if points.ndim != 3 or points.shape[1:] != (schema.num_points, 2):
        raise InputError(f"points_px of {schema.name} must be (N, {schema.num_points}, 2); got {points.shape}.")
    model_mm = head_points_mm(schema)
    known = np.isfinite(points).all(axis=2)
    poses = np.full((len(points), 3), np.nan)
    # Most faces share a pattern of known points, and with it the matrix that solves for them.
    patterns, which = np.unique(known, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if pattern.sum() >= MIN_POINTS:
            faces = np.flatnonzero(which.ravel() == index)
            poses[faces] = _poses(points[faces][:, pattern], model_mm[pattern])
    return poses


def head_points_mm(schema: LandmarkSchema) -> Floats:
    """The points of a schema on the average head, (K, 3) in the axes of `head_table`.

    Raises:
        SchemaError: the schema is not one that the 98 points lead to.
    """
    mean = mean_landmarks_mm()
    try:
        return mapping_matrix(WFLW_98, schema) @ mean
    except SchemaError:
        return mapping_matrix(IBUG_68, schema) @ mapping_matrix(WFLW_98, IBUG_68) @ mean


def _poses(points_px: Floats, model_mm: Floats) -> Floats:
    """(N, 3) degrees of faces (N, P, 2) whose points are at (P, 3) on the head."""
    solve = np.linalg.pinv(np.column_stack([model_mm, np.ones(len(model_mm))]))
    linear = np.einsum("cp,npx->nxc", solve[:3], points_px)
    left, _, right = np.linalg.svd(linear, full_matrices=False)
    rows = left @ right
    depth = np.cross(rows[:, 0], rows[:, 1])
    yaw = np.arctan2(depth[:, 0], depth[:, 2])
    pitch = np.arcsin(np.clip(-depth[:, 1], -1, 1))
    roll = np.arctan2(-rows[:, 0, 1], rows[:, 1, 1])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)))
