"""WFLW: 207 fields a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.samples import check_labels
from lmedge.data.wflw import ATTRIBUTES, files_wflw, read_wflw
from lmedge.errors import DataError
from lmedge.schemas import WFLW_98
from tests.data.faces import points_of, textured_image, write_image

POINTS = np.round(points_of(WFLW_98))
IMAGE = "0--Parade/0_Parade_marchingband_1_20.jpg"


def line_of(flags: tuple[int, ...] = (0,) * 6, image: str = IMAGE) -> str:
    return " ".join([*(f"{value:f}" for value in POINTS.ravel()), "15", "14", "85", "90", *map(str, flags), image])


def write_list(root: Path, lines: list[str], name: str = "list_98pt_rect_attr_train.txt") -> Path:
    file = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + "\n" for line in lines))
    write_image(root / "WFLW_images" / IMAGE, textured_image(0))
    return file


def test_a_line_is_points_box_attributes_and_image(tmp_path: Path) -> None:
    file = write_list(tmp_path, [line_of((1, 0, 0, 0, 1, 0))])
    (face,) = read_wflw(tmp_path)
    np.testing.assert_array_equal(face.points_px, POINTS)
    assert list(face.box("wflw").xyxy) == [15, 14, 85, 90]
    assert face.annotated_box().kind == "wflw"
    assert face.subset == ("train", "pose", "occlusion")
    assert face.photo_key == "0_parade_marchingband_1_20"
    assert face.image == tmp_path / "WFLW_images" / IMAGE
    assert face.origin == f"{file}:1"


@pytest.mark.parametrize("position", range(6))
def test_each_attribute_has_its_column(tmp_path: Path, position: int) -> None:
    flags = [0] * 6
    flags[position] = 1
    write_list(tmp_path, [line_of(tuple(flags))])
    assert read_wflw(tmp_path)[0].subset == ("train", ATTRIBUTES[position])


def test_both_lists_are_read_and_tagged_and_faces_of_one_photo_share_a_key(tmp_path: Path) -> None:
    write_list(tmp_path, [line_of(), line_of()])
    test_list = write_list(tmp_path, [line_of()], "list_98pt_rect_attr_test.txt")
    faces = read_wflw(tmp_path)
    assert [face.subset for face in faces] == [("train",), ("train",), ("test",)]
    assert len({face.photo_key for face in faces}) == 1
    assert [face.subset for face in read_wflw(test_list)] == [("test",)]
    assert len(files_wflw(tmp_path)) == 3


@given(field=st.integers(1, 206), text=st.sampled_from(["nan", "inf", "x", "1_2", "--3"]))
def test_the_error_names_file_line_and_field(tmp_path_factory: pytest.TempPathFactory, field: int, text: str) -> None:
    root = tmp_path_factory.getbasetemp() / "wflw"
    fields = line_of().split()
    fields[field - 1] = text
    write_list(root, [line_of(), " ".join(fields)])
    with pytest.raises(DataError) as caught:
        read_wflw(root)
    assert f"list_98pt_rect_attr_train.txt:2, field {field}: expected a finite number, got {text!r}" in str(caught.value)


@pytest.mark.parametrize("fields", [1, 206, 208])
def test_another_number_of_fields_is_refused(tmp_path: Path, fields: int) -> None:
    write_list(tmp_path, [" ".join([*line_of().split(), "more"][-fields:])])
    with pytest.raises(DataError, match=rf"train\.txt:1: expected 207 fields .* got {fields}"):
        read_wflw(tmp_path)


def test_an_attribute_is_zero_or_one(tmp_path: Path) -> None:
    write_list(tmp_path, [line_of((0, 2, 0, 0, 0, 0))])
    with pytest.raises(DataError, match=r"train\.txt:1, field 202: expected an attribute of 0 or 1, got '2'"):
        read_wflw(tmp_path)


def test_an_empty_box_is_refused(tmp_path: Path) -> None:
    write_list(tmp_path, [line_of().replace(" 15 14 85 90 ", " 85 14 15 90 ")])
    with pytest.raises(DataError, match=r"train\.txt:1: A face box needs"):
        read_wflw(tmp_path)


def test_a_missing_image_names_the_line(tmp_path: Path) -> None:
    write_list(tmp_path, [line_of(), line_of(image="gone.jpg")])
    with pytest.raises(DataError, match=r"train\.txt:2, field 207: the image .*gone\.jpg does not exist"):
        read_wflw(tmp_path)


def test_a_folder_without_lists_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no list_98pt_rect_attr_train\.txt below WFLW_annotations"):
        read_wflw(tmp_path)


@pytest.mark.data
def test_the_photographs_at_hand(data_folder: Path) -> None:
    faces = read_wflw(data_folder / "wflw")
    assert (len(faces), len({face.image for face in faces})) == (752, 566)
    np.testing.assert_array_equal(faces[0].points_px[0], [315, 144])
    assert list(faces[0].box("wflw").xyxy) == [290, 92, 505, 311]
    assert {face.subset for face in faces} == {("train",)}
    assert len(files_wflw(data_folder / "wflw")) == 567


@pytest.mark.data
def test_labels_just_outside_the_photo_are_kept_and_counted(data_folder: Path) -> None:
    faces = read_wflw(data_folder / "wflw")
    outside = [check_labels(face.points_px, face.read_image().shape[:2], face.origin) for face in faces]
    assert (sum(outside), sum(count > 0 for count in outside)) == (42, 7)
