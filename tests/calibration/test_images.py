"""The choice of calibration crops: training faces only, by seed, and never useless ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.calibration.images import calibration_crops, check_informative, crops_digest
from lmedge.data.samples import FaceSample, is_validation
from lmedge.errors import CalibrationError, DataError
from lmedge.preprocess import PreprocessSpec, crop_face
from lmedge.schemas import MMLAB_5

SPEC = PreprocessSpec(input_hw=(32, 32))
POINTS_PX = np.array([[20, 25], [42, 25], [31, 36], [23, 46], [39, 46]], np.float32)


def face(key: str, level: int | None = None) -> FaceSample:
    """A 64 × 64 photo whose content follows its key, or one of a single level."""
    if level is not None:
        image = np.full((64, 64, 3), level, np.uint8)
    else:
        image = np.random.default_rng(list(key.encode())).integers(0, 256, (64, 64, 3), np.uint8)
    return FaceSample(image, POINTS_PX, MMLAB_5, photo_key=key)


FACES = [face(f"photo_{index}") for index in range(60)]
TRAINING = [sample for sample in FACES if not is_validation(sample.photo_key)]
VALIDATION = [sample for sample in FACES if is_validation(sample.photo_key)]


def crops_of(samples: list[FaceSample]) -> set[bytes]:
    return {crop_face(sample.read_image(), sample.box(), SPEC)[0].tobytes() for sample in samples}


def test_the_split_of_these_faces_has_both_sides() -> None:
    assert len(VALIDATION) >= 3
    assert len(TRAINING) >= 40


@given(st.integers(0, 2**32), st.integers(1, 100))
def test_only_training_faces_cut_as_in_training(seed: int, count: int) -> None:
    crops = calibration_crops(FACES, SPEC, count=count, seed=seed)
    assert crops.dtype == np.uint8
    assert crops.shape == (min(count, len(TRAINING)), 32, 32, 3)
    chosen = {crop.tobytes() for crop in crops}
    assert chosen <= crops_of(TRAINING)
    assert len(chosen) == len(crops), "no face twice"


@given(st.permutations(FACES))
def test_the_choice_does_not_depend_on_the_order(shuffled: list[FaceSample]) -> None:
    np.testing.assert_array_equal(
        calibration_crops(shuffled, SPEC, count=5, seed=3), calibration_crops(FACES, SPEC, count=5, seed=3)
    )


def test_the_choice_depends_on_the_seed() -> None:
    first, second = (calibration_crops(FACES, SPEC, count=5, seed=seed) for seed in (0, 1))
    assert crops_digest(first) != crops_digest(second)
    assert crops_digest(first) == crops_digest(calibration_crops(FACES, SPEC, count=5, seed=0))


def test_the_digest_follows_order_and_every_byte() -> None:
    crops = calibration_crops(FACES, SPEC, count=5, seed=0)
    changed = crops.copy()
    changed[4, 31, 31, 2] ^= 1
    assert len({crops_digest(crops), crops_digest(changed), crops_digest(crops[::-1])}) == 3


@pytest.mark.parametrize("samples", [[], VALIDATION], ids=["no faces", "validation faces only"])
def test_without_training_faces_there_is_nothing_to_calibrate_on(samples: list[FaceSample]) -> None:
    with pytest.raises(CalibrationError, match=f"None of the {len(samples)} faces is in the training split"):
        calibration_crops(samples, SPEC, count=10, seed=0)


def test_faces_of_one_colour_each_are_refused() -> None:
    flat = [face(sample.photo_key, level) for level, sample in enumerate(TRAINING[:10])]
    with pytest.raises(CalibrationError, match="All 10 calibration crops are of one colour each"):
        calibration_crops(flat, SPEC, count=10, seed=0)
    assert len(calibration_crops([*flat, TRAINING[11]], SPEC, count=11, seed=0)) == 11, "one real face among them is enough"


def test_one_picture_repeated_is_refused() -> None:
    crops = calibration_crops(FACES, SPEC, count=1, seed=0)
    check_informative(crops)
    with pytest.raises(CalibrationError, match="All 4 calibration crops are the same picture"):
        check_informative(np.repeat(crops, 4, axis=0))


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(count: int) -> None:
    with pytest.raises(CalibrationError, match=f"count is {count}"):
        calibration_crops(FACES, SPEC, count=count, seed=0)


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    gone = FaceSample(tmp_path / "gone.jpg", POINTS_PX, MMLAB_5, photo_key=TRAINING[0].photo_key)
    with pytest.raises(DataError, match=r"gone\.jpg"):
        calibration_crops([gone], SPEC, count=1, seed=0)


@pytest.mark.data
def test_real_training_faces(data_folder: Path) -> None:
    from lmedge.data.ibug import read_300w

    samples = read_300w(data_folder / "300w")
    crops = calibration_crops(samples, PreprocessSpec(), count=32, seed=0)
    assert crops.shape == (32, 112, 112, 3)
    assert crops.std() > 20
