"""Triangles to pixels: a buffer of triangle numbers, painted from back to front, and vertex values interpolated from it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.head_table import Floats

_SUBPIXEL_BITS = 4
_NOTHING = -1
_HIDDEN_MM = 5.0


@dataclass(frozen=True, eq=False)
class RasterizedMesh:
    """Which triangle each pixel shows.

    Attributes:
        triangle_at: int32 (H, W); -1 where there is none.
        rows, columns: of the P pixels that show a triangle.
        corners: (P, 3) the vertex indices of the triangle of each such pixel.
        weights: (P, 3) barycentric, float32.
    """

    triangle_at: npt.NDArray[np.int32]
    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    corners: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float32]

    def interpolate(self, values: Floats) -> npt.NDArray[np.float32]:
        """Values per vertex (V, C) → per pixel (P, C)."""
        table = values.astype(np.float32)
        result = self.weights[:, :1] * table[self.corners[:, 0]]
        result += self.weights[:, 1:2] * table[self.corners[:, 1]]
        result += self.weights[:, 2:] * table[self.corners[:, 2]]
        return np.asarray(result)


def rasterize(vertices_px: Floats, depth_mm: Floats, triangles: npt.NDArray[np.int64], size_px: int) -> RasterizedMesh:
    """Paint the triangles that face the camera (clockwise in the picture), the far ones first."""
    corners_px = vertices_px[triangles]
    edge_a, edge_b = corners_px[:, 1] - corners_px[:, 0], corners_px[:, 2] - corners_px[:, 0]
    doubled_area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
    order = np.argsort(-depth_mm[triangles].sum(axis=1), kind="stable")
    order = order[doubled_area[order] > 1e-6]

    triangle_at = np.full((size_px, size_px), _NOTHING, np.int32)
    fixed_point = np.round(corners_px * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    for number, polygon in zip(order.tolist(), fixed_point[order], strict=True):
        cv2.fillConvexPoly(triangle_at, polygon, number, cv2.LINE_8, _SUBPIXEL_BITS)

    rows, columns = np.nonzero(triangle_at >= 0)
    number = triangle_at[rows, columns]
    safe_area = np.where(doubled_area > 1e-6, doubled_area, 1.0)
    # Planes of the second and third barycentric weight over the picture, per triangle.
    plane = np.empty((len(triangles), 6), np.float32)
    plane[:, 0], plane[:, 1] = edge_b[:, 1] / safe_area, -edge_b[:, 0] / safe_area
    plane[:, 2], plane[:, 3] = -edge_a[:, 1] / safe_area, edge_a[:, 0] / safe_area
    origin = corners_px[:, 0].astype(np.float32)
    plane[:, 4] = -(plane[:, 0] * origin[:, 0] + plane[:, 1] * origin[:, 1])
    plane[:, 5] = -(plane[:, 2] * origin[:, 0] + plane[:, 3] * origin[:, 1])
    here = plane[number]
    x, y = columns.astype(np.float32), rows.astype(np.float32)
    second = here[:, 0] * x + here[:, 1] * y + here[:, 4]
    third = here[:, 2] * x + here[:, 3] * y + here[:, 5]
    # Pixels on an edge lie up to half a pixel outside; slivers must not extrapolate far.
    weights = np.clip(np.stack([1 - second - third, second, third], axis=1), 0, 1)
    weights /= weights.sum(axis=1, keepdims=True)
    return RasterizedMesh(triangle_at, rows, columns, triangles[number], weights)


def vertex_normals(camera_mm: Floats, triangles: npt.NDArray[np.int64]) -> Floats:
    """Unit normals, area-weighted over the neighbouring triangles, (V, 3)."""
    a, b, c = (camera_mm[triangles[:, i]] for i in range(3))
    face = np.cross(c - a, b - a)
    count = len(camera_mm)
    normals = np.stack([sum(np.bincount(triangles[:, i], face[:, axis], count) for i in range(3)) for axis in range(3)], axis=1)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9))


def visible_points(
    points_px: Floats, points_depth_mm: Floats, mesh: RasterizedMesh, depth_mm: Floats, triangles: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """(K,) False where the head itself lies in front of the point."""
    height, width = mesh.triangle_at.shape
    deepest = np.where(mesh.triangle_at < 0, np.inf, depth_mm[triangles].max(axis=1)[mesh.triangle_at]).astype(np.float32)
    # A label on an outline may round to the pixel beside it.
    around = np.asarray(cv2.dilate(deepest, np.ones((3, 3), np.uint8)))
    column = np.clip(np.round(points_px[:, 0]).astype(int), 0, width - 1)
    row = np.clip(np.round(points_px[:, 1]).astype(int), 0, height - 1)
    return np.asarray(points_depth_mm < around[row, column] + _HIDDEN_MM)
