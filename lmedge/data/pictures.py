"""Pictures of landmarks, drawn with OpenCV alone so that a device can make them. Labels are red, predictions green."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.drawing import (
    BACKGROUND_BGR,
    FAINT_BGR,
    SHIFT,
    TEXT_BGR,
    Image,
    draw_points,
    fitted_text,
    fitting_radius_px,
    fixed_point,
    write_text,
)
from lmedge.data.samples import FaceSample
from lmedge.errors import DataError, InputError
from lmedge.landmarks import Landmarks
from lmedge.metrics import nme
from lmedge.preprocess import check_image, square_transform, warp
from lmedge.schemas import LandmarkSchema

__all__ = ["contact_sheet", "draw_faces", "draw_points", "face_tile", "save_picture"]

LABEL_BGR = (40, 40, 255)
PREDICTION_BGR = (60, 220, 60)
BOX_BGR = (230, 180, 60)
UNSURE_BGR = (0, 140, 255)
# Confidence below which a point is drawn as unsure.
_UNSURE = 0.5
_CAPTION_PX = 150

# Side of a tile over the extent of the points: the outline included or not.
_OUTLINE_SIDE, _INNER_SIDE = 1.45, 2.6
_CAPTION_LINE_PX, _GAP_PX = 16, 6
_LEGEND_LINE_PX, _LEGEND_COLUMN_PX = 15, 190


def draw_faces(image_bgr: Image, faces: Sequence[Landmarks], *, names: bool = False) -> Image:
    """A copy of the image with found faces: points and curves in green, the boxes they were found in as thin lines.

    Where the network tells its confidence, the mean stands at the box, and points below 0.5 are orange.

    Args:
        names: number the points, and list their names to the right.

    Raises:
        InputError: not an image.
    """
    picture = check_image(image_bgr).copy()
    for number, face in enumerate(faces, 1):
        corners = fixed_point(face.box.xyxy[:2]), fixed_point(face.box.xyxy[2:])
        cv2.rectangle(picture, *corners, BOX_BGR, 1, cv2.LINE_AA, SHIFT)
        picture = draw_points(picture, face.points_px, PREDICTION_BGR, face.schema, numbers=names)
        if face.confidence is not None:
            _draw_confidence(picture, face, face.confidence, f"face {number}  confidence {face.confidence.mean():.2f}")
    return _with_legend(picture, faces[0].schema) if names and faces else picture


def contact_sheet(
    samples: Sequence[FaceSample],
    *,
    predictions: Sequence[npt.NDArray[np.floating] | None] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 6,
    tile_px: int = 240,
    names: bool = False,
) -> Image:
    """Faces in rows of tiles, uint8 (H, W, 3) BGR: labels red, predictions green over them, the name under each.

    Args:
        predictions: one per face, (K, 2) in pixels of the face's image, or None for a face that was not found.
        captions: a second line under each name; without it, the subset tags and the error of the prediction.
        names: number the points, and list their names to the right.

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
        tiles.append(_captioned(face_tile(sample, found[index], tile_px, numbers=names), _name(sample), detail))
    sheet = _grid(tiles, columns)
    return _with_legend(sheet, samples[0].schema) if names else sheet


def face_tile(
    sample: FaceSample, prediction_px: npt.NDArray[np.floating] | None, tile_px: int, *, numbers: bool = False
) -> Image:
    """One face, enlarged to a square tile, with its labels and, where there is one, the prediction; numbered on demand.

    Raises:
        DataError: the image cannot be read.
    """
    box = sample.box()
    margin = _OUTLINE_SIDE if "contour" in sample.schema.groups else _INNER_SIDE
    transform = square_transform(box.center, margin * max(box.width, box.height), tile_px)
    tile = warp(check_image(sample.read_image()), transform)
    tile = draw_points(tile, transform.to_crop(sample.points_px), LABEL_BGR, sample.schema, numbers=numbers)
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
    strip = np.full((2 * _CAPTION_LINE_PX + 4, tile.shape[1], 3), BACKGROUND_BGR, np.uint8)
    for line, (text, color) in enumerate(((name, TEXT_BGR), (detail, FAINT_BGR)), 1):
        place = (2, line * _CAPTION_LINE_PX - 3)
        write_text(strip, fitted_text(text, tile.shape[1] - 4), place, color)
    return np.vstack([tile, strip])


def _grid(tiles: Sequence[Image], columns: int) -> Image:
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    step_y, step_x = height + _GAP_PX, width + _GAP_PX
    sheet = np.full((rows * step_y + _GAP_PX, columns * step_x + _GAP_PX, 3), BACKGROUND_BGR, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = _GAP_PX + index // columns * step_y, _GAP_PX + index % columns * step_x
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _draw_confidence(picture: Image, face: Landmarks, confidence: npt.NDArray[np.float32], caption: str) -> None:
    radius = fitting_radius_px(float(np.ptp(face.points_px, axis=0).max()), face.schema)
    for point in face.points_px[confidence < _UNSURE]:
        cv2.circle(picture, fixed_point(point), round(radius * 2**SHIFT), UNSURE_BGR, cv2.FILLED, cv2.LINE_AA, SHIFT)
    left, top = (round(value) for value in face.box.xyxy[:2])
    place = (min(max(left, 2), max(picture.shape[1] - _CAPTION_PX, 2)), max(top - 4, 12))
    write_text(picture, caption, place, BOX_BGR)


def _with_legend(sheet: Image, schema: LandmarkSchema) -> Image:
    """The sheet with the points' numbers and names in columns to its right."""
    names = [f"{index:2d} {name}" for index, name in enumerate(schema.point_names)]
    height = max(sheet.shape[0], 20 * _LEGEND_LINE_PX)
    lines = height // _LEGEND_LINE_PX - 1
    columns = -(-len(names) // lines)
    legend = np.full((height, columns * _LEGEND_COLUMN_PX, 3), BACKGROUND_BGR, np.uint8)
    for index, name in enumerate(names):
        place = (4 + index // lines * _LEGEND_COLUMN_PX, (index % lines + 1) * _LEGEND_LINE_PX)
        write_text(legend, fitted_text(name, _LEGEND_COLUMN_PX - 8), place, TEXT_BGR)
    padded = np.full((height, sheet.shape[1], 3), BACKGROUND_BGR, np.uint8)
    padded[: sheet.shape[0]] = sheet
    return np.hstack([padded, legend])
