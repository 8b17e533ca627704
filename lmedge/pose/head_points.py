"""Where landmarks lie on an average head: 3-D positions of the points of every published schema.

Millimetres, x to the viewer's right, y down, z away from the viewer; the origin lies between the outer eye corners, which
are 90 mm apart. The proportions are rounded averages over photos of many people, with the mouth slightly open. Only the
subject's right side (x < 0) and the midline are written down; the left side is its mirror image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lmedge.errors import SchemaError
from lmedge.schemas import IBUG_68, SCHEMAS, WFLW_98, LandmarkSchema, mapping_matrix

Floats = npt.NDArray[np.float64]

# Points of one name in two schemas are one place of the head if they lie no farther apart; numbered ones often are not.
_SAME_PLACE_MM = 1.0

_LANDMARKS: dict[str, tuple[float, float, float]] = {
    "right_contour_0": (-76, -3, 61.5),
    "right_contour_1": (-76.5, 6.3, 60.5),
    "right_contour_2": (-76.5, 16.5, 60),
    "right_contour_3": (-74.5, 26.5, 59),
    "right_contour_4": (-73.5, 37, 57.5),
    "right_contour_5": (-72, 47, 56),
    "right_contour_6": (-69.5, 56, 53),
    "right_contour_7": (-67, 65.5, 49.5),
    "right_contour_8": (-62, 75, 45.5),
    "right_contour_9": (-56.5, 82.5, 39.5),
    "right_contour_10": (-50, 90, 33),
    "right_contour_11": (-42, 96, 26.5),
    "right_contour_12": (-35, 102, 19.5),
    "right_contour_13": (-27, 107.5, 12),
    "right_contour_14": (-18, 112, 5),
    "right_contour_15": (-9.5, 114.3, -0.5),
    "chin": (0, 114.5, -4.5),
    "right_brow_upper_0": (-61, -14.5, 5),
    "right_brow_upper_1": (-51.5, -25.5, -3),
    "right_brow_upper_2": (-38, -27.5, -10),
    "right_brow_upper_3": (-25, -25.5, -16),
    "right_brow_upper_4": (-12, -20, -20.5),
    "right_brow_lower_3": (-12, -14, -20.5),
    "right_brow_lower_2": (-25, -18.5, -16),
    "right_brow_lower_1": (-38, -21, -10),
    "right_brow_lower_0": (-51.5, -19.5, -3),
    "nose_ridge_0": (0, -2, -21),
    "nose_ridge_1": (0, 11, -28),
    "nose_ridge_2": (0, 23.5, -35.5),
    "nose_ridge_3": (0, 36.5, -42.5),
    "right_nostril_0": (-14, 44, -22.5),
    "right_nostril_1": (-7.5, 46, -26),
    "nose_base": (0, 48, -28.5),
    "right_eye_outer": (-45.5, -1, 0),
    "right_eye_upper_0": (-39.5, -6.5, -3),
    "right_eye_upper_1": (-33, -8, -5.5),
    "right_eye_upper_2": (-25, -6, -6),
    "right_eye_inner": (-19.5, 1, -6),
    "right_eye_lower_2": (-26, 3, -6),
    "right_eye_lower_1": (-33.5, 4, -5.5),
    "right_eye_lower_0": (-40.5, 2.5, -3),
    "right_mouth_corner": (-27.5, 67.5, -1),
    "right_upper_lip_0": (-17, 63, -14),
    "right_upper_lip_1": (-7, 60.5, -22.5),
    "upper_lip_top": (0, 62, -23),
    "lower_lip_bottom": (0, 80, -18),
    "right_lower_lip_1": (-8, 79.5, -15.5),
    "right_lower_lip_0": (-18, 76, -8.5),
    "right_inner_mouth_corner": (-23.5, 67.5, -3),
    "right_inner_upper_lip": (-7.5, 66.5, -17),
    "inner_upper_lip_middle": (0, 67.5, -21.5),
    "inner_lower_lip_middle": (0, 71, -19),
    "right_inner_lower_lip": (-7.5, 70, -15),
    "right_pupil": (-33, -1.5, -3.5),
}


def generic_points(schema: LandmarkSchema) -> Floats:
    """The points of a schema on the average head, (K, 3) mm, x right, y down, z away from the viewer.

    An own point set gets the places of points that published sets know by the same name, and NaN for the others. Points of
    the jaw's contour are those of the frontal view: on a turned face, annotators move them along the skin to the outline.
    """
    return _points_by_name(schema.name, schema.point_names).copy()


@lru_cache(maxsize=16)
def _points_by_name(schema_name: str, point_names: tuple[str, ...]) -> Floats:
    published = SCHEMAS.get(schema_name)
    if published is not None and published.point_names == point_names:
        return _published_points(published)
    places = _named_places()
    return np.array([places.get(name, np.full(3, np.nan)) for name in point_names])


def _published_points(schema: LandmarkSchema) -> Floats:
    points = np.zeros((WFLW_98.num_points, 3))
    for name, position in _LANDMARKS.items():
        index = WFLW_98.point_names.index(name)
        points[WFLW_98.flip_indices[index]] = np.array(position) * (-1 if position[0] else 1, 1, 1)
        points[index] = position
    if schema == WFLW_98:
        return points
    try:
        return mapping_matrix(WFLW_98, schema) @ points
    except SchemaError:
        return mapping_matrix(IBUG_68, schema) @ mapping_matrix(WFLW_98, IBUG_68) @ points


def _named_places() -> dict[str, Floats]:
    """Names that mean one place in every published schema that has them."""
    places: dict[str, list[Floats]] = {}
    for schema in SCHEMAS.values():
        for name, position in zip(schema.point_names, _published_points(schema), strict=True):
            places.setdefault(name, []).append(position)
    return {name: found[0] for name, found in places.items() if np.ptp(found, axis=0).max() <= _SAME_PLACE_MM}
