"""A pinhole camera without distortion: pixel = centre + focal · (x, y) / z, z along the camera's axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """What the geometry needs to know of a camera.

    Attributes:
        focal_px: focal length in pixels of the picture (fx = fy).
        centre_px: (x, y) where the camera's axis meets the picture, pixel centres at integers.
        assumed: True where nobody measured it; angles may then be off by some degrees far from the picture's middle.
    """

    focal_px: float
    centre_px: tuple[float, float]
    assumed: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.focal_px) and self.focal_px > 0 and all(map(math.isfinite, self.centre_px))):
            raise InputError(
                f"A camera needs focal_px > 0 and a finite centre_px; got {self.focal_px} and {self.centre_px}. "
                "Without a calibration take Camera.assumed_for(height, width)."
            )

    @classmethod
    def assumed_for(cls, height: int, width: int) -> Camera:
        """A usual camera for pictures of this size: as far from the picture as its longer side is long (a view of 53°).

        Raises:
            InputError: a side that is not positive.
        """
        if height < 1 or width < 1:
            raise InputError(f"A picture's height and width must be at least 1 px; got {height} × {width}.")
        return cls(float(max(height, width)), ((width - 1) / 2, (height - 1) / 2), assumed=True)

    def project(self, points_mm: npt.NDArray[np.floating[Any]]) -> Floats:
        """Points (..., 3) in camera axes → (..., 2) px; NaN for points that are not in front of the camera."""
        points = np.asarray(points_mm, np.float64)
        depth = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
        return np.asarray(np.array(self.centre_px) + self.focal_px * points[..., :2] / depth)

    def rays(self, points_px: npt.NDArray[np.floating[Any]]) -> Floats:
        """The directions (..., 3) in camera axes, with z = 1, that points (..., 2) px are seen in."""
        across = (np.asarray(points_px, np.float64) - np.array(self.centre_px)) / self.focal_px
        return np.concatenate([across, np.ones((*across.shape[:-1], 1))], axis=-1)
