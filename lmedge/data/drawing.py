"""Points, curves and text on pictures, drawn with OpenCV alone so that a device can make them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.contours import smooth_lines
from lmedge.errors import InputError
from lmedge.preprocess import check_image
from lmedge.schemas import LandmarkSchema

BACKGROUND_BGR, TEXT_BGR, FAINT_BGR = (24, 24, 24), (235, 235, 235), (165, 165, 165)
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
# cv2 draws at fractions of a pixel when coordinates are whole numbers of 1/16 px.
SHIFT = 4

# Sizes of marks, as parts of the face's extent on the picture, and the least that can be seen. Few points are drawn larger.
_POINT_RADIUS, _POINT_RADIUS_AT, _MIN_RADIUS_PX = 0.01, 68, 1.2
_LINE_WIDTH = 0.005
_NUMBER_SCALE = 0.32

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]


def draw_points(
    image_bgr: Image,
    points_px: npt.NDArray[np.floating],
    color: Color,
    schema: LandmarkSchema,
    *,
    curves: bool = True,
    radius_px: float | None = None,
    numbers: bool = False,
) -> Image:
    """A copy of the image with the points and the curves through them; unknown points (NaN) are left out.

    Args:
        image_bgr: uint8 (H, W, 3), or gray (H, W).
        points_px: (K, 2) in pixels of the image, pixel centres at integers.
        curves: draw smooth lines through the points (`contours.smooth_lines`).
        radius_px: of a point; without it, fitting the size of the face.
        numbers: write the index of each point beside it.

    Raises:
        InputError: not an image, or not K points.
    """
    picture = check_image(image_bgr).copy()
    points = np.asarray(points_px, np.float64)
    if points.shape != (schema.num_points, 2):
        raise InputError(f"points_px of {schema.name} must be ({schema.num_points}, 2); got {points.shape}.")
    known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
    if not known.any():
        return picture
    # Points far outside the picture must not swell the marks.
    extent = min(float(np.ptp(points[known], axis=0).max()), float(max(picture.shape)))
    radius = fitting_radius_px(extent, schema) if radius_px is None else radius_px
    if curves:
        width = max(1, round(_LINE_WIDTH * extent))
        for curve in schema.curves:
            for line in smooth_lines(points, curve):
                cv2.polylines(picture, [np.array([fixed_point(p) for p in line])], False, color, width, cv2.LINE_AA, SHIFT)
    for point in points[known]:
        cv2.circle(picture, fixed_point(point), round(radius * 2**SHIFT), color, cv2.FILLED, cv2.LINE_AA, SHIFT)
    if numbers:
        for index in np.flatnonzero(known):
            x, y = (int(value) >> SHIFT for value in fixed_point(points[index]))
            write_text(picture, str(index), (x + 2, y - 2), TEXT_BGR, _NUMBER_SCALE)
    return picture


def draw_outlines(picture: Image, points_px: npt.NDArray[np.floating], color: Color, schema: LandmarkSchema) -> None:
    """Draws the schema's curves into a picture, straight from point to point: in a video, smooth ones take longer than finding
    the points. Points without a curve are dots.
    """
    places = np.clip(np.rint(np.asarray(points_px) * 2**SHIFT), -(2**24), 2**24).astype(np.int32)
    for closed in (False, True):
        lines = [places[list(curve.indices)] for curve in schema.curves if curve.closed == closed]
        cv2.polylines(picture, lines, closed, color, 1, cv2.LINE_AA, SHIFT)
    alone = set(range(schema.num_points)) - {index for curve in schema.curves for index in curve.indices}
    for index in alone:
        cv2.circle(picture, (int(places[index, 0]), int(places[index, 1])), 2 << SHIFT, color, cv2.FILLED, cv2.LINE_AA, SHIFT)


def fitting_radius_px(extent_px: float, schema: LandmarkSchema) -> float:
    """Of the points of a face of this size: smaller where there are more."""
    return float(max(_MIN_RADIUS_PX, _POINT_RADIUS * extent_px * (_POINT_RADIUS_AT / schema.num_points) ** 0.5))


def fixed_point(point_px: npt.NDArray[np.floating]) -> tuple[int, int]:
    """A point in sixteenths of a pixel, far ones brought near: cv2 takes 32-bit numbers."""
    x, y = np.clip(np.rint(np.asarray(point_px) * 2**SHIFT), -(2**24), 2**24)
    return int(x), int(y)


def write_text(picture: Image, text: str, place_xy: tuple[int, int], color: Color, scale: float = FONT_SCALE) -> None:
    """Writes a line of text into a picture, its lower left corner at a place; letters beyond ASCII become "?"."""
    cv2.putText(picture, text.encode("ascii", "replace").decode(), place_xy, FONT, scale, color, 1, cv2.LINE_AA)


def fitted_text(text: str, width_px: int) -> str:
    """The text, its middle left out until it fits; letters that not every OpenCV can draw become "?"."""
    plain = text.encode("ascii", "replace").decode()
    shown, kept = plain, len(plain)
    while kept > 1 and cv2.getTextSize(shown, FONT, FONT_SCALE, 1)[0][0] > width_px:
        kept -= 1
        shown = f"{plain[: kept // 2]}..{plain[len(plain) - (kept - kept // 2) :]}"
    return shown
