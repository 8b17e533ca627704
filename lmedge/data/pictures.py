"""Pictures of landmarks, drawn with OpenCV alone so that a device can make them. Labels are red, predictions green."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample
from lmedge.errors import DataError, InputError
from lmedge.landmarks import Landmarks
from lmedge.metrics import nme
from lmedge.preprocess import check_image, square_transform, warp
from lmedge.schemas import LandmarkSchema

LABEL_BGR = (40, 40, 255)
PREDICTION_BGR = (60, 220, 60)
BOX_BGR = (230, 180, 60)

# Sizes of marks, as parts of the face's extent on the picture, and the least that can be seen. Few points are drawn larger.
_POINT_RADIUS, _POINT_RADIUS_AT, _MIN_RADIUS_PX = 0.01, 68, 1.2
_LINE_WIDTH = 0.005
# Side of a tile over the extent of the points: the outline included or not.
_OUTLINE_SIDE, _INNER_SIDE = 1.45, 2.6
_BACKGROUND_BGR, _TEXT_BGR, _FAINT_BGR = (24, 24, 24), (235, 235, 235), (165, 165, 165)
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
_CAPTION_LINE_PX, _GAP_PX = 16, 6
# cv2 draws at fractions of a pixel when coordinates are whole numbers of 1/16 px.
_SHIFT = 4

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
) -> Image:
    """A copy of the image with the points and the curves through them; unknown points (NaN) are left out.

    Args:
        image_bgr: uint8 (H, W, 3), or gray (H, W).
        points_px: (K, 2) in pixels of the image, pixel centres at integers.
        radius_px: of a point; without it, fitting the size of the face.

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
    fitting = _POINT_RADIUS * extent * (_POINT_RADIUS_AT / schema.num_points) ** 0.5
    radius = max(_MIN_RADIUS_PX, fitting) if radius_px is None else radius_px
    if curves:
        width = max(1, round(_LINE_WIDTH * extent))
        for first, second in schema.edges:
            if known[first] and known[second]:
                cv2.line(picture, _fixed(points[first]), _fixed(points[second]), color, width, cv2.LINE_AA, _SHIFT)
    for point in points[known]:
        cv2.circle(picture, _fixed(point), round(radius * 2**_SHIFT), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    return picture


def draw_faces(image_bgr: Image, faces: Sequence[Landmarks]) -> Image:
    """A copy of the image with found faces: points and curves in green, the boxes they were found in as thin lines.

    Raises:
        InputError: not an image.
    """
    picture = check_image(image_bgr).copy()
    for face in faces:
        corners = _fixed(face.box.xyxy[:2]), _fixed(face.box.xyxy[2:])
        cv2.rectangle(picture, *corners, BOX_BGR, 1, cv2.LINE_AA, _SHIFT)
        picture = draw_points(picture, face.points_px, PREDICTION_BGR, face.schema)
    return picture


def contact_sheet(
    samples: Sequence[FaceSample],
    *,
    predictions: Sequence[npt.NDArray[np.floating] | None] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 6,
    tile_px: int = 240,
) -> Image:
    """Faces in rows of tiles, uint8 (H, W, 3) BGR: labels red, predictions green over them, the name under each.

    Args:
        predictions: one per face, (K, 2) in pixels of the face's image, or None for a face that was not found.
        captions: a second line under each name; without it, the subset tags and the error of the prediction.

    Raises:
        InputError: no faces, or lists of different lengths.
        DataError: an image cannot be read.
    """
    found = list(predictions) if predictions is not None else [None] * len(samples)
    if not samples or len(found) != len(samples) or (captions is not None and len(captions) != len(samples)):
        raise InputError(
            f"A contact sheet needs faces and one prediction and caption for each; got {len(samples)} faces, "
            f"{len(found)} predictions, {len(samples) if captions is None else len(captions)} captions."
        )
    if columns < 1 or tile_px < 32:
        raise InputError(f"A contact sheet needs columns of 1 or more and tile_px of 32 or more; got {columns}, {tile_px}.")
    tiles = []
    for index, sample in enumerate(samples):
        detail = captions[index] if captions is not None else _detail(sample, found[index], predictions is not None)
        tiles.append(_captioned(face_tile(sample, found[index], tile_px), _name(sample), detail))
    return _grid(tiles, columns)


def face_tile(sample: FaceSample, prediction_px: npt.NDArray[np.floating] | None, tile_px: int) -> Image:
    """One face, enlarged to a square tile, with its labels and, where there is one, the prediction.

    Raises:
        DataError: the image cannot be read.
    """
    box = sample.box()
    margin = _OUTLINE_SIDE if "contour" in sample.schema.groups else _INNER_SIDE
    transform = square_transform(box.center, margin * max(box.width, box.height), tile_px)
    tile = warp(check_image(sample.read_image()), transform)
    tile = draw_points(tile, transform.to_crop(sample.points_px), LABEL_BGR, sample.schema)
    if prediction_px is None:
        return tile
    return draw_points(tile, transform.to_crop(prediction_px), PREDICTION_BGR, sample.schema)


def save_picture(path: str | Path, image_bgr: Image) -> Path:
    """Writes a picture whose format the suffix says; the file appears whole or not at all. Missing folders are made.

    Raises:
        DataError: the suffix is not .png, .jpg or .jpeg, or the file cannot be written.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"{target}: a picture needs the suffix .png, .jpg or .jpeg.")
    done, encoded = cv2.imencode(target.suffix.lower(), image_bgr)
    temporary = target.with_name(target.name + ".part")
    try:
        if not done:
            raise DataError(f"{target}: OpenCV could not encode an image of shape {image_bgr.shape}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(encoded.tobytes())
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DataError(f"Cannot write the picture {target}: {error.strerror or error}.") from error
    return target


def _fixed(point_px: npt.NDArray[np.floating]) -> tuple[int, int]:
    """A point in sixteenths of a pixel, far ones brought near: cv2 takes 32-bit numbers."""
    x, y = np.clip(np.rint(np.asarray(point_px) * 2**_SHIFT), -(2**24), 2**24)
    return int(x), int(y)


def _name(sample: FaceSample) -> str:
    return sample.image.name if isinstance(sample.image, Path) else sample.photo_key


def _detail(sample: FaceSample, prediction_px: npt.NDArray[np.floating] | None, predicted: bool) -> str:
    tags = " ".join(sample.subset)
    if not predicted:
        return tags
    if prediction_px is None:
        return f"not found  {tags}"
    error = float(nme(np.asarray(prediction_px)[None], sample.points_px[None], sample.schema)[0])
    return f"NME {100 * error:.1f} %  {tags}" if np.isfinite(error) else f"no NME  {tags}"


def _captioned(tile: Image, name: str, detail: str) -> Image:
    strip = np.full((2 * _CAPTION_LINE_PX + 4, tile.shape[1], 3), _BACKGROUND_BGR, np.uint8)
    for line, (text, color) in enumerate(((name, _TEXT_BGR), (detail, _FAINT_BGR)), 1):
        place = (2, line * _CAPTION_LINE_PX - 3)
        cv2.putText(strip, _fitted(text, tile.shape[1] - 4), place, _FONT, _FONT_SCALE, color, 1, cv2.LINE_AA)
    return np.vstack([tile, strip])


def _fitted(text: str, width_px: int) -> str:
    """The text, its middle left out until it fits; letters that not every OpenCV can draw become "?"."""
    plain = text.encode("ascii", "replace").decode()
    shown, kept = plain, len(plain)
    while kept > 1 and cv2.getTextSize(shown, _FONT, _FONT_SCALE, 1)[0][0] > width_px:
        kept -= 1
        shown = f"{plain[: kept // 2]}..{plain[len(plain) - (kept - kept // 2) :]}"
    return shown


def _grid(tiles: Sequence[Image], columns: int) -> Image:
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    step_y, step_x = height + _GAP_PX, width + _GAP_PX
    sheet = np.full((rows * step_y + _GAP_PX, columns * step_x + _GAP_PX, 3), _BACKGROUND_BGR, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = _GAP_PX + index // columns * step_y, _GAP_PX + index % columns * step_x
        sheet[top : top + height, left : left + width] = tile
    return sheet
