"""Is it still a face? From a network's answer for one crop to yes or no: by its confidence, or by the geometry of its points.

A network answers with the points of a face for any picture, also where none is. One with confidence says so itself. Without,
three things give it away: the extent of the points no longer fits the crop, their centre leaves the image, or their shape
jumps from one frame to the next by more than faces move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.landmarks import Landmarks


@dataclass(frozen=True)
class FaceLimits:
    """What counts as a face. Measured with the zoo's networks on five videos: faces at any pose, and crops without a face.

    Attributes:
        found_confidence: mean confidence of all points from which a new face is believed. Faces 0.38 and more (turned far from
            the camera), 0.65 to 0.9 as a rule; of crops without a face 99 in 100 stayed below 0.28, the highest had 0.36.
        lost_confidence: below it a known face is lost; lower, so that a face at the edge does not come and go.
        size_ratio: without confidence, least and most longer side of the points' extent over that of one frame before (seen:
            0.96 to 1.05).
        shape_change: most change of shape between two frames, without confidence: RMS distance of the points once shift, turn
            and size are taken out, over the longer side (seen: faces up to 0.044, against no face 0.057 and more in 95 of 100).
        least_side_px: points closer together than this are no face.
    """

    found_confidence: float = 0.4
    lost_confidence: float = 0.3
    size_ratio: tuple[float, float] = (0.7, 1.4)
    shape_change: float = 0.06
    least_side_px: float = 8.0

    def __post_init__(self) -> None:
        if not 0 <= self.lost_confidence <= self.found_confidence <= 1:
            raise InputError(
                "FaceLimits needs 0 <= lost_confidence <= found_confidence <= 1; "
                f"got {self.lost_confidence} and {self.found_confidence}."
            )
        low, high = self.size_ratio
        if not 0 < low < 1 < high:
            raise InputError(f"FaceLimits.size_ratio must be a number below 1 and one above it; got {self.size_ratio}.")
        if not (self.shape_change > 0 and self.least_side_px > 0):
            raise InputError(
                f"FaceLimits.shape_change and least_side_px must be above 0; got {self.shape_change} and {self.least_side_px}."
            )


def is_new_face(landmarks: Landmarks, image_hw: tuple[int, int], limits: FaceLimits) -> bool:
    """Whether an answer for a detector's box is a face; without confidence, the detector is believed."""
    confidence = mean_confidence(landmarks)
    return in_place(landmarks, image_hw, limits) and (confidence is None or confidence >= limits.found_confidence)


def is_same_face(landmarks: Landmarks, before: Landmarks, image_hw: tuple[int, int], limits: FaceLimits) -> bool:
    """Whether an answer for the box around the points of the frame before is still a face."""
    if not in_place(landmarks, image_hw, limits):
        return False
    confidence = mean_confidence(landmarks)
    if confidence is not None:
        return confidence >= limits.lost_confidence
    low, high = limits.size_ratio
    ratio = _longer_side(landmarks.points_px) / _longer_side(before.points_px)
    return low <= ratio <= high and shape_change(before.points_px, landmarks.points_px) <= limits.shape_change


def in_place(landmarks: Landmarks, image_hw: tuple[int, int], limits: FaceLimits) -> bool:
    """Whether the points have an area and their middle lies in the image."""
    low, high = landmarks.points_px.min(axis=0), landmarks.points_px.max(axis=0)
    width, height = (high - low).tolist()
    if max(width, height) < limits.least_side_px or min(width, height) <= 0:
        return False
    center_x, center_y = ((low + high) / 2).tolist()
    return bool(0 <= center_x <= image_hw[1] - 1 and 0 <= center_y <= image_hw[0] - 1)


def mean_confidence(landmarks: Landmarks) -> float | None:
    """Mean over the points, or None where the network gives none."""
    return None if landmarks.confidence is None else float(landmarks.confidence.mean())


def shape_change(before_px: npt.NDArray[np.floating], after_px: npt.NDArray[np.floating]) -> float:
    """RMS distance of two sets of points (K, 2) after the best shift, turn and scaling (Procrustes), over the longer side of
    the second's extent; infinite where either has no extent."""
    first, second = (_complex_centred(points) for points in (before_px, after_px))
    power, side_px = float((abs(first) ** 2).sum()), _longer_side(after_px)
    if power == 0 or side_px == 0:
        return math.inf
    turn_and_scale = np.vdot(first, second) / power
    return float(np.sqrt((abs(second - turn_and_scale * first) ** 2).mean())) / side_px


def _complex_centred(points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.complex128]:
    points = np.asarray(points_px, np.float64)
    points = points - points.mean(axis=0)
    return np.asarray(points[:, 0] + 1j * points[:, 1])


def _longer_side(points_px: npt.NDArray[np.floating]) -> float:
    return float((points_px.max(axis=0) - points_px.min(axis=0)).max())
