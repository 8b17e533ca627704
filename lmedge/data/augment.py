"""Random views of a labelled face for training: one affine warp (rotation, scale, shift, flip) and a change of light.

Faces are kept as canvases: the crop's square enlarged, cut out once, so that a view costs one small warp. Which view comes
out depends only on the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample
from lmedge.preprocess import CropTransform, PreprocessSpec, square_transform, warp
from lmedge.schemas import LandmarkSchema

# A view of the largest scale and rotation nearly fits into a canvas of this many crop sides.
_CANVAS_SIDES = 1.6
# Canvas pixels per crop pixel: the second resampling then loses almost nothing.
_CANVAS_DENSITY = 1.1


@dataclass(frozen=True)
class AugmentSpec:
    """Ranges of the random view; each is drawn uniformly.

    Attributes:
        rotation_deg: ± about the centre.
        scale: the crop's side is multiplied by a factor between 1 / (1 + scale) and 1 + scale.
        shift: ± of the crop's side, each axis.
        flip: probability of the mirrored face, whose left and right points change places.
        contrast, brightness: ± factor, and ± of the gray range.
        color: ± factor per channel.
        gray: probability of a gray picture.
    """

    rotation_deg: float = 25.0
    scale: float = 0.15
    shift: float = 0.06
    flip: float = 0.5
    contrast: float = 0.35
    brightness: float = 0.15
    color: float = 0.08
    gray: float = 0.1


@dataclass(frozen=True, eq=False)
class Canvas:
    """A face cut out with room around it.

    Attributes:
        image_bgr: uint8 (S, S, 3).
        points_px: float32 (K, 2) in it; NaN where unknown.
        crop_side_px: side of the plain crop, in its pixels.
    """

    image_bgr: npt.NDArray[np.uint8]
    points_px: npt.NDArray[np.float32]
    crop_side_px: float


def make_canvas(image_bgr: npt.NDArray[np.uint8], sample: FaceSample, spec: PreprocessSpec) -> Canvas:
    """The canvas of a sample, around its reference box."""
    box = sample.box()
    side = spec.crop_scale * max(box.width, box.height)
    size = round(spec.input_hw[0] * _CANVAS_SIDES * _CANVAS_DENSITY)
    transform = square_transform(box.center, side * _CANVAS_SIDES, size)
    points = transform.to_crop(sample.points_px).astype(np.float32)
    return Canvas(warp(image_bgr, transform, spec.border_value), points, size / _CANVAS_SIDES)


def random_view(
    canvas: Canvas, schema: LandmarkSchema, spec: PreprocessSpec, augment: AugmentSpec, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A crop uint8 (H, W, 3) and its points as fractions of the crop (K, 2); unknown points stay NaN."""
    middle = (canvas.image_bgr.shape[0] - 1) / 2
    zoom = (1 + augment.scale) ** rng.uniform(-1, 1)
    shift = rng.uniform(-augment.shift, augment.shift, 2) * canvas.crop_side_px
    transform = square_transform(
        (middle + float(shift[0]), middle + float(shift[1])),
        canvas.crop_side_px * zoom,
        spec.input_hw[0],
        rotation_deg=float(rng.uniform(-augment.rotation_deg, augment.rotation_deg)),
        mirror=bool(rng.random() < augment.flip),
    )
    crop = change_light(warp(canvas.image_bgr, transform, spec.border_value), augment, rng)
    return crop, view_fractions(canvas.points_px, transform, schema)


def view_fractions(
    points_px: npt.NDArray[np.floating], transform: CropTransform, schema: LandmarkSchema
) -> npt.NDArray[np.float32]:
    """Points as fractions of a view; in a mirrored view each point takes the place of its partner."""
    fractions = transform.to_fractions(points_px).astype(np.float32)
    mirrored = np.linalg.det(transform.matrix[:, :2]) < 0
    return fractions[list(schema.flip_indices)] if mirrored else fractions


def change_light(crop_bgr: npt.NDArray[np.uint8], augment: AugmentSpec, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The crop with another contrast, brightness and colour balance, sometimes gray."""
    contrast = 1 + rng.uniform(-augment.contrast, augment.contrast)
    brightness = 255 * rng.uniform(-augment.brightness, augment.brightness)
    balance = 1 + rng.uniform(-augment.color, augment.color, 3)
    if rng.random() < augment.gray:
        gray = cv2.cvtColor(crop_bgr, cv2.COLOR_BGR2GRAY)
        crop_bgr = np.asarray(cv2.merge([gray, gray, gray]), np.uint8)
    # A table per channel is much cheaper than arithmetic per pixel.
    levels = np.arange(256)[:, None]
    table = np.clip((levels - 128) * contrast * balance + 128 + brightness, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(crop_bgr, table[:, None, :]), np.uint8)
