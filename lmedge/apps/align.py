"""Faces brought to one place, size and tilt: a similarity transform of the picture onto a template of few points.

points of a face ▶ anchors (eye centres, or five points) ▶ similarity onto the template ▶ aligned picture, and the way back

With two anchors the eye centres land on the template exactly, whatever the rest of the face does; that is what expression,
reconstruction and photo series want, up to a half turn of the head. With five the transform is the best in the sense of least
squares (Umeyama, IEEE PAMI 1991), as face recognition networks are trained with; it stays calm on faces in profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.landmarks import Landmarks
from lmedge.pose import generic_points
from lmedge.preprocess import CropTransform, check_image, warp
from lmedge.schemas import IBUG_68, WFLW_98, LandmarkSchema, mapping_matrix

EYES, FIVE = 2, 5
SIZE_HW = (224, 224)
MARGIN = 0.1

_SIDES = ("right", "left")
# What the schemas call the tip of the nose.
_NOSE_TIPS = ("nose_tip", "nose_ridge_3")
# Anchors nearer than this, root mean square from their middle, fix no size and no tilt.
_LEAST_EXTENT_PX = 0.5
_LARGEST_PX, _SMALLEST_PX = 4096, 8

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """A face in its standard place.

    Attributes:
        image_bgr: uint8 (H, W, 3); what lies outside the original is black.
        transform: (2, 3), pixels of the original image → pixels of the aligned one; pixel centres at integers.
        inverse: (2, 3), the way back.
    """

    image_bgr: Image
    transform: Floats
    inverse: Floats

    def to_aligned(self, points_px: npt.NDArray[np.floating]) -> Floats:
        """Points (..., 2) of the original image → of the aligned one."""
        return _moved(points_px, self.transform)

    def to_image(self, points_px: npt.NDArray[np.floating]) -> Floats:
        """Points (..., 2) of the aligned image → of the original one."""
        return _moved(points_px, self.inverse)


@dataclass(frozen=True, eq=False)
class AlignedBatch:
    """Aligned faces in one array, as networks take them.

    Attributes:
        images_bgr: uint8 (N, H, W, 3).
        transforms: (N, 2, 3), pixels of the original images → pixels of the aligned ones.
        inverses: (N, 2, 3), the way back.
    """

    images_bgr: Image
    transforms: Floats
    inverses: Floats


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where faces shall be in a picture of a given size.

    Attributes:
        template_px: (2, 2) the right and the left eye's centre, or (5, 2) in the order of `MMLAB_5` (eye centres, tip of the
            nose, corners of the mouth), (x, y) in a picture without margin, pixel centres at integers; the subject's right.
        size_hw: height and width of the aligned picture.
        margin: border added on each side, as a part of the picture's: the template shrinks about the middle by 1 − 2 · margin.
    """

    template_px: Floats
    size_hw: tuple[int, int] = SIZE_HW
    margin: float = 0.0

    def __post_init__(self) -> None:
        template = np.array(self.template_px, np.float64)
        if template.shape not in {(EYES, 2), (FIVE, 2)} or not np.isfinite(template).all():
            raise InputError(f"template_px must be finite and (2, 2), eye centres, or (5, 2); got shape {template.shape}.")
        if _extent_px(template) < _LEAST_EXTENT_PX:
            raise InputError("The points of template_px coincide; they fix no size. Give pixels of the aligned picture.")
        if not all(isinstance(side, int) and _SMALLEST_PX <= side <= _LARGEST_PX for side in self.size_hw):
            raise InputError(f"size_hw must be two whole numbers from {_SMALLEST_PX} to {_LARGEST_PX}; got {self.size_hw}.")
        if not 0 <= self.margin < 0.5:
            raise InputError(f"margin must be at least 0 and below 0.5 (a part of the picture's side); got {self.margin}.")
        template.flags.writeable = False
        object.__setattr__(self, "template_px", template)

    @classmethod
    def standard(cls, size_hw: tuple[int, int] = SIZE_HW, *, margin: float = MARGIN, anchors: int = EYES) -> Alignment:
        """The template of lmedge's own average head, looking straight ahead, from brows to chin as large as the picture allows.

        Args:
            size_hw: height and width of the aligned picture.
            margin: border around the average face on each side, as a part of the picture's side.
            anchors: 2 for the eye centres alone, 5 for eyes, nose and mouth.

        Raises:
            InputError: another number of anchors, a size or a margin that cannot be used.
        """
        if anchors not in (EYES, FIVE):
            raise InputError(f"anchors must be 2 (eye centres) or 5 (eyes, nose, mouth); got {anchors}.")
        head_mm = generic_points(IBUG_68)[:, :2]
        low, high = head_mm.min(axis=0), head_mm.max(axis=0)
        width, height = size_hw[1], size_hw[0]
        px_per_mm = min(np.array([width, height]) / (high - low))
        middle_px = np.array([width - 1, height - 1]) / 2
        template = middle_px + px_per_mm * (anchor_points(head_mm, IBUG_68, anchors) - (low + high) / 2)
        return cls(template, size_hw, margin)

    @property
    def target_px(self) -> Floats:
        """The template with its margin: where the anchors shall land, (2, 2) or (5, 2) px of the aligned picture."""
        middle_px = (np.array(self.size_hw[::-1]) - 1) / 2
        return np.asarray(middle_px + (1 - 2 * self.margin) * (self.template_px - middle_px))

    def align(self, image_bgr: npt.NDArray[np.uint8], landmarks: Landmarks) -> AlignedFace:
        """One face of an image, aligned.

        Args:
            image_bgr: uint8 (H, W, 3) BGR, or gray (H, W).
            landmarks: of the face, in pixels of this image.

        Raises:
            InputError: not an image; points that have no eyes (or, with five anchors, no nose or mouth), or eyes that coincide.
        """
        image = check_image(image_bgr)
        anchors = anchor_points(landmarks.points_px, landmarks.schema, len(self.template_px))
        if _extent_px(anchors) < _LEAST_EXTENT_PX:
            cure = " In profile, align by five points: Alignment.standard(anchors=5)." if len(anchors) == EYES else ""
            raise InputError(
                f"The {len(anchors)} anchors of this face are within {2 * _extent_px(anchors):.2f} px: too near to fix its "
                f"size and tilt.{cure}"
            )
        return self._align(image, anchors)

    def align_batch(self, images_bgr: Sequence[npt.NDArray[np.uint8]], faces: Sequence[Landmarks]) -> AlignedBatch:
        """Face i of image i, aligned, all in one array; give an image several times for several faces on it.

        Raises:
            InputError: not one image per face, or as `align`.
        """
        if len(images_bgr) != len(faces):
            raise InputError(f"align_batch needs one image per face; got {len(images_bgr)} images and {len(faces)} faces.")
        aligned = [self.align(image, face) for image, face in zip(images_bgr, faces, strict=True)]
        height, width = self.size_hw
        return AlignedBatch(
            np.array([face.image_bgr for face in aligned], np.uint8).reshape(-1, height, width, 3),
            np.array([face.transform for face in aligned], np.float64).reshape(-1, 2, 3),
            np.array([face.inverse for face in aligned], np.float64).reshape(-1, 2, 3),
        )

    def _align(self, image: Image, anchors_px: Floats) -> AlignedFace:
        height, width = self.size_hw
        transform = similarity(anchors_px, self.target_px)
        picture = warp(image, CropTransform(transform, max(height, width)))
        return AlignedFace(np.ascontiguousarray(picture[:height, :width]), transform, _inverse(transform))


def anchor_points(points: npt.NDArray[np.floating], schema: LandmarkSchema, count: int = FIVE) -> Floats:
    """The eye centres, and with count 5 also the tip of the nose and the corners of the mouth, (count, 2), by their names.

    An eye's centre is the point of that name, or the mean of the curve of that name. 98 points are read as the 68 among them,
    so that a face has its eyes in one place with both.

    Args:
        points: (K, 2) in any unit.
        schema: what they are.
        count: 2 or 5, in the order of `MMLAB_5`.

    Raises:
        InputError: the schema does not have them.
    """
    known = np.asarray(points, np.float64)
    if schema == WFLW_98:
        known, schema = mapping_matrix(WFLW_98, IBUG_68) @ known, IBUG_68
    wanted = [_eye_indices(schema, side) for side in _SIDES]
    if count == FIVE:
        wanted.append(next(([schema.point_names.index(name)] for name in _NOSE_TIPS if name in schema.point_names), []))
        wanted += [_indices(schema, f"{side}_mouth_corner") for side in _SIDES]
    for name, indices in zip(("right eye", "left eye", "tip of the nose", *["corner of the mouth"] * 2), wanted, strict=False):
        if not indices:
            cure = " Align by the eyes alone: anchors=2." if count == FIVE and "eye" not in name else ""
            raise InputError(f"Alignment needs the {name}, which {schema.name} does not have by name.{cure}")
    return np.array([known[indices].mean(axis=0) for indices in wanted])


def similarity(source_px: Floats, target_px: Floats) -> Floats:
    """The turn, scale and shift (2, 3) that brings points (P, 2) nearest to others, by least squares; it never mirrors."""
    source_middle, target_middle = source_px.mean(axis=0), target_px.mean(axis=0)
    # As complex numbers x + iy: target = factor · source.
    source = (source_px - source_middle) @ (1, 1j)
    target = (target_px - target_middle) @ (1, 1j)
    factor = complex((source.conj() @ target) / (source.conj() @ source).real)
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, target_middle - linear @ source_middle])


def _eye_indices(schema: LandmarkSchema, side: str) -> list[int]:
    named = _indices(schema, f"{side}_eye")
    return named or next((list(curve.indices) for curve in schema.curves if curve.name == f"{side}_eye"), [])


def _indices(schema: LandmarkSchema, name: str) -> list[int]:
    return [schema.point_names.index(name)] if name in schema.point_names else []


def _extent_px(points: Floats) -> float:
    """Root mean square distance from the middle."""
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _inverse(transform: Floats) -> Floats:
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack([linear, -linear @ transform[:, 2]])


def _moved(points_px: npt.NDArray[np.floating], transform: Floats) -> Floats:
    return np.asarray(np.asarray(points_px, np.float64) @ transform[:, :2].T + transform[:, 2])
