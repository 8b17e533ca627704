"""Smooth lines through the points of a contour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmedge.schemas import Curve

# A turn sharper than this is a corner (of the mouth, of an eye, the end of a brow): the line is not rounded there.
CORNER_DEG = 75.0
STEPS = 8
# The root of a distance in pixels below which two points are one.
_LEAST_KNOT = 1e-3

Floats = npt.NDArray[np.float64]


def smooth_lines(points_px: npt.NDArray[np.floating], curve: Curve) -> list[Floats]:
    """Polylines (M, 2) through the known points of a curve, in order; several where an unknown point interrupts it.

    Between two points runs a centripetal Catmull-Rom spline (Yuksel et al., "Parameterization and applications of Catmull-Rom
    curves", Computer-Aided Design 2011): it passes through every point and makes no loops. At corners it starts anew.
    """
    points = np.asarray(points_px, np.float64)[list(curve.indices)]
    if curve.closed:
        points = np.concatenate([points, points[:1]])
    runs = _known_runs(points)
    whole = curve.closed and len(runs) == 1 and len(runs[0]) == len(points)
    return [_spline(run, closed=whole) for run in runs]


def _known_runs(points: Floats) -> list[Floats]:
    """Stretches of at least two known points that follow one another."""
    known = np.isfinite(points).all(axis=1)
    parts = np.split(points, np.flatnonzero(np.diff(known)) + 1)
    return [part for part in parts if np.isfinite(part[0]).all() and len(part) > 1]


def _spline(points: Floats, *, closed: bool) -> Floats:
    corners = _corners(points, closed=closed)
    pieces = [points[:1]]
    for index in range(len(points) - 1):
        first, second = points[index], points[index + 1]
        before = _neighbour(points, index, -1, closed=closed, corner=bool(corners[index]))
        after = _neighbour(points, index + 1, 1, closed=closed, corner=bool(corners[index + 1]))
        pieces.append(_segment(before, first, second, after))
    return np.concatenate(pieces)


def _corners(points: Floats, *, closed: bool) -> npt.NDArray[np.bool_]:
    """Which points of a line are corners; the ends of an open one are."""
    steps = np.diff(points, axis=0)
    incoming = np.concatenate([steps[-1:], steps])
    outgoing = np.concatenate([steps, steps[:1]])
    lengths = np.linalg.norm(incoming, axis=1) * np.linalg.norm(outgoing, axis=1)
    cosine = (incoming * outgoing).sum(axis=1) / np.maximum(lengths, np.finfo(float).tiny)
    corner = cosine < np.cos(np.radians(CORNER_DEG))
    if not closed:
        corner[[0, -1]] = True
    return np.asarray(corner)


def _neighbour(points: Floats, index: int, step: int, *, closed: bool, corner: bool) -> Floats:
    """The point beyond one end of a segment; at a corner the segment's other end, mirrored, so that it leaves straight."""
    if corner:
        return np.asarray(2 * points[index] - points[index - step])
    if closed:
        # The last point repeats the first.
        return np.asarray(points[(index + step) % (len(points) - 1)])
    return np.asarray(points[index + step])


def _segment(p0: Floats, p1: Floats, p2: Floats, p3: Floats) -> Floats:
    """Points (STEPS, 2) from after p1 to p2, by the pyramid of Barry and Goldman (SIGGRAPH 1988)."""
    knots = np.concatenate([[0.0], np.cumsum([np.sqrt(np.linalg.norm(b - a)) for a, b in ((p0, p1), (p1, p2), (p2, p3))])])
    if (np.diff(knots) < _LEAST_KNOT).any():
        # Points that coincide have no spline.
        return np.linspace(p1, p2, STEPS + 1)[1:]
    t = np.linspace(knots[1], knots[2], STEPS + 1)[1:-1, None]
    a1, a2, a3 = (_between(t, knots[i], knots[i + 1], a, b) for i, (a, b) in enumerate(((p0, p1), (p1, p2), (p2, p3))))
    b1, b2 = _between(t, knots[0], knots[2], a1, a2), _between(t, knots[1], knots[3], a2, a3)
    return np.concatenate([_between(t, knots[1], knots[2], b1, b2), p2[None]])


def _between(t: Floats, low: float, high: float, first: Floats, second: Floats) -> Floats:
    return np.asarray(((high - t) * first + (t - low) * second) / (high - low))
