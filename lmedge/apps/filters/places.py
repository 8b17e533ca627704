"""Named places of a face: landmarks, under the names that filters use, and places of the head that no landmark marks.

A filter names the points of IBUG_68 and MMLAB_5. Faces of 68 points have both sets, faces of 98 by their published conversion,
faces of another set those names that it has itself. Places such as the crown are those of an average head, put in its pose.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lmedge.errors import DataError, InputError, SchemaError
from lmedge.pose import Camera, HeadPose, generic_points, head_pose
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema, mapping_matrix

Floats = npt.NDArray[np.float64]

# Millimetres in the axes of `lmedge.pose.generic_points`: on the forehead, along the hairline, on the skull. Subject's right.
_RIGHT_MM = {
    "right_temple": (-69.0, -26.0, 24.0),
    "right_hairline": (-50.0, -72.0, 14.0),
    "right_ear": (-79.5, 0.5, 66.0),
}
HEAD_PLACES_MM = {
    "forehead": (0.0, -46.0, -20.0),
    "hairline": (0.0, -80.0, -4.0),
    "crown": (0.0, -119.0, 60.0),
    **_RIGHT_MM,
    **{name.replace("right", "left"): (-x, y, z) for name, (x, y, z) in _RIGHT_MM.items()},
}
LANDMARK_PLACES = tuple(dict.fromkeys((*IBUG_68.point_names, *MMLAB_5.point_names)))
PLACES = (*LANDMARK_PLACES, *HEAD_PLACES_MM)

# Any picture large enough; only whether a pose can be found is asked of it.
_TRIAL_SIDE_PX = 1000


def check_place(name: str) -> None:
    """Refuses a name that is no place.

    Raises:
        DataError: naming the nearest place.
    """
    if name not in PLACES:
        near = difflib.get_close_matches(name, PLACES, n=1)
        hint = (
            f" Did you mean {near[0]!r}?" if near else f" There are those of IBUG_68, MMLAB_5 and {', '.join(HEAD_PLACES_MM)}."
        )
        raise DataError(f"no point is called {name!r}.{hint}")


class FacePlaces:
    """Where places are on faces of one schema.

    Attributes:
        names: of N places.
        head_mm: (N, 3) on the average head, NaN where nothing is known of a point of an own schema.
        need_pose: some of them are no landmarks, and found through the pose of the head alone.
    """

    def __init__(self, schema: LandmarkSchema, names: Sequence[str]) -> None:
        if missing := missing_places(schema, names):
            raise InputError(f"{schema.name} has no {', '.join(missing)}.")
        rows = _landmark_rows(schema)
        self.names = tuple(names)
        self._of_head = np.array([name in HEAD_PLACES_MM for name in names], bool)
        self._weights = np.array([rows.get(name, np.zeros(schema.num_points)) for name in names])
        # A row without a weight on an unknown point must not become NaN through it.
        known_mm = np.nan_to_num(generic_points(schema))
        unknown = self._weights[:, ~np.isfinite(generic_points(schema)).all(axis=1)].any(axis=1)
        self.head_mm = self._weights @ known_mm
        self.head_mm[unknown] = np.nan
        self.head_mm[self._of_head] = np.reshape([HEAD_PLACES_MM[name] for name in names if name in HEAD_PLACES_MM], (-1, 3))
        self.need_pose = bool(self._of_head.any())

    def find(self, points_px: npt.NDArray[np.floating], pose: HeadPose | None) -> Floats | None:
        """The places (N, 2) px of a face (K, 2) px; None where the pose is needed and not there."""
        places_px = self._weights @ np.asarray(points_px, np.float64)
        if self.need_pose:
            if pose is None:
                return None
            places_px[self._of_head] = project(self.head_mm[self._of_head], pose)
        return places_px if np.isfinite(places_px).all() else None


def project(head_mm: Floats, pose: HeadPose) -> Floats:
    """Places (N, 3) mm of the head → (N, 2) px."""
    return pose.camera.project(head_mm @ pose.rotation.T + pose.translation)


def missing_places(schema: LandmarkSchema, names: Sequence[str]) -> list[str]:
    """The names that faces of this schema have no place for."""
    rows = _landmark_rows(schema)
    with_pose = has_pose(schema)
    return [name for name in names if name not in rows and not (with_pose and name in HEAD_PLACES_MM)]


def has_pose(schema: LandmarkSchema) -> bool:
    """Whether the points of a schema tell the pose of a head: tried on the average head seen from the front."""
    frontal_px = generic_points(schema)[:, :2] + _TRIAL_SIDE_PX / 2
    return pose_of(frontal_px, schema, Camera.assumed_for(_TRIAL_SIDE_PX, _TRIAL_SIDE_PX)) is not None


def pose_of(points_px: npt.NDArray[np.floating], schema: LandmarkSchema, camera: Camera) -> HeadPose | None:
    """The pose of a head, None where its points do not tell it."""
    try:
        return head_pose(points_px, schema, camera)
    except InputError:
        return None


def _landmark_rows(schema: LandmarkSchema) -> dict[str, Floats]:
    """Place → weights (K,) of the schema's points."""
    try:
        to_68 = mapping_matrix(schema, IBUG_68)
    except SchemaError:
        return {name: row for name, row in zip(schema.point_names, np.eye(schema.num_points), strict=True) if name in PLACES}
    to_5 = mapping_matrix(IBUG_68, MMLAB_5) @ to_68
    rows = dict(zip(MMLAB_5.point_names, to_5, strict=True))
    return rows | dict(zip(IBUG_68.point_names, to_68, strict=True))
