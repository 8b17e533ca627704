"""From a layer's bound points to a mesh over its picture whose vertices follow the face: vertices = weights · places.

sticker: its corners, or with four points and more a grid and the points themselves under a thin-plate spline, so that every
         bound point lands on its place
warp:    the points and the middles of the contours between them; Delaunay's triangles, each an affine map

Every vertex is a weighted sum of the bound places, so a frame costs one small matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.apps.filters.definition import STICKER, Binding, Layer
from lmedge.apps.triangulation import delaunay
from lmedge.schemas import IBUG_68, Curve

Floats = npt.NDArray[np.float64]

# Cells of a bent sticker along its longer side. A vertex nearer to a bound point than half a cell is left out for it.
_GRID_CELLS = 10
# How far around a triangle the picture has to be clear for the triangle to be left out.
_REACH_PX = 8
# Middle of a segment of a uniform Catmull–Rom spline, from its four points (Catmull and Rom 1974).
_MIDDLE = np.array([-1.0, 9.0, 9.0, -1.0]) / 16


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles over a picture.

    Attributes:
        picture_px: (V, 2) vertices in the picture, pixel centres at integers.
        weights: (V, N) of the bound places; for two places (V, 3), the third being the one that `third_point` makes.
        triangles: (T, 3) vertex indices, clockwise as seen in the picture (y down).
    """

    picture_px: Floats
    weights: Floats
    triangles: npt.NDArray[np.int64]


def layer_mesh(layer: Layer, binding: Binding) -> Mesh:
    """The mesh of a layer bound in one of its ways, without triangles over parts of the picture that show nothing."""
    return _without_clear_triangles(_whole_mesh(layer, binding), layer.picture_bgra[:, :, 3])


def _whole_mesh(layer: Layer, binding: Binding) -> Mesh:
    points_px = np.array(list(binding.values()), np.float64)
    if layer.kind == STICKER:
        height, width = layer.picture_bgra.shape[:2]
        return _sticker_mesh(points_px, (height, width))
    return _warp_mesh(points_px, tuple(binding))


def _without_clear_triangles(mesh: Mesh, alpha: npt.NDArray[np.uint8]) -> Mesh:
    # What is drawn small is sampled from averages of neighbours.
    seen = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((2 * _REACH_PX + 1,) * 2, np.uint8))
    shown = np.zeros(len(mesh.triangles), bool)
    for index, corners in enumerate(np.rint(mesh.picture_px[mesh.triangles]).astype(np.int32)):
        low = corners.min(axis=0)
        part = np.zeros((corners - low).max(axis=0)[::-1] + 1, np.uint8)
        cv2.fillConvexPoly(part, corners - low, 1)
        rows, columns = np.nonzero(part)
        rows, columns = np.clip(rows + low[1], 0, alpha.shape[0] - 1), np.clip(columns + low[0], 0, alpha.shape[1] - 1)
        shown[index] = seen[rows, columns].any()
    return Mesh(mesh.picture_px, mesh.weights, mesh.triangles[shown])


def third_point(first_px: Floats, second_px: Floats, down: Floats | None = None) -> Floats:
    """What stands in for a third bound point: as far below the middle of two points as they are apart, (2,) px.

    Args:
        down: (2,) px, where it is seen from there when the head's turn is known; without it, at a right angle.
    """
    along = second_px - first_px
    return np.asarray((first_px + second_px) / 2 + (np.array([-along[1], along[0]]) if down is None else down))


def _sticker_mesh(points_px: Floats, picture_hw: tuple[int, int]) -> Mesh:
    height, width = picture_hw
    if len(points_px) == 2:
        points_px = np.vstack([points_px, third_point(*points_px)])
    # The outermost pixels' outer edges.
    right, bottom = width - 0.5, height - 0.5
    if len(points_px) == 3:
        corners = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
        return Mesh(corners, spline_weights(points_px, corners), np.array([[0, 1, 2], [0, 2, 3]]))
    cell = max(width, height) / _GRID_CELLS
    x, y = (
        np.linspace(-0.5, right, max(2, round(width / cell) + 1)),
        np.linspace(-0.5, bottom, max(2, round(height / cell) + 1)),
    )
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    inside = points_px[((points_px > -0.5) & (points_px < (right, bottom))).all(axis=1)]
    apart = np.linalg.norm(grid[:, None] - inside[None], axis=2).min(axis=1, initial=np.inf) > cell / 2
    on_border = (grid == (-0.5, -0.5)).any(axis=1) | (grid == (right, bottom)).any(axis=1)
    vertices = np.concatenate([inside, grid[apart | on_border]])
    return Mesh(vertices, spline_weights(points_px, vertices), delaunay(vertices))


def _warp_mesh(points_px: Floats, names: tuple[str, ...]) -> Mesh:
    middles = np.array([row for curve in IBUG_68.curves for row in _curve_middles(curve, names)]).reshape(-1, len(names))
    weights = np.concatenate([np.eye(len(names)), middles])
    vertices = weights @ points_px
    return Mesh(vertices, weights, delaunay(vertices))


def _curve_middles(curve: Curve, names: tuple[str, ...]) -> list[Floats]:
    """Weights (N,) of the middle of each segment of a curve whose ends are bound."""
    line = [IBUG_68.point_names[index] for index in curve.indices]
    count = len(line)
    rows = []
    for start in range(count if curve.closed else count - 1):
        four = [line[(start + step) % count] if curve.closed or 0 <= start + step < count else "" for step in (-1, 0, 1, 2)]
        if four[1] not in names or four[2] not in names:
            continue
        row = np.zeros(len(names))
        for weight, name, inner, far in zip(_MIDDLE, four, (1, 1, 2, 2), (2, 2, 1, 1), strict=True):
            if name in names:
                row[names.index(name)] += weight
            else:
                # Beyond an end the line goes on straight: the other end of the segment, mirrored.
                row[names.index(four[inner])] += 2 * weight
                row[names.index(four[far])] -= weight
        rows.append(row)
    return rows


def spline_weights(points_px: Floats, targets_px: Floats) -> Floats:
    """Weights (V, N): targets (V, 2) follow points (N, 2), N ≥ 3, wherever these move, by the thin-plate spline through them.

    The least bent map that takes every point to its place (Duchon 1977; Bookstein 1989); affine for three points.
    """
    count = len(points_px)
    scale = float(np.abs(points_px - points_px.mean(axis=0)).max())
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _bending(points_px, points_px, scale)
    system[:count, count:] = _affine(points_px, points_px, scale)
    system[count:, :count] = system[:count, count:].T
    inverse = np.linalg.inv(system)[:, :count]
    return np.hstack([_bending(targets_px, points_px, scale), _affine(targets_px, points_px, scale)]) @ inverse


def _bending(targets_px: Floats, points_px: Floats, scale: float) -> Floats:
    squared = ((targets_px[:, None] - points_px[None]) ** 2).sum(axis=2) / scale**2
    return np.asarray(squared * np.log(np.maximum(squared, np.finfo(float).tiny)))


def _affine(targets_px: Floats, points_px: Floats, scale: float) -> Floats:
    centred = (targets_px - points_px.mean(axis=0)) / scale
    return np.hstack([np.ones((len(targets_px), 1)), centred])
