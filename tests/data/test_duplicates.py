"""Near-duplicate photos share a key, so that no photo is on both sides of the split."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.duplicates import duplicate_groups, share_keys_of_duplicates
from lmedge.data.samples import FaceSample, is_validation, split_samples
from lmedge.data.sources import parse_source, read_sources
from lmedge.errors import DataError
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.data.faces import points_of, sample_of, textured_image, write_image

PHOTO = textured_image(7, 240, 240)
POINTS = points_of(IBUG_68, side_px=120, offset_px=60)


def write_copy(
    folder: Path, name: str, *, zoom: float = 1.0, gain: float = 1.0, cut: int = 0, quality: int = 90, moved_px: float = 0.0
) -> FaceSample:
    """The photo again: rescaled, brighter, cut and re-encoded, with labels that another person would have placed."""
    size = round(240 * zoom)
    matrix = np.array([[zoom, 0, -cut], [0, zoom, -cut]])
    image = cv2.convertScaleAbs(cv2.warpAffine(PHOTO, matrix, (size, size), borderMode=cv2.BORDER_REFLECT), alpha=gain)
    path = folder / f"{name}.jpg"
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return sample_of(path, POINTS * zoom - cut + moved_px)


def write_other(folder: Path, name: str, seed: int) -> FaceSample:
    return sample_of(write_image(folder / f"{name}.jpg", textured_image(seed, 240, 240)), POINTS)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"zoom": 0.5},
        {"zoom": 2.0},
        {"gain": 0.6},
        {"gain": 1.3},
        {"cut": 30},
        {"quality": 30},
        {"moved_px": 5.0},
        {"zoom": 0.7, "gain": 0.8, "cut": 12, "quality": 60, "moved_px": -3.0},
    ],
)
def test_a_copy_shares_the_smaller_key(tmp_path: Path, change: dict[str, float]) -> None:
    faces = [write_copy(tmp_path, "b"), write_other(tmp_path, "c", 1), write_copy(tmp_path, "a", **change)]
    assert [face.photo_key for face in share_keys_of_duplicates(faces)] == ["a", "c", "a"]


def test_copies_of_copies_form_one_group_in_any_order(tmp_path: Path) -> None:
    copies = [write_copy(tmp_path, name, gain=gain) for name, gain in (("d", 0.7), ("b", 1.0), ("c", 1.2))]
    others = [write_other(tmp_path, f"x{seed}", seed) for seed in range(5)]
    for faces in ([*copies, *others], [*others, *reversed(copies)]):
        assert duplicate_groups(faces) == [("b", "c", "d")]


def test_different_photos_keep_their_keys_and_their_order(tmp_path: Path) -> None:
    faces = [write_other(tmp_path, f"x{seed}", seed) for seed in range(12)]
    assert share_keys_of_duplicates(faces) == faces


def test_flat_pictures_resemble_nothing(tmp_path: Path) -> None:
    faces = [sample_of(write_image(tmp_path / f"{name}.png", np.full((100, 100, 3), 90, np.uint8))) for name in "ab"]
    assert duplicate_groups(faces) == []


def test_rendered_faces_keep_their_keys() -> None:
    faces = [sample_of(PHOTO, POINTS, photo_key=f"synthetic_0_{number}") for number in range(2)]
    assert share_keys_of_duplicates(faces) == faces


def test_pictures_that_come_with_their_labels_are_compared_too(tmp_path: Path) -> None:
    """A crop cache beside the photos it was made of must not bring them to the other side of the split."""
    photo = sample_of(write_image(tmp_path / "b.png", PHOTO), POINTS, photo_key="b")
    packed = sample_of(PHOTO, POINTS, photo_key="a")
    assert [face.photo_key for face in share_keys_of_duplicates([photo, packed])] == ["a", "a"]


def test_five_points_inside_the_face_are_enough(tmp_path: Path) -> None:
    five = points_of(MMLAB_5, side_px=60, offset_px=90)
    paths = [write_image(tmp_path / f"{name}.png", PHOTO) for name in "ab"]
    assert duplicate_groups([sample_of(path, five, MMLAB_5) for path in paths]) == [("a", "b")]


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"broken\.jpg is not an image"):
        duplicate_groups([sample_of(tmp_path / "broken.jpg")])
    with pytest.raises(DataError, match=r"Cannot read the image .*gone\.jpg"):
        duplicate_groups([sample_of(tmp_path / "gone.jpg")])


def test_two_faces_of_one_photo_are_not_copies(tmp_path: Path) -> None:
    path = write_image(tmp_path / "group.png", PHOTO)
    left, right = POINTS * 0.4 - 10, POINTS * 0.4 + 110
    assert duplicate_groups([sample_of(path, left, photo_key="a"), sample_of(path, right, photo_key="b")]) == []


@given(keys=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=60))
def test_no_photo_is_on_both_sides_of_the_split(keys: list[str]) -> None:
    faces = [sample_of(PHOTO, POINTS, photo_key=key) for key in keys]
    training, validation = split_samples(faces)
    assert len(training) + len(validation) == len(faces)
    assert not {face.photo_key for face in training} & {face.photo_key for face in validation}


@pytest.mark.data
def test_the_copies_in_300w(data_folder: Path) -> None:
    faces = read_sources([parse_source(f"300w:{data_folder / '300w'}")])
    groups = duplicate_groups(faces)
    assert len(groups) == 50
    largest = max(groups, key=len)
    assert len(largest) == 12
    assert {"image_0601", "image_0631", "image_0651", "image_0658"} <= set(largest)
    # Helen numbers the faces of a photo: these two labels are of one face.
    assert ("2205474871_2", "2205474871_3") in groups
    # Without shared keys, copies of some photos would be in training and in validation.
    assert sum(len({is_validation(key) for key in group}) == 2 for group in groups) == 9
    shared = share_keys_of_duplicates(faces)
    training, validation = split_samples(shared)
    original = {face.origin: face.photo_key for face in faces}
    sides = [{original[face.origin] for face in side} for side in (training, validation)]
    assert not any(set(group) & sides[0] and set(group) & sides[1] for group in groups)
    assert (len(training), len(validation)) == (1816, 193)
