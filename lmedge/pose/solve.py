"""From a face's points to the pose of the head: perspective-n-point on a head that may differ from the average in a few ways.

start by weak perspective ▶ Levenberg-Marquardt on rotation, translation and amounts of the ways ▶ angles, reprojection error

People's noses are longer, jaws drop, brows rise; a rigid average head would answer that with a turn. So the head may shift by
regions and stretch along its axes, each at a price: the amount over its spread among people joins the squared errors of the
points over theirs (a maximum a posteriori estimate; few-parameter form of Blanz and Vetter, SIGGRAPH 1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.pose.angles import head_angles
from lmedge.pose.camera import Camera
from lmedge.pose.head_points import generic_points
from lmedge.pose.weak_perspective import scaled_rotations
from lmedge.schemas import LandmarkSchema

# Spreads among people and expressions, mm, rounded from the rendered heads: of a point by itself, by region …
_POINT_SPREAD_MM = {"eyes": 2.0, "brows": 2.0, "nose": 2.0, "mouth": 2.5, "contour": 8.0}
_OTHER_SPREAD_MM = 2.5
# … of the contour on the cheek that is turned away, where annotators follow the outline and not the skin: so much more, times
# the sine of the turn. With it, 98 points err by 3.0° in yaw between 30° and 45° instead of 3.5°, and 68 no more than before …
_SLIDE_MM = 20.0
# … of a whole region, along y (down) and z (away) …
_REGION_SPREAD_MM = (
    ("brows", 1, 3.0), ("nose", 1, 2.5), ("nose", 2, 2.0), ("mouth", 1, 3.0), ("mouth", 2, 2.5), ("contour", 1, 2.0),
    ("contour", 2, 4.0),
)  # fmt: skip
# … of the head's width, height and depth, 60 mm from its origin …
_SIZE_SPREAD_MM, _SIZE_AT_MM = (3.0, 5.0, 6.0), 60.0
# … and of the jaw as it drops: the lower lip and the chin go with it all the way, the corners of the mouth in part, the
# contour less and less up to the height of the nose. Without this a yawn looks like a nod of 6°.
_JAW_SPREAD_MM, _JAW_FROM_TO_MM = 8.0, (30.0, 110.0)
_WITH_JAW = {"lower_lip": 1.0, "mouth_corner": 0.4}

# A picture whose assumed camera would hold the head nearer than this is taken for a cut-out, made by a longer lens. Cut-outs
# are made around faces: the longer the lens has to be, the nearer its axis is taken to pass by the middle of the face.
_NEAREST_ASSUMED_MM = 800.0
_FACE_MIDDLE_MM = np.array([0.0, 43.0, 0.0])
# Nearer, no lens shows a whole face; a focal length in millimetres instead of pixels would say so.
_NEAREST_MM = 150.0

MIN_POINTS = 4
# Points flatter than this look the same from two sides. The five of MMLAB_5 are 9 mm deep.
_LEAST_DEPTH_MM = 3.0
# Points on a line: the narrow extent over the wide one; faces in profile have 0.4.
_LEAST_BREADTH = 0.02

_MAX_STEPS = 30
_DONE_RAD = 1e-4
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-9, 1e9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeadPose:
    """How a head stands before a camera.

    Attributes:
        yaw_deg, pitch_deg, roll_deg: signs and order as in `rotation_matrix`; against the camera's axes, not the line of sight.
        rotation: (3, 3), head axes to camera axes.
        translation: (3,) mm, the middle between the outer eye corners in camera axes (x right, y down, z away), if these
            are 90 mm apart as on the average head.
        reprojection_px: root mean square distance of the used points from those of the fitted head. A face whose points
            span 100 px usually has 1 to 4 px; much more is no face, or points that went astray.
        camera: the one that was used; an assumed one may have got a longer lens, for a cut-out.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    rotation: Floats
    translation: Floats
    reprojection_px: float
    camera: Camera


@dataclass(frozen=True, eq=False)
class HeadFit:
    """A pose, and the head that it belongs to.

    Attributes:
        pose: of the head.
        points_mm: (K, 3) points of the fitted head in head axes; NaN where the generic head has none.
    """

    pose: HeadPose
    points_mm: Floats


def head_pose(points_px: npt.NDArray[np.floating], schema: LandmarkSchema, camera: Camera) -> HeadPose:
    """The pose of a head from its points.

    Args:
        points_px: (K, 2) in pixels, pixel centres at integers; NaN where a point is not known.
        schema: what the points are. Five will do (MMLAB_5); points that all lie in one plane of the head will not.
        camera: `Camera.assumed_for(height, width)` where it was not measured. If that would hold the head nearer than 0.8 m,
            its focal length is raised and its axis turned toward the face: the picture is a cut-out.

    Raises:
        InputError: points of another shape, too few of them, all in one plane of the head, or on a line of the picture.
    """
    return fit_head(points_px, schema, camera).pose


def fit_head(points_px: npt.NDArray[np.floating], schema: LandmarkSchema, camera: Camera) -> HeadFit:
    """`head_pose` with the head that was fitted.

    Raises:
        InputError: as `head_pose`.
    """
    points = np.asarray(points_px, np.float64)
    if points.shape != (schema.num_points, 2):
        raise InputError(f"points_px of {schema.name} must be ({schema.num_points}, 2); got {points.shape}.")
    model = _head_model(schema)
    used = np.asarray(np.isfinite(points).all(axis=1) & np.isfinite(model.points_mm).all(axis=1))
    _check_geometry(points[used], model.points_mm[used], schema)
    return _fit(points, used, model, camera)


def _check_geometry(points_px: Floats, model_mm: Floats, schema: LandmarkSchema) -> None:
    """Refuses what has no one answer."""
    if len(points_px) < MIN_POINTS:
        raise InputError(
            f"Head pose needs {MIN_POINTS} known points with a place on the head; {schema.name} has {len(points_px)} here. "
            "Own point sets get their places by the names that published schemas use."
        )
    depth_mm = _spreads(model_mm)[-1]
    if depth_mm < _LEAST_DEPTH_MM:
        raise InputError(
            f"Head pose needs points that do not lie in one plane of the head; these {len(points_px)} of {schema.name} are "
            f"within {depth_mm:.1f} mm of one. Give the tip of the nose too."
        )
    wide, narrow = _spreads(points_px)
    if narrow <= _LEAST_BREADTH * wide:
        raise InputError(f"The {len(points_px)} points of {schema.name} lie on a line of the picture, or on one spot.")


def _spreads(points: Floats) -> Floats:
    """Root mean square extents along the principal axes, widest first."""
    return np.asarray(np.linalg.svd(points - points.mean(axis=0), compute_uv=False) / np.sqrt(len(points)))


@dataclass(frozen=True, eq=False)
class _HeadModel:
    """Average points (K, 3) mm, their own spreads (K,) mm, those of the contour (K,), and the ways (Q, K, 3) in which a head
    differs, one spread each."""

    points_mm: Floats
    spread_mm: Floats
    on_contour: npt.NDArray[np.bool_]
    ways_mm: Floats

    def spread_when_turned_mm(self, rotation: Floats) -> Floats:
        """The points' own spreads (K,) on a head that stands like this."""
        # Depth of the head's x axis, sin(yaw) · cos(pitch): > 0 takes the side of x > 0 away from the viewer.
        turned_away = np.maximum(np.sign(self.points_mm[:, 0]) * rotation[2, 0], 0)
        return np.asarray(self.spread_mm + _SLIDE_MM * self.on_contour * turned_away)


def _head_model(schema: LandmarkSchema) -> _HeadModel:
    points = generic_points(schema)
    indices = {region: list(members) for region, members in schema.groups.items()}
    spread = np.full(len(points), _OTHER_SPREAD_MM)
    for region, spread_mm in _POINT_SPREAD_MM.items():
        spread[indices.get(region, [])] = spread_mm
    ways = []
    for region, axis, spread_mm in _REGION_SPREAD_MM:
        ways.append(np.zeros_like(points))
        ways[-1][indices.get(region, []), axis] = spread_mm
    for axis, spread_mm in enumerate(_SIZE_SPREAD_MM):
        ways.append(points * spread_mm / _SIZE_AT_MM * np.eye(3)[axis])
    ways.append(_JAW_SPREAD_MM * _with_jaw(schema, points)[:, None] * (0, 1, 0))
    on_contour = np.isin(np.arange(len(points)), indices.get("contour", []))
    return _HeadModel(points, spread, on_contour, np.stack(ways))


def _with_jaw(schema: LandmarkSchema, points_mm: Floats) -> Floats:
    """How far each point goes along with the jaw, (K,) from 0 to 1."""
    along = np.zeros(len(points_mm))
    contour = list(schema.groups.get("contour", ()))
    along[contour] = np.interp(points_mm[contour, 1], _JAW_FROM_TO_MM, (0, 1))
    for part, share in _WITH_JAW.items():
        along[[index for index, name in enumerate(schema.point_names) if part in name]] = share
    return along


def _fit(points_px: Floats, used: npt.NDArray[np.bool_], model: _HeadModel, camera: Camera) -> HeadFit:
    seen_px, average_mm = points_px[used], model.points_mm[used]
    rotations, scales, shifts = scaled_rotations(seen_px[None], average_mm)
    if camera.assumed:
        middle_px = shifts[0] + scales[0] * (rotations[0] @ _FACE_MIDDLE_MM)[:2]
        camera = _fitting_camera(camera, float(scales[0]), middle_px)
    away_mm = camera.focal_px / float(scales[0])
    if away_mm < _NEAREST_MM:
        raise InputError(
            f"A camera of focal_px={camera.focal_px:g} would hold this head {away_mm:.0f} mm away. Give the focal length in "
            "pixels of this picture, or take Camera.assumed_for(height, width)."
        )
    start = away_mm * camera.rays(shifts[0])
    spread_px = camera.focal_px / away_mm * model.spread_when_turned_mm(rotations[0])[used]
    problem = _Problem(seen_px, average_mm, model.ways_mm[:, used], spread_px, camera)
    rotation, translation, amounts = problem.solve(rotations[0], start)
    points_mm = model.points_mm + np.tensordot(amounts, model.ways_mm, 1)
    missed = camera.project(points_mm[used] @ rotation.T + translation) - seen_px
    yaw, pitch, roll = head_angles(rotation).tolist()
    reprojection_px = float(np.sqrt((missed**2).sum(axis=1).mean()))
    return HeadFit(HeadPose(yaw, pitch, roll, rotation, translation, reprojection_px, camera), points_mm)


def _fitting_camera(camera: Camera, px_per_mm: float, face_middle_px: Floats) -> Camera:
    """The assumed camera, or where that is held too near a longer one, turned toward the face in the same measure."""
    focal_px = max(camera.focal_px, px_per_mm * _NEAREST_ASSUMED_MM)
    x, y = face_middle_px + camera.focal_px / focal_px * (np.array(camera.centre_px) - face_middle_px)
    return Camera(focal_px, (float(x), float(y)), assumed=True)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Least squares: points (P, 2) px, head (P, 3) mm and its ways (Q, P, 3), spreads (P,) px of the points, the camera."""

    points_px: Floats
    average_mm: Floats
    ways_mm: Floats
    spread_px: Floats
    camera: Camera

    def solve(self, rotation: Floats, translation: Floats) -> tuple[Floats, Floats, Floats]:
        """Rotation (3, 3), translation (3,) mm and amounts (Q,) of the ways; never worse than the start."""
        amounts = np.zeros(len(self.ways_mm))
        cost, gradient, curvature = self._system(rotation, translation, amounts)
        damping = _FIRST_DAMPING
        for _ in range(_MAX_STEPS):
            step = np.linalg.solve(curvature + np.diag(damping * np.diag(curvature)), gradient)
            tried = (cv2.Rodrigues(step[:3])[0] @ rotation, translation + step[3:6], amounts + step[6:])
            tried_cost, tried_gradient, tried_curvature = self._system(*tried)
            if tried_cost < cost:
                rotation, translation, amounts = tried
                cost, gradient, curvature = tried_cost, tried_gradient, tried_curvature
                damping = max(damping / 10, _LEAST_DAMPING)
            else:
                damping *= 10
            if np.abs(step[:3]).max() < _DONE_RAD or damping > _MOST_DAMPING:
                break
        return rotation, translation, amounts

    def _system(self, rotation: Floats, translation: Floats, amounts: Floats) -> tuple[float, Floats, Floats]:
        """The sum of squares, and gradient (6 + Q,) and curvature (6 + Q, 6 + Q) for a step in rotation, translation, amounts.

        Infinite where a point is not in front of the camera.
        """
        changed = amounts @ self.ways_mm.reshape(len(amounts), -1)
        turned = (self.average_mm + changed.reshape(-1, 3)) @ rotation.T
        depth = turned[:, 2] + translation[2]
        if depth.min() <= 0:
            return np.inf, np.zeros(0), np.zeros((0, 0))
        across = (turned[:, :2] + translation[:2]) / depth[:, None]
        missed = (self.points_px - np.array(self.camera.centre_px) - self.camera.focal_px * across) / self.spread_px[:, None]
        # How x and y of a pixel, over its spread, change with x, y, z of the point before the camera, (P, 2, 3).
        by_place = np.zeros((len(turned), 2, 3))
        by_place[:, 0, 0] = by_place[:, 1, 1] = 1
        by_place[:, :, 2] = -across
        by_place *= (self.camera.focal_px / depth / self.spread_px)[:, None, None]
        by_amount = by_place @ (self.ways_mm @ rotation.T).transpose(1, 2, 0)
        by_turn = by_place @ _crossing(turned)
        slopes = np.concatenate([by_turn, by_place, by_amount], axis=2).reshape(-1, 6 + len(amounts))
        gradient, curvature = slopes.T @ missed.ravel(), slopes.T @ slopes
        gradient[6:] -= amounts
        curvature[np.arange(6, len(curvature)), np.arange(6, len(curvature))] += 1
        return float((missed**2).sum() + (amounts**2).sum()), gradient, curvature


def _crossing(points: Floats) -> Floats:
    """Matrices (P, 3, 3) with row · matrix = point × row."""
    x, y, z = points.T
    crossing = np.zeros((len(points), 3, 3))
    crossing[:, 0, 1], crossing[:, 0, 2], crossing[:, 1, 2] = z, -y, x
    return crossing - crossing.transpose(0, 2, 1)
