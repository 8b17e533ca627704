"""Head pose and camera: from vertices in millimetres to pixels, and where the labelled contour lies in that view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmedge.data.synthetic.head_mesh import CONTOUR, average_head
from lmedge.data.synthetic.head_table import Floats
from lmedge.pose import Camera, rotation_matrix

YAW_LIMIT, PITCH_LIMIT, ROLL_LIMIT = 60.0, 30.0, 30.0
_NEAR_FRONTAL = 0.78

# The head turns about this point (top of the neck).
_PIVOT_MM = np.array([0.0, 60.0, 70.0])

# Looking up or down, annotators begin the contour nearer to the height of the eyes than the ear has moved.
_START_SHIFT_MM = -17.0


@dataclass(frozen=True)
class HeadPose:
    """Degrees. yaw > 0: toward the viewer's right; pitch > 0: looks up; roll > 0: clockwise in the picture."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0

    @property
    def rotation(self) -> Floats:
        """(3, 3): head axes to camera axes; roll after pitch after yaw."""
        return rotation_matrix(self.yaw_deg, self.pitch_deg, self.roll_deg)


def draw_pose(rng: np.random.Generator) -> HeadPose:
    """Mostly near-frontal, as in photo collections, with wide tails inside the limits."""
    yaw = rng.normal(0, 14) if rng.random() < _NEAR_FRONTAL else rng.uniform(-YAW_LIMIT, YAW_LIMIT)
    return HeadPose(
        yaw_deg=float(np.clip(yaw, -YAW_LIMIT, YAW_LIMIT)),
        pitch_deg=float(np.clip(rng.normal(0, 10), -PITCH_LIMIT, PITCH_LIMIT)),
        roll_deg=float(np.clip(rng.normal(0, 9), -ROLL_LIMIT, ROLL_LIMIT)),
    )


@dataclass(frozen=True, eq=False)
class View:
    """A camera with the head before it: pixel = offset + scale · (x, y) · distance / (distance + z)."""

    rotation: Floats
    distance_mm: float
    scale: float = 1.0
    offset_px: tuple[float, float] = (0.0, 0.0)

    @property
    def camera(self) -> Camera:
        """The same view as a pinhole camera."""
        return Camera(self.scale * self.distance_mm, self.offset_px)

    def to_camera(self, vertices_mm: Floats) -> Floats:
        """(V, 3) in head axes → (V, 3) in camera axes, the origin at the pivot."""
        return np.asarray((vertices_mm - _PIVOT_MM) @ self.rotation.T)

    def project(self, camera_mm: Floats) -> Floats:
        """(V, 3) in camera axes → (V, 2) pixels."""
        shrink = self.distance_mm / (self.distance_mm + camera_mm[:, 2:])
        return np.asarray(self.scale * camera_mm[:, :2] * shrink + np.array(self.offset_px))

    def framed(self, points: Floats, box_side_px: float, center_px: tuple[float, float]) -> View:
        """The same view, scaled and shifted so that `points`, projected by this one, fill a box of that longer side."""
        low, high = points.min(axis=0), points.max(axis=0)
        scale = box_side_px / float((high - low).max())
        offset = np.array(center_px) - scale * ((low + high) / 2 - np.array(self.offset_px))
        return View(self.rotation, self.distance_mm, self.scale * scale, (float(offset[0]), float(offset[1])))


def slide_contour(vertices_px: Floats, depth_mm: Floats, pose: HeadPose) -> tuple[Floats, Floats]:
    """The 33 contour points as annotators place them, (33, 2) px, and their depth (33,) mm, in a view of scale 1.

    Where the jaw is in view the point stays on it; on the far cheek of a turned face it slides inward along the surface to
    the visible outline (as in "landmark marching", Zhu et al., CVPR 2015). On either side the points are then spread along
    that outline as in the frontal view: annotators count points off, they do not follow them through the skin.
    """
    slide = average_head().slide
    paths = np.concatenate([vertices_px[slide], depth_mm[slide][..., None]], axis=2)
    outward = _outward()
    roll = np.radians(pose.roll_deg)
    rotate = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    reach = np.einsum("psc,pc->ps", paths[..., :2], outward @ rotate.T)
    steps = reach.shape[1]
    best = reach.argmax(axis=1)
    rows = np.arange(len(paths))
    before, after = np.maximum(best - 1, 0), np.minimum(best + 1, steps - 1)
    # The vertex of the parabola through the best sample and its neighbours.
    left, middle, right = reach[rows, before], reach[rows, best], reach[rows, after]
    bend = np.minimum(left - 2 * middle + right, -1e-9)
    inner = (best > 0) & (best < steps - 1)
    position = best + np.where(inner, np.clip(0.5 * (left - right) / bend, -0.5, 0.5), 0.0)
    low = np.clip(np.floor(position).astype(int), 0, steps - 2)
    part = (position - low)[:, None]
    outline = paths[rows, low] * (1 - part) + paths[rows, low + 1] * part
    start_px = _START_SHIFT_MM * np.sin(np.radians(pose.pitch_deg))
    right, left = _spread(outline[:17], start_px), _spread(outline[:15:-1], start_px)
    found = np.concatenate([right, left[15::-1]])
    return found[:, :2], found[:, 2]


def _spread(half: Floats, start_px: float) -> Floats:
    """The points of half a contour (17, 3), ear to chin, counted off anew; the first moves along by start_px."""
    above = half[:1] - (half[1:3].mean(axis=0) - half[0]) * 3
    line = np.concatenate([above, half])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1))])
    start = np.clip(length[1] + start_px, 0, 0.5 * length[-1])
    wanted = start + (length[-1] - start) * _frontal_spacing()
    return np.stack([np.interp(wanted, length, line[:, axis]) for axis in range(3)], axis=1)


@lru_cache(maxsize=1)
def _outward() -> Floats:
    """Normals of the average contour in the frontal view, (33, 2)."""
    contour = average_head().vertices_mm[list(CONTOUR), :2]
    tangent = np.gradient(contour, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True))


@lru_cache(maxsize=1)
def _frontal_spacing() -> Floats:
    """Where the points lie along half of the average contour, 17 parts from 0 (ear) to 1 (chin)."""
    half = average_head().vertices_mm[list(CONTOUR[:17]), :2]
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(half, axis=0), axis=1))])
    return np.asarray(length / length[-1])
