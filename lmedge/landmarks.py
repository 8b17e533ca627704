"""What a network finds in an image: boxes and points, validated when made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.schemas import LandmarkSchema

_BITS_OF_ONE = int(np.float32(1).view(np.uint32))


@dataclass(frozen=True)
class FaceBox:
    """A box around a face, in the coordinates of points (pixel centres at integers; width = x_max − x_min).

    `kind` says who drew it (``reference``, ``wflw``, ``mmlab5``, ``yunet``, ``csv``, …): each kind frames a face differently.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    score: float | None = None
    kind: str = "reference"

    def __post_init__(self) -> None:
        corners = (self.x_min, self.y_min, self.x_max, self.y_max)
        if not all(map(math.isfinite, corners)) or self.x_max <= self.x_min or self.y_max <= self.y_min:
            raise InputError(
                f"A face box needs finite x_min < x_max and y_min < y_max; got x {self.x_min:g} to {self.x_max:g}, "
                f"y {self.y_min:g} to {self.y_max:g}. Boxes are (x_min, y_min, x_max, y_max) in pixels."
            )

    @property
    def xyxy(self) -> npt.NDArray[np.float64]:
        return np.array([self.x_min, self.y_min, self.x_max, self.y_max], np.float64)

    @property
    def width(self) -> float:
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        return self.y_max - self.y_min

    @property
    def center(self) -> tuple[float, float]:
        return ((self.x_min + self.x_max) / 2, (self.y_min + self.y_max) / 2)

    @classmethod
    def from_xyxy(cls, corners: Iterable[float], *, score: float | None = None, kind: str = "reference") -> FaceBox:
        """A box from (x_min, y_min, x_max, y_max).

        Raises:
            InputError: not four numbers, or a box without area.
        """
        values = [float(value) for value in corners]
        if len(values) != 4:
            raise InputError(f"A face box is (x_min, y_min, x_max, y_max); got {len(values)} numbers.")
        x_min, y_min, x_max, y_max = values
        return cls(x_min, y_min, x_max, y_max, score, kind)

    @classmethod
    def around(cls, points_px: npt.NDArray[np.floating], kind: str = "reference") -> FaceBox:
        """The extent of points of shape (K, 2); points that are not finite do not count.

        Raises:
            InputError: fewer than two distinct finite points.
        """
        points = np.asarray(points_px, np.float64)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) == 0:
            raise InputError("A box around points needs at least two finite points; got none.")
        (x_min, y_min), (x_max, y_max) = points.min(axis=0), points.max(axis=0)
        return cls(float(x_min), float(y_min), float(x_max), float(y_max), kind=kind)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """The points of one face.

    Attributes:
        points_px: float32 (K, 2), (x, y) in pixels of the original image; origin top-left, pixel centres at integers.
        schema: what the K points are.
        box: the box that the crop was made from.
        confidence: float32 (K,) in [0, 1], or None where the network gives none.
    """

    points_px: npt.NDArray[np.float32]
    schema: LandmarkSchema
    box: FaceBox
    confidence: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        points = np.array(self.points_px, np.float32)
        expected = (self.schema.num_points, 2)
        # The ufuncs' own reductions: this is done for every face, and the methods go a longer way.
        if points.shape != expected or not np.logical_and.reduce(np.isfinite(points), axis=None):
            raise InputError(f"points_px of {self.schema.name} must be finite and {expected}; got shape {points.shape}.")
        points.flags.writeable = False
        object.__setattr__(self, "points_px", points)
        if self.confidence is not None:
            confidence = np.array(self.confidence, np.float32)
            if confidence.shape != expected[:1] or not _all_in_unit_interval(confidence):
                raise InputError(f"confidence must be {expected[:1]} in [0, 1]; got shape {confidence.shape}.")
            confidence.flags.writeable = False
            object.__setattr__(self, "confidence", confidence)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": self.schema.name,
            "points_px": [[round(float(x), 3), round(float(y), 3)] for x, y in self.points_px],
            "confidence": None if self.confidence is None else [round(float(c), 4) for c in self.confidence],
            "box_xyxy": [round(float(v), 3) for v in self.box.xyxy],
            "box_kind": self.box.kind,
        }


def _all_in_unit_interval(values: npt.NDArray[np.float32]) -> bool:
    # The bits of floats from 0 up are in the floats' order, and above those of 1 are all larger ones, NaN and what has a sign.
    if np.maximum.reduce(values.view(np.uint32)) <= _BITS_OF_ONE:
        return True
    # A zero may have a sign; not a number is neither.
    return bool(np.minimum.reduce(values) >= 0 and np.maximum.reduce(values) <= 1)
