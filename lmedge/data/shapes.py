"""Faces as shapes: aligned to one another, and measured against what the other faces show is usual.

Points are complex numbers x + iy here: a rotation with a scale is one factor. Alignment is generalised Procrustes analysis
(Gower, Psychometrika 1975) under similarities without reflection; the usual variation (turning, opening the mouth) is the
linear shape model of Cootes et al., "Active shape models", CVIU 1995. Wrong labels must not bend what they are measured
against: the middle is a median, and the modes are spherical principal components (Locantore et al., Test 1999).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError

# The middle shape settles within a few rounds of aligning all faces to it.
_ALIGNMENT_ROUNDS = 5
# The model explains this part of the variation: turned heads and open mouths are in it, misplaced points are not.
_EXPLAINED_VARIANCE = 0.8
# With few faces a wrong one would get a mode of its own.
_FACES_PER_MODE = 10

Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]


def shape_deviations(points_px: npt.NDArray[np.floating]) -> Floats:
    """How far each face's points are from the nearest usual shape: root of the mean squared distance (N,) over the known
    points, in parts of the middle shape's longer side.

    Args:
        points_px: (N, K, 2), NaN where unknown; every face has at least two distinct known points.

    Raises:
        InputError: no faces, or an array of another shape.
    """
    deviations = point_deviations(points_px)
    return np.asarray(np.sqrt(np.nanmean(deviations**2, axis=1)))


def point_deviations(points_px: npt.NDArray[np.floating]) -> Floats:
    """How far each point is from the nearest usual shape of its face, (N, K); see `shape_deviations`. NaN where unknown.

    Raises:
        InputError: no faces, or an array of another shape.
    """
    points = np.asarray(points_px, np.float64)
    if points.ndim != 3 or points.shape[0] == 0 or points.shape[2] != 2:
        raise InputError(f"Shapes must be an array (N, K, 2) with N of at least 1; got {points.shape}.")
    shapes = points[..., 0] + 1j * points[..., 1]
    middle, aligned = _middle_shape(shapes)
    deviation = _unusual_part(np.where(np.isfinite(aligned), aligned - middle, 0))
    distance = np.where(np.isfinite(shapes), np.abs(deviation), np.nan)
    return np.asarray(distance / max(np.nanmax(part) - np.nanmin(part) for part in (middle.real, middle.imag)))


def align(points_px: npt.NDArray[np.floating], target_px: npt.NDArray[np.floating]) -> Floats:
    """Points (K, 2) under the similarity that brings the known ones closest to the target (K, 2); NaN stays NaN.

    Least squares over rotation, scale and shift; a mirror image is not turned over.
    """
    shape, target = (np.asarray(p, np.float64)[:, 0] + 1j * np.asarray(p, np.float64)[:, 1] for p in (points_px, target_px))
    moved = _align_all(shape[None], target)[0]
    return np.column_stack([moved.real, moved.imag])


def _middle_shape(shapes: Complexes) -> tuple[Complexes, Complexes]:
    """The median (K,) of all shapes (N, K) aligned to it, and the aligned shapes."""
    # Start from the most complete face, so that every point is known as early as possible.
    middle = shapes[np.argmax(np.isfinite(shapes).sum(axis=1))]
    aligned = shapes
    for _ in range(_ALIGNMENT_ROUNDS):
        aligned = _align_all(shapes, middle)
        # A point that no face knows stays unknown; NumPy would warn about its empty median.
        seen = np.isfinite(aligned).any(axis=0)
        middle = np.full_like(middle, complex(np.nan, np.nan))
        middle[seen] = np.nanmedian(aligned.real[:, seen], axis=0) + 1j * np.nanmedian(aligned.imag[:, seen], axis=0)
    return middle, aligned


def _align_all(shapes: Complexes, target: Complexes) -> Complexes:
    """z → a·z + b per shape, with the least-squares a and b over the points that both know; NaN where these are too few."""
    known = np.isfinite(shapes) & np.isfinite(target)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    center = np.where(known, shapes, 0).sum(axis=1, keepdims=True) / count
    target_center = np.where(known, target, 0).sum(axis=1, keepdims=True) / count
    spread = np.where(known, shapes - center, 0)
    product = (spread.conj() * np.where(known, target - target_center, 0)).sum(axis=1, keepdims=True)
    size = (np.abs(spread) ** 2).sum(axis=1, keepdims=True)
    factor = product / np.where(size > 0, size, np.nan)
    return np.asarray(factor * (shapes - center) + target_center)


def _unusual_part(deviations: Complexes) -> Complexes:
    """What the first principal modes of the deviations (N, K) do not explain."""
    rows = np.concatenate([deviations.real, deviations.imag], axis=1)
    # Every face has the same say in the modes, however wrong it is; otherwise the worst label would be a mode of its own.
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    _, strengths, modes = np.linalg.svd(rows / np.maximum(lengths, np.finfo(float).tiny), full_matrices=False)
    variance = np.cumsum(strengths**2)
    needed = int(np.searchsorted(variance, _EXPLAINED_VARIANCE * variance[-1])) + 1
    usual = modes[: min(needed, len(rows) // _FACES_PER_MODE)]
    rest = rows - rows @ usual.T @ usual
    half = rest.shape[1] // 2
    return np.asarray(rest[:, :half] + 1j * rest[:, half:])
