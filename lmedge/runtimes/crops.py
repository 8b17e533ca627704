"""From an image and face boxes to the crops of all of them, in one array that is used again for every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.landmarks import FaceBox
from lmedge.preprocess import (
    CropTransform,
    PreprocessSpec,
    check_box_in_image,
    check_image,
    crop_transform,
    warp,
)
from lmedge.resampling import ResamplingMemory


@dataclass(frozen=True, eq=False)
class CutFaces:
    """The faces of one image, cut out.

    Attributes:
        boxes: N of them.
        transforms: N, from image pixels to those of the crop.
        crops: uint8 (M, h, w, 3) BGR, M at least N. They lie in memory that the next image's crops take.
    """

    boxes: tuple[FaceBox, ...]
    transforms: tuple[CropTransform, ...]
    crops: npt.NDArray[np.uint8]


class CropBatch:
    """Cuts faces out of images. Its memory grows with the most faces that one image has had, and is kept."""

    def __init__(self, spec: PreprocessSpec, room: int = 1) -> None:
        """
        Args:
            spec: how crops are made.
            room: crops to have memory for from the beginning.
        """
        self._spec = spec
        self._memory = ResamplingMemory()
        self._crops = self._empty_crops(room)

    def cut(self, image_bgr: Any, boxes: Sequence[FaceBox], room: int) -> CutFaces:
        """Cuts out every box; an error changes nothing.

        Args:
            image_bgr: uint8 (H, W, 3) BGR of any stride, or gray (H, W).
            boxes: N of any kind that the spec knows.
            room: M, how many crops the array is to have; those behind the N are whatever was there.

        Raises:
            InputError: an image or a box that cannot be used.
        """
        image = check_image(image_bgr, rows_apart=True)
        for box in boxes:
            check_box_in_image(box, (image.shape[0], image.shape[1]))
        transforms = tuple(crop_transform(box, self._spec) for box in boxes)
        if len(self._crops) < room:
            self._crops = self._empty_crops(room)
        for transform, crop in zip(transforms, self._crops, strict=False):
            warp(image, transform, self._spec.border_value, out=crop, memory=self._memory)
        return CutFaces(tuple(boxes), transforms, self._crops[:room])

    def _empty_crops(self, room: int) -> npt.NDArray[np.uint8]:
        return np.zeros((room, *self._spec.input_hw, 3), np.uint8)
