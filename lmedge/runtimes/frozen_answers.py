"""Answers that do not change any more.

The picture of a camera is never twice the same: its noise moves every point by some hundredths of a pixel of the crop. The same
answer to one image after the other therefore says that the engine gives its last answer again, or that the camera does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmedge.landmarks import Landmarks

# Of the longer side of the face's box: what rounding to float32 makes of one and the same answer in different places.
_SAME = 1e-5


class FrozenAnswers:
    """Counts how often in a row the points have lain in the same places, relative to their boxes.

    Attributes:
        in_a_row: how many answers in a row were the same as the one before them.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self._last: list[np.ndarray] = []

    def repeats(self, faces: Sequence[Landmarks]) -> bool:
        """Whether an answer is that of the call before: as many faces, at least one, and all of them the same."""
        places = [_in_box(face) for face in faces]
        same = len(places) == len(self._last) > 0 and all(map(_equal, places, self._last))
        self.in_a_row = self.in_a_row + 1 if same else 0
        self._last = places
        return same


def _in_box(face: Landmarks) -> np.ndarray:
    """The points as fractions of the longer side of their box, from its centre. Every crop is a fixed multiple of that."""
    return np.asarray((face.points_px - np.array(face.box.center)) / max(face.box.width, face.box.height))


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= _SAME)
