"""Conversions between point sets: each target point is a weighted mean of source points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmedge.errors import SchemaError
from lmedge.schemas.published import AFLW_19, COFW_29, WFLW_98
from lmedge.schemas.schema import LandmarkSchema

# Published conversions, target point → weighted source points.
# 98 → 68 follows PIPNet (Jin et al., IJCV 2021), lib/preprocess.py; the sets define some points differently, so such
# figures are "WFLW-68", not 300-W.
_THIRDS = {
    37: (61, 62), 38: (63, 62), 40: (65, 66), 41: (67, 66), 43: (69, 70), 44: (71, 70), 46: (73, 74), 47: (75, 74),
}  # fmt: skip
_HALVES = {18: (34, 41), 19: (35, 40), 20: (36, 39), 21: (37, 38), 22: (42, 50), 23: (43, 49), 24: (44, 48), 25: (45, 47)}
_SAME = {17: 33, 26: 46, 36: 60, 39: 64, 42: 68, 45: 72}
_WFLW_TO_IBUG: dict[int, dict[int, float]] = {
    **{i: {2 * i: 1.0} for i in range(17)},
    **{i: {a: 0.5, b: 0.5} for i, (a, b) in _HALVES.items()},
    **{i: {a: 2 / 3, b: 1 / 3} for i, (a, b) in _THIRDS.items()},
    **{i: {same: 1.0} for i, same in _SAME.items()},
    **{27 + i: {51 + i: 1.0} for i in range(9)},
    **{48 + i: {76 + i: 1.0} for i in range(20)},
}
_IBUG_TO_MMLAB: dict[int, dict[int, float]] = {
    0: dict.fromkeys(range(36, 42), 1 / 6),
    1: dict.fromkeys(range(42, 48), 1 / 6),
    2: {30: 1.0},
    3: {48: 1.0},
    4: {54: 1.0},
}

# No paper converts 98 points to COFW's or AFLW's. Where both name a place it is that point, or the middle of two; what
# differs is how annotators were told to find it. The right side and the midline are written, the left is their mirror image.
_WFLW_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "COFW_29": {
        "right_brow_outer": ("right_brow_upper_0",),
        "right_brow_inner": ("right_brow_upper_4", "right_brow_lower_3"),
        "right_brow_top": ("right_brow_upper_2",),
        "right_brow_bottom": ("right_brow_lower_1",),
        "right_eye_outer": ("right_eye_outer",),
        "right_eye_inner": ("right_eye_inner",),
        "right_eye_top": ("right_eye_upper_1",),
        "right_eye_bottom": ("right_eye_lower_1",),
        "right_pupil": ("right_pupil",),
        "right_nostril": ("right_nostril_0",),
        "nose_tip": ("nose_ridge_3",),
        "nose_base": ("nose_base",),
        "right_mouth_corner": ("right_mouth_corner",),
        "upper_lip_top": ("upper_lip_top",),
        "upper_lip_bottom": ("inner_upper_lip_middle",),
        "lower_lip_top": ("inner_lower_lip_middle",),
        "lower_lip_bottom": ("lower_lip_bottom",),
        "chin": ("chin",),
    },
    "AFLW_19": {
        "right_brow_outer": ("right_brow_upper_0",),
        "right_brow_middle": ("right_brow_upper_2", "right_brow_lower_1"),
        "right_brow_inner": ("right_brow_upper_4", "right_brow_lower_3"),
        "right_eye_outer": ("right_eye_outer",),
        "right_eye_middle": ("right_eye_upper_1", "right_eye_lower_1"),
        "right_eye_inner": ("right_eye_inner",),
        "right_nostril": ("right_nostril_0",),
        "nose_tip": ("nose_ridge_3",),
        "right_mouth_corner": ("right_mouth_corner",),
        "mouth_middle": ("inner_upper_lip_middle", "inner_lower_lip_middle"),
        "chin": ("chin",),
    },
}


def _by_name(target: LandmarkSchema) -> dict[int, dict[int, float]]:
    weights: dict[int, dict[int, float]] = {}
    for name, sources in _WFLW_NAMES[target.name].items():
        for side in ("right", "left"):
            row = target.point_names.index(name.replace("right", side))
            columns = [WFLW_98.point_names.index(source.replace("right", side)) for source in sources]
            weights[row] = dict.fromkeys(columns, 1 / len(columns))
    return weights


_MAPPINGS = {
    ("WFLW_98", "IBUG_68"): _WFLW_TO_IBUG,
    ("IBUG_68", "MMLAB_5"): _IBUG_TO_MMLAB,
    ("WFLW_98", "COFW_29"): _by_name(COFW_29),
    ("WFLW_98", "AFLW_19"): _by_name(AFLW_19),
}


def mapping_matrix(source: LandmarkSchema, target: LandmarkSchema) -> npt.NDArray[np.float64]:
    """The conversion between two schemas as a (K_target, K_source) matrix of weights; rows sum to 1.

    98 → 68 and 68 → 5 are published; 98 → 29 and 98 → 19 are lmedge's own, by the names of the points.

    Raises:
        SchemaError: no conversion between the two is known.
    """
    if source == target:
        return np.eye(source.num_points)
    weights = _MAPPINGS.get((source.name, target.name))
    if weights is None:
        known = ", ".join(f"{a} → {b}" for a, b in _MAPPINGS)
        raise SchemaError(f"No published mapping from {source.name} to {target.name}; known: {known}.")
    matrix = np.zeros((target.num_points, source.num_points))
    for row, terms in weights.items():
        for column, weight in terms.items():
            matrix[row, column] = weight
    return matrix
