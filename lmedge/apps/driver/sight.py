"""Whether a picture shows the eyes at all, from the brightness of skin: sunglasses, darkness, glare.

Compared are the skin just under the eyes, which dark lenses cover, and the cheeks below, which they do not. Neither patch
holds any part of the eye, so that shut eyes look the same as open ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.apps.expression import FaceMeter
from lmedge.landmarks import Landmarks
from lmedge.preprocess import check_image
from lmedge.schemas import LandmarkSchema

# Along the line from the middle of an eye to the corner of the mouth, about 68 mm: lenses end at 0.45 of it at the lowest.
_UNDER_EYE, _CHEEK = 0.25, 0.62
# Half the side of a patch, as a part of that line.
_PATCH = 0.05
_BGR_TO_GRAY = np.array([0.114, 0.587, 0.299])

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FaceSight:
    """Brightness of skin, gray levels 0 to 255, means over both sides of the face.

    Attributes:
        under_eyes: of the skin under the eyes; NaN where it lies outside the picture.
        cheeks: of the cheeks; NaN where they lie outside the picture.
    """

    under_eyes: float
    cheeks: float

    @property
    def ratio(self) -> float:
        """Under the eyes over the cheeks: about 1 on bare skin, about 0.3 under dark lenses."""
        return self.under_eyes / max(self.cheeks, 1.0)


class SightMeter:
    """Measures faces of one schema."""

    def __init__(self, schema: LandmarkSchema) -> None:
        """
        Raises:
            InputError: the schema has no outline of the eyes or no corners of the mouth.
        """
        meter = FaceMeter(schema)
        self._sides = tuple(zip((meter.right_eye.corners, meter.left_eye.corners), meter.mouth_corners, strict=True))

    def read(self, image_bgr: Image, landmarks: Landmarks) -> FaceSight:
        """What the picture shows of a face.

        Args:
            image_bgr: uint8 (H, W, 3), or gray (H, W).
            landmarks: of the meter's schema, in that picture.

        Raises:
            InputError: not an image.
        """
        image, points = check_image(image_bgr), landmarks.points_px.astype(np.float64)
        levels = []
        for corners, mouth_corner in self._sides:
            eye = points[list(corners)].mean(axis=0)
            line = points[mouth_corner] - eye
            radius_px = max(1, round(_PATCH * float(np.linalg.norm(line))))
            levels.append([_level(image, eye + part * line, radius_px) for part in (_UNDER_EYE, _CHEEK)])
        # A side that is outside the picture leaves the other to speak.
        known = [pair for pair in levels if np.isfinite(pair).all()] or [[np.nan, np.nan]]
        under_eyes, cheeks = np.mean(known, axis=0).tolist()
        return FaceSight(under_eyes, cheeks)


def _level(image_bgr: Image, center_px: npt.NDArray[np.float64], radius_px: int) -> float:
    """Median gray level of a square patch; NaN where less than its middle is in the picture."""
    height, width = image_bgr.shape[:2]
    x, y = (int(value) for value in np.rint(np.clip(center_px, -1e6, 1e6)))
    if not (0 <= x < width and 0 <= y < height):
        return float("nan")
    patch = image_bgr[max(0, y - radius_px) : y + radius_px + 1, max(0, x - radius_px) : x + radius_px + 1]
    return float(np.median(patch @ _BGR_TO_GRAY))
