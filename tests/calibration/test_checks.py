"""Every way to spoil calibration crops is caught by the check that is named after it, and faces pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lmedge.calibration.checks import CHECKS, TOLERATED, check_calibration, check_disjoint, check_not_held_out
from lmedge.calibration.crop_store import Crops, CropStore
from lmedge.data.crops import labelled_crops
from lmedge.data.samples import FaceSample, is_validation, split_samples
from lmedge.data.sources import parse_source, read_sources
from lmedge.data.synthetic import render_faces
from lmedge.errors import CalibrationError
from lmedge.export.pack import photo_digest
from lmedge.preprocess import PreprocessSpec, square_transform, warp
from lmedge.schemas import IBUG_68

SPEC = PreprocessSpec()
COUNT = 100

Array = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def faces() -> list[FaceSample]:
    return list(render_faces(COUNT, IBUG_68, size_px=96))


@pytest.fixture(scope="module")
def crops(faces: list[FaceSample]) -> Array:
    return labelled_crops(faces, SPEC)[0]


def one_colour_each(crops: Array) -> Array:
    means = crops.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    return np.broadcast_to(means, crops.shape).copy()


def black_with_rounding(crops: Array) -> Array:
    return np.random.default_rng(0).integers(0, 3, crops.shape, np.uint8)


def one_repeated(crops: Array) -> Array:
    return np.repeat(crops[:1], len(crops), axis=0)


def a_fifth_twice(crops: Array) -> Array:
    return np.concatenate([crops, crops[: len(crops) // 4]])


def one_in_many_boxes(crops: Array) -> Array:
    """The same picture, framed anew each time."""
    random = np.random.default_rng(0)
    middle = (crops.shape[1] - 1) / 2
    frames = [(middle + random.uniform(-5, 5), middle + random.uniform(-5, 5), 100 * random.uniform(0.9, 1.1)) for _ in crops]
    return np.stack([warp(crops[0], square_transform((x, y), side, crops.shape[1])) for x, y, side in frames])


def noise(crops: Array) -> Array:
    return np.random.default_rng(0).integers(0, 256, crops.shape, np.uint8)


def enlarged_noise(crops: Array) -> Array:
    """Crops from a picture of random pixels, each of which became two wide."""
    small = np.random.default_rng(0).integers(0, 256, (len(crops), 56, 56, 3), np.uint8)
    return np.stack([cv2.resize(crop, crops.shape[1:3], interpolation=cv2.INTER_LINEAR) for crop in small]).astype(np.uint8)


def faces_and_noise(crops: Array) -> Array:
    return np.concatenate([crops, noise(crops)[: len(crops) // 5]])


def swapped_channels(crops: Array) -> Array:
    return crops[..., ::-1]


def more_than_half_swapped(crops: Array) -> Array:
    return np.concatenate([crops[: len(crops) // 3], crops[len(crops) // 3 :, ..., ::-1]])


MUTANTS: list[tuple[str, Callable[[Array], Array]]] = [
    ("constant", one_colour_each),
    ("constant", black_with_rounding),
    ("repeated", one_repeated),
    ("repeated", a_fifth_twice),
    ("repeated", one_in_many_boxes),
    ("noise", noise),
    ("noise", enlarged_noise),
    ("noise", faces_and_noise),
    ("channel-order", swapped_channels),
    ("channel-order", more_than_half_swapped),
    ("empty", lambda crops: crops[:0]),
    ("shape", lambda crops: crops[0]),
]


def in_file(crops: Array) -> Crops:
    store = CropStore((crops.shape[1], crops.shape[2]))
    for crop in crops:
        store.append(crop)
    return store


@pytest.mark.parametrize("given", [np.ascontiguousarray, in_file], ids=["array", "file"])
def test_faces_pass_every_check(crops: Array, given: Callable[[Array], Crops]) -> None:
    assert check_calibration(given(crops)) == ("shape", "empty", "constant", "repeated", "noise", "channel-order")


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_few_faces_pass_too(crops: Array, size: int) -> None:
    for start in range(0, COUNT, size):
        check_calibration(crops[start : start + size])


@pytest.mark.parametrize(("name", "spoil"), MUTANTS)
def test_a_mutant_is_caught_by_its_check(name: str, spoil: Callable[[Array], Array], crops: Array) -> None:
    with pytest.raises(CalibrationError, match=f"^{name}: "):
        check_calibration(spoil(crops))


@pytest.mark.parametrize(("name", "spoil"), MUTANTS[:10])
def test_the_check_catches_it_by_itself_and_in_a_file(name: str, spoil: Callable[[Array], Array], crops: Array) -> None:
    with pytest.raises(CalibrationError, match=f"^{name}: "):
        CHECKS[name](in_file(spoil(crops)))


@pytest.mark.parametrize("name", ["constant", "noise", "repeated"])
def test_the_tolerated_part_passes_and_one_more_does_not(name: str, crops: Array) -> None:
    spoilt = {"constant": one_colour_each(crops), "noise": noise(crops), "repeated": one_repeated(crops)}[name]
    few = int(TOLERATED * COUNT)
    check_calibration(np.concatenate([crops[:1], spoilt[:few], crops[few + 1 :]]))
    with pytest.raises(CalibrationError, match=f"^{name}: (in )?{few + 1} of {COUNT} "):
        check_calibration(np.concatenate([crops[:1], spoilt[: few + 1], crops[few + 2 :]]))


@pytest.mark.parametrize("tint", [0, 6], ids=["gray", "bluish sensor"])
def test_gray_and_near_infrared_pictures_pass(crops: Array, tint: int) -> None:
    gray = np.stack([cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) for crop in crops])
    pictures = np.repeat((gray // 2 + 64)[..., None], 3, axis=3).astype(np.uint8)
    pictures[..., 0] += np.uint8(tint)
    check_calibration(pictures)
    check_calibration(np.concatenate([crops[:50], pictures[50:]]))


def test_messages_say_what_to_do(crops: Array) -> None:
    with pytest.raises(CalibrationError, match=r"reverse the channels with crops\[\.\.\., ::-1\]"):
        check_calibration(crops[..., ::-1])
    with pytest.raises(CalibrationError, match="lmedge data show KIND:PATH"):
        check_calibration(one_colour_each(crops))


KEYS = [f"photo_{number}" for number in range(100)]
TRAINING, VALIDATION = ([key for key in KEYS if is_validation(key) is held_out] for held_out in (False, True))


def test_training_photos_are_not_held_out() -> None:
    check_not_held_out(TRAINING)
    check_not_held_out([])


def test_validation_photos_are_named() -> None:
    with pytest.raises(CalibrationError, match=rf"^held-out: 1 of the calibration photos .*: {VALIDATION[0]}\. "):
        check_not_held_out([*TRAINING, VALIDATION[0], VALIDATION[0]])
    with pytest.raises(CalibrationError, match=rf"^held-out: {len(VALIDATION)} of .* and {len(VALIDATION) - 5} more"):
        check_not_held_out(KEYS)


def test_calibration_and_evaluation_share_no_photo() -> None:
    digests = [photo_digest(key) for key in TRAINING]
    check_disjoint(digests, VALIDATION)
    check_disjoint([], KEYS)
    with pytest.raises(CalibrationError, match=rf"^held-out: 1 of the evaluation photos were calibrated on: {TRAINING[3]}\. "):
        check_disjoint(digests, [*VALIDATION, TRAINING[3]])


@pytest.mark.data
@pytest.mark.parametrize("source", ["300w:300w", "wflw:wflw", "mmlab5:mmlab5"])
def test_photographs_pass_and_are_caught_when_spoilt(source: str, data_folder: Path) -> None:
    kind, _, folder = source.partition(":")
    training, _ = split_samples(read_sources([parse_source(f"{kind}:{data_folder / folder}")]))
    crops, _ = labelled_crops(training[:: len(training) // 400][:400], SPEC)
    for seed in range(4):
        some = crops[np.random.default_rng(seed).choice(len(crops), COUNT, replace=False)]
        check_calibration(some)
        for name, spoil in MUTANTS:
            with pytest.raises(CalibrationError, match=f"^{name}: "):
                check_calibration(spoil(some))
