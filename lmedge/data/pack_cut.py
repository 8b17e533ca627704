"""A labelled face cut out of its photo with room around it, for the crop cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample, check_labels
from lmedge.preprocess import PreprocessSpec, square_transform, warp

# What crops show outside the photo; here it only reaches the outermost half pixel of a reduced cut.
_BORDER_VALUE = PreprocessSpec().border_value


@dataclass(frozen=True, eq=False)
class Cut:
    """A part of a photo, and where it is: position in the cut = zoom · position in the photo + shift.

    Attributes:
        image_bgr: uint8 (H, W, 3).
        zoom: at most 1; shift_px: (x, y) in pixels of the cut.
    """

    image_bgr: npt.NDArray[np.uint8]
    zoom: float
    shift_px: tuple[float, float]

    def moved(self, points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Photo points (..., 2) → points of the cut."""
        return np.asarray(self.zoom * np.asarray(points_px, np.float64) + np.array(self.shift_px))


def cut_face(image_bgr: npt.NDArray[np.uint8], sample: FaceSample, size_px: int, room: float) -> Cut:
    """The square of `room` × the longer side of the reference box around its centre, as far as it lies in the photo.

    A square of up to `size_px` is copied pixel by pixel; a larger one is reduced to `size_px`.

    Raises:
        DataError: a label lies far outside the photo.
    """
    height, width = image_bgr.shape[:2]
    check_labels(sample.points_px, (height, width), sample.origin or sample.photo_key)
    box = sample.box()
    side = room * max(box.width, box.height)
    if side <= size_px:
        columns, rows = (_inside(c - side / 2, c + side / 2, n) for c, n in zip(box.center, (width, height), strict=True))
        return Cut(np.ascontiguousarray(image_bgr[rows, columns]), 1.0, (-float(columns.start), -float(rows.start)))
    transform = square_transform(box.center, side, size_px)
    zoom, shift = float(transform.matrix[0, 0]), transform.matrix[:, 2]
    # The photo's outer edges, half a pixel outside its outermost centres, in pixels of the cut.
    edges = transform.to_crop(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    columns, rows = (_inside(float(edges[0, axis]), float(edges[1, axis]), size_px) for axis in (0, 1))
    reduced = warp(image_bgr, transform, _BORDER_VALUE)[rows, columns]
    return Cut(np.ascontiguousarray(reduced), zoom, (float(shift[0]) - columns.start, float(shift[1]) - rows.start))


def _inside(low: float, high: float, count: int) -> slice:
    """The pixels of 0 to count − 1 whose centres lie between two positions."""
    return slice(max(0, math.ceil(low)), min(count, math.floor(high) + 1))
