"""From the table of the average head to a surface: vertices, triangles and texture coordinates.

Directions from the head's centre are laid flat by Lambert's equal-area map (nose in the middle, ears to the sides); there
the radius is interpolated by thin-plate splines (Duchon 1977) and the points are joined by a Delaunay triangulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from lmedge.data.synthetic.head_table import HEAD_CENTER, Floats, ear_outline_mm, skin_points_mm
from lmedge.pose import generic_points
from lmedge.schemas import WFLW_98

# The map reaches this far from the nose; what lies behind is never seen.
_REACH_DEG = 140.0
_REACH = 2 * np.sin(np.radians(_REACH_DEG) / 2)

_FACE_SPACING = 0.085
_SKULL_SPACING = 0.20
_SPLINE_SMOOTHING = 2e-4

PUPILS = (96, 97)
CONTOUR = WFLW_98.groups["contour"]
# The labelled contour of a turned face slides inward along these paths; see `camera.slide_contour`.
SLIDE_STEPS = 10
_FROM_CHIN = np.abs(np.arange(33) - 16)
_SLIDE_INWARD = np.interp(_FROM_CHIN, [0, 2, 5, 10, 16], [0.16, 0.35, 0.5, 0.55, 0.42])
_SLIDE_UP = np.interp(_FROM_CHIN, [0, 4, 7, 9, 12, 16], [0, 0.06, 0.1, 0.09, 0.0, -0.03])


@dataclass(frozen=True, eq=False)
class HeadMesh:
    """The average head.

    Attributes:
        vertices_mm: (V, 3); first the 98 landmarks, then the skin, then `slide` points that belong to no triangle.
        triangles: (T, 3) vertex indices.
        texture_uv: (V, 2) in [0, 1].
        slide: (33, SLIDE_STEPS) vertex indices of the path of each contour point, from the jaw inward.
        is_ear: (V,) vertices of the ears.
    """

    vertices_mm: Floats
    triangles: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    texture_uv: Floats
    slide: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    is_ear: np.ndarray[tuple[int], np.dtype[np.bool_]]


@lru_cache(maxsize=1)
def average_head() -> HeadMesh:
    """The mesh; built once per process (about 0.2 s)."""
    landmarks = generic_points(WFLW_98)
    known = np.concatenate([landmarks[: PUPILS[0]], skin_points_mm()])
    known_flat = flatten(known)
    skin = _surface(_fill_flat(known_flat))
    vertices = np.concatenate([landmarks, known[PUPILS[0] :], skin])

    flat = flatten(vertices)
    triangles = _delaunay(flat, np.setdiff1d(np.arange(len(vertices)), PUPILS))
    triangles = triangles[~_spans_opening(triangles)]
    is_ear = np.zeros(len(vertices), bool)
    for ear in ear_outline_mm():
        start, rim = len(vertices), len(ear) - 1
        fan = np.array([[start + rim, start + i, start + (i + 1) % rim] for i in range(rim)])
        # Both ears are seen from the front and turn like the rest of the mesh.
        fan = fan if ear[0, 0] > 0 else fan[:, ::-1]
        vertices, triangles = np.concatenate([vertices, ear]), np.concatenate([triangles, fan])
        is_ear = np.concatenate([is_ear, np.ones(len(ear), bool)])

    steps = np.linspace(0, 1, SLIDE_STEPS)[None, :, None]
    start_flat = flat[list(CONTOUR)][:, None]
    target_flat = start_flat * (1 - _SLIDE_INWARD)[:, None, None]
    target_flat[..., 1] -= _SLIDE_UP[:, None]
    paths = start_flat * (1 - steps) + target_flat * steps
    slide_points = _surface(paths.reshape(-1, 2)).reshape(len(CONTOUR), SLIDE_STEPS, 3)
    slide_points += (landmarks[list(CONTOUR)][:, None] - slide_points[:, :1]) * (1 - steps)
    slide = len(vertices) + np.arange(len(CONTOUR) * SLIDE_STEPS).reshape(len(CONTOUR), SLIDE_STEPS)
    vertices = np.concatenate([vertices, slide_points.reshape(-1, 3)])
    is_ear = np.concatenate([is_ear, np.zeros(slide.size, bool)])
    return HeadMesh(vertices, triangles, to_texture(flatten(vertices)), slide, is_ear)


def flatten(points_mm: Floats) -> Floats:
    """Points (P, 3) → Lambert's equal-area map of their directions (P, 2); radius 0 at the nose, 2 behind the head."""
    directions = points_mm - HEAD_CENTER
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    scale = np.sqrt(2 / np.maximum(1 - directions[:, 2], 1e-6))
    return np.asarray(directions[:, :2] * scale[:, None])


def to_texture(flat: Floats) -> Floats:
    return np.asarray(np.clip(flat / _REACH * 0.5 + 0.5, 0, 1))


@lru_cache(maxsize=2)
def texel_positions_mm(size_px: int) -> Floats:
    """The head's surface at every texel, (size_px, size_px, 3); the spline is evaluated at half that resolution."""
    coarse_px = size_px // 2
    axis = ((np.arange(coarse_px) + 0.5) / coarse_px - 0.5) * 2 * _REACH
    flat = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    radius = np.linalg.norm(flat, axis=1, keepdims=True)
    coarse = _surface(flat * np.minimum(1, _REACH / np.maximum(radius, 1e-9))).reshape(coarse_px, coarse_px, 3)
    return np.asarray(cv2.resize(coarse, (size_px, size_px), interpolation=cv2.INTER_LINEAR))


def _directions(flat: Floats) -> Floats:
    squared = np.minimum((flat**2).sum(axis=1), 4)
    return np.concatenate([flat * np.sqrt(1 - squared / 4)[:, None], (squared / 2 - 1)[:, None]], axis=1)


def _surface(flat: Floats) -> Floats:
    """The head's surface above points of the map."""
    known_flat, weights = _radius_spline()
    radius = _spline_terms(flat, known_flat) @ weights
    # Linear algebra differs in the last bits between numbers of threads; a micrometre hides that.
    return np.round(HEAD_CENTER + _directions(flat) * radius[:, None], 3)


@lru_cache(maxsize=1)
def _radius_spline() -> tuple[Floats, Floats]:
    known = np.concatenate([generic_points(WFLW_98)[: PUPILS[0]], skin_points_mm()])
    known_flat, radius = flatten(known), np.linalg.norm(known - HEAD_CENTER, axis=1)
    count = len(known)
    system = np.zeros((count + 3, count + 3))
    system[:count] = _spline_terms(known_flat, known_flat)
    system[count:, :count] = system[:count, count:].T
    system[:count, :count] += _SPLINE_SMOOTHING * np.eye(count)
    return known_flat, np.linalg.solve(system, np.concatenate([radius, np.zeros(3)]))


def _spline_terms(flat: Floats, known_flat: Floats) -> Floats:
    squared = ((flat[:, None] - known_flat[None]) ** 2).sum(axis=2)
    kernel = 0.5 * squared * np.log(np.maximum(squared, 1e-12))
    return np.concatenate([kernel, np.ones((len(flat), 1)), flat], axis=1)


def _fill_flat(known_flat: Floats) -> Floats:
    """A hexagonal grid between the known points, coarser outside the face; none inside the eyes and the mouth."""
    chosen = []
    for spacing, inner, outer in ((_FACE_SPACING, 0.0, 1.08), (_SKULL_SPACING, 1.08, _REACH)):
        rows = np.arange(-_REACH, _REACH, spacing * np.sqrt(3) / 2)
        columns = np.arange(-20 * spacing, 20.5 * spacing, spacing)
        grid = np.array([[x + (0.5 * spacing if i % 2 else 0), y] for i, y in enumerate(rows) for x in columns])
        radius = np.linalg.norm(grid, axis=1)
        apart = np.sqrt(((grid[:, None] - known_flat[None]) ** 2).sum(axis=2)).min(axis=1) > 0.6 * spacing
        chosen.append(grid[(radius >= inner) & (radius < outer) & apart])
    flat = np.concatenate(chosen)
    for opening in OPENINGS:
        ring = known_flat[list(opening)].astype(np.float32)
        flat = flat[[cv2.pointPolygonTest(ring, (float(x), float(y)), False) < 0 for x, y in flat]]
    return flat


OPENINGS = (tuple(range(60, 68)), tuple(range(68, 76)), tuple(range(88, 96)))


def _spans_opening(triangles: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(np.any([np.isin(triangles, ring).all(axis=1) for ring in OPENINGS], axis=0))


def _delaunay(
    flat: Floats, indices: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    scaled = (flat * 1000 + 3000).astype(np.float32)
    subdivision = cv2.Subdiv2D((0, 0, 6000, 6000))
    index_of = {}
    for index in indices:
        point = (float(scaled[index, 0]), float(scaled[index, 1]))
        subdivision.insert(point)
        index_of[point] = int(index)
    corners = np.asarray(subdivision.getTriangleList()).reshape(-1, 3, 2)
    rows = [[index_of.get((float(x), float(y)), -1) for x, y in triangle] for triangle in corners]
    triangles = np.array([row for row in rows if min(row) >= 0])
    # One turning sense for all, so that the sign of the projected area tells front from back.
    a, b, c = (flat[triangles[:, i]] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    triangles[area < 0] = triangles[area < 0][:, ::-1]
    return triangles
