"""Faces without pictures: the average head before a camera, in any pose, as exact points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmedge.apps.filters import FaceFilter, FilterPainter, Layer
from lmedge.apps.filters.definition import Binding
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.pose import Camera, generic_points, rotation_matrix
from lmedge.schemas import LandmarkSchema

SIDE_PX = 640
CAMERA = Camera(1500.0, (SIDE_PX / 2, SIDE_PX / 2))
# Where the middle between the eyes is: in the upper half of the picture, the face about 300 px high.
PLACE_MM = np.array([0.0, -30.0, 800.0])
GRAY = 90


def face(
    schema: LandmarkSchema, yaw: float = 0, pitch: float = 0, roll: float = 0, *, at_mm: npt.ArrayLike = PLACE_MM
) -> Landmarks:
    points_px = CAMERA.project(generic_points(schema) @ rotation_matrix(yaw, pitch, roll).T + np.asarray(at_mm))
    return landmarks(points_px, schema)


def landmarks(points_px: npt.NDArray[np.floating], schema: LandmarkSchema) -> Landmarks:
    return Landmarks(points_px.astype(np.float32), schema, FaceBox.around(points_px))


def gray_picture() -> npt.NDArray[np.uint8]:
    return np.full((SIDE_PX, SIDE_PX, 3), GRAY, np.uint8)


def solid(
    colour_bgr: tuple[int, int, int] = (0, 0, 255), hw: tuple[int, int] = (100, 200), alpha: int = 255
) -> npt.NDArray[np.uint8]:
    return np.full((*hw, 4), (*colour_bgr, alpha), np.uint8)


def sticker(binding: Binding, picture_bgra: npt.NDArray[np.uint8] | None = None, **fields: object) -> Layer:
    return Layer("sticker", solid() if picture_bgra is None else picture_bgra, (binding,), **fields)


def painter_of(layer: Layer, schema: LandmarkSchema) -> FilterPainter:
    return FilterPainter(FaceFilter("test", (layer,)), schema, camera=CAMERA)


def changed(painted_bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return np.asarray((painted_bgr != GRAY).any(axis=2))
