"""Triangles over points of a plane."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

# Delaunay's coordinates: float32 with room for the thousandth part of a pixel.
_SUBDIVISION_PX = 16384.0

Floats = npt.NDArray[np.float64]


def delaunay(points_px: Floats) -> npt.NDArray[np.int64]:
    """Delaunay's triangles (T, 3) over points (V, 2), clockwise as seen with y down; of points on one spot the first counts."""
    low = points_px.min(axis=0)
    zoom = 0.5 * _SUBDIVISION_PX / max(float(np.ptp(points_px, axis=0).max()), 1e-6)
    scaled = ((points_px - low) * zoom + 0.25 * _SUBDIVISION_PX).astype(np.float32)
    subdivision = cv2.Subdiv2D((0, 0, int(_SUBDIVISION_PX), int(_SUBDIVISION_PX)))
    index_of: dict[tuple[float, float], int] = {}
    for index, (x, y) in enumerate(scaled.tolist()):
        if (x, y) not in index_of:
            index_of[x, y] = index
            subdivision.insert((x, y))
    corners = np.asarray(subdivision.getTriangleList()).reshape(-1, 3, 2).tolist()
    rows = [[index_of.get((x, y), -1) for x, y in triangle] for triangle in corners]
    return np.array([row for row in rows if min(row) >= 0], np.int64).reshape(-1, 3)


def doubled_areas(points_px: Floats, triangles: npt.NDArray[np.int64]) -> Floats:
    """Twice the signed area (T,) of each triangle; positive is clockwise as seen with y down."""
    first, second, third = (points_px[triangles[:, corner]] for corner in range(3))
    along, across = second - first, third - first
    return np.asarray(along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0])
