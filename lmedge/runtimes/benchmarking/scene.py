"""What is shown to the engines: a frame of a common camera with boxes all over it, so that every call gets another crop.

The frame is a texture with detail of several sizes. No engine's time depends on what it sees, but its answer must: that is how
an engine is caught that repeats answers or computes none.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.landmarks import FaceBox
from lmedge.preprocess import CropTransform, PreprocessSpec, crop_face

FRAME_HW = (720, 1280)
# A face at arm's length from a camera of that size.
BOX_PX = 200.0
# Columns and rows of boxes; their number is odd, so that of two actions in turn each sees all of them.
_GRID = (5, 3)
_MARGIN_PX = 30
_DETAIL_PX = (3, 9, 27)
_CONTRAST = 35.0
_SEED = 0


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame uint8 (720, 1280, 3) BGR, N boxes in it, and their crops uint8 (N, h, w, 3) with the way back to the frame."""

    frame_bgr: npt.NDArray[np.uint8]
    boxes: tuple[FaceBox, ...]
    crops: npt.NDArray[np.uint8]
    transforms: tuple[CropTransform, ...]


def make_scene(spec: PreprocessSpec, box_px: float = BOX_PX) -> Scene:
    """The same for every network that takes crops like these; `box_px` is the side of its boxes."""
    frame = _texture()
    boxes = tuple(_boxes(box_px))
    cut = [crop_face(frame, box, spec) for box in boxes]
    return Scene(frame, boxes, np.stack([crop for crop, _ in cut]), tuple(transform for _, transform in cut))


def _texture() -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(_SEED)
    height, width = FRAME_HW
    total = np.full((height, width, 3), 128.0, np.float32)
    for detail in _DETAIL_PX:
        coarse = rng.normal(0, _CONTRAST, (height // detail, width // detail, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 255).astype(np.uint8)


def _boxes(side_px: float) -> list[FaceBox]:
    columns, rows = _GRID
    height, width = FRAME_HW
    lefts = np.linspace(_MARGIN_PX, width - _MARGIN_PX - side_px, columns)
    tops = np.linspace(_MARGIN_PX, height - _MARGIN_PX - side_px, rows)
    return [FaceBox(left, top, left + side_px, top + side_px) for top in tops.tolist() for left in lefts.tolist()]
