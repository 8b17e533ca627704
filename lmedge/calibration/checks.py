"""What crops must be before a quantiser is calibrated on them. Each check has a name, and its errors begin with it.

    shape, empty     are there crops at all?
    constant         pictures of one colour say nothing of the network's ranges
    repeated         one picture many times says little more than once
    noise            random pixels reach ranges that no face reaches
    channel-order    RGB given as BGR: the skin turns blue
    held-out         photos that the result is going to be judged by

Limits were set by what 1,809 training faces of 300-W, 692 of WFLW, 3,000 of the MMLAB lists and 400 rendered faces show
(crops of 112 × 112 px), and what the same crops show once they are spoilt. Everything goes through the crops batch by batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.calibration.crop_store import CropArray, Crops, as_crops, crop_batches
from lmedge.data.samples import is_validation
from lmedge.errors import CalibrationError
from lmedge.export.pack import photo_digest

# The part of the crops that may be spoilt; above, the check fails. Of the faces above one is a copy and one is like noise.
TOLERATED = 0.1

# What a decoder's rounding leaves of a single colour, in levels of any channel. The flattest face spans 84.
_FLAT_LEVELS = 2

# Mean correlation between thumbnails of two crops, over all pairs. Different faces: 0.43 at most for 100, 0.62 for 8 (of 3,000
# draws a set). One photo in 40 jittered boxes: 0.81 at least, 0.91 in the median (50 photos). Frames of one video are between:
# 0.36 where a person moves before a webcam, 0.90 for a still close-up. Fewer than 8 crops may be alike by chance.
_MOST_ALIKE, _FEWEST_TO_COMPARE, _THUMBNAIL_PX = 0.75, 8, 8

# Correlation of pixels this part of the side apart (4 px of 112), mean of both directions. Faces: 0.57 or more for 99.5 %,
# below the limit once. Random pixels: 0.02 at most, 0.09 where a picture of them was enlarged 2.8 times.
_NEIGHBOUR, _LEAST_CORRELATION = 1 / 32, 0.4

# A crop is blue when (R − B) / (R + B) of its middle is below −0.05. Of 100 faces at most 3 are, and of 100 with swapped
# channels at least 75; of 16, at most 2 and at least 8 (20,000 draws a set). Gray pictures, near-infrared or not, never are.
_BLUE, _MOST_BLUE = -0.05, 0.4
# Single faces do stand in blue light; fewer than this are no proof.
_FEWEST_BLUE = 4

_NAMED = 5


def check_calibration(crops: Crops) -> tuple[str, ...]:
    """Runs every check that needs nothing but the crops, and returns their names.

    Raises:
        CalibrationError: a check failed; the message begins with its name.
    """
    as_crops(crops)
    for check in CHECKS.values():
        check(crops)
    return ("shape", "empty", *CHECKS)


def check_constant(crops: Crops) -> None:
    """Refuses crops of which more than `TOLERATED` are of one colour each.

    Raises:
        CalibrationError: "constant".
    """
    count = sum(int((_spread(batch) <= _FLAT_LEVELS).sum()) for batch in crop_batches(crops))
    if count > TOLERATED * len(crops):
        raise CalibrationError(
            f"constant: {count} of {len(crops)} calibration crops are of one colour each; at most {TOLERATED:.0%} may be. "
            "Look at the faces: lmedge data show KIND:PATH"
        )


def check_repeated(crops: Crops) -> None:
    """Refuses crops of which more than `TOLERATED` are copies of another, or that all show one picture, framed anew.

    Raises:
        CalibrationError: "repeated".
    """
    different = {hashlib.sha256(crop.tobytes()).digest() for crop in _each(crops)}
    copies = len(crops) - len(different)
    if copies > TOLERATED * len(crops):
        raise CalibrationError(
            f"repeated: {copies} of {len(crops)} calibration crops are copies of another; at most {TOLERATED:.0%} may be. "
            "Give different faces, or ask for fewer crops."
        )
    if len(crops) >= _FEWEST_TO_COMPARE and (alike := _mean_correlation(crops)) > _MOST_ALIKE:
        raise CalibrationError(
            f"repeated: the {len(crops)} calibration crops look like one picture: they correlate by {alike:.2f} on average, "
            f"and different faces by less than {_MOST_ALIKE}. Give different faces, or ask for fewer crops."
        )


def check_noise(crops: Crops) -> None:
    """Refuses crops of which more than `TOLERATED` are random pixels: neighbours there have nothing in common.

    Raises:
        CalibrationError: "noise".
    """
    count = sum(int((_neighbour_correlation(batch) < _LEAST_CORRELATION).sum()) for batch in crop_batches(crops))
    if count > TOLERATED * len(crops):
        raise CalibrationError(
            f"noise: in {count} of {len(crops)} calibration crops neighbouring pixels have little in common, as in random "
            f"noise; at most {TOLERATED:.0%} may be so. Calibrate on photographs."
        )


def check_channel_order(crops: Crops) -> None:
    """Refuses crops that were given as RGB: in visible light, skin is redder than blue. Gray crops pass either way.

    Raises:
        CalibrationError: "channel-order".
    """
    count = sum(int((_redness(batch) < _BLUE).sum()) for batch in crop_batches(crops))
    if count >= _FEWEST_BLUE and count > _MOST_BLUE * len(crops):
        raise CalibrationError(
            f"channel-order: {count} of {len(crops)} calibration crops have more blue than red in the middle, where the skin "
            f"is; at most {_MOST_BLUE:.0%} may. Crops are BGR: reverse the channels with crops[..., ::-1]."
        )


def check_not_held_out(photo_keys: Iterable[str]) -> None:
    """Refuses photos of the validation split.

    Raises:
        CalibrationError: "held-out".
    """
    held_out = sorted({key for key in photo_keys if is_validation(key)})
    if held_out:
        raise CalibrationError(
            f"held-out: {len(held_out)} of the calibration photos are in the validation split, which the result is judged by: "
            f"{_some(held_out)}. Calibrate on training photos, as calibration_images does."
        )


def check_disjoint(calibration_photo_digests: Iterable[str], evaluation_photo_keys: Iterable[str]) -> None:
    """Refuses to judge a network by photos that it was calibrated on.

    Args:
        calibration_photo_digests: as in a `CalibrationRecord` (see `export.pack.photo_digest`).

    Raises:
        CalibrationError: "held-out".
    """
    calibrated = set(calibration_photo_digests)
    shared = sorted({key for key in evaluation_photo_keys if photo_digest(key) in calibrated})
    if shared:
        raise CalibrationError(
            f"held-out: {len(shared)} of the evaluation photos were calibrated on: {_some(shared)}. "
            "Evaluate on other photos, or calibrate again without these."
        )


CHECKS: dict[str, Callable[[Crops], None]] = {
    "constant": check_constant,
    "repeated": check_repeated,
    "noise": check_noise,
    "channel-order": check_channel_order,
}


def _spread(batch: CropArray) -> npt.NDArray[np.uint8]:
    """Of each crop, greatest minus least level, in the channel where that is most."""
    # One axis after the other: over both at once NumPy takes ten times as long.
    greatest, least = batch.max(axis=1).max(axis=1), batch.min(axis=1).min(axis=1)
    return np.asarray((greatest - least).max(axis=1))


def _each(crops: Crops) -> Iterator[CropArray]:
    return chain.from_iterable(crop_batches(crops))


def _gray(crop: CropArray) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), np.float32)


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row (N, M) without its mean and of length 1; rows of one value become zeros."""
    centered = rows - rows.mean(axis=1, keepdims=True)
    # Half a level per value is far less than any picture has, and more than rounding leaves.
    least = np.float32(0.5 * rows.shape[1] ** 0.5)
    return np.asarray(centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), least), np.float32)


def _mean_correlation(crops: Crops) -> float:
    """Mean over all pairs of crops of the correlation of their thumbnails: of unit vectors, from the length of their sum."""
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    total, own = np.zeros(_THUMBNAIL_PX**2), 0.0
    for batch in crop_batches(crops):
        thumbnails = np.array([cv2.resize(_gray(crop), size, interpolation=cv2.INTER_AREA).ravel() for crop in batch])
        units = _unit(thumbnails)
        total += units.sum(axis=0, dtype=np.float64)
        own += float(np.square(units, dtype=np.float64).sum())
    return float((total @ total - own) / (len(crops) * (len(crops) - 1)))


def _neighbour_correlation(batch: CropArray) -> npt.NDArray[np.float32]:
    """Of each crop, the correlation of its gray levels with those a few pixels to the right and below, mean of both."""
    gray = np.array([_gray(crop) for crop in batch])
    step = max(1, round(gray.shape[1] * _NEIGHBOUR))
    pairs = ((gray[:, :, step:], gray[:, :, :-step]), (gray[:, step:], gray[:, :-step]))
    flat = [[_unit(part.reshape(len(batch), -1)) for part in pair] for pair in pairs]
    return np.asarray(sum((first * second).sum(axis=1) for first, second in flat) / len(flat), np.float32)


def _redness(batch: CropArray) -> npt.NDArray[np.float64]:
    """(R − B) / (R + B) of the middle of each crop, half its side: mostly skin."""
    height, width = batch.shape[1:3]
    middle = batch[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    blue, _, red = np.moveaxis(middle.mean(axis=(1, 2)), -1, 0)
    return np.asarray((red - blue) / np.maximum(red + blue, 1))


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
