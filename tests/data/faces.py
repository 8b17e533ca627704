"""Small labelled faces for tests: a plausible set of points, and textured pictures that differ from one another."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample
from lmedge.schemas import IBUG_68, LandmarkSchema

FIVE_POINTS = [[34.0, 35.0], [47.0, 36.0], [40.5, 46.0], [34.0, 51.0], [45.0, 52.0]]


def points_of(schema: LandmarkSchema, side_px: float = 60.0, offset_px: float = 20.0) -> npt.NDArray[np.float64]:
    """K different points, mirror pairs at mirrored places, in a square of `side_px` whose corner is at `offset_px`."""
    rng = np.random.default_rng(schema.num_points)
    points = rng.uniform(0, 0.5, (schema.num_points, 2)) * [1, 2]
    for index, flip in enumerate(schema.flip_indices):
        if flip > index:
            points[flip] = [1 - points[index, 0], points[index, 1]]
        elif flip == index:
            points[index, 0] = 0.5
    return points * side_px + offset_px


def textured_image(seed: int, height: int = 100, width: int = 100) -> npt.NDArray[np.uint8]:
    """A picture with detail of several sizes; pictures of different seeds have nothing in common."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(0, 40, (max(2, height // step), max(2, width // step), 3)) for step in (4, 10, 25)]
    total = sum(cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC) for layer in layers)
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def write_image(path: Path, image_bgr: npt.NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image_bgr)
    return path


def sample_of(
    image: Path | npt.NDArray[np.uint8],
    points_px: npt.NDArray[np.floating] | None = None,
    schema: LandmarkSchema = IBUG_68,
    photo_key: str = "",
    subset: tuple[str, ...] = (),
) -> FaceSample:
    points = points_of(schema) if points_px is None else points_px
    key = photo_key or (image.stem if isinstance(image, Path) else "picture")
    return FaceSample(image, points.astype(np.float32), schema, key, subset=subset, origin=f"labels:{key}")
