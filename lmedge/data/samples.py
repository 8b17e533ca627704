"""One labelled face, the checks that every reader shares, and the split between training and validation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.errors import DataError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import REFERENCE
from lmedge.schemas import LandmarkSchema

# Labels this far outside the image, in parts of the face's extent, are kept and counted; beyond, the file is refused.
MAX_OUTSIDE = 0.5
VALIDATION_PART = 10
# How the keys of rendered faces begin, wherever they are kept.
RENDERED = "synthetic_"


@dataclass(frozen=True, eq=False)
class FaceSample:
    """One labelled face.

    Attributes:
        image: the photo's path, or the picture itself, uint8 (H, W, 3) BGR.
        points_px: float32 (K, 2), pixel centres at integers; unknown points are NaN.
        schema: what the K points are.
        boxes: kind → box as the data set gives it; `box("reference")` is always there.
        subset: tags such as "helen" or "pose".
        photo_key: what the split hashes; photos that show the same face share it.
        origin: where the label was read ("file:line"), for messages.
    """

    image: Path | npt.NDArray[np.uint8]
    points_px: npt.NDArray[np.float32]
    schema: LandmarkSchema
    photo_key: str
    boxes: Mapping[str, FaceBox] = field(default_factory=dict)
    subset: tuple[str, ...] = ()
    origin: str = ""

    def __post_init__(self) -> None:
        points = np.array(self.points_px, np.float32)
        if points.shape != (self.schema.num_points, 2):
            raise DataError(
                f"{self.origin or self.photo_key}: expected {self.schema.num_points} points (x, y) for "
                f"{self.schema.name}, got an array of shape {points.shape}."
            )
        if np.isinf(points).any() or not self._spread(points):
            raise DataError(f"{self.origin or self.photo_key}: the labelled points are infinite, missing or all in one place.")
        points.flags.writeable = False
        object.__setattr__(self, "points_px", points)

    @staticmethod
    def _spread(points_px: npt.NDArray[np.float32]) -> bool:
        known = points_px[np.isfinite(points_px).all(axis=1)]
        return len(known) > 1 and bool((np.ptp(known, axis=0) > 0).all())

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(K,) True where the point is labelled."""
        return np.asarray(np.isfinite(self.points_px).all(axis=1))

    def box(self, kind: str = REFERENCE) -> FaceBox:
        """The box of a kind; `reference` is the extent of the labelled points.

        Raises:
            DataError: this face has no box of that kind.
        """
        if kind == REFERENCE:
            return FaceBox.around(self.points_px)
        if kind not in self.boxes:
            raise DataError(f"{self.origin}: no box of kind {kind!r}; this face has {[REFERENCE, *self.boxes]}.")
        return self.boxes[kind]

    def annotated_box(self) -> FaceBox:
        """The box the data set came with, else the extent of the points."""
        return next(iter(self.boxes.values()), None) or self.box()

    @property
    def rendered(self) -> bool:
        """Whether the face was drawn and not photographed."""
        return self.photo_key.startswith(RENDERED)

    def read_image(self) -> npt.NDArray[np.uint8]:
        """The picture, uint8 (H, W, 3) BGR.

        Raises:
            DataError: the file is missing or cannot be decoded.
        """
        if isinstance(self.image, np.ndarray):
            return self.image
        return read_image(self.image)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """A picture file as uint8 (H, W, 3) BGR, exactly as its pixels are stored (EXIF rotation is not applied: labels know
    nothing of it).

    Raises:
        DataError: the file is missing or cannot be decoded.
    """
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"Cannot read the image {path}: {error.strerror or error}.") from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(raw, flags) if raw.size else None
    if image is None or _is_hollow_jpeg(raw):
        raise DataError(
            f"{path} is not a complete image that OpenCV can decode ({raw.size} bytes). Replace or remove the file."
        )
    return np.asarray(image, np.uint8)


def _is_hollow_jpeg(raw: npt.NDArray[np.uint8]) -> bool:
    """A JPEG whose end is zeros, as a broken download leaves it. OpenCV refuses a file that is cut, but shows gray for this."""
    return raw[:2].tobytes() == b"\xff\xd8" and b"\xff\xd9" not in raw[-4096:].tobytes()


def check_labels(points_px: npt.NDArray[np.floating], image_hw: tuple[int, int], origin: str) -> int:
    """The number of labelled points outside the image.

    Raises:
        DataError: a point lies further outside than half the face's extent.
    """
    known = np.asarray(points_px, np.float64)
    known = known[np.isfinite(known).all(axis=1)]
    height, width = image_hw
    beyond = np.maximum(np.maximum(-0.5 - known, known - np.array([width - 0.5, height - 0.5])), 0)
    extent = float(np.ptp(known, axis=0).max())
    if beyond.max() > MAX_OUTSIDE * extent:
        worst = known[np.argmax(beyond.max(axis=1))]
        raise DataError(
            f"{origin}: a label at ({worst[0]:.1f}, {worst[1]:.1f}) is more than half a face outside the image of "
            f"{width} × {height} px. Check the coordinate order and that image and labels belong together."
        )
    return int((beyond > 0).any(axis=1).sum())


def photo_key_of(stem: str, *, numbered_faces: bool = False) -> str:
    """What the split hashes: the lower-case stem; with `numbered_faces`, without AFW's ``_k`` suffix per face."""
    key = stem.lower()
    return re.sub(r"_\d+$", "", key) if numbered_faces else key


def is_validation(photo_key: str) -> bool:
    """Whether a photo belongs to the validation tenth; the same answer everywhere and for ever."""
    return int(hashlib.sha256(photo_key.encode()).hexdigest(), 16) % VALIDATION_PART == 0


def split_samples(samples: Iterable[FaceSample]) -> tuple[list[FaceSample], list[FaceSample]]:
    """Training and validation faces, in the given order."""
    training: list[FaceSample] = []
    validation: list[FaceSample] = []
    for sample in samples:
        (validation if is_validation(sample.photo_key) else training).append(sample)
    return training, validation
