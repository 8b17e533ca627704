"""Which crops the ranges of a quantiser are measured on: training faces only, chosen by a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample, check_labels, is_validation
from lmedge.errors import CalibrationError
from lmedge.preprocess import PreprocessSpec, crop_face


def calibration_crops(samples: Sequence[FaceSample], spec: PreprocessSpec, *, count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Crops uint8 (N, H, W, 3) BGR of at most `count` training faces, cut by their reference boxes as in training.

    The choice depends on the seed and on what the faces are, not on the order they are given in. Validation faces are left out:
    a quantiser must not be fitted on what it is later judged by.

    Raises:
        CalibrationError: `count` below 1, no training faces, or crops that cannot calibrate anything (see `check_informative`).
        DataError: an image cannot be read, or a label lies far outside it.
    """
    if count < 1:
        raise CalibrationError(f"Calibration needs at least 1 face; count is {count}.")
    training = [sample for sample in samples if not is_validation(sample.photo_key)]
    if not training:
        raise CalibrationError(
            f"None of the {len(samples)} faces is in the training split, so there is nothing to calibrate on. "
            "About nine photos in ten are: give more photos."
        )
    crops = np.stack([_crop(sample, spec) for sample in sorted(training, key=lambda sample: _lot(sample, seed))[:count]])
    check_informative(crops)
    return crops


def check_informative(crops_uint8: npt.NDArray[np.uint8]) -> None:
    """Refuses crops from which no range can be learnt.

    Raises:
        CalibrationError: not uint8 (N, H, W, 3) with N ≥ 1, every crop of one colour, or one crop repeated.
    """
    crops = crops_uint8
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3 or not len(crops):
        came = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise CalibrationError(f"Calibration takes crops as uint8 (N, H, W, 3), at least one; got {came}.")
    if all((crop == crop[0, 0]).all() for crop in crops):
        raise CalibrationError(
            f"All {len(crops)} calibration crops are of one colour each. Look at the faces: lmedge data show KIND:PATH"
        )
    if len(crops) > 1 and (crops == crops[0]).all():
        raise CalibrationError(
            f"All {len(crops)} calibration crops are the same picture. Give different faces, or calibrate on one with count=1."
        )


def crops_digest(crops_uint8: npt.NDArray[np.uint8]) -> str:
    """The sha256, in hex, of the crops' bytes in order."""
    return hashlib.sha256(np.ascontiguousarray(crops_uint8).tobytes()).hexdigest()


def _lot(sample: FaceSample, seed: int) -> str:
    """Draws lots: the same faces win in whatever order they stand. The points tell the faces of one photo apart."""
    name = f"{seed}:{sample.photo_key}:".encode()
    return hashlib.sha256(name + sample.points_px.tobytes()).hexdigest()


def _crop(sample: FaceSample, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    image = sample.read_image()
    check_labels(sample.points_px, (image.shape[0], image.shape[1]), sample.origin)
    return crop_face(image, sample.box(), spec)[0]
