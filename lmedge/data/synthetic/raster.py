"""Triangles to pixels: which triangle each pixel shows, and vertex values interpolated there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.head_table import Floats

# Neighbouring triangles share the pixels on their edge, so that no crack opens between them.
_OVERLAP_PX = 1e-3
_THIN_PX2 = 1e-6

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RasterizedMesh:
    """What each of the P pixels that show the mesh shows.

    Attributes:
        rows, columns: of those pixels, (P,).
        triangle: (P,) the number of the triangle.
        corners: (3, P) its vertex indices.
        weights: (3, P) barycentric, float32.
        size_px: side of the picture.
    """

    rows: Indices
    columns: Indices
    triangle: Indices
    corners: Indices
    weights: npt.NDArray[np.float32]
    size_px: int

    def interpolate(self, values: Floats) -> npt.NDArray[np.float32]:
        """Values per vertex (V, C) → per pixel (C, P), contiguous per channel."""
        table = values.astype(np.float32)
        result = self.weights[0][:, None] * table.take(self.corners[0], axis=0)
        result += self.weights[1][:, None] * table.take(self.corners[1], axis=0)
        result += self.weights[2][:, None] * table.take(self.corners[2], axis=0)
        return np.ascontiguousarray(result.T)

    def picture(self, values: npt.NDArray[np.float32], outside: float) -> npt.NDArray[np.float32]:
        """Values per pixel (P,) → float32 (size, size), with `outside` where there is no mesh."""
        full = np.full((self.size_px, self.size_px), outside, np.float32)
        full[self.rows, self.columns] = values
        return full


def rasterize(vertices_px: Floats, depth_mm: Floats, triangles: Indices, size_px: int) -> RasterizedMesh:
    """The nearest of the triangles that face the camera (clockwise in the picture), by the painter's algorithm.

    Each triangle is cut into its spans of pixels, row by row, all triangles at once; of the spans over one pixel the one of
    the triangle nearest in the mean of its corners is kept.
    """
    x, y = (vertices_px[:, axis].take(triangles.T) for axis in (0, 1))
    doubled_area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    depth = depth_mm.take(triangles.T)
    order = np.argsort(-(depth[0] + depth[1] + depth[2]), kind="stable")
    order = order[doubled_area[order] > _THIN_PX2]

    x, y = x[:, order], y[:, order]
    planes = _weight_planes(x, y, doubled_area[order])
    owner, row, first, last = _spans(y, planes, size_px)
    length = last - first + 1
    ends = np.cumsum(length)
    # Places in the picture, counted row by row: consecutive within a span.
    place = np.arange(ends[-1] if len(ends) else 0) + np.repeat(row * size_px + first - (ends - length), length)
    shown = np.full(size_px * size_px, -1, np.int64)
    # From far to near: the last write to a pixel stays.
    shown[place] = np.repeat(owner, length)

    place = np.flatnonzero(shown >= 0)
    number = shown[place]
    rows, columns = np.divmod(place, size_px)
    here = np.stack([plane.astype(np.float32).take(number, axis=1) for plane in planes])
    # Pixels on an edge lie a little outside; slivers must not extrapolate.
    weights = np.clip(here[:, 0] * columns.astype(np.float32) + here[:, 1] * rows.astype(np.float32) + here[:, 2], 0, 1)
    weights /= weights[0] + weights[1] + weights[2]
    return RasterizedMesh(rows, columns, order[number], triangles.T.take(order[number], axis=1), weights, size_px)


def _weight_planes(x: Floats, y: Floats, doubled_area: Floats) -> tuple[Floats, Floats, Floats]:
    """Per corner (3, T): its barycentric weight over the picture is plane[0] x + plane[1] y + plane[2]."""
    planes = []
    for second, third in ((1, 2), (2, 0), (0, 1)):
        rise = (y[second] - y[third]) / doubled_area
        slope = (x[third] - x[second]) / doubled_area
        planes.append(np.stack([rise, slope, -(rise * x[second] + slope * y[second])]))
    return planes[0], planes[1], planes[2]


def _spans(y: Floats, planes: tuple[Floats, ...], size_px: int) -> tuple[Indices, Indices, Indices, Indices]:
    """Owner (place in the given order), row, first and last column of every run of pixels inside a triangle."""
    top = np.ceil(np.minimum(np.minimum(y[0], y[1]), y[2]) - _OVERLAP_PX)
    bottom = np.floor(np.maximum(np.maximum(y[0], y[1]), y[2]) + _OVERLAP_PX)
    top, bottom = np.clip(top, 0, size_px).astype(np.int64), np.clip(bottom, -1, size_px - 1).astype(np.int64)
    height = np.maximum(bottom - top + 1, 0)
    owner = np.repeat(np.arange(len(height)), height)
    row = np.arange(len(owner)) - np.repeat(np.cumsum(height) - height - top, height)
    first, last = np.zeros(len(row)), np.full(len(row), size_px - 1.0)
    for plane in planes:
        rise, slope, start = plane.take(owner, axis=1)
        level = slope * row + start
        flat = np.abs(rise) < 1e-9
        zero = -level / np.where(flat, 1.0, rise)
        # A weight is not negative to the right of where it is 0 if it rises, to the left of it if it falls.
        np.maximum(first, np.where(rise > 0, zero, -1.0) - _OVERLAP_PX, out=first, where=~flat)
        np.minimum(last, np.where(rise < 0, zero, np.inf) + _OVERLAP_PX, out=last, where=~flat)
        last[flat & (level < -1e-6)] = -1
    begin, end = np.ceil(np.minimum(first, size_px)).astype(np.int64), np.floor(np.maximum(last, -1)).astype(np.int64)
    kept = end >= begin
    return owner[kept], row[kept], begin[kept], end[kept]


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The triangles at each vertex: `triangles[starts[i]:starts[i + 1]]` belong to `vertices[i]`."""

    vertices: Indices
    triangles: Indices
    starts: Indices

    @classmethod
    def of(cls, triangles: Indices) -> Neighbourhood:
        corners = triangles.ravel()
        order = np.argsort(corners, kind="stable")
        vertices, starts = np.unique(corners[order], return_index=True)
        return cls(vertices, order // 3, starts)


def vertex_normals(camera_mm: Floats, triangles: Indices, neighbourhood: Neighbourhood) -> Floats:
    """Unit normals, area-weighted over the neighbouring triangles, (V, 3); 0 for a vertex without triangles."""
    x, y, z = (camera_mm[:, axis].take(triangles.T) for axis in range(3))
    ux, uy, uz = x[2] - x[0], y[2] - y[0], z[2] - z[0]
    vx, vy, vz = x[1] - x[0], y[1] - y[0], z[1] - z[0]
    face = np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], axis=1)
    sums = np.add.reduceat(face.take(neighbourhood.triangles, axis=0), neighbourhood.starts, axis=0)
    normals = np.zeros_like(camera_mm)
    normals[neighbourhood.vertices] = sums / np.maximum(np.sqrt((sums**2).sum(axis=1, keepdims=True)), 1e-9)
    return np.asarray(normals)


def visible_points(
    points_px: Floats, points_depth_mm: Floats, depth_map_mm: npt.NDArray[np.float32], tolerance_mm: Floats
) -> npt.NDArray[np.bool_]:
    """(K,) False where the mesh lies in front of the point by more than that; the map holds infinity beside the mesh."""
    # A label on an outline may round to the pixel beside it.
    around = np.asarray(cv2.dilate(depth_map_mm, np.ones((3, 3), np.uint8)))
    row, column = nearest_pixels(points_px, len(depth_map_mm))
    return np.asarray(points_depth_mm < around[row, column] + tolerance_mm)


def nearest_pixels(points_px: Floats, size_px: int) -> tuple[Indices, Indices]:
    """Row and column of each point, moved into the picture where it lies outside."""
    nearest = np.clip(np.round(points_px), 0, size_px - 1).astype(np.int64)
    return nearest[:, 1], nearest[:, 0]
