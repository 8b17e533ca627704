"""From an image and a box to the network's crop, and from the network's answer back to image pixels.

This is the only copy: training, calibration, parity and the device all call it. Its parameters are data in the bundle.

Pixel centres are at integers. A crop is a square of side S = crop_scale × the longer side of the reference box, on the
box's centre c; where it shrinks the image, the nearest square of whole pixels, which is cut out in a third of the time. The
position (u, v) in the crop as fractions of its side is image position c − S/2 + S·(u, v), with the c and S of the square that
was taken; the centre of crop pixel i of n is the fraction (i + 0.5) / n.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.landmarks import FaceBox
from lmedge.resampling import ResamplingMemory, Square, resample, whole_square

REFERENCE = "reference"

# Outside of these a crop's numbers lose their digits, and then overflow.
_LEAST_BOX_PX, _LARGEST_BOX_PX = 1e-3, 1e6


@dataclass(frozen=True)
class BoxFit:
    """How boxes of one kind map to the reference box: side × scale, centre moved by shift × the longer side of the box."""

    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0


@dataclass(frozen=True)
class PreprocessSpec:
    """How crops are made, plus a record of what the network's own graph does with them.

    Attributes:
        input_hw: height and width of the crop in pixels (square).
        crop_scale: side of the crop over the longer side of the reference box.
        box_fits: kind of box → its mapping to the reference box, fitted on training faces.
        interpolation: "linear", with averaging where the crop shrinks the image by more than 1.5; see `lmedge.resampling`.
        border_value: gray level outside the image; the mean, so that the network sees zeros there and no edge of its own.
        color, mean, std: inside the graph, x → (x − mean) / std on channels in this order.
        whole_pixels: crops that shrink the image are of whole pixels. Bundles that do not say it were made without.
    """

    input_hw: tuple[int, int] = (112, 112)
    crop_scale: float = 1.25
    box_fits: Mapping[str, BoxFit] = field(default_factory=dict)
    interpolation: str = "linear"
    border_value: int = 128
    color: str = "bgr"
    mean: float = 128.0
    std: float = 64.0
    whole_pixels: bool = True

    def __post_init__(self) -> None:
        height, width = self.input_hw
        if height != width or not 8 <= height <= 4096:
            raise InputError(f"input_hw must be square and 8 to 4096 px; got {self.input_hw}.")
        if not 0.5 <= self.crop_scale <= 10:
            raise InputError(f"crop_scale must be between 0.5 and 10; got {self.crop_scale}.")
        if self.interpolation != "linear" or self.color != "bgr":
            raise InputError(f"Only linear interpolation of BGR crops is defined; got {self.interpolation}, {self.color}.")

    def to_json(self) -> dict[str, Any]:
        fits = {kind: [fit.scale, fit.shift_x, fit.shift_y] for kind, fit in sorted(self.box_fits.items())}
        return {
            "input_hw": list(self.input_hw),
            "crop_scale": self.crop_scale,
            "box_fits": fits,
            "interpolation": self.interpolation,
            "border_value": self.border_value,
            "whole_pixels": self.whole_pixels,
            "in_graph": {"color": self.color, "mean": self.mean, "std": self.std},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PreprocessSpec:
        graph = document["in_graph"]
        height, width = document["input_hw"]
        return cls(
            input_hw=(int(height), int(width)),
            crop_scale=float(document["crop_scale"]),
            box_fits={str(k): BoxFit(*map(float, v)) for k, v in document["box_fits"].items()},
            interpolation=str(document["interpolation"]),
            border_value=int(document["border_value"]),
            color=str(graph["color"]),
            mean=float(graph["mean"]),
            std=float(graph["std"]),
            whole_pixels=bool(document.get("whole_pixels", False)),
        )


@dataclass(frozen=True, eq=False)
class CropTransform:
    """The affine map from image pixels to the pixels of a crop of `size_px` × `size_px`.

    Attributes:
        matrix: (2, 3).
        square: where the crop is of whole pixels, the first of them and their number along a side, as the matrix has it.
    """

    matrix: npt.NDArray[np.float64]
    size_px: int
    square: Square | None = None

    def to_crop(self, points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Image points (..., 2) → crop pixels."""
        return np.asarray(points_px, np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_image(self, points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Crop pixels (..., 2) → image points."""
        (a, b), (c, d) = self.matrix[:, :2].tolist()
        inverse = np.array([[d, -b], [-c, a]]) / (a * d - b * c)
        return np.asarray((np.asarray(points_px, np.float64) - self.matrix[:, 2]) @ inverse.T)

    def to_fractions(self, points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Image points (..., 2) → fractions of the crop's side, as networks answer."""
        return (self.to_crop(points_px) + 0.5) / self.size_px

    def from_fractions(self, fractions: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The network's answer (..., 2) → image points."""
        if self.square is not None:
            first_x, first_y, side = self.square
            points = np.multiply(fractions, side, dtype=np.float64)
            points += (first_x - 0.5, first_y - 0.5)
            return np.asarray(points)
        (a, b, x), (c, d, y) = self.matrix.tolist()
        if b or c:
            return self.to_image(np.asarray(fractions, np.float64) * self.size_px - 0.5)
        # Upright, as every face on a device: two steps, since after an engine's call every further one has left the caches.
        points = np.multiply(fractions, (self.size_px / a, self.size_px / d), dtype=np.float64)
        points -= ((x + 0.5) / a, (y + 0.5) / d)
        return np.asarray(points)


def reference_box(box: FaceBox, spec: PreprocessSpec) -> FaceBox:
    """The box of kind `reference` that a box of any known kind stands for.

    Raises:
        InputError: the bundle has no fit for this kind of box.
    """
    if box.kind == REFERENCE:
        return box
    fit = spec.box_fits.get(box.kind)
    if fit is None:
        known = ", ".join([REFERENCE, *sorted(spec.box_fits)])
        raise InputError(
            f"No fit is known for boxes of kind {box.kind!r}; this bundle knows {known}. "
            "Give boxes of one of these kinds, or build the bundle with faces that have such boxes."
        )
    side = max(box.width, box.height)
    center_x, center_y = box.center
    half = side * fit.scale / 2
    center_x, center_y = center_x + fit.shift_x * side, center_y + fit.shift_y * side
    return FaceBox(center_x - half, center_y - half, center_x + half, center_y + half, box.score)


def fit_boxes(boxes: list[FaceBox], references: list[FaceBox]) -> BoxFit:
    """The mapping from boxes of one kind to reference boxes: medians over faces, so that bad labels do not pull it."""
    sides = np.array([max(box.width, box.height) for box in boxes])
    scale = np.median(np.array([max(ref.width, ref.height) for ref in references]) / sides)
    centers = np.array([box.center for box in boxes])
    shift = np.median((np.array([ref.center for ref in references]) - centers) / sides[:, None], axis=0)
    return BoxFit(round(float(scale), 4), round(float(shift[0]), 4), round(float(shift[1]), 4))


def crop_transform(box: FaceBox, spec: PreprocessSpec) -> CropTransform:
    """The map from the image to the crop of this box: upright, of uniform scale, from whole pixels where it shrinks them."""
    reference, size = reference_box(box, spec), spec.input_hw[0]
    side = spec.crop_scale * max(reference.width, reference.height)
    square = whole_square(reference.center, side, size) if spec.whole_pixels else None
    # What `square_transform` gives for an upright square, in a fifth of the time: this is done for every face.
    if square is None:
        zoom = size / side
        (center_x, center_y), middle = reference.center, (size - 1) / 2
        shift_x, shift_y = middle - zoom * center_x, middle - zoom * center_y
    else:
        x, y, whole_side = square
        zoom = size / whole_side
        shift_x, shift_y = zoom * (0.5 - x) - 0.5, zoom * (0.5 - y) - 0.5
    return CropTransform(np.array(((zoom, 0.0, shift_x), (0.0, zoom, shift_y))), size, square)


def square_transform(
    center_px: tuple[float, float], side_px: float, size_px: int, *, rotation_deg: float = 0.0, mirror: bool = False
) -> CropTransform:
    """The map from a square of the image to a crop; the square may be rotated, the crop mirrored left to right.

    Args:
        center_px: centre of the square in the image.
        side_px: side of the square in image pixels.
        size_px: side of the crop in crop pixels.
        rotation_deg: turns the content of the crop clockwise as seen on the screen.
        mirror: applied last, in the crop: u → size − 1 − u.
    """
    zoom = size_px / side_px
    angle = math.radians(rotation_deg)
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = (size_px - 1) / 2
    offset = middle - linear @ np.asarray(center_px, np.float64)
    if mirror:
        linear[0], offset[0] = -linear[0], (size_px - 1) - offset[0]
    return CropTransform(np.column_stack([linear, offset]), size_px)


def warp(
    image_bgr: npt.NDArray[np.uint8],
    transform: CropTransform,
    border_value: int = 0,
    *,
    out: npt.NDArray[np.uint8] | None = None,
    memory: ResamplingMemory | None = None,
) -> npt.NDArray[np.uint8]:
    """The crop (size, size, 3) uint8 that a transform cuts out; what lies outside the image is `border_value`.

    Args:
        out: a contiguous array for the crop; None makes one.
        memory: for the steps between image and crop; None makes it.
    """
    return resample(
        image_bgr, transform.matrix, transform.size_px, border_value, square=transform.square, out=out, memory=memory
    )


def check_image(image: Any, *, rows_apart: bool = False) -> npt.NDArray[np.uint8]:
    """A uint8 BGR image (H, W, 3) of any stride; gray (H, W) or (H, W, 1) is repeated to three channels.

    With `rows_apart`, a part of a larger image is given back as it is, which OpenCV can read; else a contiguous copy.

    Raises:
        InputError: anything else, saying what came and how to convert it.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"An image must be a uint8 NumPy array (H, W, 3) in BGR order; got {type(image).__name__}.")
    if image.dtype != np.uint8:
        cure = "(image / 257).astype(np.uint8)" if image.dtype == np.uint16 else "image.astype(np.uint8) in 0 to 255"
        raise InputError(f"An image must be uint8; got {image.dtype} of shape {image.shape}. Convert it first: {cure}.")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 2 and image.size:
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        cure = " Drop the alpha channel: image[:, :, :3]." if image.ndim == 3 and image.shape[2] == 4 else ""
        raise InputError(f"An image must have the shape (H, W, 3), BGR, or (H, W), gray; got {image.shape}.{cure}")
    if rows_apart and image.strides[1:] == (3, 1) and image.strides[0] >= 3 * image.shape[1]:
        return np.asarray(image)
    return np.ascontiguousarray(image)


def check_box_in_image(box: FaceBox, image_hw: tuple[int, int]) -> None:
    """Refuses a box that has no part inside the image, or a size that no face has.

    Raises:
        InputError: the box lies outside, or its longer side is below 0.001 px or above a million.
    """
    height, width = image_hw
    if not _LEAST_BOX_PX <= max(box.width, box.height) <= _LARGEST_BOX_PX:
        raise InputError(
            f"A face box must be {_LEAST_BOX_PX:g} to {_LARGEST_BOX_PX:g} px long; got {box.width:g} × {box.height:g} px."
        )
    if box.x_max < 0 or box.y_max < 0 or box.x_min > width - 1 or box.y_min > height - 1:
        raise InputError(
            f"The box x {box.x_min:g} to {box.x_max:g}, y {box.y_min:g} to {box.y_max:g} lies outside the image of "
            f"{width} × {height} px. Boxes are (x_min, y_min, x_max, y_max) in pixels of this image."
        )


def crop_face(
    image_bgr: npt.NDArray[np.uint8], box: FaceBox, spec: PreprocessSpec
) -> tuple[npt.NDArray[np.uint8], CropTransform]:
    """The network's crop of one face, uint8 (H, W, 3) BGR, and the transform that leads back.

    Raises:
        InputError: the image or the box cannot be used.
    """
    image = check_image(image_bgr)
    check_box_in_image(box, (image.shape[0], image.shape[1]))
    transform = crop_transform(box, spec)
    return warp(image, transform, spec.border_value), transform
