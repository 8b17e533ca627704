"""Answers that do not change any more.

The picture of a camera is never twice the same: its noise moves every point by some hundredths of a pixel of the crop. The same
answer to one image after the other therefore says that the engine gives its last answer again, or that the camera does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmedge.landmarks import Landmarks

# Of the face's extent: what rounding to float32 makes of one and the same answer in different places.
_SAME = 1e-5


class FrozenAnswers:
    """Counts how often in a row the points have had the same shape, wherever their faces were and however large.

    Attributes:
        in_a_row: how many answers in a row were the same as the one before them.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self._last: list[np.ndarray] = []

    def repeats(self, faces: Sequence[Landmarks]) -> bool:
        """Whether an answer is that of the call before: as many faces, at least one, and all of them the same."""
        shapes = [_shape(face) for face in faces]
        same = len(shapes) == len(self._last) > 0 and all(map(_equal, shapes, self._last))
        self.in_a_row = self.in_a_row + 1 if same else 0
        self._last = shapes
        return same


def _shape(face: Landmarks) -> np.ndarray:
    """The points from their corner, as fractions of their longer extent: the same for the same answer to whatever crop, also
    where a crop of whole pixels is not quite a fixed multiple of its box."""
    points = face.points_px.astype(np.float64)
    corner = points.min(axis=0)
    extent = float((points.max(axis=0) - corner).max())
    return np.asarray((points - corner) / (extent or 1.0))


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= _SAME)
