"""Head pose on a picture: three axes from between the eyes, or from any place of the head."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.drawing import SHIFT, fixed_point
from lmedge.errors import InputError
from lmedge.pose import HeadPose
from lmedge.preprocess import check_image

# Out of the face, to the subject's left, up: as tools for poses colour z, x and y.
FORWARD_BGR, LEFT_BGR, UP_BGR = (255, 96, 32), (48, 48, 240), (64, 200, 64)
LENGTH_MM = 70.0
# The middle of the face: the bridge of the nose.
ORIGIN_MM = (0.0, 11.0, -28.0)
_WIDTH_PART = 0.06
_TIP_PART = 0.15
# Shorter, an axis that points at the camera has no direction that could be drawn.
_SHORTEST_PX = 1.0

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def draw_pose(
    image_bgr: Image, pose: HeadPose, *, length_mm: float = LENGTH_MM, origin_mm: tuple[float, float, float] = ORIGIN_MM
) -> Image:
    """A copy of the image with the head's axes: blue out of the face, red to the subject's left, green up.

    The nearest axis is drawn last, over the others.

    Args:
        image_bgr: uint8 (H, W, 3), or gray (H, W).
        pose: of a head in this image.
        length_mm: of each axis.
        origin_mm: where they start, in head axes (`pose.generic_points`).

    Raises:
        InputError: not an image, or a length that is not positive.
    """
    picture = check_image(image_bgr).copy()
    if not length_mm > 0:
        raise InputError(f"length_mm must be positive; got {length_mm}.")
    for tip_mm, color in _axes_far_to_near(pose, length_mm):
        ends_mm = np.array([origin_mm, np.add(origin_mm, tip_mm)]) @ pose.rotation.T + pose.translation
        start_px, end_px = pose.camera.project(ends_mm)
        if np.isfinite(start_px).all() and np.isfinite(end_px).all() and np.linalg.norm(end_px - start_px) >= _SHORTEST_PX:
            _draw_arrow(picture, start_px, end_px, color, pose.camera.focal_px / ends_mm[0, 2] * length_mm)
    return picture


def _axes_far_to_near(pose: HeadPose, length_mm: float) -> list[tuple[Floats, tuple[int, int, int]]]:
    """Ends of the axes from their start, in head axes, and their colours."""
    axes = [(np.array([0, 0, -length_mm]), FORWARD_BGR), (np.array([length_mm, 0, 0]), LEFT_BGR)]
    axes.append((np.array([0, -length_mm, 0]), UP_BGR))
    return sorted(axes, key=lambda axis: -float(pose.rotation[2] @ axis[0]))


def _draw_arrow(picture: Image, start_px: Floats, end_px: Floats, color: tuple[int, int, int], full_px: float) -> None:
    """An arrow whose width and head fit an axis that is seen from the side, `full_px` long."""
    width = max(1, round(_WIDTH_PART * full_px))
    tip = _TIP_PART * full_px / float(np.linalg.norm(end_px - start_px))
    start, end = fixed_point(start_px), fixed_point(end_px)
    cv2.arrowedLine(picture, start, end, color, width, cv2.LINE_AA, SHIFT, min(tip, 0.5))
