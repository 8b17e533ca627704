"""Random views of a labelled face for training: one affine warp (rotation, scale, shift, flip), a change of light, and now and
then something that spoils the picture.

Faces are kept as canvases: the crop's square enlarged, cut out once, so that a view costs one small warp. Which view comes
out depends only on the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data import disturb
from lmedge.data.samples import FaceSample
from lmedge.landmarks import FaceBox
from lmedge.preprocess import CropTransform, PreprocessSpec, square_transform, warp

# A view of the largest scale and rotation nearly fits into a canvas of this many crop sides.
_CANVAS_SIDES = 1.6
# Canvas pixels per crop pixel: the second resampling then loses almost nothing.
_CANVAS_DENSITY = 1.1


# What a late phase of training keeps of the ranges; probabilities of spoiled pictures become 0.
_WEAK_PART = 0.4


class MirroredPoints(Protocol):
    """Points of which some change places in a mirrored picture; a `LandmarkSchema` is one."""

    @property
    def flip_indices(self) -> tuple[int, ...]: ...


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
        gamma: the gray range is raised to a power between 1 / (1 + gamma) and 1 + gamma.
        gray: probability of a gray picture.
        near_infrared: probability of the look of an infrared camera.
        cover: probability that something covers a part of the face.
        blur, noise, jpeg: probabilities of each.
    """

    rotation_deg: float = 25.0
    scale: float = 0.15
    shift: float = 0.08
    flip: float = 0.5
    contrast: float = 0.35
    brightness: float = 0.15
    color: float = 0.08
    gamma: float = 0.3
    gray: float = 0.1
    near_infrared: float = 0.05
    cover: float = 0.25
    blur: float = 0.15
    noise: float = 0.15
    jpeg: float = 0.1

    def weak(self) -> AugmentSpec:
        """For the last epochs: smaller ranges of geometry and light, and pictures as they are (as RTMPose's second stage)."""
        return replace(
            self,
            rotation_deg=self.rotation_deg * _WEAK_PART,
            contrast=self.contrast * _WEAK_PART,
            brightness=self.brightness * _WEAK_PART,
            gamma=self.gamma * _WEAK_PART,
            near_infrared=0.0,
            cover=0.0,
            blur=0.0,
            noise=0.0,
            jpeg=0.0,
        )


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


def make_canvas(
    image_bgr: npt.NDArray[np.uint8], sample: FaceSample, spec: PreprocessSpec, box: FaceBox | None = None
) -> Canvas:
    """The canvas of a sample, around its reference box unless another one is given."""
    box = box or sample.box()
    side = spec.crop_scale * max(box.width, box.height)
    size = round(spec.input_hw[0] * _CANVAS_SIDES * _CANVAS_DENSITY)
    transform = square_transform(box.center, side * _CANVAS_SIDES, size)
    points = transform.to_crop(sample.points_px).astype(np.float32)
    return Canvas(warp(image_bgr, transform, spec.border_value), points, size / _CANVAS_SIDES)


def random_view(
    canvas: Canvas, schema: MirroredPoints, spec: PreprocessSpec, augment: AugmentSpec, rng: np.random.Generator
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
    crop = spoil(crop, augment, rng)
    return crop, view_fractions(canvas.points_px, transform, schema)


def view_fractions(
    points_px: npt.NDArray[np.floating], transform: CropTransform, schema: MirroredPoints
) -> npt.NDArray[np.float32]:
    """Points as fractions of a view; in a mirrored view each point takes the place of its partner."""
    fractions = transform.to_fractions(points_px).astype(np.float32)
    mirrored = np.linalg.det(transform.matrix[:, :2]) < 0
    return fractions[list(schema.flip_indices)] if mirrored else fractions


def change_light(crop_bgr: npt.NDArray[np.uint8], augment: AugmentSpec, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The crop with another contrast, brightness, gamma and colour balance, sometimes gray."""
    contrast = 1 + rng.uniform(-augment.contrast, augment.contrast)
    brightness = 255 * rng.uniform(-augment.brightness, augment.brightness)
    balance = 1 + rng.uniform(-augment.color, augment.color, 3)
    power = (1 + augment.gamma) ** rng.uniform(-1, 1)
    if rng.random() < augment.gray:
        gray = cv2.cvtColor(crop_bgr, cv2.COLOR_BGR2GRAY)
        crop_bgr = np.asarray(cv2.merge([gray, gray, gray]), np.uint8)
    # A table per channel is much cheaper than arithmetic per pixel.
    levels = 255 * (np.arange(256) / 255)[:, None] ** power
    table = np.clip(np.rint((levels - 128) * contrast * balance + 128 + brightness), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(crop_bgr, table[:, None, :]), np.uint8)


def spoil(crop_bgr: npt.NDArray[np.uint8], augment: AugmentSpec, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The crop as a hand before the face or a worse camera would leave it, each with its probability."""
    for probability, change in (
        (augment.cover, disturb.cover),
        (augment.near_infrared, disturb.near_infrared),
        (augment.blur, disturb.blur),
        (augment.noise, disturb.add_noise),
        (augment.jpeg, disturb.compress),
    ):
        if rng.random() < probability:
            crop_bgr = change(crop_bgr, rng)
    return crop_bgr
